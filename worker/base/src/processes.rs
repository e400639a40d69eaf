//! What `/proc` tells of processes: their memory, children, sessions and open files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use protocol::message::Unnamed;
use rustix::param::page_size;

/// What file systems count blocks in.
const BLOCK_BYTES: u64 = 512;

/// Processes below a host that are looked at; an engine has one or two.
const MOST_CHILDREN: usize = 64;

/// Resident memory of one process, in bytes; 0 if it is gone.
pub fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * page_size() as u64
}

/// How long a process's main thread has waited for a processor although it could have gone on, where the system tells.
pub fn waited_for_processor(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    stat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// How many descriptors the worker has open, where the system tells. It does not tell a plain user, from whom the worker
/// keeps what it has in memory, the worker's own user included.
pub(crate) fn open_descriptors() -> Option<u64> {
    let all = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // The folder itself was open, too.
    Some(all.saturating_sub(1))
}

/// Resident memory of a process and of those that it has started, in bytes. Shared pages count once for each.
pub fn resident_tree(root: u32) -> u64 {
    let mut processes = vec![root];
    let mut next = 0;
    while let Some(&pid) = processes.get(next).filter(|_| next < MOST_CHILDREN) {
        processes.extend(children(pid));
        next += 1;
    }
    processes.into_iter().map(resident).sum()
}

/// The files that processes have open and that are in no folder any more. Blocks for as long as the file systems take.
pub fn unnamed_files(processes: &[u32]) -> Unnamed {
    let mut seen = HashSet::new();
    let mut unnamed = Unnamed::default();
    for pid in processes {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let files = open.filter_map(|entry| fs::metadata(entry.path()).ok()).filter(fs::Metadata::is_file);
        for file in files.filter(|file| file.nlink() == 0 && seen.insert((file.dev(), file.ino()))) {
            unnamed.files += 1;
            unnamed.bytes += file.blocks() * BLOCK_BYTES;
        }
    }
    unnamed
}

/// A process's children, as the kernel lists them: by the thread that started them.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| ids(&list)).collect()
}

fn ids(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Children of this process's main thread, which are also those that the system has handed to the process.
pub fn children_of_main_thread() -> Vec<u32> {
    let pid = std::process::id();
    ids(&fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default())
}

/// The session of a process; 0 where its leader is out of sight, as in a container that was entered from outside.
/// `None` if the process is gone.
///
/// Read here because `rustix`'s `getsid` takes 0 for impossible.
pub fn session(pid: u32) -> Option<u32> {
    stat(pid, 3)
}

/// The parent of a process; 0 where it is out of sight. `None` if the process is gone.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid, 1)
}

/// A number that the kernel tells after a process's name, which may have spaces and brackets in it: state, parent,
/// group, session and so on.
fn stat(pid: u32, field: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn open_files_without_a_name_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            fs::write(&path, vec![1; bytes]).unwrap();
            (fs::File::open(&path).unwrap(), path)
        };
        let ((deleted, path), (named, _)) = (open("deleted", 900_000), open("named", 900_000));
        fs::remove_file(path).unwrap();
        let mut command = Command::new("sleep");
        command.arg("600").stdin(deleted.try_clone().unwrap()).stdout(deleted).stderr(named);
        let mut children = [command.spawn().unwrap(), command.spawn().unwrap()];
        let Unnamed { files, bytes } = unnamed_files(&children.each_ref().map(std::process::Child::id));
        assert_eq!(files, 1);
        assert!((900_000..1_000_000).contains(&bytes), "{bytes}");
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(unnamed_files(&[children[0].id()]), Unnamed::default());
    }

    #[test]
    fn a_tree_holds_what_its_processes_hold() {
        let mut child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let own = resident(std::process::id());
        assert!(own > 0);
        assert!(resident_tree(std::process::id()) > own.min(resident(child.id())));
        assert!(children(std::process::id()).contains(&child.id()));
        assert_eq!(session(child.id()), session(std::process::id()));
        assert_eq!(parent(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(resident_tree(child.id()), 0);
        assert_eq!(session(child.id()), None);
        assert_eq!(parent(child.id()), None);
    }
}
