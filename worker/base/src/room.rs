//! How many engine hosts the machine has room for: by open files, memory and processes.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::connections;

/// Warm hosts that may be asked for, for each run that may be active at once.
pub const MOST_PER_SLOT: usize = 4;
/// Open files for each host: a link, two pipes, a process descriptor; and a margin.
const FILES_EACH: u64 = 8;
/// Open files for each connection to a server: it, the next one that is made before it is closed, and two to look a name up.
const FILES_PER_CONNECTION: u64 = 4;
/// Open files of the worker itself, with all connections to its listeners.
const FILES_OWN: u64 = 80 + connections::MOST as u64;
/// More than any worker needs. Some programs take long for each file that they might have open.
const FILES_ENOUGH: u64 = 65_536;
/// Memory of a host that waits, in bytes. Those with an engine ready are bounded apart.
const BYTES_EACH: u64 = 8 * 1024 * 1024;
/// Processes and threads of a host that waits, with an engine.
const TASKS_EACH: u64 = 16;

/// Open files that a worker may need that has so many hosts, and so many connections to servers.
pub fn files_needed(hosts: usize, connections: usize) -> u64 {
    let each = |one: u64, many: usize| one.saturating_mul(many as u64);
    FILES_OWN.saturating_add(each(FILES_EACH, hosts)).saturating_add(each(FILES_PER_CONNECTION, connections))
}

/// The system lets the worker open fewer files than it may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system lets the worker open {limit} files, and {needed} may be needed")]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
}

/// Sees to it that so many files may be opened.
pub fn have_files(needed: u64) -> Result<(), TooFewFiles> {
    match raise_files() {
        Some(limit) if limit < needed => Err(TooFewFiles { limit, needed }),
        _ => Ok(()),
    }
}

/// Raises the limit of open files as far as the system lets the worker, and gives back what it is then; none if there is
/// none.
pub fn raise_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_ENOUGH).min(FILES_ENOUGH);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!("cannot raise the limit of open files to {wanted}: {error}");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// What the machine has left for this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Files that may be opened.
    files: Option<u64>,
    /// Memory, in bytes.
    bytes: Option<u64>,
    /// Processes and threads.
    tasks: Option<u64>,
}

impl Room {
    /// Looks at limits, the control groups above this process, and the whole machine.
    pub fn look() -> Self {
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        let files = getrlimit(Resource::Nofile).current.map(|limit| limit.saturating_sub(open));
        let groups = groups();
        let in_groups = |kind: &str| {
            let left = groups.iter().filter_map(|group| {
                let most = number(&group.join(format!("{kind}.max")))?;
                Some(most.saturating_sub(number(&group.join(format!("{kind}.current")))?))
            });
            left.min()
        };
        let machine_tasks = number(Path::new("/proc/sys/kernel/pid_max")).zip(all_tasks());
        let machine_tasks = machine_tasks.map(|(most, all)| most.saturating_sub(all));
        Self {
            files,
            bytes: in_groups("memory").into_iter().chain(available_memory()).min(),
            tasks: in_groups("pids").into_iter().chain(machine_tasks).chain(getrlimit(Resource::Nproc).current).min(),
        }
    }

    /// Why so many hosts more do not fit; nothing if they do.
    pub fn refusal(&self, more: usize) -> Option<String> {
        let more = more as u64;
        let kinds = [
            (self.files, FILES_EACH, "open files"),
            (self.bytes, BYTES_EACH, "bytes of memory"),
            (self.tasks, TASKS_EACH, "processes and threads"),
        ];
        kinds.into_iter().find_map(|(left, each, what)| {
            let (left, needed) = (left?, each.saturating_mul(more));
            (needed > left).then(|| format!("{more} hosts more need {needed} {what}, and {left} are left"))
        })
    }
}

/// Memory that programs need for what they read of their own files, in bytes. With less, the system reads it from the disk
/// again and again, and nothing gets on.
const BYTES_OF_PROGRAMS: u64 = 16 * 1024 * 1024;

/// Whether memory is used up, but for what can be read again: that of a control group that this process is in, or of the
/// machine.
pub fn is_out_of_memory() -> bool {
    let is_full = |group: &PathBuf| {
        let most = number(&group.join("memory.max"))?;
        Some(is_full(most, &std::fs::read_to_string(group.join("memory.stat")).ok()?))
    };
    groups().iter().filter_map(is_full).any(|is_full| is_full)
        || available_memory().is_some_and(|left| left < BYTES_OF_PROGRAMS)
}

/// Whether a group with this limit and these kinds of memory has too little for files.
fn is_full(most: u64, stat: &str) -> bool {
    let kept = stat.lines().filter_map(|line| {
        let (kind, bytes) = line.split_once(' ')?;
        let is_kept = ["anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"].contains(&kind);
        if is_kept { bytes.parse::<u64>().ok() } else { None }
    });
    most.saturating_sub(kept.sum()) < BYTES_OF_PROGRAMS
}

/// The folders of the control group that this process is in, and of those above.
fn groups() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let root = Path::new("/sys/fs/cgroup");
    root.join(own).ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_path_buf).collect()
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Processes and threads of the machine.
fn all_tasks() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_up_when_files_have_no_room_left() {
        const MB: u64 = 1024 * 1024;
        let stat = |anon: u64, shmem: u64, file: u64| {
            let (anon, shmem, file) = (anon * MB, shmem * MB, file * MB);
            format!("anon {anon}\nfile {file}\nkernel_stack 1048576\nshmem {shmem}\nsock many\nodd\n")
        };
        // The first is of a group in which programs did not get on any more.
        let table = [
            (150, stat(147, 0, 1), true),
            (150, stat(100, 40, 49), true),
            (150, stat(100, 0, 49), false),
            (150, stat(0, 0, 150), false),
            (8 * 1024, stat(8_100, 0, 90), false),
            (150, String::new(), false),
        ];
        for (most, stat, expected) in table {
            assert_eq!(is_full(most * MB, &stat), expected, "{most}: {stat}");
        }
    }

    #[test]
    fn files_are_for_hosts_and_for_connections() {
        assert_eq!(files_needed(10, 3) - files_needed(0, 0), 10 * FILES_EACH + 3 * FILES_PER_CONNECTION);
        assert_eq!(files_needed(usize::MAX, usize::MAX), u64::MAX);
        assert!(have_files(1).is_ok());
        let refused = have_files(u64::MAX).map_err(|few| few.to_string());
        let limit = getrlimit(Resource::Nofile).current;
        assert_eq!(refused.is_err(), limit.is_some(), "{refused:?}");
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_is_lacking() {
        let room = Room { files: Some(800), bytes: Some(64 * BYTES_EACH), tasks: Some(50 * TASKS_EACH) };
        let cases = [(50, None), (51, Some("processes")), (65, Some("memory")), (101, Some("open files"))];
        for (more, expected) in cases {
            let refusal = room.refusal(more);
            match expected {
                None => assert_eq!(refusal, None, "{more}"),
                Some(part) => assert!(refusal.as_ref().is_some_and(|it| it.contains(part)), "{more}: {refusal:?}"),
            }
        }
        assert_eq!(Room::default().refusal(usize::MAX), None, "without limits all fit");
    }

    #[test]
    fn this_machine_has_limits_that_can_be_read() {
        let room = Room::look();
        assert!(room.files.is_some_and(|files| files > 0) && room.bytes.is_some() && room.tasks.is_some(), "{room:?}");
        assert!(room.refusal(usize::MAX).is_some());
    }
}
