//! A user without privileges on a kernel before 6.4: where most workers run, and where a process that is not dumpable
//! reads less about itself than root does on a recent kernel.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::binaries;
use crate::lesser_kernel::{Lacks, on_a_kernel_that};

/// `nobody` and `nogroup` of Debian; on other systems nobody's either.
const NOBODY: u32 = 65_534;

/// The user of a test, with folders that belong to it. Root becomes `nobody`; anybody else stays who they are.
#[derive(Debug)]
pub struct PlainUser {
    id: Option<u32>,
    folder: TempDir,
}

impl PlainUser {
    /// A user with an empty folder.
    pub fn new() -> Self {
        let id = geteuid().is_root().then_some(NOBODY);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let it = Self { id, folder };
        it.own(it.folder.path());
        it
    }

    /// A new folder of this user, for itself alone.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("the folder is new");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("it is ours");
        self.own(&folder);
        folder
    }

    /// The worker as it is installed alone, where this user can execute it.
    pub fn worker(&self) -> PathBuf {
        let program = self.folder.path().join("worker");
        if !program.exists() {
            std::fs::copy(binaries::worker(), &program).expect("there is room for the worker");
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
        }
        program
    }

    /// Makes what `start` starts a process of this user, to which the kernel refuses `PR_GET_AUXV`.
    pub fn start<T: Send>(
        &self,
        command: &mut std::process::Command,
        start: impl FnOnce(&mut std::process::Command) -> T + Send,
    ) -> T {
        use std::os::unix::process::CommandExt;
        if let Some(id) = self.id {
            command.uid(id).gid(id);
        }
        on_a_kernel_that(Lacks::Auxv, || start(command))
    }

    fn own(&self, folder: &Path) {
        if self.id.is_some() {
            chown(folder, self.id, self.id).expect("root gives away what it has");
        }
    }
}

impl Default for PlainUser {
    fn default() -> Self {
        Self::new()
    }
}
