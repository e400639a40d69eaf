//! Locks between all processes that share a repo, also on different machines.
//!
//! The kernel's own file locks are used where the file system has them: they vanish with the process. Elsewhere
//! processes take [`Turn`]s.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::files;
use super::process_id::ProcessId;

/// How often it is looked whether a lock is free.
const POLL: Duration = Duration::from_millis(100);
/// How often the holder of a turn shows that it lives.
const BEAT: Duration = Duration::from_secs(10);
/// How long the holder of a turn on another machine may be silent before it counts as dead.
const SILENCE: Duration = Duration::from_secs(60);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) enum Lock {
    /// Nobody else is to be locked out.
    Unlocked,
    /// The kernel's.
    Kernel { _file: File },
    /// A turn.
    Turn { _turn: Turn },
}

impl Lock {
    /// Waits for the lock at `path`, after telling `on_wait` if somebody else has it.
    pub(super) async fn acquire(path: &Path, on_wait: impl FnOnce()) -> io::Result<Self> {
        let mut on_wait = Some(on_wait);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self::Kernel { _file: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if is_unknown(&error) => break,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            on_wait.take().into_iter().for_each(|tell| tell());
            tokio::time::sleep(POLL).await;
        }
        let turns = path.with_added_extension("turns");
        loop {
            if let Some(turn) = Turn::take(&turns)? {
                return Ok(Self::Turn { _turn: turn });
            }
            on_wait.take().into_iter().for_each(|tell| tell());
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether the file system knows no locks: `EOPNOTSUPP`, `ENOSYS`, `ENOLCK` or `EINVAL`.
fn is_unknown(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK, Errno::INVAL];
    error.kind() == io::ErrorKind::Unsupported
        || codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// A lock made of files with ascending numbers in a folder: who holds the highest one has the lock.
///
/// The next number may be taken when the highest is free or its holder is dead. Making a file that does not exist yet
/// is what any file system lets only one do. The highest file is never removed, so that no number comes twice; it is
/// marked as free instead.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    beats: JoinHandle<()>,
}

const FREE: &str = "free";

impl Turn {
    /// Takes the next turn in `folder`. None if somebody else has it.
    fn take(folder: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let highest = highest(folder)?;
        if let Some(number) = highest
            && !is_over(&folder.join(number.to_string()))?
        {
            return Ok(None);
        }
        let own = highest.map_or(0, |number| number + 1);
        let path = folder.join(own.to_string());
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => write!(file, "{}", ProcessId::own())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        }
        // Somebody who saw the same number as highest may have been quicker, and their turn over since.
        if self::highest(folder)? != Some(own) {
            // They may have removed it.
            let _ = fs::remove_file(&path);
            return Ok(None);
        }
        for number in numbers(folder)?.into_iter().filter(|number| *number < own) {
            // Another one does it, too.
            let _ = fs::remove_file(folder.join(number.to_string()));
        }
        let beats = tokio::spawn(beat(path.clone()));
        Ok(Some(Self { path, beats }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.beats.abort();
        // Else it is free as soon as this process is dead.
        let _ = fs::write(&self.path, FREE);
    }
}

async fn beat(path: PathBuf) {
    loop {
        tokio::time::sleep(BEAT).await;
        // One that is missed does no harm.
        let _ = fs::write(&path, ProcessId::own().to_string());
    }
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn highest(folder: &Path) -> io::Result<Option<u64>> {
    Ok(numbers(folder)?.into_iter().max())
}

/// Whether the turn at `path` is free, or its holder dead.
fn is_over(path: &Path) -> io::Result<bool> {
    let content = match fs::read_to_string(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match content.parse::<ProcessId>() {
        Ok(holder) if holder.is_dead() => Ok(true),
        // Being written, or the holder is elsewhere and may be alive.
        _ => Ok(content == FREE || silence(path)? > SILENCE),
    }
}

/// How long ago the file was written, by the file system's own clock.
fn silence(path: &Path) -> io::Result<Duration> {
    let probe = files::unfinished_name(path);
    fs::write(&probe, "")?;
    let now = fs::metadata(&probe).and_then(|metadata| metadata.modified());
    fs::remove_file(&probe)?;
    let written = match fs::metadata(path) {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Duration::ZERO),
        Err(error) => return Err(error),
    };
    Ok(now?.duration_since(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn the_kernels_lock_is_held_until_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("locks/x");
        let first = Lock::acquire(&path, || panic!("nobody has it")).await.unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let second = tokio::spawn({
            let (path, told) = (path.clone(), Arc::clone(&told));
            async move { Lock::acquire(&path, || told.store(true, Ordering::Relaxed)).await.map(drop) }
        });
        while !told.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_turn_is_free_when_it_is_dropped_and_numbers_ascend() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("turns");
        for number in 0..3 {
            let turn = Turn::take(&folder).unwrap().unwrap();
            assert!(Turn::take(&folder).unwrap().is_none(), "it is taken");
            drop(turn);
            assert_eq!(numbers(&folder).unwrap(), [number], "only the last one stays");
        }
    }

    #[tokio::test]
    async fn the_turn_of_a_dead_process_is_taken_over_and_of_one_elsewhere_when_it_is_silent() {
        let root = tempfile::tempdir().unwrap();
        let holder = |name: &str, content: String| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("7"), content).unwrap();
            folder
        };
        let dead = holder("dead", ProcessId::dead_for_tests().to_string());
        assert!(Turn::take(&dead).unwrap().is_some());
        assert_eq!(numbers(&dead).unwrap(), [8]);

        let elsewhere = holder("elsewhere", ProcessId::elsewhere_for_tests().to_string());
        let half_written = holder("half written", "12".into());
        for folder in [&elsewhere, &half_written] {
            assert!(Turn::take(folder).unwrap().is_none());
            let long_ago = SystemTime::now() - SILENCE * 2;
            File::options().write(true).open(folder.join("7")).unwrap().set_modified(long_ago).unwrap();
            assert!(Turn::take(folder).unwrap().is_some());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn of_many_only_one_has_the_turn() {
        let root = tempfile::tempdir().unwrap();
        let folder = Arc::new(root.path().join("turns"));
        let inside = Arc::new(AtomicU32::new(0));
        let tasks = (0..8).map(|_| {
            let (folder, inside) = (Arc::clone(&folder), Arc::clone(&inside));
            tokio::spawn(async move {
                let mut turns = 0;
                while turns < 20 {
                    if let Some(turn) = Turn::take(&folder).unwrap() {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                        turns += 1;
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}
