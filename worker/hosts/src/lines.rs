//! What hosts print, for who looks on: the last lines, and those to come.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;
use tokio::sync::broadcast;

use super::output::Stream;

/// Lines that are kept.
const KEPT: usize = 500;
/// Bytes of lines that are kept.
const KEPT_BYTES: usize = 256 * 1024;
/// Lines that a slow reader may fall behind by.
const BEHIND: usize = 1024;

/// A line that a host printed, and that was not dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLine {
    /// The host's id.
    pub host: String,
    /// The run that it executed.
    pub run: Option<String>,
    /// Where it printed it.
    pub stream: Stream,
    /// The line.
    pub text: String,
}

/// The lines of all hosts. Clones share them.
#[derive(Debug, Clone, SmartDefault)]
pub(super) struct Lines {
    kept: Arc<Mutex<Kept>>,
    #[default(broadcast::Sender::new(BEHIND))]
    live: broadcast::Sender<HostLine>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<HostLine>,
    bytes: usize,
}

impl Lines {
    pub(super) fn add(&self, line: HostLine) {
        let mut kept = self.kept.lock();
        // Sent while it is locked, so that a reader gets each line once. Fails when nobody looks on.
        let _ = self.live.send(line.clone());
        kept.bytes += line.text.len();
        kept.lines.push_back(line);
        while kept.lines.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.text.len();
        }
    }

    /// The last lines, oldest first, and those to come.
    pub(super) fn read(&self) -> (Vec<HostLine>, broadcast::Receiver<HostLine>) {
        let kept = self.kept.lock();
        (kept.lines.iter().cloned().collect(), self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: String) -> HostLine {
        HostLine { host: "h1".into(), run: None, stream: Stream::Stdout, text }
    }

    #[test]
    fn a_reader_gets_each_line_once_and_only_so_many_are_kept() {
        let lines = Lines::default();
        for number in 0..600 {
            lines.add(line(number.to_string()));
        }
        let (kept, mut live) = lines.read();
        assert_eq!((kept.len(), kept[0].text.as_str(), kept[499].text.as_str()), (KEPT, "100", "599"));
        lines.add(line("600".into()));
        assert_eq!(live.try_recv().unwrap().text, "600");
        lines.add(line("x".repeat(KEPT_BYTES)));
        assert_eq!(lines.read().0.len(), 1);
    }
}
