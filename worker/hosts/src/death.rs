//! Why a host died, and what that means for the run that it had.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use protocol::run::{Exit, ExitReason};
use protocol::signal::signal_name;
use strum::IntoStaticStr;

/// The end of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// What the host was doing.
    pub phase: Phase,
    /// Why it ended.
    pub reason: Reason,
    /// What the kernel said; none when there was no process.
    pub status: Option<Status>,
}

impl Death {
    /// The end of a host that never became a process.
    pub(super) fn unborn(why: String) -> Self {
        Self { phase: Phase::Starting, reason: Reason::NotStarted(why), status: None }
    }

    /// Whether it tells against hosts in general: not when the pool wanted it, nor when a run may have caused it.
    pub(super) fn is_failure(&self) -> bool {
        let before_a_run = matches!(self.phase, Phase::Starting | Phase::Preparing | Phase::Ready);
        before_a_run && !self.reason.is_wanted()
    }
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} while {}", self.reason, self.phase)?;
        match self.status {
            Some(status) => write!(out, " ({status})"),
            None => Ok(()),
        }
    }
}

/// What a host is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    /// It has been started and is not ready yet.
    Starting,
    /// It was ready, and gets another engine ready.
    Preparing,
    /// It waits for a run.
    Ready,
    /// It executes a run.
    Running,
    /// Somebody makes calls of it.
    Lent,
    /// It was asked to stop, or is being killed after its run.
    Stopping,
}

/// Why a host ended.
#[derive(Debug, Clone, PartialEq, Eq, derive_more::Display, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// It was asked to stop, because its run was over or there were more than enough, and did.
    #[display("stopped as asked")]
    Retired,
    /// It was asked to stop, because another one took its place, and did.
    #[display("was replaced")]
    Recycled,
    /// It was asked to stop, because there were to be none, and did.
    #[display("was drained")]
    Drained,
    /// It exited with code 0, unasked.
    #[display("exited by itself")]
    SelfExit,
    /// It exited with another code, or a signal of others killed it.
    #[display("crashed")]
    Crashed,
    /// The system killed it, because its memory was used up.
    #[display("ran out of memory")]
    OutOfMemory,
    /// The system killed it, because the worker's unit or the whole machine had no memory left.
    #[display("was killed because the worker's unit or the machine ran out of memory")]
    UnitOutOfMemory,
    /// It could not be started, or refused to get ready: why.
    #[display("failed to start: {_0}")]
    NotStarted(String),
    /// Killed: it was not ready in time.
    #[display("was not ready in time and was killed")]
    StartTimeout,
    /// Killed: it did not report the end of a run in time.
    #[display("did not end its run in time and was killed")]
    Overdue,
    /// Killed: it did not end a cancelled run in time.
    #[display("did not end its cancelled run in time and was killed")]
    Cancelled,
    /// Killed: nobody waits for its run or its answer any more.
    #[display("was killed because nobody waits for it any more")]
    Abandoned,
    /// Killed: it did not stop when asked, or did not answer.
    #[display("hung and was killed")]
    Hung,
    /// Killed: its link to the worker is of no use any more, because of this.
    #[display("lost its link and was killed: {_0}")]
    LinkLost(String),
    /// Killed: the worker shuts down.
    #[display("was killed because the worker shuts down")]
    Shutdown,
}

impl Reason {
    /// Whether the worker wanted the host to end, and it obeyed or was not at work.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Retired | Self::Recycled | Self::Drained | Self::Shutdown)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, derive_more::Display)]
pub enum Status {
    /// It exited with this code.
    #[display("Process exited with code: {_0}")]
    Code(i32),
    /// This signal killed it.
    #[display("Process killed by signal {}", shown_signal(*_0))]
    Signal(i32),
    /// The system killed it, because its control group had no memory left.
    #[display("Process killed by the system: its memory was used up")]
    OutOfMemory,
    /// The system killed it for want of memory, though its control group was within its limit.
    #[display("Process killed by the system: the worker's unit ran out of memory, or the whole machine did")]
    UnitOutOfMemory,
    /// The operating system did not tell.
    #[display("Process ended in an unknown way")]
    Unknown,
}

/// What a control group has counted for want of memory (`memory.events`). Groups below it count in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OomCounts {
    /// How often its own limit, or one below it, left the system no choice but to kill (`oom`).
    pub(super) limit_hits: u64,
    /// Its processes that were killed, for whichever limit: also for that of a group above it, or for the whole machine's
    /// (`oom_kill`).
    pub(super) kills: u64,
}

