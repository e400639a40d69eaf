//! What the host forbids itself and all that it starts, before anything else of it runs.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use protocol::confinement::Confinement;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::links;

/// The files that this was written for. On older kernels less is forbidden.
const KERNEL: ABI = ABI::V5;

/// How much longer a file may be than all files of a run together, so that one that is too long is seen to be.
const BEYOND_BYTES: u64 = 64 * 1024;

/// Devices that may be written to. In `/dev/shm` there are files, which fill memory and belong to others.
const DEVICES: &[&str] =
    &["/dev/full", "/dev/null", "/dev/ptmx", "/dev/pts", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// Where programs, libraries, settings and devices lie.
const SYSTEM: &[&str] = &[
    "/bin",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/proc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/ca-certificates",
    "/nix/store",
];

/// Why the host is not confined as the worker wants.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A limit cannot be set.
    #[error("cannot limit {what} to {limit}: {source}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// To how many.
        limit: u64,
        /// Why.
        source: rustix::io::Errno,
    },
    /// The kernel has Landlock, and did not take the rules.
    #[error("cannot restrict which files are used: {0}")]
    Files(#[from] RulesetError),
}

/// Confines this thread and all that it starts from now on; `folder` may be written to. To be called while there is
/// one thread.
pub fn confine(confinement: &Confinement, folder: &Path) -> Result<(), ConfineError> {
    if let Some(limit) = confinement.open_files {
        lower(Resource::Nofile, "open files", limit)?;
    }
    if let Some(limit) = confinement.processes {
        lower(Resource::Nproc, "processes", limit.saturating_add(threads_of_this_user().max(threads_of_this_unit())))?;
    }
    if let Some(limit) = confinement.scratch_bytes {
        lower(Resource::Fsize, "bytes of a file", limit.saturating_add(BEYOND_BYTES))?;
    }
    if let Some(readable) = &confinement.readable {
        rules(confinement, readable, folder)?.restrict_self()?;
    }
    Ok(())
}

/// Rules for an engine that is forked elsewhere: what this confinement lets it read, the folder `files` that it may write
/// to, and the file `report` that its end is told in, which is there. None where the kernel has no such rules, or none are
/// wanted.
pub fn rules_of_forks(confinement: &Confinement, files: &Path, report: &Path) -> Result<Option<OwnedFd>, RulesetError> {
    let Some(readable) = &confinement.readable else { return Ok(None) };
    let rules = rules(confinement, readable, files)?;
    Ok(allow(rules, report, AccessFs::WriteFile | AccessFs::Truncate)?.into())
}

/// Lowers a limit, which is never raised.
fn lower(resource: Resource, what: &'static str, limit: u64) -> Result<(), ConfineError> {
    let most = getrlimit(resource).maximum.map_or(limit, |most| most.min(limit));
    let limits = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, limits).map_err(|source| ConfineError::Limit { what, limit, source })
}

/// The system counts all threads of a user against the limit of each. Those of other hosts may be out of sight
/// (`ProtectProc=invisible`), but are counted in the unit that all of them are in.
fn threads_of_this_unit() -> u64 {
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let count = unit_of(&group).and_then(|unit| {
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(unit).join("pids.current")).ok()?.trim().parse().ok()
    });
    count.unwrap_or(0)
}

/// The group of systemd's unit that a process is in, relative to where groups are.
fn unit_of(cgroup: &str) -> Option<&Path> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_unit = |group: &&Path| group.extension().is_some_and(|kind| kind == "service" || kind == "scope");
    Path::new(path).ancestors().find(is_unit)
}

/// The threads of this user that can be seen.
fn threads_of_this_user() -> u64 {
    let own = rustix::process::getuid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = processes.filter_map(|process| {
        let status = std::fs::read_to_string(process.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next();
        let user: u32 = field("Uid:")?.parse().ok()?;
        if user == own { field("Threads:")?.parse::<u64>().ok() } else { None }
    });
    threads.sum()
}

/// What the links of the packages in a folder lead to outside of the folder's own surroundings.
fn linked(packages: &Path) -> BTreeSet<PathBuf> {
    let real = packages.canonicalize().unwrap_or_else(|_| packages.to_owned());
    let root = real.parent().unwrap_or(&real);
    let folders = std::fs::read_dir(&real).into_iter().flatten().flatten();
    let found = folders.flat_map(|entry| links::targets(&entry.path()));
    found.filter(|path| !path.starts_with(root)).collect()
}

fn rules(confinement: &Confinement, readable: &[PathBuf], folder: &Path) -> Result<RulesetCreated, RulesetError> {
    let linked: BTreeSet<PathBuf> = confinement.packages.iter().flat_map(|folder| linked(folder)).collect();
    let all = AccessFs::from_all(KERNEL);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    let ruleset = ruleset.scope(Scope::Signal)?.create()?;
    let system = SYSTEM.iter().map(Path::new);
    let ruleset = system
        .chain(readable.iter().chain(&linked).map(PathBuf::as_path))
        .try_fold(ruleset, |ruleset, path| allow(ruleset, path, AccessFs::from_read(KERNEL)))?;
    let ruleset = allow(ruleset, Path::new("/dev"), AccessFs::from_read(KERNEL) | AccessFs::IoctlDev)?;
    let ruleset = DEVICES.iter().try_fold(ruleset, |ruleset, path| allow(ruleset, Path::new(path), device))?;
    allow(ruleset, folder, all)
}

/// What is not there needs no rule.
fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(file) => ruleset.add_rule(PathBeneath::new(file, access)),
        Err(_) => Ok(ruleset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_forbidden_to_the_thread_and_its_children() {
        let (inside, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").expect("nothing is forbidden yet");
        let folder = inside.path().to_owned();
        // Another thread, because this cannot be taken back.
        let thread = std::thread::spawn(move || {
            let confinement = Confinement { readable: Some(Vec::new()), ..Confinement::default() };
            confine(&confinement, &folder).expect("the kernel takes the rules, or has none");
            let read = std::fs::read_to_string(&secret).is_ok();
            let child = std::process::Command::new("cat").arg(&secret).output().expect("programs can be started");
            let written = std::fs::write(folder.join("file"), "text").is_ok();
            let elsewhere = std::fs::write(secret.with_file_name("other"), "text").is_ok();
            (read, child.status.success(), written, elsewhere)
        });
        let seen = thread.join().expect("nothing panics");
        if kernel_has_landlock() {
            assert_eq!(seen, (false, false, true, false));
        } else {
            assert!(seen.2);
        }
    }

    fn kernel_has_landlock() -> bool {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
    }

    #[test]
    fn this_user_has_threads() {
        assert!(threads_of_this_user() >= 1);
    }

    #[test]
    fn a_units_group_is_found_from_those_below() {
        let table = [
            ("0::/system.slice/w.service/openfn-worker-7/h1\n", Some("system.slice/w.service")),
            ("1:pids:/x\n0::/system.slice/w.service\n", Some("system.slice/w.service")),
            ("0::/user.slice/user-1.slice/session-2.scope\n", Some("user.slice/user-1.slice/session-2.scope")),
            ("0::/\n", None),
            ("1:pids:/w.service\n", None),
            ("", None),
        ];
        for (cgroup, expected) in table {
            assert_eq!(unit_of(cgroup), expected.map(Path::new), "{cgroup}");
        }
    }
}
