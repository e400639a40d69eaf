//! How much a run has written: looked at from outside while it is under way, because no kernel counts it for a process.
//!
//! Counted is what is in the run's folder, and files that are in none any more but still open in one of its processes. Those
//! of an engine that was forked only its parent sees: the engine is in a Landlock domain that is not below the host's.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use protocol::message::Unnamed;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, openat, statat};
use rustix::io::Errno;
use rustix::process::Pid;
use tokio::runtime::Handle;

use super::template::Parent;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// A look may take this part of the time.
const SHARE: u32 = 10;

/// For so many bytes of its quota a run may have a file, a folder or the like: a file system has only so many.
const BYTES_A_FILE: u64 = 10 * 1024;

/// Folders in folders that are looked into. What is deeper counts as too much: no program needs that.
const MOST_DEPTH: usize = 256;

/// What file systems count blocks in.
const BLOCK_BYTES: u64 = 512;

/// Watches what is written, and kills what writes too much. Ends when dropped.
#[derive(Debug)]
pub(super) struct Quota {
    folder: PathBuf,
    open: OpenFiles,
    limit_bytes: u64,
    is_exceeded: Arc<AtomicBool>,
    /// Never used: the watch ends when it is dropped.
    _end: Sender<()>,
}

impl Quota {
    /// Watches `folder` and open files. This process's descendants are killed when it is too much. To be called within a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// If this process gets no thread for it. One of its own, which it has before users' code could take all that there
    /// are.
    pub(super) fn watch(folder: &Path, open: OpenFiles, limit_bytes: u64) -> io::Result<Self> {
        let is_exceeded = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let (watched, seen) = ((folder.to_owned(), open.clone(), Handle::current()), Arc::clone(&is_exceeded));
        thread::Builder::new().name("quota".to_owned()).spawn(move || {
            let (folder, open, runtime) = watched;
            let is_over = || is_over(&folder, &runtime.block_on(open.look()), limit_bytes);
            if wait_until(is_over, &ended) {
                seen.store(true, Ordering::Release);
                hosting::process::kill_descent();
            }
        })?;
        Ok(Self { folder: folder.to_owned(), open, limit_bytes, is_exceeded, _end: end })
    }

    /// Looks once more, at the end of a job: what was exceeded, in bytes, if it was.
    pub(super) async fn look(&self) -> Option<u64> {
        let is_over = self.exceeded().is_some() || is_over(&self.folder, &self.open.look().await, self.limit_bytes);
        is_over.then_some(self.limit_bytes)
    }

    /// What was exceeded, in bytes, if it was.
    pub(super) fn exceeded(&self) -> Option<u64> {
        self.is_exceeded.load(Ordering::Acquire).then_some(self.limit_bytes)
    }

    /// What a run may write, in bytes.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }
}

/// Who sees what an engine has open.
#[derive(Debug, Clone)]
pub(super) enum OpenFiles {
    /// This process: the engine is among its descendants.
    OfDescent,
    /// The parent of an engine that was forked for this process.
    OfParent(Arc<dyn Parent>),
}

/// What is looked at for open files.
enum Open {
    Processes(Vec<Pid>),
    Counted(Unnamed),
}

impl OpenFiles {
    async fn look(&self) -> Open {
        match self {
            Self::OfDescent => Open::Processes(hosting::process::descent()),
            // A parent that does not answer now is asked again soon, or is gone, with which everything ends.
            Self::OfParent(parent) => Open::Counted(parent.count_unnamed().await.unwrap_or_default()),
        }
    }
}

/// Looks again and again, until it is too much (true) or nobody watches any more.
fn wait_until(is_over: impl Fn() -> bool, ended: &Receiver<()>) -> bool {
    let mut pause = INTERVAL;
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        if is_over() {
            return true;
        }
        pause = INTERVAL + begun.elapsed() * SHARE;
    }
    false
}

fn is_over(folder: &Path, open: &Open, limit_bytes: u64) -> bool {
    let mut usage = Usage { bytes: limit_bytes, files: limit_bytes / BYTES_A_FILE, linked: HashSet::new() };
    let counted = walk(folder, &mut |_, _, stat| usage.count(stat));
    let counted = counted.and_then(|()| match open {
        Open::Processes(processes) => processes.iter().try_for_each(|process| usage.count_deleted(*process)),
        Open::Counted(Unnamed { files, bytes }) => usage.take(*files, *bytes),
    });
    counted.is_err()
}

/// It is too much, or nobody can tell how much.
#[derive(Debug)]
struct Over;

/// What is left of a quota.
struct Usage {
    bytes: u64,
    files: u64,
    /// Files of several names that were counted, by device and number.
    linked: HashSet<(u64, u64)>,
}

impl Usage {
    fn take(&mut self, files: u64, bytes: u64) -> Result<(), Over> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Over)?;
        self.files = self.files.checked_sub(files).ok_or(Over)?;
        Ok(())
    }

    fn count(&mut self, stat: &Stat) -> Result<(), Over> {
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_folder && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.take(1, u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES)
    }

    /// Counts what a process has open that has no name.
    fn count_deleted(&mut self, process: Pid) -> Result<(), Over> {
        let open = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).into_iter().flatten().flatten();
        let files = open.filter_map(|entry| fs::metadata(entry.path()).ok()).filter(fs::Metadata::is_file);
        for file in files.filter(|file| file.nlink() == 0) {
            if self.linked.insert((file.dev(), file.ino())) {
                self.take(1, file.blocks() * BLOCK_BYTES)?;
            }
        }
        Ok(())
    }
}