impl OomCounts {
    /// What a group's `memory.events` says. What it does not have counts as nothing.
    pub(super) fn parse(events: &str) -> Self {
        let number = |name: &str| {
            let fields = events.lines().filter_map(|line| line.split_once(' '));
            fields.filter(|(field, _)| *field == name).find_map(|(_, text)| text.trim().parse().ok()).unwrap_or(0)
        };
        Self { limit_hits: number("oom"), kills: number("oom_kill") }
    }
}

impl Status {
    /// What it means once it is known what the process's control group has counted.
    pub(super) fn with_evidence(self, counts: OomCounts) -> Self {
        let is_killed = self == Self::Signal(rustix::process::Signal::KILL.as_raw());
        match counts {
            OomCounts { kills: 1.., limit_hits: 0 } if is_killed => Self::UnitOutOfMemory,
            OomCounts { kills: 1.., limit_hits: 1.. } if is_killed => Self::OutOfMemory,
            _ => self,
        }
    }

    pub(super) fn unasked_reason(self) -> Reason {
        match self {
            Self::Code(0) => Reason::SelfExit,
            Self::OutOfMemory => Reason::OutOfMemory,
            Self::UnitOutOfMemory => Reason::UnitOutOfMemory,
            _ => Reason::Crashed,
        }
    }

