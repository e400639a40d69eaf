//! The private directory that the worker's socket lies in.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, Mode, OFlags, access};

use super::SocketError;

/// What the names of all such directories begin with.
const PREFIX: &str = "openfn-worker-";

/// Name of the socket in it.
const SOCKET: &str = "link";

/// Longest path of a socket, in bytes. Some operating systems take 103, and they cut what is longer.
const LONGEST: usize = 95;

/// A directory of this worker alone, mode 0700, removed with all that is in it when this is dropped.
///
/// It stays locked for as long as the worker lives, by the operating system, so that a directory without a lock is
/// known to be a dead worker's whatever process has its number by now. Those are removed when a new one is created.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    address: String,
    _lock: File,
}

impl RuntimeDir {
    /// Creates one below `root`; if that is not given, below `$XDG_RUNTIME_DIR`, or below the directory for temporary
    /// files where the variable is not set to a directory that this user may write to.
    pub fn create(root: Option<&Path>) -> Result<Self, SocketError> {
        let root = root.map_or_else(default_root_with_warning, Path::to_path_buf);
        let root = std::path::absolute(&root).map_err(|source| SocketError::Directory { path: root, source })?;
        check_root(&root)?;
        loop {
            let path = root.join(unique_name().map_err(|source| at(&root, source))?);
            let address = address_in(&path)?;
            if let Some(lock) = make(&path).map_err(|source| at(&path, source))? {
                let directory = Self { path, address, _lock: lock };
                sweep(&root);
                return Ok(directory);
            }
        }
    }

    /// Where these directories are made unless something else is said.
    pub fn default_root() -> PathBuf {
        root_named(std::env::var_os("XDG_RUNTIME_DIR")).unwrap_or_else(|_| std::env::temp_dir())
    }

    /// Such directories of any worker below `root`, living or dead.
    pub fn all_below(root: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries.filter(|entry| is_ours(&entry.file_name())).map(|entry| entry.path()).collect()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the socket in it.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn at(path: &Path, source: io::Error) -> SocketError {
    SocketError::Directory { path: path.to_owned(), source }
}

/// As [`RuntimeDir::default_root`], with a word on why the one that is named is not it.
fn default_root_with_warning() -> PathBuf {
    root_named(std::env::var_os("XDG_RUNTIME_DIR")).unwrap_or_else(|unfit| {
        let fallback = std::env::temp_dir();
        if let Some((named, why)) = unfit {
            tracing::warn!("XDG_RUNTIME_DIR={} is not used: {why}; using {}", named.display(), fallback.display());
        }
        fallback
    })
}

/// The directory that the environment names, if this process can use it; otherwise why not, if one is named. It is
/// another user's after `su` and `sudo`, which keep the variable.
fn root_named(named: Option<OsString>) -> Result<PathBuf, Option<(PathBuf, String)>> {
    let root = named.filter(|named| !named.is_empty()).map(PathBuf::from).ok_or(None)?;
    let why = match fs::metadata(&root) {
        Err(error) => error.to_string(),
        _ if !root.is_absolute() => "it is not an absolute path".to_owned(),
        Ok(found) if !found.is_dir() => "it is not a directory".to_owned(),
        Ok(found) if ![0, this_user()].contains(&found.uid()) => format!("it belongs to user {}", found.uid()),
        Ok(_) => match access(&root, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => return Ok(root),
            Err(error) => error.to_string(),
        },
    };
    Err(Some((root, why)))
}

/// Whether nobody but this user and root can move or replace what is made in `root`.
fn check_root(root: &Path) -> Result<(), SocketError> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let unfit = |reason| Err(SocketError::UnfitRoot { path: root.to_owned(), reason });
    let metadata = match fs::metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return unfit("it does not exist"),
        metadata => metadata.map_err(|source| at(root, source))?,
    };
    match metadata.mode() {
        _ if !metadata.is_dir() => unfit("it is not a directory"),
        _ if ![0, this_user()].contains(&metadata.uid()) => unfit("it belongs to another user"),
        mode if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 => {
            unfit("other users may rename what is in it (its mode has no sticky bit)")
        }
        _ => Ok(()),
    }
}

fn unique_name() -> io::Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}-{:08x}", std::process::id(), u32::from_ne_bytes(random)))
}

fn address_in(directory: &Path) -> Result<String, SocketError> {
    let path = directory.join(SOCKET);
    match path.to_str() {
        _ if path.as_os_str().len() > LONGEST => Err(SocketError::PathTooLong { path, limit: LONGEST }),
        Some(address) => Ok(address.to_owned()),
        None => Err(SocketError::PathNotUnicode { path }),
    }
}

/// Makes the directory and locks it. None if the name is taken, or another worker took it for a dead one's before it
/// was locked.
fn make(path: &Path) -> io::Result<Option<File>> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        created => created?,
    }
    let Some(lock) = vanished_is_none(open_own(path))? else { return Ok(None) };
    Ok((try_lock(&lock)? && holds(&lock, path)?).then_some(lock))
}

/// Whether the directory that was opened is still the one at `path`.
fn holds(directory: &File, path: &Path) -> io::Result<bool> {
    let Some(found) = vanished_is_none(fs::symlink_metadata(path))? else { return Ok(false) };
    let opened = directory.metadata()?;
    Ok((opened.dev(), opened.ino()) == (found.dev(), found.ino()))
}

fn vanished_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Opens a directory that is really one (no symbolic link) and belongs to this user.
fn open_own(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if directory.metadata()?.uid() != this_user() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(directory)
}

