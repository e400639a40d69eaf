//! What a run can put into the worker's own log: nothing secret, and no more than so many lines and bytes.

use std::borrow::Cow;

use parking_lot::Mutex;

use crate::redact::Redactor;

/// The target of lines that come from a run's log, by which they can be told from the worker's own.
pub const TARGET: &str = "run";

/// Lines that the worker's log takes of a run.
const LINES: u32 = 10_000;
/// Bytes that it takes of a run.
const BYTES: usize = 2 * 1024 * 1024;
/// Bytes of a line, beyond which it is cut.
const LINE: usize = 8 * 1024;
/// What stands at the end of a line that was cut.
const CUT: &str = " [cut]";

/// The worker's log, as far as it is a run's. One for all that says something of it.
#[derive(derive_more::Debug)]
#[debug("RunLog({run})")]
pub struct RunLog {
    run: String,
    redactor: Redactor,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    lines: u32,
    bytes: usize,
    is_over: bool,
}

impl RunLog {
    /// For the run with this id, whose secrets the redactor knows.
    pub fn new(run: String, redactor: Redactor) -> Self {
        Self { run, redactor, left: Mutex::new(Left { lines: LINES, bytes: BYTES, is_over: false }) }
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Takes the run's secrets out of texts, for whomever they are.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// A line of the run, already without secrets, as the worker's log takes it. None if that has had enough of the run,
    /// which it says once.
    pub fn admit<'a>(&self, line: &'a str) -> Option<Cow<'a, str>> {
        let line = shortened(line);
        let mut left = self.left.lock();
        if left.lines > 0 && left.bytes >= line.len() && !left.is_over {
            left.lines -= 1;
            left.bytes -= line.len();
            return Some(line);
        }
        if !std::mem::replace(&mut left.is_over, true) {
            tracing::warn!(
                run = %self.run,
                "this run has filled its part of this log ({LINES} lines, {} MB): no more of it is shown here, Lightning \
                 has its log",
                BYTES / 1024 / 1024
            );
        }
        None
    }
}

/// The text, cut to the length of a line. It has no secrets any more, so none is cut in two.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.len() > LINE {
        true => Cow::Owned(format!("{}{CUT}", &text[..text.floor_char_boundary(LINE)])),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> RunLog {
        RunLog::new("r1".into(), Redactor::default())
    }

    #[test]
    fn a_run_gets_so_many_lines() {
        let log = log();
        let admitted = (0..LINES + 10).filter(|_| log.admit("a line").is_some()).count();
        assert_eq!(admitted as u32, LINES);
    }

    #[test]
    fn a_line_is_cut_beyond_its_bound_alone() {
        for (length, expected) in [(LINE, LINE), (LINE + 1, LINE + CUT.len())] {
            let text = "x".repeat(length);
            assert_eq!((shortened(&text).len(), shortened(&text).ends_with(CUT)), (expected, length > LINE));
        }
        // Cut between characters.
        assert_eq!(shortened(&format!("x{}", "é".repeat(LINE))).len(), LINE - 1 + CUT.len());
    }

    #[test]
    fn the_last_byte_is_shown_and_what_comes_later_is_not_even_if_it_is_short() {
        let log = log();
        for _ in 0..BYTES / LINE - 1 {
            assert!(log.admit(&"x".repeat(LINE)).is_some());
        }
        assert!(log.admit(&"x".repeat(LINE - 1)).is_some());
        assert_eq!(log.admit("y").as_deref(), Some("y"), "exactly all of it");
        assert!(log.admit("").is_some(), "nothing fits still");
        assert_eq!(log.admit("z"), None);
        assert_eq!(log.admit(""), None, "it is over once something was left out");
    }

    #[test]
    fn it_knows_its_run_and_its_secrets() {
        let log = RunLog::new("r1".into(), Redactor::new([], ["hunter2"]));
        assert_eq!((log.run(), log.redactor().text("a hunter2").as_ref()), ("r1", "a ***"));
        assert_eq!(format!("{log:?}"), "RunLog(r1)");
    }

    #[test]
    fn a_run_gets_so_many_bytes_and_lines_are_cut() {
        let log = log();
        let long = "é".repeat(5_000_000);
        let lines: Vec<_> = (0..1_000).map_while(|_| log.admit(&long)).collect();
        assert!(lines.iter().all(|line| line.len() <= LINE + CUT.len() && line.ends_with("é [cut]")));
        let bytes: usize = lines.iter().map(|line| line.len()).sum();
        assert!(bytes <= BYTES && bytes > BYTES - 2 * LINE, "{bytes}");
        assert_eq!(log.admit("short"), None, "it is over once something was left out");
    }
}