    /// What a run reports whose host ended like this, all by itself.
    pub(super) fn run_exit(self) -> Exit {
        match self {
            Self::OutOfMemory => Exit::error(ExitReason::Kill, "OOMError", "Run exceeded maximum memory usage"),
            _ => Exit::error(ExitReason::Crash, "ExitError", self.to_string()),
        }
    }
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

fn shown_signal(signal: i32) -> String {
    signal_name(signal).map_or_else(|| signal.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_becomes_the_words_that_lightning_shows() {
        let cases = [
            (0x0000, "Process exited with code: 0", Reason::SelfExit),
            (0x0300, "Process exited with code: 3", Reason::Crashed),
            (0x0009, "Process killed by signal SIGKILL", Reason::Crashed),
            (0x008b, "Process killed by signal SIGSEGV", Reason::Crashed),
            (0x0022, "Process killed by signal 34", Reason::Crashed),
        ];
        for (raw, words, reason) in cases {
            let status = Status::from(ExitStatus::from_raw(raw));
            assert_eq!(status.to_string(), words);
            assert_eq!(status.unasked_reason(), reason);
            assert_eq!(status.run_exit(), Exit::error(ExitReason::Crash, "ExitError", words));
        }
    }

    #[test]
    fn each_signal_that_ends_processes_has_its_name() {
        let names = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM";
        let later = [(24, "XCPU"), (25, "XFSZ"), (26, "VTALRM"), (27, "PROF"), (31, "SYS")];
        for (number, name) in (1..).zip(names.split(' ')).chain(later) {
            assert_eq!(Status::Signal(number).to_string(), format!("Process killed by signal SIG{name}"));
        }
    }

    #[test]
    fn a_run_is_to_blame_only_when_its_own_limit_was_hit() {
        const KILLED: Status = Status::Signal(9);
        let table = [
            // Its own limit; a group above or the machine; the same after its own limit had been hit before.
            ("low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 1\n", KILLED, Status::OutOfMemory),
            ("low 0\nhigh 0\nmax 0\noom 0\noom_kill 2\noom_group_kill 1\n", KILLED, Status::UnitOutOfMemory),
            ("max 31\noom 2\noom_kill 1\n", KILLED, Status::OutOfMemory),
            // Reclaiming was enough, and somebody else has killed it.
            ("max 31\noom 0\noom_kill 0\n", KILLED, KILLED),
            ("oom 1\noom_kill 0\n", KILLED, KILLED),
            // Only one of its processes was killed, and it went on.
            ("oom 1\noom_kill 1\n", Status::Code(3), Status::Code(3)),
            ("oom 0\noom_kill 1\n", Status::Signal(11), Status::Signal(11)),
            // A system that does not count.
            ("", KILLED, KILLED),
            ("oom\noom_kill many\n", KILLED, KILLED),
        ];
        for (events, status, expected) in table {
            assert_eq!(status.with_evidence(OomCounts::parse(events)), expected, "{events:?}");
        }
        let reasons = [Status::OutOfMemory, Status::UnitOutOfMemory, KILLED].map(Status::unasked_reason);
        assert_eq!(reasons, [Reason::OutOfMemory, Reason::UnitOutOfMemory, Reason::Crashed]);
        let exit = Status::OutOfMemory.run_exit();
        assert_eq!((exit.reason, exit.error.unwrap().kind.as_str()), (ExitReason::Kill, "OOMError"));
        let exit = Status::UnitOutOfMemory.run_exit();
        assert_eq!(exit.reason, ExitReason::Crash);
        assert!(exit.error.unwrap().message.contains("the worker's unit ran out of memory"));
    }

    /// Each reason: its label, whether the worker wanted it, and its words.
    fn reasons() -> [(Reason, &'static str, bool, &'static str); 15] {
        let why = || "no memory".to_owned();
        [
            (Reason::Retired, "retired", true, "stopped as asked"),
            (Reason::Recycled, "recycled", true, "was replaced"),
            (Reason::Drained, "drained", true, "was drained"),
            (Reason::SelfExit, "self_exit", false, "exited by itself"),
            (Reason::Crashed, "crashed", false, "crashed"),
            (Reason::OutOfMemory, "out_of_memory", false, "ran out of memory"),
            (
                Reason::UnitOutOfMemory,
                "unit_out_of_memory",
                false,
                "was killed because the worker's unit or the machine ran out of memory",
            ),
            (Reason::NotStarted(why()), "not_started", false, "failed to start: no memory"),
            (Reason::StartTimeout, "start_timeout", false, "was not ready in time and was killed"),
            (Reason::Overdue, "overdue", false, "did not end its run in time and was killed"),
            (Reason::Cancelled, "cancelled", false, "did not end its cancelled run in time and was killed"),
            (Reason::Abandoned, "abandoned", false, "was killed because nobody waits for it any more"),
            (Reason::Hung, "hung", false, "hung and was killed"),
            (Reason::LinkLost(why()), "link_lost", false, "lost its link and was killed: no memory"),
            (Reason::Shutdown, "shutdown", true, "was killed because the worker shuts down"),
        ]
    }

    const PHASES: [(Phase, &str, bool); 6] = [
        (Phase::Starting, "starting", true),
        (Phase::Preparing, "preparing", true),
        (Phase::Ready, "ready", true),
        (Phase::Running, "running", false),
        (Phase::Lent, "lent", false),
        (Phase::Stopping, "stopping", false),
    ];

    #[test]
    fn only_deaths_before_a_run_that_nobody_wanted_are_failures() {
        for (reason, label, is_wanted, _) in reasons() {
            assert_eq!((reason.is_wanted(), <&str>::from(&reason)), (is_wanted, label));
            for (phase, name, is_before_a_run) in PHASES {
                let death = Death { phase, reason: reason.clone(), status: None };
                assert_eq!(death.is_failure(), is_before_a_run && !is_wanted, "{death}");
                assert_eq!(<&str>::from(phase), name);
            }
        }
        let unborn = Death::unborn("no memory".into());
        assert!(unborn.is_failure());
        assert_eq!(unborn.to_string(), "failed to start: no memory while starting");
    }

    #[test]
    fn a_death_is_told_with_its_reason_its_phase_and_what_the_kernel_said() {
        let statuses = [
            (Status::Code(7), "Process exited with code: 7"),
            (Status::Signal(15), "Process killed by signal SIGTERM"),
            (Status::OutOfMemory, "Process killed by the system: its memory was used up"),
            (
                Status::UnitOutOfMemory,
                "Process killed by the system: the worker's unit ran out of memory, or the whole machine did",
            ),
            (Status::Unknown, "Process ended in an unknown way"),
        ];
        for (reason, _, _, words) in reasons() {
            for (phase, name, _) in PHASES {
                let death = |status| Death { phase, reason: reason.clone(), status };
                assert_eq!(death(None).to_string(), format!("{words} while {name}"));
                for (status, told) in statuses {
                    assert_eq!(death(Some(status)).to_string(), format!("{words} while {name} ({told})"));
                }
            }
        }
    }
}
