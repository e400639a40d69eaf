//! The local socket: the worker listens, its hosts connect.
//!
//! Owns the private directory that the socket lies in and the check of who connects. Never listens where another user
//! could connect, and never takes a path that the operating system would cut.

mod dir;

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};

pub use self::dir::RuntimeDir;

/// Why there is no socket, or no connection.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory that is to hold ours is missing, is none, or could be tampered with by other users.
    #[error("cannot put the worker's socket below {}: {reason}; choose another directory", path.display())]
    UnfitRoot {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path is longer than every operating system takes.
    #[error(
        "the socket's path {} has {} bytes, and at most {limit} are possible; \
         choose a shorter directory for it, for example with XDG_RUNTIME_DIR",
        path.display(), path.as_os_str().len()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Greatest length, in bytes.
        limit: usize,
    },
    /// A path is not UTF-8, which the environment of a host may not carry.
    #[error("the socket's path {} is not UTF-8; choose another directory for it", path.display())]
    PathNotUnicode {
        /// The path.
        path: PathBuf,
    },
    /// The directory could not be made, checked or locked.
    #[error("cannot make the directory {} for the worker's socket: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket could not be made.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The socket.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The listener failed. If open files ran out, it may work again later.
    #[error("cannot take a connection: {0}")]
    Accept(#[source] io::Error),
    /// The operating system or a sandbox does not let this process connect.
    #[error("not allowed to connect to {address}: {source}")]
    Forbidden {
        /// The socket.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The operating system or a sandbox lets this process make no local sockets at all.
    #[error(
        "this process may make no local sockets (AF_UNIX), over which a worker and its hosts speak: {source}; allow them: \
         for systemd by RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6, for a container by a seccomp profile that lets \
         socket(AF_UNIX) pass"
    )]
    NoLocalSockets {
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no connection for another reason, for example because nobody listens.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The socket.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// The worker's socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    address: String,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.address);
    }
}

impl Listener {
    /// Listens in `directory`, which must stay for as long as hosts are to find the socket.
    pub fn bind(directory: &RuntimeDir) -> Result<Self, SocketError> {
        let address = directory.address().to_owned();
        match UnixListener::bind(&address) {
            Ok(listener) => Ok(Self { listener, address }),
            Err(source) => Err(why_none().unwrap_or(SocketError::Listen { address, source })),
        }
    }

    /// What hosts connect to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next connection from a process of this user. Others are turned away, with a warning in the log.
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> Result<Stream, SocketError> {
        loop {
            let (stream, _) = self.listener.accept().await.map_err(SocketError::Accept)?;
            match judge(&stream, rustix::process::geteuid().as_raw()) {
                Ok(()) => return Ok(stream),
                Err(reason) => tracing::warn!("turned a connection to the host link away: {reason}"),
            }
        }
    }
}

/// Connects a host to its worker.
pub async fn connect(address: &str) -> Result<Stream, SocketError> {
    let connect = async || {
        let stream = UnixStream::connect(address).await?;
        // Fails where the connection was not really made.
        stream.peer_cred().map(|_| stream)
    };
    connect().await.map_err(|source| why_none().unwrap_or_else(|| no_connection(address, source)))
}

fn no_connection(address: &str, source: io::Error) -> SocketError {
    let address = address.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => SocketError::Forbidden { address, source },
        _ => SocketError::Connect { address, source },
    }
}

/// Why this process can have no local sockets, if that is so, wherever they are to lead.
fn why_none() -> Option<SocketError> {
    let source = UnixDatagram::unbound().err()?;
    let is_lack = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter();
    let is_lack = is_lack.map(|errno| errno.raw_os_error()).any(|errno| source.raw_os_error() == Some(errno));
    (!is_lack).then_some(SocketError::NoLocalSockets { source })
}

/// A connection between worker and host.
pub type Stream = UnixStream;

/// Process id of the other side when it connected or listened, where the operating system tells.
pub fn peer_pid(stream: &Stream) -> Option<u32> {
    stream.peer_cred().ok()?.pid()?.try_into().ok()
}

fn judge(stream: &Stream, user: u32) -> Result<(), String> {
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(peer) if peer == user => Ok(()),
        Ok(peer) => Err(format!("it is from user {peer}, and only user {user} may connect")),
        Err(error) => Err(format!("its user is unknown: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn host_and_worker_meet_in_a_private_place() {
        let root = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::create(Some(root.path())).unwrap();
        let listener = Listener::bind(&directory).unwrap();
        assert!(Path::new(listener.address()).starts_with(directory.path()));

        let (worker, host) = tokio::join!(listener.accept(), connect(listener.address()));
        let (mut worker, mut host) = (worker.unwrap(), host.unwrap());
        assert_eq!(peer_pid(&worker), Some(std::process::id()));
        assert_eq!(peer_pid(&host), Some(std::process::id()));

        host.write_all(b"hello").await.unwrap();
        host.shutdown().await.unwrap();
        let mut heard = String::new();
        worker.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        // Only the host's direction was shut down.
        worker.write_all(b"bye").await.unwrap();
        drop(worker);
        host.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hellobye");

        drop(listener);
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "the socket is still there");
    }

    #[tokio::test]
    async fn other_users_are_turned_away() {
        let root = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::create(Some(root.path())).unwrap();
        let listener = Listener::bind(&directory).unwrap();
        let (accepted, _host) = tokio::join!(listener.listener.accept(), connect(listener.address()));
        let user = rustix::process::geteuid().as_raw();
        let reason = judge(&accepted.unwrap().0, user + 1).unwrap_err();
        assert_eq!(reason, format!("it is from user {user}, and only user {} may connect", user + 1));
    }

    #[tokio::test]
    async fn a_missing_listener_and_a_missing_permission_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let address = root.path().join("nobody");
        let error = connect(address.to_str().unwrap()).await.unwrap_err();
        assert!(matches!(error, SocketError::Connect { .. }), "{error}");
        for errno in [Errno::ACCESS, Errno::PERM] {
            let error = no_connection("/a", errno.into());
            assert!(matches!(error, SocketError::Forbidden { .. }), "{error}");
        }
    }
}
