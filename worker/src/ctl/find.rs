//! Which worker `worker ctl` talks to.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use protocol::socket::RuntimeDir;

/// Why no worker is talked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// None of this user's is alive.
    #[error(
        "no worker of this user runs here (looked below {}); name its socket with --admin-socket \
         or WORKER_ADMIN_SOCKET", .0.display()
    )]
    None(PathBuf),
    /// Several are.
    #[error("several workers run here; name the socket of one with --admin-socket:\n{}", list(.0))]
    Several(Vec<PathBuf>),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("  {}", path.display())).collect::<Vec<_>>().join("\n")
}

/// The admin socket of the only worker of this user that lives, in the folder where workers keep such things.
pub fn find() -> Result<PathBuf, FindError> {
    find_below(&RuntimeDir::default_root())
}

fn find_below(root: &Path) -> Result<PathBuf, FindError> {
    let own = rustix::process::geteuid().as_raw();
    let folders = RuntimeDir::all_below(root).into_iter();
    let sockets = folders.map(|folder| folder.join(super::SOCKET));
    // Of those that died, files may be left.
    let is_alive = |socket: &PathBuf| {
        socket.symlink_metadata().is_ok_and(|metadata| metadata.uid() == own) && UnixStream::connect(socket).is_ok()
    };
    let mut living: Vec<PathBuf> = sockets.filter(is_alive).collect();
    living.sort();
    match living.len() {
        0 => Err(FindError::None(root.to_owned())),
        1 => Ok(living.remove(0)),
        _ => Err(FindError::Several(living)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_one_that_lives_is_found_and_several_are_listed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_below(root.path()), Err(FindError::None(root.path().to_owned())));
        let folders: Vec<RuntimeDir> = (0..3).map(|_| RuntimeDir::create(Some(root.path())).unwrap()).collect();
        let sockets: Vec<PathBuf> = folders.iter().map(|folder| folder.path().join("admin")).collect();
        drop(UnixListener::bind(&sockets[0]).unwrap());
        let _one = UnixListener::bind(&sockets[1]).unwrap();
        assert_eq!(find_below(root.path()).as_ref(), Ok(&sockets[1]));
        let _two = UnixListener::bind(&sockets[2]).unwrap();
        let mut both = sockets[1..].to_vec();
        both.sort();
        let error = find_below(root.path()).unwrap_err();
        assert!(error.to_string().contains(sockets[2].to_str().unwrap()), "{error}");
        assert_eq!(error, FindError::Several(both));
    }
}
