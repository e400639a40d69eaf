//! What the system lets this process do with control groups (version 2). Looks, and changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// What bounds hosts, where it can be had. `cpu` needs no numbers: the worker counts as much as all of its hosts
/// together, and each host as much as another.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The group that this process is in, below which it may make groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delegation {
    pub(super) own: PathBuf,
    pub(super) controllers: Vec<&'static str>,
    /// Whether groups below have the controllers already.
    pub(super) is_enabled: bool,
}

/// Why there are no groups.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    /// The system has none, or not of that version.
    #[error("this system has no cgroup v2 hierarchy")]
    None,
    /// The worker may not make any.
    #[error("the worker may not make groups in {}: {source}", folder.display())]
    Forbidden { folder: PathBuf, source: io::Error },
    /// A group that has processes cannot have limits for groups below it, and these processes are not the worker's to move.
    #[error(
        "{others} other processes are in {}, which is not the worker's alone; start it as a systemd unit with \
         Delegate=cpu memory pids, or by `systemd-run --scope -p Delegate=yes`", folder.display()
    )]
    Shared { folder: PathBuf, others: usize },
}

impl Delegation {
    /// Looks at the group that this process is in.
    pub(super) fn look() -> Result<Self, CgroupError> {
        Self::at(&own_group().ok_or(CgroupError::None)?)
    }

    /// As [`look`](Self::look), if this process is in this group.
    pub(super) fn at(own: &Path) -> Result<Self, CgroupError> {
        let forbidden = |source| CgroupError::Forbidden { folder: own.to_owned(), source };
        let read = |file: &str| fs::read_to_string(own.join(file));
        let available = read("cgroup.controllers").map_err(forbidden)?;
        access(own, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| forbidden(error.into()))?;
        let (enabled, processes) =
            (read("cgroup.subtree_control").unwrap_or_default(), read("cgroup.procs").unwrap_or_default());
        let (controllers, is_enabled) = judge(&available, &enabled, &processes, std::process::id())
            .map_err(|others| CgroupError::Shared { folder: own.to_owned(), others })?;
        Ok(Self { own: own.to_owned(), controllers, is_enabled })
    }

    /// Whether groups can bound memory.
    pub(super) fn has_memory(&self) -> bool {
        self.controllers.contains(&"memory")
    }
}

/// Which controllers groups below one can have that has these, and whether they have them already; or how many other
/// processes stand in the way.
fn judge(available: &str, enabled: &str, processes: &str, own: u32) -> Result<(Vec<&'static str>, bool), usize> {
    let has = |list: &str, name: &str| list.split_whitespace().any(|it| it == name);
    let controllers: Vec<_> = CONTROLLERS.into_iter().filter(|name| has(available, name)).collect();
    let is_enabled = controllers.iter().all(|name| has(enabled, name));
    // A process that is out of sight is listed as 0.
    let others = processes.lines().filter(|pid| pid.parse() != Ok(own)).count();
    if is_enabled || others == 0 { Ok((controllers, is_enabled)) } else { Err(others) }
}

/// The group that this process is in; none on a system without them.
pub fn own_group() -> Option<PathBuf> {
    let read = |path| fs::read_to_string(path).ok();
    group_of(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

/// The group that the system's files tell.
fn group_of(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_where_the_system_says() {
        let mounts = "\
30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let table = [
            ("0::/user.slice/worker.service\n", mounts, Some("/sys/fs/cgroup/unified/user.slice/worker.service")),
            ("4:memory:/x\n0::/\n", mounts, Some("/sys/fs/cgroup/unified/")),
            ("4:memory:/x\n", mounts, None),
            ("0::/\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw", None),
            ("", "", None),
        ];
        for (cgroup, mounts, expected) in table {
            assert_eq!(group_of(cgroup, mounts).as_deref(), expected.map(Path::new), "{cgroup}");
        }
    }

    #[test]
    fn nothing_is_enabled_where_other_processes_are() {
        let (all, memory, none) = (vec!["cpu", "memory", "pids"], vec!["memory"], Vec::new());
        let table = [
            // A unit of its own, and one whose groups were used before.
            ("cpu memory pids", "", "7\n", Ok((all.clone(), false))),
            ("cpu memory pids", "cpu", "7\n", Ok((all.clone(), false))),
            ("cpu io memory pids", "memory cpu pids", "", Ok((all.clone(), true))),
            ("memory", "", "7\n", Ok((memory, false))),
            // A shell's session, and the worker beside others of its container.
            ("cpu memory pids", "", "5\n6\n7\n", Err(2)),
            ("cpu memory pids", "memory", "1\n7\n", Err(1)),
            ("cpu memory pids", "", "0\n7\n", Err(1)),
            // Nothing has to be enabled, or can be.
            ("cpu memory pids", "cpu memory pids", "1\n7\n", Ok((all, true))),
            ("io", "", "5\n7\n", Ok((none, true))),
        ];
        for (available, enabled, processes, expected) in table {
            assert_eq!(judge(available, enabled, processes, 7), expected, "{available}; {enabled}; {processes:?}");
        }
    }
}
