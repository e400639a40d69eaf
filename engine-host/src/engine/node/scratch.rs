//! The folder that belongs to one Node process: what it may write to, and what it leaves behind when it dies.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A private folder. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Makes one in `parent`.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = parent.canonicalize()?;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let root = parent.join(format!("openfn-node-{}-{number}", std::process::id()));
            let mut builder = std::fs::DirBuilder::new();
            match builder.mode(0o700).create(&root) {
                Ok(()) => {
                    let scratch = Self { root };
                    builder.create(scratch.files())?;
                    return Ok(scratch);
                }
                // Of a process that had the same id and was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What Node may read and write: its working, home and temporary folder.
    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// A file that Node's code cannot reach.
    pub(super) fn out_of_reach(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder of those files.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left goes with the parent.
        let _ = super::quota::remove(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_is_private_and_gone_when_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) = (Scratch::create(parent.path()).unwrap(), Scratch::create(parent.path()).unwrap());
        assert_ne!(one.root(), other.root());
        assert_eq!(one.root().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(one.files().join("left"), "x").unwrap();
        drop((one, other));
        assert_eq!(parent.path().read_dir().unwrap().count(), 0);
    }
}