/// Removes a folder and all that is in it, also what its owner made inaccessible.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder).or_else(|_| {
        // How far it came shows when the folder is removed.
        let _ = walk(folder, &mut |parent, name, stat| {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let _ = open_up(parent, name);
            }
            Ok(())
        });
        fs::remove_dir_all(folder)
    })
}

fn open_up(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Errno> {
    chmodat(parent, name, Mode::RWXU, AtFlags::empty())
}

/// What is done with an entry: the folder that it is in, its name, and what it is.
type Visit<'a> = dyn FnMut(&OwnedFd, &std::ffi::CStr, &Stat) -> Result<(), Over> + 'a;

/// Visits all that is in a folder, each thing before what is in it. Step by step from the folder, because a path could be
/// too long for the system.
fn walk(folder: &Path, visit: &mut Visit<'_>) -> Result<(), Over> {
    match openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(folder) => walk_in(&folder, MOST_DEPTH, visit),
        Err(Errno::NOENT) => Ok(()),
        Err(_) => Err(Over),
    }
}

fn walk_in(folder: &OwnedFd, depth: usize, visit: &mut Visit<'_>) -> Result<(), Over> {
    let depth = depth.checked_sub(1).ok_or(Over)?;
    for entry in Dir::read_from(folder).map_err(|_| Over)? {
        // Whatever vanishes meanwhile counts no more.
        let Ok(entry) = entry else { return Ok(()) };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        visit(folder, name, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match enter(folder, name) {
                Ok(inner) => walk_in(&inner, depth, visit)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => return Err(Over),
            }
        }
    }
    Ok(())
}

/// Opens a folder, also one whose owner took the right to do so from itself.
fn enter(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty())
    };
    match open() {
        Err(Errno::ACCESS) => open_up(parent, name).and_then(|()| open()),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KB: u64 = 1024;
    const LIMIT: u64 = 1000 * KB;
    const NONE: Open = Open::Processes(Vec::new());

    fn filled(fill: impl FnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        is_over(folder.path(), &NONE, LIMIT)
    }

    fn write(path: &Path, bytes: u64) {
        fs::write(path, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    }

    #[test]
    fn all_that_is_in_the_folder_counts_once() {
        for (what, expected, fill) in [
            ("nothing", false, (|_| {}) as fn(&Path)),
            ("a file within the limit", false, |folder| write(&folder.join("a"), 900 * KB)),
            ("a file beyond it", true, |folder| write(&folder.join("a"), 1100 * KB)),
            ("several", true, |folder| (0..3).for_each(|number| write(&folder.join(number.to_string()), 400 * KB))),
            ("one of several names", false, |folder| {
                write(&folder.join("a"), 900 * KB);
                (0..9).for_each(|number| fs::hard_link(folder.join("a"), folder.join(number.to_string())).unwrap());
            }),
            ("one that is long and has nothing in it", false, |folder| {
                fs::File::create(folder.join("a")).unwrap().set_len(1 << 40).unwrap();
            }),
            ("empty ones", true, |folder| (0..101).for_each(|number| write(&folder.join(number.to_string()), 0))),
            ("one below", true, |folder| {
                fs::create_dir_all(folder.join("a/b/c")).unwrap();
                write(&folder.join("a/b/c/d"), 1100 * KB);
            }),
            ("one elsewhere that is linked to", false, |folder| {
                std::os::unix::fs::symlink("/usr", folder.join("a")).unwrap();
            }),
            ("one in a folder that is closed", true, |folder| {
                fs::create_dir(folder.join("a")).unwrap();
                write(&folder.join("a/b"), 1100 * KB);
                fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o0)).unwrap();
            }),
        ] {
            assert_eq!(filled(fill), expected, "{what}");
        }
    }

    #[test]
    fn folders_beyond_the_longest_path_count() {
        let folder = tempfile::tempdir().unwrap();
        let name = "n".repeat(100);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = openat(CWD, folder.path(), flags, Mode::empty()).unwrap();
        for _ in 0..50 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        assert!(!is_over(folder.path(), &NONE, LIMIT));
        let file = openat(&at, "f", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
        fs::File::from(file).write_all(&vec![1; 1100 * KB as usize]).unwrap();
        assert!(is_over(folder.path(), &NONE, LIMIT));
        remove(folder.path()).unwrap();
    }

    #[test]
    fn open_files_without_a_name_count() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("deleted");
        write(&name, 1100 * KB);
        let file = fs::File::open(&name).unwrap();
        fs::remove_file(&name).unwrap();
        let mut child = std::process::Command::new("sleep").arg("90").stdin(file).spawn().unwrap();
        assert!(!is_over(folder.path(), &NONE, LIMIT));
        assert!(is_over(folder.path(), &Open::Processes(vec![Pid::from_child(&child)]), LIMIT));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_a_parent_counts_is_added() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a"), 500 * KB);
        for (files, bytes, expected) in [(1, 400 * KB, false), (1, 600 * KB, true), (90, 0, false), (100, 0, true)] {
            assert_eq!(
                is_over(folder.path(), &Open::Counted(Unnamed { files, bytes }), LIMIT),
                expected,
                "{files} {bytes}"
            );
        }
    }

    #[test]
    fn closed_folders_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("a");
        fs::create_dir_all(closed.join("b")).unwrap();
        write(&closed.join("b/c"), 1);
        for path in [closed.join("b"), closed.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove(&closed).unwrap();
        assert!(!closed.exists());
    }
}
