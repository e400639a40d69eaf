//! Files and folders that appear whole or not at all.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::process_id::ProcessId;

/// Nobody works at anything for longer.
const LONGEST_WORK: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes a file, whole or not at all. Its folder is made.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let unfinished = unfinished_name(path);
    let written = File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // Best effort: the error that led here is the one to tell.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// A name beside `path` that nobody else uses.
pub(super) fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{}.part", ProcessId::own(), number()));
    name.into()
}

/// A number that this process uses once.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A folder for something unfinished. It is removed when this is dropped, better by [`Self::remove`]; one whose process
/// died is swept.
#[derive(Debug)]
pub(super) struct Workplace {
    path: PathBuf,
}

impl Workplace {
    /// A fresh folder in `parent`, after those are removed whose processes are dead.
    pub(super) async fn create(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        for left in leftovers(parent) {
            // Another process does it, too.
            let _ = remove(left).await;
        }
        let path = parent.join(format!("{}.{}", ProcessId::own(), number()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path: path.canonicalize()? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder. What cannot be removed now is swept later.
    pub(super) async fn remove(mut self) {
        // Taken, so that nothing is left to do for the drop.
        let _ = remove(std::mem::take(&mut self.path)).await;
    }

    /// Gives `folder` of this place its name. False if another folder has it already, which then stays.
    pub(super) fn publish(&self, folder: &Path, name: &Path) -> io::Result<bool> {
        if let Some(parent) = name.parent() {
            fs::create_dir_all(parent)?;
        }
        File::open(folder)?.sync_all()?;
        match fs::rename(folder, name) {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What is left of it is swept later.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What nobody works at any more in `parent`, the folder of [`Workplace`]s.
pub(super) fn leftovers(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(is_left).map(|entry| entry.path()).collect()
}

/// Whether the owner of a place is dead. Of owners on other machines only the age of the place tells.
fn is_left(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let owner = name.to_str().and_then(|name| name.split('.').next()?.parse::<ProcessId>().ok());
    let made = entry.metadata().and_then(|metadata| metadata.modified());
    let age = made.ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
    owner.is_some_and(|owner| owner.is_dead()) || age > LONGEST_WORK
}

/// Removes a folder with all that is in it, which may take long, beside what else this process does.
pub(super) async fn remove(folder: PathBuf) -> io::Result<()> {
    tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await?
}

/// Bytes of all files below `path`. What cannot be read counts as none.
pub(super) fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
        }
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_removed_with_its_owner_and_a_named_folder_stays() {
        let root = tempfile::tempdir().unwrap();
        let (parent, name) = (root.path().join("tmp"), root.path().join("a/named"));
        let place = Workplace::create(&parent).await.unwrap();
        let made = place.path().join("x");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("file"), "1").unwrap();
        assert!(place.publish(&made, &name).unwrap());

        fs::create_dir(&made).unwrap();
        assert!(!place.publish(&made, &name).unwrap(), "the first one stays");
        drop(place);
        assert_eq!(fs::read_to_string(name.join("file")).unwrap(), "1");
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        Workplace::create(&parent).await.unwrap().remove().await;
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_what_dead_processes_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let own = Workplace::create(root.path()).await.unwrap();
        let dead = ProcessId::dead_for_tests();
        let elsewhere = ProcessId::elsewhere_for_tests();
        for name in [format!("{dead}.0"), format!("{elsewhere}.0"), "something".to_owned()] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        assert_eq!(leftovers(root.path()), [root.path().join(format!("{dead}.0"))]);
        drop(Workplace::create(root.path()).await.unwrap());
        assert!(!root.path().join(format!("{dead}.0")).exists(), "whoever comes next removes it");
        assert!(own.path().exists());
    }

    #[test]
    fn a_file_is_replaced_and_nothing_unfinished_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder/file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(root.path().join("folder")).unwrap().count(), 1);
    }
}
