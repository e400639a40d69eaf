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

/// Why there are no groups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The system has none, or not of that version.
    #[error("this system has no cgroup v2 hierarchy")]
    None,
    /// The worker may not make any.
    #[error("the worker may not make groups in {}: {source}", folder.display())]
    Forbidden {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The group that this process is in, as the system's files say.
fn own_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

impl Cgroups {
    /// Groups below the one that this process is in, each with so much memory beyond what the engine may use and so
    /// many processes.
    pub fn find(overhead_bytes: u64, most_processes: Option<u64>) -> Result<Self, CgroupError> {
        let read = |path| fs::read_to_string(path).map_err(|_| CgroupError::None);
        let own = own_group(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?).ok_or(CgroupError::None)?;
        Self::below(&own, overhead_bytes, most_processes)
    }

    /// As [`find`](Self::find), below this group.
    fn below(own: &Path, overhead_bytes: u64, most_processes: Option<u64>) -> Result<Self, CgroupError> {
        let forbidden = |source| CgroupError::Forbidden { folder: own.to_owned(), source };
        sweep(own);
        let controllers = fs::read_to_string(own.join("cgroup.controllers")).map_err(forbidden)?;
        let wanted: Vec<_> = ["memory", "pids"]
            .into_iter()
            .filter(|name| controllers.split_whitespace().any(|has| has == *name))
            .collect();
        let folder = own.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).map_err(forbidden)?;
        let enabled = enable(own, &folder, &wanted);
        if let Err(error) = &enabled {
            debug!("cgroup controllers are not delegated: {error}");
        }
        let has_memory = enabled.is_ok() && wanted.contains(&"memory");
        let most_processes = most_processes.filter(|_| enabled.is_ok() && wanted.contains(&"pids"));
        Ok(Self(Arc::new(Root { folder, overhead_bytes, has_memory, most_processes })))
    }

    /// Whether they bound memory.
    pub fn bound_memory(&self) -> bool {
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
fn enable(own: &Path, hosts: &Path, controllers: &[&str]) -> io::Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let text = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if fs::write(own.join("cgroup.subtree_control"), &text).is_err() {
        let leaf = own.join("worker");
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for pid in fs::read_to_string(own.join("cgroup.procs"))?.lines() {
            fs::write(leaf.join("cgroup.procs"), pid)?;
        }
        fs::write(own.join("cgroup.subtree_control"), &text)?;
    }
    fs::write(hosts.join("cgroup.subtree_control"), &text)
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

    /// Whether the system has killed in it for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|text| text.parse().ok());
        kills.unwrap_or(0_u64) > 0
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
            assert_eq!(own_group(cgroup, mounts).as_deref(), expected.map(Path::new), "{cgroup}");
        }
    }

    /// A folder that looks like a group with these controllers.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "1\n2\n").unwrap();
        folder
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
        let cgroups = Cgroups::below(own.path(), 1_000, None).unwrap();
        assert!(cgroups.bound_memory());
        assert_eq!(fs::read_to_string(own.path().join("cgroup.subtree_control")).unwrap(), "+memory +pids");
        let files =
            ["memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs", "cgroup.kill", "memory.events"];
        let group = make(&cgroups, &files);
        group.enter(4_711).unwrap();
        group.bound(500);
        group.kill();
        let read = |file| fs::read_to_string(group.folder.join(file)).unwrap();
        assert_eq!(files.map(read), ["1500", "0", "1", "4711", "1", ""]);
        assert!(!group.ran_out_of_memory());
        fs::write(group.folder.join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert!(group.ran_out_of_memory());
    }

    #[test]
    fn without_the_controller_memory_is_not_bounded_but_processes_are_still_killed() {
        let own = fake("hugetlb");
        let cgroups = Cgroups::below(own.path(), 1_000, Some(7)).unwrap();
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
        Cgroups::below(own.path(), 0, None).unwrap();
        assert!(!dead.exists() && other.exists());
    }

    #[test]
    fn where_no_group_can_be_made_the_reason_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = Cgroups::below(folder.path(), 0, None).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}
