//! Which worker `worker ctl` talks to.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use protocol::socket::RuntimeDir;
use rustix::process::geteuid;

/// Where the systemd unit keeps what `RuntimeDirectory=` makes.
const UNIT_FOLDER: &str = "/run/openfn-worker";

/// Why no worker is talked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// None of this user's is alive.
    #[error(
        "no worker of this user runs here (looked below {}); name its socket with --admin-socket \
         or WORKER_ADMIN_SOCKET", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    None(Vec<PathBuf>),
    /// Several are.
    #[error("several workers run here; name the socket of one with --admin-socket:\n{}", list(.0))]
    Several(Vec<PathBuf>),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("  {}", path.display())).collect::<Vec<_>>().join("\n")
}

/// The admin socket of the only worker of this user that lives, in the folders where workers keep such things. Root finds
/// the unit's worker, too, whatever user that has.
pub fn find() -> Result<PathBuf, FindError> {
    let own = geteuid().as_raw();
    find_below(
        &RuntimeDir::default_root(),
        Path::new(UNIT_FOLDER),
        |owner| owner == own,
        |owner| own == 0 || owner == own,
    )
}

fn find_below(
    root: &Path,
    unit: &Path,
    is_trusted: impl Fn(u32) -> bool,
    is_trusted_of_unit: impl Fn(u32) -> bool,
) -> Result<PathBuf, FindError> {
    let mut living = living_below(root, is_trusted);
    living.extend(living_below(unit, is_trusted_of_unit));
    living.sort();
    living.dedup();
    match living.len() {
        0 => Err(FindError::None(vec![root.to_owned(), unit.to_owned()])),
        1 => Ok(living.remove(0)),
        _ => Err(FindError::Several(living)),
    }
}

/// Sockets of such users on which somebody listens. Of workers that died, files may be left.
fn living_below(root: &Path, is_trusted: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let sockets = RuntimeDir::all_below(root).into_iter().map(|folder| folder.join(super::SOCKET));
    let is_alive = |socket: &PathBuf| {
        socket.symlink_metadata().is_ok_and(|metadata| is_trusted(metadata.uid()))
            && UnixStream::connect(socket).is_ok()
    };
    sockets.filter(is_alive).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_one_that_lives_is_found_and_several_are_listed() {
        let (root, unit) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, unit) = (root.path(), unit.path());
        let find = || find_below(root, unit, |_| true, |_| true);
        assert_eq!(find(), Err(FindError::None(vec![root.to_owned(), unit.to_owned()])));
        let folders: Vec<RuntimeDir> =
            [root, root, unit].map(|folder| RuntimeDir::create(Some(folder)).unwrap()).into_iter().collect();
        let sockets: Vec<PathBuf> = folders.iter().map(|folder| folder.path().join("admin")).collect();
        drop(UnixListener::bind(&sockets[0]).unwrap());
        let _one = UnixListener::bind(&sockets[1]).unwrap();
        assert_eq!(find().as_ref(), Ok(&sockets[1]));
        let _two = UnixListener::bind(&sockets[2]).unwrap();
        let mut both = sockets[1..].to_vec();
        both.sort();
        let error = find().unwrap_err();
        assert!(error.to_string().contains(sockets[2].to_str().unwrap()), "{error}");
        assert_eq!(error, FindError::Several(both));
        // Another user's counts where only root and the unit can have made it.
        assert_eq!(find_below(root, unit, |_| false, |_| true).as_ref(), Ok(&sockets[2]));
        assert_eq!(find_below(unit, unit, |_| true, |_| true).as_ref(), Ok(&sockets[2]), "it is the same");
    }
}