/// Takes the lock that a living worker holds; false if one does. It is given back when the file is closed.
fn try_lock(directory: &File) -> io::Result<bool> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes what dead workers of this user left in `root`. What cannot be removed stays, which harms nobody.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|entry| is_ours(&entry.file_name())) {
        let path = entry.path();
        let removed = open_own(&path).and_then(|directory| match try_lock(&directory)? {
            true => fs::remove_dir_all(&path).map(|()| true),
            false => Ok(false),
        });
        match removed {
            Ok(true) => tracing::info!("removed {}, left by a worker that died", path.display()),
            Ok(false) => {}
            Err(error) => tracing::debug!("did not remove {}: {error}", path.display()),
        }
    }
}

/// Whether this is a name that [`RuntimeDir`] gives, and not one that only looks a little like it.
fn is_ours(name: &OsStr) -> bool {
    let own = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|own| own.split_once('-'));
    own.is_some_and(|(pid, random)| {
        let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        is_pid && random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn root() -> tempfile::TempDir {
        tempfile::Builder::new().prefix("dir").tempdir().unwrap()
    }

    fn left_in(root: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_private_unique_and_removed_at_the_end() {
        let root = root();
        let one = RuntimeDir::create(Some(root.path())).unwrap();
        let two = RuntimeDir::create(Some(root.path())).unwrap();
        assert_ne!(one.path(), two.path());
        for directory in [&one, &two] {
            let metadata = fs::symlink_metadata(directory.path()).unwrap();
            assert!(metadata.is_dir());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o700);
            assert_eq!(Path::new(directory.address()).parent(), Some(directory.path()));
        }
        fs::write(one.path().join("file"), "").unwrap();
        drop((one, two));
        assert!(left_in(root.path()).is_empty());
    }

    #[test]
    fn what_dead_workers_left_is_swept_and_nothing_else() {
        let root = root();
        let living = RuntimeDir::create(Some(root.path())).unwrap();
        // As its worker has died, nothing holds the lock, though a process may have its number: here it is ours.
        let dead = root.path().join(format!("{PREFIX}{}-00000000", std::process::id()));
        fs::create_dir(&dead).unwrap();
        drop(UnixListener::bind(dead.join(SOCKET)).unwrap());
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "").unwrap();
        let link = root.path().join(format!("{PREFIX}1-00000001"));
        symlink(elsewhere.path(), &link).unwrap();
        let others = ["1-00000002", "backup", "0", "1-backups1", "-00000000", "1-000000001"];
        let others = others.map(|name| root.path().join(format!("{PREFIX}{name}")));
        let [file, folders @ ..] = &others;
        fs::write(file, "").unwrap();
        for folder in folders {
            fs::create_dir(folder).unwrap();
        }

        let new = RuntimeDir::create(Some(root.path())).unwrap();
        assert!(!dead.exists());
        assert!(living.path().is_dir() && new.path().is_dir());
        assert!(elsewhere.path().join("precious").exists() && link.is_symlink());
        drop((living, new));
        assert!(others.iter().all(|other| other.exists()), "{:?}", left_in(root.path()));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let root = root();
        let elsewhere = tempfile::tempdir().unwrap();
        let planted = root.path().join("planted");
        symlink(elsewhere.path(), &planted).unwrap();
        assert!(make(&planted).unwrap().is_none());
        assert!(open_own(&planted).is_err());
    }

    #[test]
    fn a_directory_that_was_swept_before_it_was_locked_is_given_up() {
        let root = root();
        let path = root.path().join("swept");
        let lock = make(&path).unwrap().unwrap();
        assert!(!try_lock(&open_own(&path).unwrap()).unwrap(), "it is locked");
        assert!(holds(&lock, &path).unwrap());
        fs::remove_dir(&path).unwrap();
        assert!(!holds(&lock, &path).unwrap());
        fs::create_dir(&path).unwrap();
        assert!(!holds(&lock, &path).unwrap(), "this is another one");
    }

    #[test]
    fn a_named_root_that_this_user_cannot_use_is_not_used() {
        assert_eq!(root_named(None), Err(None));
        assert_eq!(root_named(Some("".into())), Err(None));
        let (root, file) = (root(), tempfile::NamedTempFile::new().unwrap());
        assert_eq!(root_named(Some(root.path().into())), Ok(root.path().to_owned()));
        let why = |named: &Path| root_named(Some(named.into())).unwrap_err().unwrap().1;
        assert!(why(Path::new("/nowhere/at/all")).contains("No such file"));
        assert!(why(Path::new(".")).contains("absolute"));
        assert!(why(file.path()).contains("not a directory"));
        if this_user() == 0 {
            std::os::unix::fs::chown(root.path(), Some(65_534), None).unwrap();
            assert!(why(root.path()).contains("belongs to user 65534"));
        } else {
            // Of root, or of a user who is gone.
            assert!(!why(Path::new("/proc/1")).is_empty());
        }
    }

    #[test]
    fn unfit_places_are_refused_with_the_reason() {
        let root = root();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let long = root.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        let cases = [
            (open.clone(), "other users may rename what is in it"),
            (file, "it is not a directory"),
            (root.path().join("missing"), "it does not exist"),
            (long, "and at most 95 are possible; choose a shorter directory"),
        ];
        for (place, reason) in cases {
            let error = RuntimeDir::create(Some(&place)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(place.to_str().unwrap()), "{error}");
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        RuntimeDir::create(Some(&open)).unwrap();
    }

    #[test]
    fn the_address_may_be_as_long_as_the_limit() {
        let longest = "d".repeat(LONGEST - SOCKET.len() - 2);
        let directory = Path::new("/").join(&longest);
        assert_eq!(address_in(&directory).unwrap().len(), LONGEST);
        let error = address_in(&Path::new("/").join(longest + "d")).unwrap_err();
        assert!(error.to_string().contains("has 96 bytes"), "{error}");
    }
}
