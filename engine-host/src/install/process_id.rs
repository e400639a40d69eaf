//! Which process something belongs to, in a form that other processes and machines can judge.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A process, told apart from any other that has its number later or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        Self { machine: machine(), pid, started: start_of(pid) }
    }

    /// Whether it is a process of this machine that has ended. Of those elsewhere nothing is known.
    pub(super) fn is_dead(&self) -> bool {
        if self.machine != machine() {
            return false;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return true };
        test_kill_process(pid) == Err(Errno::SRCH) || start_of(self.pid) != self.started
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}-{}-{}", self.machine, self.pid, self.started)
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

/// The 22nd field of the process's `stat`: the second one is a name, which may hold spaces and brackets.
fn start_of(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace();
    match fields.next() {
        // It has ended, and nobody has asked how: in a container that can stay so.
        Some("Z" | "X") => 0,
        _ => fields.nth(18).and_then(|field| field.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
impl ProcessId {
    /// A process that has ended.
    pub(super) fn dead_for_tests() -> Self {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = Self { pid, started: start_of(pid), ..Self::own() };
        child.wait().unwrap();
        id
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
        while start_of(id) != 0 {
            std::thread::yield_now();
        }
        assert!(zombie.is_dead());
        unburied.wait().unwrap();
        let same_number_later = ProcessId { started: own.started + 1, ..own };
        assert!(same_number_later.is_dead());
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
