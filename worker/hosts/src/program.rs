//! Finds the `engine-host` program: where the operator says, beside the worker, where a package puts it, or inside of it.
//!
//! A worker that was installed alone brings its host along as bytes and unpacks them once into a private folder of
//! the user's. What is there is compared with those bytes at every start, so that a damaged file is replaced.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base::folders;
use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::sys::forget_pages;

const NAME: &str = "engine-host";

/// The engine host's argument after which the command line of another host follows.
const BECOME: &str = "become";

/// The bytes of a host program that another program carries.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// All of it; empty where the program was built without one.
    pub bytes: &'static [u8],
    /// What tells it from the same program of another build.
    pub build: &'static str,
}

impl Embedded {
    /// For a program that carries none.
    pub const NONE: Self = Self { bytes: &[], build: "" };
}

/// A host program that exists and may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProgram {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// There is no host program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The operator named one that cannot be used.
    #[error("--engine-host (WORKER_ENGINE_HOST) names {path}, which cannot be executed: {why}")]
    Named {
        /// What was named.
        path: PathBuf,
        /// Why it is of no use.
        why: io::Error,
    },
    /// It is in none of the usual places.
    #[error(
        "the {NAME} program was not found; looked at: {}. Name it by --engine-host or WORKER_ENGINE_HOST",
        .0.join("; ")
    )]
    NotFound(
        /// Each place with the reason why there is none.
        Vec<String>,
    ),
}

impl HostProgram {
    /// The program at `named` if given, else the one beside this program or in the folder of its package, else the one
    /// that it carries.
    pub fn find(named: Option<&Path>, embedded: Embedded) -> Result<Self, ProgramError> {
        Self::find_or_unpack(named, embedded, &folders())
    }

    /// As [`find`](Self::find). If it has to be unpacked, that is done in this folder of the caller's.
    pub fn find_to_try(named: Option<&Path>, embedded: Embedded, folder: &Path) -> Result<Self, ProgramError> {
        Self::find_or_unpack(named, embedded, &[folder.join("program")])
    }

    fn find_or_unpack(named: Option<&Path>, embedded: Embedded, folders: &[PathBuf]) -> Result<Self, ProgramError> {
        if let Some(path) = named {
            return Self::at(path).map_err(|why| ProgramError::Named { path: path.to_owned(), why });
        }
        let mut looked_at = Vec::new();
        let own = std::env::current_exe();
        if let Some(folder) = own.ok().as_deref().and_then(Path::parent) {
            match Self::installed(folder) {
                Ok(program) => return Ok(program),
                Err(failures) => looked_at.extend(failures),
            }
        }
        if embedded.bytes.is_empty() {
            looked_at.push("inside of the worker (it was built without one)".to_owned());
        } else {
            let unpacked = unpack(embedded, folders);
            forget_pages(embedded.bytes);
            match unpacked {
                Ok(path) => return Ok(Self { path, arguments: Vec::new() }),
                Err(failures) => looked_at.extend(failures),
            }
        }
        Err(ProgramError::NotFound(looked_at))
    }

    /// The program of a worker in `folder`: beside it, or where a package puts programs that nobody starts by hand.
    fn installed(folder: &Path) -> Result<Self, Vec<String>> {
        let mut failures = Vec::new();
        for path in [folder.join(NAME), folder.join("../lib/openfn-worker").join(NAME)] {
            match Self::at(&path) {
                Ok(program) => return Ok(program),
                Err(why) => failures.push(format!("{} ({why})", path.display())),
            }
        }
        Err(failures)
    }

    /// The program at `path`.
    pub fn at(path: &Path) -> io::Result<Self> {
        // A host has a folder of its own to work in, where a relative path would lead elsewhere.
        let path = path.canonicalize()?;
        check_executable(&path)?;
        Ok(Self { path, arguments: Vec::new() })
    }

    /// The same program, started with `arguments`.
    pub fn with_arguments(self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..self }
    }

    /// This engine host's program, to start another program as a host: it becomes a session of its own that inherits no
    /// descriptors and ends with the worker, whatever it is at, and then that program. For hosts that are written in other
    /// languages.
    pub fn becoming(
        self,
        program: &Path,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> io::Result<Self> {
        let other = Self::at(program)?;
        let words = [OsString::from(BECOME), other.path.into_os_string()];
        Ok(self.with_arguments(words.into_iter().chain(arguments.into_iter().map(Into::into))))
    }

    /// Absolute path of the program's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }
}

fn check_executable(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok(access(path, Access::EXEC_OK)?)
}

/// Folders that may take the unpacked program, best first.
fn folders() -> Vec<PathBuf> {
    let temporary = std::env::temp_dir().join(format!("openfn-engine-host-{}", geteuid().as_raw()));
    folders::cache().map(|cache| cache.join("openfn-worker")).into_iter().chain([temporary]).collect()
}

