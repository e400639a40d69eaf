//! Control groups (version 2): a group for each host, where the worker may make some.
//!
//! A group bounds the memory and the number of a host's processes, ends them all at once whatever they did to hide, and
//! is evidence of why they were killed. Everything here goes through files, so that it can be tried on a folder that
//! only looks like one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::debug;

use super::death::OomCounts;
use super::delegation::{CgroupError, Delegation};

/// Where hosts' groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups(Arc<Root>);

#[derive(Debug, PartialEq, Eq)]
struct Root {
    folder: PathBuf,
    overhead_bytes: u64,
    has_memory: bool,
    most_processes: Option<u64>,
}

impl Cgroups {
    /// Groups below the one that this process is in, each with so much memory beyond what the engine may use and so
    /// many processes. This process may move into a group of its own for that.
    pub(super) fn make_below(
        delegation: &Delegation,
        overhead_bytes: u64,
        most_processes: Option<u64>,
    ) -> Result<Self, CgroupError> {
        let Delegation { own, controllers, .. } = delegation;
        let forbidden = |source| CgroupError::Forbidden { folder: own.to_owned(), source };
        sweep(own);
        let folder = own.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).map_err(forbidden)?;
        let enabled = enable(delegation, &folder);
        if let Err(error) = &enabled {
            debug!("cgroup controllers are not delegated: {error}");
        }
        let has_memory = enabled.is_ok() && delegation.has_memory();
        let most_processes = most_processes.filter(|_| enabled.is_ok() && controllers.contains(&"pids"));
        Ok(Self(Arc::new(Root { folder, overhead_bytes, has_memory, most_processes })))
    }

    /// Whether they bound memory.
    pub(super) fn bound_memory(&self) -> bool {
        self.0.has_memory
    }

    /// The group of a new host.
    pub(super) fn make(&self, host_id: &str) -> io::Result<Group> {
        let folder = self.0.folder.join(host_id);
        fs::create_dir(&folder)?;
        let group = Group { folder, root: self.clone() };
        if let Some(most) = self.0.most_processes {
            group.write("pids.max", &most.to_string())?;
        }
        Ok(group)
    }
}

/// What names of the worker's own groups begin with.
const PREFIX: &str = "openfn-worker-";

