//! The worker's end of the admin socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hosts::{HostLine, Stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::admin::Admin;
use super::message::{Answer, Request};
use crate::lineage::descends_from_this;

/// Longest request, in bytes.
pub(super) const LONGEST_REQUEST: u64 = 64 * 1024;
/// How long a client may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a client may take to read anything.
const WRITE: Duration = Duration::from_secs(30);
/// Clients at once.
const CLIENTS: usize = 16;
/// Pause after a failure to take connections.
const PAUSE: Duration = Duration::from_millis(200);
/// Whoever is turned away is told of so often, and more often for who debugs: users' code may try again and again.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// The admin socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin socket {} (--admin-socket, WORKER_ADMIN_SOCKET): {source}", path.display())]
pub struct AdminSocketError {
    path: PathBuf,
    source: io::Error,
}

/// A listening admin socket. Its files go when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    paths: Vec<PathBuf>,
    /// Until it is served.
    listeners: Vec<UnixListener>,
    tasks: JoinSet<()>,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        for path in &self.paths {
            // Fails when the folder is gone already.
            let _ = fs::remove_file(path);
        }
    }
}

impl AdminSocket {
    /// Listens in this private folder of the worker, and at `extra` if given. Whoever connects waits until it is served.
    /// Must be called within a tokio runtime.
    pub fn bind(folder: &Path, extra: Option<&Path>) -> Result<Self, AdminSocketError> {
        let own = folder.join(super::SOCKET);
        let mut socket = Self { paths: Vec::new(), listeners: Vec::new(), tasks: JoinSet::new() };
        for path in [own.as_path()].into_iter().chain(extra) {
            let listener = bind(path).map_err(|source| AdminSocketError { path: path.to_owned(), source })?;
            socket.paths.push(path.to_owned());
            socket.listeners.push(listener);
        }
        Ok(socket)
    }

    /// Answers for `admin` from now on.
    pub fn serve(&mut self, admin: Admin) {
        let admin = Arc::new(admin);
        for listener in self.listeners.drain(..) {
            self.tasks.spawn(serve(listener, Arc::clone(&admin)));
        }
    }
}

/// Binds so that nobody else can connect at any moment, and takes the place of a socket that nobody listens on.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        fs::remove_file(path)?;
    }
    // A socket has its mode from the start only by the process's mask, which is not this thread's alone. So it is bound
    // elsewhere, in a private folder, and moved.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staging = parent.join(format!(".admin-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&staging)?;
    let unmoved = staging.join("s");
    let bound = UnixListener::bind(&unmoved).and_then(|listener| {
        fs::set_permissions(&unmoved, Permissions::from_mode(0o600))?;
        fs::rename(&unmoved, path)?;
        Ok(listener)
    });
    // What is left of it is of no use.
    let _ = fs::remove_dir_all(&staging);
    bound
}