/// Path of a file with these bytes in the first folder where that works, or each folder with the reason why not.
fn unpack(embedded: Embedded, folders: &[PathBuf]) -> Result<PathBuf, Vec<String>> {
    let Embedded { bytes, build } = embedded;
    let file = format!("{NAME}-{}-{build}", env!("CARGO_PKG_VERSION"));
    let mut failures = Vec::new();
    for folder in folders {
        let path = folder.join(&file);
        match unpack_to(bytes, folder, &path) {
            Ok(()) => return Ok(path),
            Err(why) => failures.push(format!("{} (unpacking it there failed: {why})", path.display())),
        }
    }
    Err(failures)
}

fn unpack_to(bytes: &[u8], folder: &Path, path: &Path) -> io::Result<()> {
    ensure_private(folder)?;
    if !is_intact(bytes, path)? {
        let unfinished = path.with_extension(format!("{}.part", std::process::id()));
        let written = write_program(bytes, &unfinished).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // Best effort: the error that led here is the one to tell.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
    }
    check_executable(path)
}

/// Makes sure that `folder` is a real folder of ours that nobody else can write to.
fn ensure_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder is not one of this user's own"));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn write_program(bytes: &[u8], path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o500).open(path)?;
    file.write_all(bytes)
}

/// Whether `path` is a file of ours with exactly these bytes.
fn is_intact(bytes: &[u8], path: &Path) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_ours = metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o777 == 0o500;
    if !is_ours || metadata.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    for expected in bytes.chunks(buffer.len()) {
        let found = &mut buffer[..expected.len()];
        match file.read_exact(found) {
            Ok(()) if found == expected => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &[u8] = b"#!/bin/sh\nexit 0\n";
    const CARRIED: Embedded = Embedded { bytes: PROGRAM, build: "0" };

    fn unpacked(folder: &Path) -> PathBuf {
        unpack(CARRIED, &[folder.to_owned()]).unwrap()
    }

    #[test]
    fn unpacks_into_a_private_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/b");
        let path = unpacked(&folder);
        assert_eq!(fs::read(&path).unwrap(), PROGRAM);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o500);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn leaves_an_intact_file_alone_and_replaces_any_other() {
        let temporary = tempfile::tempdir().unwrap();
        let path = unpacked(temporary.path());
        let first = fs::metadata(&path).unwrap().ino();
        assert_eq!(fs::metadata(unpacked(temporary.path())).unwrap().ino(), first);

        let damages: [(&str, &[u8], u32); 4] = [
            ("truncated", &PROGRAM[..5], 0o500),
            ("changed", b"#!/bin/sh\nexit 1\n", 0o500),
            ("longer", b"#!/bin/sh\nexit 0\n\n", 0o500),
            ("writable", PROGRAM, 0o522),
        ];
        for (damage, bytes, mode) in damages {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(unpacked(temporary.path()), path);
            assert_eq!(fs::read(&path).unwrap(), PROGRAM, "{damage}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o500, "{damage}");
        }
    }

    #[test]
    fn goes_on_to_the_next_folder_and_names_each_one_that_failed() {
        let temporary = tempfile::tempdir().unwrap();
        let in_the_way = temporary.path().join("file");
        fs::write(&in_the_way, "").unwrap();
        let good = temporary.path().join("good");
        assert!(unpack(CARRIED, &[in_the_way.clone(), good.clone()]).unwrap().starts_with(&good));
        let failures = unpack(CARRIED, std::slice::from_ref(&in_the_way)).unwrap_err();
        assert!(failures[0].starts_with(in_the_way.to_str().unwrap()), "{failures:?}");
    }

    #[test]
    fn the_host_lies_beside_the_worker_or_in_the_folder_of_its_package() {
        let temporary = tempfile::tempdir().unwrap();
        let (programs, package) = (temporary.path().join("bin"), temporary.path().join("lib/openfn-worker"));
        let write = |folder: &Path| {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(NAME), PROGRAM).unwrap();
            fs::set_permissions(folder.join(NAME), Permissions::from_mode(0o755)).unwrap();
            folder.join(NAME).canonicalize().unwrap()
        };
        fs::create_dir(&programs).unwrap();
        let failures = HostProgram::installed(&programs).unwrap_err();
        assert_eq!(failures.len(), 2, "{failures:?}");
        let packaged = write(&package);
        assert_eq!(HostProgram::installed(&programs).unwrap().path(), packaged);
        let beside = write(&programs);
        assert_eq!(HostProgram::installed(&programs).unwrap().path(), beside);
    }

    #[test]
    fn what_cannot_be_executed_is_named_together_with_the_option() {
        let temporary = tempfile::tempdir().unwrap();
        let plain = temporary.path().join("plain");
        fs::write(&plain, "text").unwrap();
        for path in [plain.as_path(), temporary.path(), Path::new("/nowhere/engine-host")] {
            let error = HostProgram::find(Some(path), Embedded::NONE).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("--engine-host") && error.contains("WORKER_ENGINE_HOST"), "{error}");
        }
    }
}