impl Drop for Root {
    fn drop(&mut self) {
        // Fails when a host's group could not be removed; a later worker sweeps it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Has the system count for groups below `hosts`. A group that does cannot have processes itself, so this one moves.
fn enable(delegation: &Delegation, hosts: &Path) -> io::Result<()> {
    let Delegation { own, controllers, is_enabled } = delegation;
    if controllers.is_empty() {
        return Ok(());
    }
    let text = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let enable_in = |group: &Path| fs::write(group.join("cgroup.subtree_control"), &text);
    if !is_enabled && enable_in(own).is_err() {
        let move_to = |group: &Path| fs::write(group.join("cgroup.procs"), std::process::id().to_string());
        let leaf = own.join("worker");
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        move_to(&leaf)?;
        if let Err(error) = enable_in(own) {
            // Somebody came meanwhile, or the controllers are not for groups here. All is as before, if that can be.
            let _ = move_to(own).and_then(|()| fs::remove_dir(&leaf));
            return Err(error);
        }
    }
    enable_in(hosts)
}

/// Removes the groups of workers that died.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                // Files are no groups, and groups with processes stay.
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The group of one host. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    /// Keeps the folder that it lies in.
    root: Cgroups,
}

impl Group {
    /// Takes a process in, and from then on all that it starts.
    pub(super) fn enter(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Bounds the memory of all its processes for an engine that may use so much.
    pub(super) fn bound(&self, engine_bytes: u64) {
        let root = &self.root.0;
        if !root.has_memory {
            return;
        }
        let most = engine_bytes.saturating_add(root.overhead_bytes).to_string();
        for (file, text) in [("memory.max", most.as_str()), ("memory.swap.max", "0"), ("memory.oom.group", "1")] {
            if let Err(error) = self.write(file, text) {
                // There may be no swap to bound.
                debug!("cannot set {file} of {}: {error}", self.folder.display());
            }
        }
    }

    /// Kills all its processes at once.
    pub(super) fn kill(&self) {
        // Before Linux 5.14 there is no such file, and the process group has to do.
        let _ = self.write("cgroup.kill", "1");
    }

    /// What the system has counted in it for want of memory.
    pub(super) fn oom_counts(&self) -> OomCounts {
        OomCounts::parse(&fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // Never creates a file: where there is none, the system cannot do it.
        let mut options = fs::OpenOptions::new();
        io::Write::write_all(&mut options.write(true).open(self.folder.join(file))?, text.as_bytes())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        // Processes that were killed are in it until they are gone.
        let folder = self.folder.clone();
        let root = self.root.clone();
        let remove = move || {
            for _ in 0..100 {
                match fs::remove_dir(&folder) {
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
            drop(root);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a group with these controllers.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(folder.path().join("cgroup.procs"), std::process::id().to_string()).unwrap();
        folder
    }

    fn below(own: &Path, most_processes: Option<u64>) -> Result<Cgroups, CgroupError> {
        Cgroups::make_below(&Delegation::at(own)?, 1_000, most_processes)
    }

    fn make(cgroups: &Cgroups, files: &[&str]) -> Group {
        let group = cgroups.make("h1").unwrap();
        for file in files {
            fs::write(group.folder.join(file), "").unwrap();
        }
        group
    }

    #[test]
    fn a_hosts_group_gets_its_limits() {
        let own = fake("cpu memory pids");
        let cgroups = below(own.path(), None).unwrap();
        assert!(cgroups.bound_memory());
        assert_eq!(fs::read_to_string(own.path().join("cgroup.subtree_control")).unwrap(), "+cpu +memory +pids");
        let files =
            ["memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs", "cgroup.kill", "memory.events"];
        let group = make(&cgroups, &files);
        group.enter(4_711).unwrap();
        group.bound(500);
        group.kill();
        let read = |file| fs::read_to_string(group.folder.join(file)).unwrap();
        assert_eq!(files.map(read), ["1500", "0", "1", "4711", "1", ""]);
        assert_eq!(group.oom_counts(), OomCounts::default());
        fs::write(group.folder.join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert_eq!(group.oom_counts(), OomCounts { limit_hits: 1, kills: 2 });
    }

    /// All that there is, with what is in it.
    fn tree(folder: &Path) -> Vec<(PathBuf, Option<String>)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let below = |path: PathBuf| if path.is_dir() { tree(&path) } else { Vec::new() };
        let mut all: Vec<_> = entries
            .flat_map(|path| [vec![(path.clone(), fs::read_to_string(&path).ok())], below(path)].concat())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_look_changes_nothing_and_a_group_with_others_is_left_alone() {
        let own = fake("memory pids");
        let before = tree(own.path());
        assert!(Delegation::at(own.path()).unwrap().has_memory());
        assert_eq!(tree(own.path()), before);

        fs::write(own.path().join("cgroup.procs"), format!("1\n{}\n2\n", std::process::id())).unwrap();
        let before = tree(own.path());
        let error = below(own.path(), None).unwrap_err();
        assert!(error.to_string().contains("2 other processes"), "{error}");
        assert_eq!(tree(own.path()), before);
    }

    #[test]
    fn the_worker_moves_itself_and_back_when_that_did_not_help() {
        let own = fake("memory pids");
        // Nothing can be enabled here, as in a group whose processes it cannot move.
        fs::create_dir(own.path().join("cgroup.subtree_control")).unwrap();
        fs::create_dir(own.path().join("worker")).unwrap();
        assert!(!below(own.path(), None).unwrap().bound_memory());
        let id = std::process::id().to_string();
        for moved in ["worker/cgroup.procs", "cgroup.procs"] {
            assert_eq!(fs::read_to_string(own.path().join(moved)).unwrap(), id, "{moved}");
        }
    }

    #[test]
    fn without_the_controller_memory_is_not_bounded_but_processes_are_still_killed() {
        let own = fake("hugetlb");
        let cgroups = below(own.path(), Some(7)).unwrap();
        assert!(!cgroups.bound_memory());
        let group = make(&cgroups, &["memory.max", "pids.max", "cgroup.kill"]);
        group.bound(500);
        group.kill();
        let read = |file| fs::read_to_string(group.folder.join(file)).unwrap();
        assert_eq!(["memory.max", "pids.max", "cgroup.kill"].map(read), ["", "", "1"]);
    }

    #[test]
    fn what_a_dead_worker_left_is_removed() {
        let own = fake("");
        let dead = own.path().join(format!("{PREFIX}4194399"));
        fs::create_dir_all(dead.join("h1")).unwrap();
        let other = own.path().join("openfn-worker-of-somebody");
        fs::create_dir(&other).unwrap();
        below(own.path(), None).unwrap();
        assert!(!dead.exists() && other.exists());
    }

    #[test]
    fn where_no_group_can_be_made_the_reason_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = below(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}
