//! Whether a process descends from this one, also where the system shows no processes but the own ones: systemd's
//! `ProtectProc=invisible`, with which hosts are as much out of sight as what others started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::processes::parent;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use hosts::own_group;

/// Where a process that is out of sight was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Not by this one, nor by one that was.
    Elsewhere,
    /// That cannot be told.
    Unknown,
}

/// Whether a process was started by this one, or by one that was, and so on. So is one of which that cannot be told.
/// On a system that never tells, none is.
pub(crate) fn descends_from_this(pid: u32) -> bool {
    let own = std::process::id();
    parent(own).is_some() && descends(pid, own, parent, origin)
}

fn descends(pid: u32, own: u32, parent: impl Fn(u32) -> Option<u32>, origin: impl Fn(u32) -> Origin) -> bool {
    if pid == own {
        return false;
    }
    let mut at = pid;
    // The first process has no parent, nor has in this name space what came from another one.
    while at != 0 && at != own {
        match parent(at) {
            None => return origin(at) == Origin::Unknown,
            Some(ancestor) => at = ancestor,
        }
    }
    at == own
}

/// Where a process that is out of sight was started, by the control groups that there are: what this process has started
/// is in one that it cannot leave.
fn origin(pid: u32) -> Origin {
    let may_write = |group: &Path| access(group.join("cgroup.procs"), Access::WRITE_OK).is_ok();
    let Some(bound) = own_group().map(|own| bound(&own, may_write)) else { return Origin::Unknown };
    if holds(&bound, pid).unwrap_or(true) {
        return Origin::Unknown;
    }
    // A process that has ended is in no group. Until it is buried it is in sight, and afterwards there is none.
    let is_alive = parent(pid).is_none() && Pid::from_raw(pid.cast_signed()).is_some_and(is_there);
    if is_alive { Origin::Elsewhere } else { Origin::Unknown }
}

/// Whether there is such a process, this user's or not.
fn is_there(pid: Pid) -> bool {
    matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM))
}

/// The group that nothing can leave which a process in `own` starts: the highest one whose processes the user may choose.
/// To move a process out of a group one has to be allowed that in a group above it.
fn bound(own: &Path, may_write: impl Fn(&Path) -> bool) -> PathBuf {
    own.ancestors().filter(|group| may_write(group)).last().unwrap_or(own).to_owned()
}

/// Whether a process is in a group or in one below it.
fn holds(group: &Path, pid: u32) -> io::Result<bool> {
    let mut groups = vec![group.to_owned()];
    while let Some(group) = groups.pop() {
        let read = || {
            let processes = fs::read_to_string(group.join("cgroup.procs"))?;
            let below = fs::read_dir(&group)?.collect::<io::Result<Vec<_>>>()?;
            Ok::<_, io::Error>((processes, below))
        };
        let (processes, below) = match read() {
            // It was removed meanwhile, as are those of hosts that have ended.
            Err(error) if is_gone(&error) => continue,
            read => read?,
        };
        if processes.lines().any(|line| line.parse() == Ok(pid)) {
            return Ok(true);
        }
        groups.extend(below.iter().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(fs::DirEntry::path));
    }
    Ok(false)
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NODEV].iter().any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_has_started_descends_from_it() {
        let mut child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        assert!(descends_from_this(child.id()));
        let own = std::process::id();
        for other in [own, parent(own).unwrap(), 1, 0] {
            assert!(!descends_from_this(other), "{other}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(descends_from_this(child.id()), "nobody can tell that it was another's");
    }

    #[test]
    fn of_processes_out_of_sight_those_that_are_known_to_be_of_others_do_not_descend() {
        const OWN: u32 = 10;
        // 10 has started 20, that 30. 40's parent is 41, which is out of sight, as are 50 and 60.
        let parent = |pid| match pid {
            10 => Some(1),
            20 => Some(10),
            30 => Some(20),
            40 => Some(41),
            1 => Some(0),
            _ => None,
        };
        let elsewhere = |pid| if matches!(pid, 41 | 50) { Origin::Elsewhere } else { Origin::Unknown };
        let table = [(0, false), (1, false), (10, false), (20, true), (30, true), (40, false), (50, false), (60, true)];
        for (pid, expected) in table {
            assert_eq!(descends(pid, OWN, parent, elsewhere), expected, "{pid}");
        }
        assert!(descends(40, OWN, parent, |_| Origin::Unknown));
    }

    #[test]
    fn a_group_is_left_only_by_who_may_write_above_it() {
        let own = Path::new("/sys/fs/cgroup/system.slice/w.service/worker");
        let unit = Path::new("/sys/fs/cgroup/system.slice/w.service");
        let slice = Path::new("/sys/fs/cgroup/system.slice");
        let table: [(&[&Path], &Path); 5] = [
            // As systemd delegates it; nothing delegated; delegated, and moved by somebody else into what is not.
            (&[own, unit], unit),
            (&[], own),
            (&[unit], unit),
            // A manager of the user's, and root.
            (&[own, slice], slice),
            (&[own, unit, slice], slice),
        ];
        for (writable, expected) in table {
            assert_eq!(bound(own, |group| writable.contains(&group)), expected, "{writable:?}");
        }
    }

    #[test]
    fn a_process_is_found_in_whichever_group_below() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, processes: &str| {
            let folder = root.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cgroup.procs"), processes).unwrap();
        };
        group("", "");
        group("worker", "7\n");
        group("hosts", "");
        group("hosts/h1", "8\n9\n");
        for (pid, expected) in [(7, true), (9, true), (99, false)] {
            assert_eq!(holds(root.path(), pid).unwrap(), expected, "{pid}");
        }
        fs::create_dir(root.path().join("gone")).unwrap();
        assert!(!holds(root.path(), 99).unwrap(), "one that was removed holds nothing");
        // What cannot be read may hold anything.
        fs::create_dir_all(root.path().join("odd/cgroup.procs")).unwrap();
        assert!(holds(root.path(), 99).is_err());
    }
}
