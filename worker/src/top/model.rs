//! What is shown, and what keys do. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;

use crate::ctl::{Answer, HostReport, PastRun, Request, RunReport, StatusReport};

/// Lines of a log that are kept.
const LINES: usize = 500;
/// The time over which runs are counted for their rate.
const WINDOW: Duration = Duration::from_secs(60);

/// A look at the worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) status: StatusReport,
    pub(super) hosts: Vec<HostReport>,
    pub(super) runs: Vec<RunReport>,
    /// Runs that ended, the newest first.
    pub(super) past: Vec<PastRun>,
}

/// Something from the worker.
#[derive(Debug)]
pub(super) enum Message {
    /// A look at it, or why there was none.
    Looked(Result<Box<Snapshot>, String>),
    /// What it answered to an action.
    Answered(Answer),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Ask(Request),
    Follow(Request),
    StopFollowing,
}

/// Which table the cursor is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Focus {
    #[default]
    Runs,
    Hosts,
}

/// The lines of a run or of a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) title: String,
    pub(super) lines: VecDeque<String>,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) snapshot: Snapshot,
    pub(super) focus: Focus,
    pub(super) cursor: usize,
    /// What is asked for before it is done, and the request.
    pub(super) confirm: Option<(String, Request)>,
    pub(super) log: Option<Log>,
    /// The last thing that was answered, or why the worker cannot be looked at.
    pub(super) notice: Option<String>,
    pub(super) is_lost: bool,
    /// How many runs had ended when it was looked at.
    ended: VecDeque<(Instant, u64)>,
}

