//! Which process something belongs to, in a form that other processes and machines can judge.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A process, told apart from any other that has its number later or elsewhere.
#[derive(derive_more::Display, Debug, Clone, PartialEq, Eq)]
#[display("{machine:016x}-{pid}-{started}")]
pub(super) struct ProcessId {
    /// The machine since its last start, and on it the name space that `pid` belongs to.
    machine: u64,
    pid: i32,
    /// When it started, in the kernel's own unit; 0 where the system does not tell.
    started: u64,
}

impl ProcessId {
    /// This process.
    pub(super) fn own() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let started = match start_of(pid) {
            Start::At(time) => time,
            Start::Ended | Start::Unseen => 0,
        };
        Self { machine: machine(), pid, started }
    }

    /// Whether it is a process of this machine that has ended. Of those elsewhere nothing is known.
    pub(super) fn is_dead(&self) -> bool {
        if self.machine != machine() {
            return false;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return true };
        let is_another = match start_of(self.pid) {
            Start::At(time) => time != self.started,
            Start::Ended => true,
            Start::Unseen => false,
        };
        is_another || test_kill_process(pid) == Err(Errno::SRCH)
    }
}

impl FromStr for ProcessId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.trim().split('-');
        let mut part = || parts.next().ok_or(());
        let machine = u64::from_str_radix(part()?, 16).map_err(drop)?;
        let pid = part()?.parse().map_err(drop)?;
        let started = part()?.parse().map_err(drop)?;
        if parts.next().is_none() { Ok(Self { machine, pid, started }) } else { Err(()) }
    }
}

fn machine() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let name_space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let mut hash = DefaultHasher::new();
    rustix::system::uname().nodename().hash(&mut hash);
    read("/proc/sys/kernel/random/boot_id").hash(&mut hash);
    name_space.hash(&mut hash);
    hash.finish()
}

/// When a process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    At(u64),
    /// The process has ended.
    Ended,
    /// The system does not tell: of hosts of another installer under systemd's `ProtectProc=invisible`, for one.
    Unseen,
}

fn start_of(pid: i32) -> Start {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(Start::Unseen, |stat| start_in(&stat))
}

/// The 22nd field of a process's `stat`: the second one is a name, which may hold spaces and brackets.
fn start_in(stat: &str) -> Start {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace();
    match fields.next() {
        // Nobody has asked how it ended: in a container that can stay so.
        Some("Z" | "X") => Start::Ended,
        _ => fields.nth(18).and_then(|field| field.parse().ok()).map_or(Start::Unseen, Start::At),
    }
}

#[cfg(test)]
impl ProcessId {
    /// A process that has ended.
    pub(super) fn dead_for_tests() -> Self {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        Self { pid, ..Self::own() }
    }

    /// A process of another machine.
    pub(super) fn elsewhere_for_tests() -> Self {
        let own = Self::own();
        Self { machine: !own.machine, ..own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_the_dead_and_those_elsewhere_are_told_apart() {
        let own = ProcessId::own();
        assert!(!own.is_dead());
        assert!(ProcessId::dead_for_tests().is_dead());
        assert!(!ProcessId::elsewhere_for_tests().is_dead());
        let mut unburied = std::process::Command::new("true").spawn().unwrap();
        let id = i32::try_from(unburied.id()).unwrap();
        let zombie = ProcessId { pid: id, started: 1, ..own.clone() };
        while start_of(id) != Start::Ended {
            std::thread::yield_now();
        }
        assert!(zombie.is_dead());
        unburied.wait().unwrap();
        let same_number_later = ProcessId { started: own.started + 1, ..own };
        assert!(same_number_later.is_dead());
    }

    #[test]
    fn the_time_of_a_start_is_found_after_any_name() {
        let after = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 98";
        let table = [
            (format!("12 (node) {after}"), Start::At(4_711)),
            (format!("12 (a) b (c) {after}"), Start::At(4_711)),
            (format!("12 (node) {}", after.replacen('S', "Z", 1)), Start::Ended),
            // Cut, and nothing at all.
            ("12 (node) S 1 7".to_owned(), Start::Unseen),
            (String::new(), Start::Unseen),
        ];
        for (stat, expected) in table {
            assert_eq!(start_in(&stat), expected, "{stat}");
        }
    }

    #[test]
    fn an_id_survives_being_written() {
        let own = ProcessId::own();
        assert_eq!(own.to_string().parse(), Ok(own.clone()));
        assert_eq!(format!("{own}\n").parse(), Ok(own));
        for text in ["", "x", "1-2", "1-2-3-4", "free"] {
            assert_eq!(text.parse::<ProcessId>(), Err(()), "{text}");
        }
    }
}
