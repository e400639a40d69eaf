//! Why Node ended: from what the kernel and Node itself leave behind, never from what was printed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use protocol::signal::signal_name;
use rustix::process::Signal;
use serde::Deserialize;

use crate::engine::EngineLost;

/// The signals by which V8 ends its own process.
const GIVING_UP: [Signal; 3] = [Signal::ABORT, Signal::ILL, Signal::TRAP];

/// What is known of the end of a Node process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    /// How the kernel says that it ended.
    pub(super) status: ExitStatus,
    /// V8 gave up for want of memory: Node's report says so.
    pub(super) reported_oom: bool,
    /// The process had as much in memory as its heap may take.
    pub(super) was_full: bool,
    /// How much it was to write at most, in bytes, if it was killed because it wrote more.
    pub(super) exceeded_bytes: Option<u64>,
    /// How long any file was to be at most, in bytes.
    pub(super) file_bytes: Option<u64>,
}

impl Evidence {
    /// What the end means.
    pub(super) fn verdict(self) -> EngineLost {
        // The kernel's signal for a file that is too long.
        let too_long = self.file_bytes.filter(|_| self.status.signal() == Some(Signal::XFSZ.as_raw()));
        if let Some(limit_bytes) = self.exceeded_bytes.or(too_long) {
            return EngineLost::WroteTooMuch { limit_bytes };
        }
        // V8 ends the process by a signal of its own when its heap is full. It is not always able to report that.
        let gave_up = self.status.signal().is_some_and(|signal| GIVING_UP.iter().any(|it| it.as_raw() == signal));
        if gave_up && (self.reported_oom || self.was_full) {
            return EngineLost::OutOfMemory;
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => EngineLost::Exited(code),
            (None, Some(signal)) => {
                EngineLost::Signalled(signal_name(signal).map_or_else(|| signal.to_string(), ToOwned::to_owned))
            }
            (None, None) => EngineLost::Failed("Node ended in an unknown way".to_owned()),
        }
    }
}

/// Whether the report that Node writes at a fatal error tells that V8 had no memory left.
pub(super) fn reports_oom(file: &Path) -> bool {
    #[derive(Deserialize)]
    struct Report {
        header: Header,
    }
    #[derive(Deserialize)]
    struct Header {
        trigger: String,
    }
    let report = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Report>(&bytes).ok());
    report.is_some_and(|report| report.header.trigger == "OOMError")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_from_evidence() {
        const ABORTED: i32 = 6;
        const TRAPPED: i32 = 5;
        for (raw, reported_oom, was_full, expected) in [
            (0x0000, false, true, EngineLost::Exited(0)),
            (0x0700, false, false, EngineLost::Exited(7)),
            (0x0009, true, true, EngineLost::Signalled("SIGKILL".into())),
            (0x008b, false, true, EngineLost::Signalled("SIGSEGV".into())),
            (ABORTED, false, false, EngineLost::Signalled("SIGABRT".into())),
            (ABORTED, true, false, EngineLost::OutOfMemory),
            (ABORTED, false, true, EngineLost::OutOfMemory),
            (TRAPPED, false, true, EngineLost::OutOfMemory),
            (TRAPPED, false, false, EngineLost::Signalled("SIGTRAP".into())),
            // Whoever exits in an orderly way had memory to do so, whatever a file says.
            (0x0100, true, true, EngineLost::Exited(1)),
            (0x0022, false, false, EngineLost::Signalled("34".into())),
        ] {
            let status = ExitStatus::from_raw(raw);
            let evidence = Evidence { status, reported_oom, was_full, exceeded_bytes: None, file_bytes: Some(9) };
            assert_eq!(evidence.verdict(), expected, "{evidence:?}");
        }
    }

    #[test]
    fn who_wrote_too_much_was_killed_or_signalled() {
        const KILLED: i32 = 9;
        const TOO_LONG: i32 = 25;
        let wrote = || EngineLost::WroteTooMuch { limit_bytes: 9 };
        for (raw, exceeded_bytes, file_bytes, expected) in [
            (KILLED, Some(9), Some(9), wrote()),
            (TOO_LONG, None, Some(9), wrote()),
            (TOO_LONG, None, None, EngineLost::Signalled("SIGXFSZ".into())),
            (KILLED, None, Some(9), EngineLost::Signalled("SIGKILL".into())),
        ] {
            let status = ExitStatus::from_raw(raw);
            let evidence = Evidence { status, reported_oom: false, was_full: false, exceeded_bytes, file_bytes };
            assert_eq!(evidence.verdict(), expected, "{evidence:?}");
        }
    }

    #[test]
    fn reports_are_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        assert!(!reports_oom(&file));
        for (text, expected) in [
            (r#"{"header":{"trigger":"OOMError","event":"x"},"more":[]}"#, true),
            (r#"{"header":{"trigger":"FatalError"}}"#, false),
            (r#"{"header":{}}"#, false),
            ("{", false),
            ("", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(reports_oom(&file), expected, "{text}");
        }
    }
}