async fn serve(listener: UnixListener, admin: Arc<Admin>) {
    let mut clients = JoinSet::new();
    let mut told = None::<Instant>;
    loop {
        tokio::select! {
            // Whoever has gone leaves room for the next.
            biased;
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match admitted(&stream, clients.len()) {
                    Ok(peer) => drop(clients.spawn(answer(stream, peer, Arc::clone(&admin)))),
                    Err(why) if told.is_none_or(|told| told.elapsed() > TOLD_EVERY) => {
                        told = Some(Instant::now());
                        warn!("refused a connection to the admin socket: {why}");
                    }
                    Err(why) => debug!("refused a connection to the admin socket: {why}"),
                },
                Err(error) => {
                    warn!("failed to accept a connection to the admin socket: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Who the client is, if it may ask while so many others do.
fn admitted(stream: &UnixStream, clients: usize) -> Result<UCred, &'static str> {
    let peer = admit(stream.peer_cred().map_err(|_| "nobody knows whose it is")?)?;
    if clients < CLIENTS { Ok(peer) } else { Err("as many are open as it serves at once") }
}

/// Lets this user and root in, but none of what runs users' code: hosts, and what they have started.
fn admit(peer: UCred) -> Result<UCred, &'static str> {
    let (own, pid) = (rustix::process::geteuid().as_raw(), peer.pid().and_then(|pid| pid.try_into().ok()));
    match peer.uid() {
        // No host is of another user than this.
        0 if own != 0 => Ok(peer),
        user if user != own => Err("it is from another user"),
        _ if pid.is_some_and(descends_from_this) => Err("it is from an engine host, or cannot be told from one"),
        _ => Ok(peer),
    }
}

/// Serves one client, whose only request comes first. Failures to write mean that it has gone.
async fn answer(stream: UnixStream, peer: UCred, admin: Arc<Admin>) {
    let (reading, mut writing) = stream.into_split();
    let request = match tokio::time::timeout(REQUEST, read(reading)).await {
        Ok(Ok((request, reading))) => (request, reading),
        Ok(Err(why)) => return drop(write(&mut writing, &Answer::Error(why)).await),
        Err(_) => return,
    };
    let (request, mut reading) = request;
    if request.changes_something() {
        info!(uid = peer.uid(), pid = peer.pid(), ?request, "admin socket request");
    }
    let work = async {
        match request {
            Request::Logs { follow, host, run } => send_lines(&admin, follow, host, run, &mut writing).await,
            request => {
                // A task of its own: a client that goes away does not undo what it asked for, but is not waited for.
                let answered = tokio::spawn({
                    let admin = Arc::clone(&admin);
                    async move { admin.answer(request).await }
                });
                let answer =
                    answered.await.unwrap_or_else(|error| Answer::Error(format!("the worker failed: {error}")));
                write(&mut writing, &answer).await
            }
        }
    };
    tokio::select! {
        _ = work => {}
        () = gone(&mut reading) => {}
    }
}

pub(super) async fn read<R: AsyncRead + Unpin>(reading: R) -> Result<(Request, R), String> {
    let mut lines = BufReader::new(reading).take(LONGEST_REQUEST);
    let mut line = String::new();
    lines.read_line(&mut line).await.map_err(|error| error.to_string())?;
    let request = serde_json::from_str(&line).map_err(|error| format!("that is no request: {error}"))?;
    Ok((request, lines.into_inner().into_inner()))
}

/// Waits until the client has gone. What else it sends is of no interest.
async fn gone(reading: &mut OwnedReadHalf) {
    let mut buffer = [0; 256];
    while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

async fn send_lines(
    admin: &Admin,
    follow: bool,
    host: Option<String>,
    run: Option<String>,
    writing: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let wanted =
        |line: &HostLine| host.as_ref().is_none_or(|host| *host == line.host) && (run.is_none() || run == line.run);
    let (recent, mut lines) = admin.broker().lines();
    let mut sent = 0;
    for line in recent.iter().filter(|line| wanted(line)) {
        write(writing, &Answer::Line(line.clone())).await?;
        sent += 1;
    }
    if sent == 0
        && let Some(why) = admin.unknown(host.as_deref(), run.as_deref()).await
    {
        return write(writing, &Answer::Error(why)).await;
    }
    if !follow {
        return Ok(());
    }
    loop {
        match lines.recv().await {
            Ok(line) if wanted(&line) => write(writing, &Answer::Line(line)).await?,
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                let text = format!("{missed} lines were missed: they came faster than they were read");
                let line = HostLine { host: "-".into(), run: None, stream: Stream::Stderr, text };
                write(writing, &Answer::Line(line)).await?;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn write(writing: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE, writing.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_users_alone_and_takes_the_place_of_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ctl.sock");
        let living = bind(&path).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(living);
        bind(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::create_dir(&path).unwrap();
        assert!(bind(&path).is_err());
        assert!(path.is_dir());
    }
}
