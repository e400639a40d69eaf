//! How far installations are, for somebody who waits at a terminal: a line for each, kept up to date.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often the lines are drawn anew.
const FRAME: Duration = Duration::from_millis(200);
/// Columns of a terminal that does not say how many it has.
const USUAL_WIDTH: usize = 80;

/// Whether somebody watches stderr.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Takes note of what becomes of things. Clones tell the same reader.
#[derive(Debug, Clone)]
pub struct Watcher(mpsc::UnboundedSender<Step>);

/// Something has become of a thing, such as `@openfn/language-http@7.2.0`.
#[derive(Debug)]
enum Step {
    Began(String),
    Phase(String, String),
    Done(String),
    Failed(String),
}

impl Watcher {
    /// One whose steps are drawn on stderr until all its clones are gone.
    pub fn on_terminal() -> (Self, JoinHandle<()>) {
        let (steps, taken) = mpsc::unbounded_channel();
        (Self(steps), tokio::spawn(draw(taken)))
    }

    pub(super) fn began(&self, thing: &str) {
        self.tell(Step::Began(thing.to_owned()));
    }

    /// What is being done to a thing, which the text may begin with.
    pub(super) fn phase(&self, thing: &str, what: &str) {
        let what = what.strip_prefix(thing).map_or(what, |rest| rest.trim_start_matches([':', ' ']));
        self.tell(Step::Phase(thing.to_owned(), what.to_owned()));
    }

    pub(super) fn ended(&self, thing: &str, is_done: bool) {
        self.tell(if is_done { Step::Done(thing.to_owned()) } else { Step::Failed(thing.to_owned()) });
    }

    fn tell(&self, step: Step) {
        // Fails when nobody draws any more.
        let _ = self.0.send(step);
    }
}

/// Draws what the steps come down to until nobody tells any more.
async fn draw(mut steps: mpsc::UnboundedReceiver<Step>) {
    let mut board = Board::default();
    let mut frames = tokio::time::interval(FRAME);
    loop {
        let is_open = tokio::select! {
            step = steps.recv() => match step {
                Some(step) => { board.take(step, Instant::now()); continue }
                None => false,
            },
            _ = frames.tick() => true,
        };
        let text = board.frame(Instant::now(), width());
        // A terminal that is gone is nobody's loss.
        let _ = std::io::stderr().write_all(text.as_bytes());
        if !is_open {
            return;
        }
    }
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(USUAL_WIDTH)
}

/// What is under way, and what has ended since the last frame.
#[derive(Debug, Default)]
struct Board {
    under_way: Vec<Row>,
    ended: Vec<String>,
    /// How many lines the last frame left below what stays.
    drawn: usize,
}

#[derive(Debug)]
struct Row {
    thing: String,
    phase: String,
    since: Instant,
}

impl Board {
    fn take(&mut self, step: Step, now: Instant) {
        match step {
            Step::Began(thing) => self.under_way.push(Row { thing, phase: "waiting".to_owned(), since: now }),
            Step::Phase(thing, phase) => {
                if let Some(row) = self.under_way.iter_mut().find(|row| row.thing == thing) {
                    row.phase = phase;
                }
            }
            Step::Done(thing) => self.end(&thing, "done", now),
            Step::Failed(thing) => self.end(&thing, "failed", now),
        }
    }

    fn end(&mut self, thing: &str, how: &str, now: Instant) {
        let Some(at) = self.under_way.iter().position(|row| row.thing == thing) else { return };
        let row = self.under_way.remove(at);
        self.ended.push(format!("{thing}  {how}  {}", elapsed(now - row.since)));
    }

    /// The text that turns the last frame into the present one: lines of what has ended stay above the others.
    fn frame(&mut self, now: Instant, width: usize) -> String {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the first line of the last frame, and nothing below.
            let _ = write!(text, "\x1b[{}A\x1b[J", self.drawn);
        }
        for line in self.ended.drain(..) {
            let _ = writeln!(text, "{line}");
        }
        for Row { thing, phase, since } in &self.under_way {
            let line = format!("{thing}  {phase}  {}", elapsed(now - *since));
            // A line that the terminal breaks would be two.
            let _ = writeln!(text, "{}", line.chars().take(width.saturating_sub(1)).collect::<String>());
        }
        self.drawn = self.under_way.len();
        text
    }
}

fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_a_line_with_its_phase_until_it_has_ended() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut board = Board::default();
        assert_eq!(board.frame(start, 80), "");
        board.take(Step::Began("a@1".into()), start);
        board.take(Step::Began("b@1".into()), at(1));
        board.take(Step::Phase("a@1".into(), "npm install".into()), at(1));
        assert_eq!(board.frame(at(2), 80), "a@1  npm install  2 s\nb@1  waiting  1 s\n");
        board.take(Step::Done("a@1".into()), at(70));
        board.take(Step::Phase("unknown".into(), "is not shown".into()), at(70));
        assert_eq!(board.frame(at(70), 80), "\x1b[2A\x1b[Ja@1  done  1 min 10 s\nb@1  waiting  1 min 9 s\n");
        board.take(Step::Failed("b@1".into()), at(71));
        assert_eq!(board.frame(at(71), 80), "\x1b[1A\x1b[Jb@1  failed  1 min 10 s\n");
        assert_eq!(board.frame(at(72), 80), "");
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        let now = Instant::now();
        let mut board = Board::default();
        board.take(Step::Began("@openfn/language-common@3.3.4".into()), now);
        assert_eq!(board.frame(now, 12), "@openfn/lan\n");
    }

    #[tokio::test]
    async fn a_phase_is_told_without_the_things_name() {
        let (steps, mut taken) = mpsc::unbounded_channel();
        let watcher = Watcher(steps);
        for (told, phase) in [("a@1: bundling", "bundling"), ("esbuild@1: npm install", "esbuild@1: npm install")] {
            watcher.phase("a@1", told);
            let Some(Step::Phase(thing, shown)) = taken.recv().await else { panic!("it is a phase") };
            assert_eq!((thing.as_str(), shown.as_str()), ("a@1", phase));
        }
    }
}