impl Model {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, ..Self::default() }
    }

    pub(super) fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Looked(Ok(snapshot)) => {
                self.snapshot = *snapshot;
                if std::mem::take(&mut self.is_lost) {
                    self.notice = None;
                }
                self.ended.push_back((now, self.snapshot.status.lightning.runs_ended));
                while self.ended.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
                    self.ended.pop_front();
                }
                self.cursor = self.cursor.min(self.rows().saturating_sub(1));
            }
            Message::Looked(Err(why)) => {
                self.is_lost = true;
                self.notice = Some(why);
            }
            Message::Answered(Answer::Line(line)) => {
                if let Some(log) = &mut self.log {
                    if log.lines.len() == LINES {
                        log.lines.pop_front();
                    }
                    log.lines.push_back(format!("{} {}", line.host, line.text));
                }
            }
            Message::Answered(Answer::Done(what)) => self.notice = Some(what),
            Message::Answered(Answer::Error(why)) => match &mut self.log {
                Some(log) => log.lines.push_back(why),
                None => self.notice = Some(why),
            },
            Message::Answered(_) => {}
        }
    }

    /// Runs that ended a minute, as far as it was seen.
    pub(super) fn runs_a_minute(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.ended.front()?, self.ended.back()?);
        let seconds = to.duration_since(*from).as_secs_f64();
        (seconds > 0.0).then(|| after.saturating_sub(*before) as f64 * 60.0 / seconds)
    }

    /// The last runs that did not succeed.
    pub(super) fn failures(&self) -> impl Iterator<Item = &PastRun> {
        self.snapshot.past.iter().filter(|run| run.reason.as_deref() != Some("success"))
    }

    fn rows(&self) -> usize {
        match self.focus {
            Focus::Runs => self.snapshot.runs.len(),
            Focus::Hosts => self.snapshot.hosts.len(),
        }
    }

    pub(super) fn pressed(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if let Some((_, request)) = self.confirm.take() {
            return (key.code == KeyCode::Char('y')).then_some(Action::Ask(request));
        }
        if self.log.is_some() {
            let goes = matches!(key.code, KeyCode::Esc | KeyCode::Char('q' | 'l') | KeyCode::Enter);
            return goes.then(|| {
                self.log = None;
                Action::StopFollowing
            });
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.cursor = (self.cursor + 1).min(self.rows().saturating_sub(1)),
            KeyCode::Tab => {
                self.focus = if self.focus == Focus::Runs { Focus::Hosts } else { Focus::Runs };
                self.cursor = 0;
            }
            KeyCode::Char('c') => {
                self.confirm = self.chosen_run().map(|run| {
                    let run = run.to_owned();
                    (format!("Cancel the run {run}?"), Request::Cancel { run })
                });
            }
            KeyCode::Char('d') if self.snapshot.status.draining => return Some(Action::Ask(Request::Resume)),
            KeyCode::Char('d') => {
                let question = "Drain: claim nothing, let runs end, stop all hosts?";
                self.confirm = Some((question.to_owned(), Request::Drain));
            }
            KeyCode::Char('r') => {
                let question = "Recycle: replace all hosts, those at work when their runs have ended?";
                self.confirm = Some((question.to_owned(), Request::Recycle { pool: None }));
            }
            KeyCode::Char('l') | KeyCode::Enter => return self.follow(),
            _ => {}
        }
        None
    }

    fn follow(&mut self) -> Option<Action> {
        let (host, run) = match self.focus {
            Focus::Runs => (None, Some(self.chosen_run()?.to_owned())),
            Focus::Hosts => (Some(self.snapshot.hosts.get(self.cursor)?.id.clone()), None),
        };
        let title = host.as_ref().map(|id| format!("host {id}")).or(run.as_ref().map(|id| format!("run {id}")))?;
        self.log = Some(Log { title, lines: VecDeque::new() });
        Some(Action::Follow(Request::Logs { follow: true, host, run }))
    }

    /// The run under the cursor, or of the host under it.
    fn chosen_run(&self) -> Option<&str> {
        match self.focus {
            Focus::Runs => Some(self.snapshot.runs.get(self.cursor)?.run.as_str()),
            Focus::Hosts => self.snapshot.hosts.get(self.cursor)?.run.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightning::LightningStatus;

    fn model() -> Model {
        let run = |id: &str| RunReport { run: id.to_owned(), ..RunReport::default() };
        let host = HostReport {
            id: "h1".into(),
            pool: "engines".into(),
            pid: Some(1),
            state: "ready".into(),
            engine: None,
            run: None,
            age_s: 1,
            runs: 0,
            memory_bytes: None,
        };
        Model::new(Snapshot { runs: vec![run("a"), run("b")], hosts: vec![host], ..Snapshot::default() })
    }

    fn press(model: &mut Model, keys: &str) -> Option<Action> {
        let code = |key| match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            key => KeyCode::Char(key),
        };
        keys.chars().fold(None, |_, key| model.pressed(KeyEvent::from(code(key))))
    }

    #[test]
    fn keys_do_what_the_footer_says() {
        let follow = |host: Option<&str>, run: Option<&str>| {
            Some(Action::Follow(Request::Logs { follow: true, host: host.map(Into::into), run: run.map(Into::into) }))
        };
        let cases = [
            ("q", Some(Action::Quit)),
            ("\u{1b}", Some(Action::Quit)),
            ("c", None),
            ("cn", None),
            ("cy", Some(Action::Ask(Request::Cancel { run: "a".into() }))),
            ("↓cy", Some(Action::Ask(Request::Cancel { run: "b".into() }))),
            ("↓↓↓↑cy", Some(Action::Ask(Request::Cancel { run: "a".into() }))),
            ("dy", Some(Action::Ask(Request::Drain))),
            ("dq", None),
            ("ry", Some(Action::Ask(Request::Recycle { pool: None }))),
            ("l", follow(None, Some("a"))),
            ("\t\n", follow(Some("h1"), None)),
            ("\tcy", None),
            ("lq", Some(Action::StopFollowing)),
            ("lqq", Some(Action::Quit)),
            ("ld", None),
        ];
        for (keys, expected) in cases {
            assert_eq!(press(&mut model(), keys), expected, "{keys:?}");
        }
        let mut draining = model();
        draining.snapshot.status.draining = true;
        assert_eq!(press(&mut draining, "d"), Some(Action::Ask(Request::Resume)));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(model().pressed(control), Some(Action::Quit));
        let mut empty = Model::new(Snapshot::default());
        assert_eq!((press(&mut empty, "↓cy"), press(&mut empty, "l")), (None, None), "there is nothing to choose");
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute_and_a_lost_worker_is_told() {
        let (mut it, start) = (model(), Instant::now());
        let looked = |ended| {
            let lightning = LightningStatus { runs_ended: ended, ..LightningStatus::default() };
            let status = StatusReport { lightning, ..StatusReport::default() };
            Message::Looked(Ok(Box::new(Snapshot { status, ..Snapshot::default() })))
        };
        it.take(looked(5), start);
        assert_eq!(it.runs_a_minute(), None);
        it.take(looked(15), start + Duration::from_secs(30));
        assert_eq!(it.runs_a_minute(), Some(20.0));
        it.take(looked(15), start + Duration::from_secs(90));
        assert_eq!(it.runs_a_minute(), Some(0.0));
        it.take(Message::Looked(Err("gone".into())), start);
        assert!(it.is_lost && it.notice.as_deref() == Some("gone"));
        it.take(looked(15), start + Duration::from_secs(91));
        assert!(!it.is_lost && it.notice.is_none());
    }

    #[test]
    fn a_log_keeps_its_last_lines() {
        let mut it = model();
        press(&mut it, "l");
        for index in 0..LINES + 3 {
            let line =
                serde_json::json!({"line": {"host": "h1", "run": "a", "stream": "stderr", "text": index.to_string()}});
            it.take(Message::Answered(serde_json::from_value(line).unwrap()), Instant::now());
        }
        let log = it.log.as_ref().unwrap();
        assert_eq!((log.title.as_str(), log.lines.len(), log.lines[0].as_str()), ("run a", LINES, "h1 3"));
    }
}
