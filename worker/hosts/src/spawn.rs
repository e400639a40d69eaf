//! Starts host processes.
//!
//! All of them are started from one thread that lives as long as hosts are wanted, because the signal by which a host
//! learns of its parent's death belongs to the thread that started it. Nothing here may make the standard library
//! fork: a plain spawn costs the same however much memory the worker has.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use protocol::handshake::{ADDRESS_VARIABLE, PARENT_VARIABLE, TOKEN_VARIABLE};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::arrivals::Ticket;
use super::orphans::Orphans;
use super::program::HostProgram;

/// What hosts get of the worker's environment. Nothing in it may be a secret: users' code can read it. Time zone and
/// language are not among it: a workflow is to give the same wherever it runs.
const ENVIRONMENT: &[&str] =
    &["HOME", "NODE_EXTRA_CA_CERTS", "PATH", "RUST_BACKTRACE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR"];

/// The thread that starts processes. It ends when this and its clones are gone.
#[derive(Debug, Clone)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    command: Command,
    directory: PathBuf,
    holder: Arc<OnceLock<u32>>,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// How a host finds the worker, and proves itself.
#[derive(Debug)]
pub(super) struct Invitation<'a> {
    pub(super) address: &'a str,
    pub(super) ticket: &'a Ticket,
}

impl Spawner {
    /// Starts the thread. Must be called within a tokio runtime, which then watches the processes.
    pub(super) fn start(orphans: Arc<Orphans>) -> io::Result<Self> {
        let (requests, incoming) = mpsc::channel::<Request>();
        let runtime = Handle::current();
        thread::Builder::new().name("host-spawner".into()).spawn(move || {
            let _entered = runtime.enter();
            for Request { mut command, directory, holder, answer } in incoming {
                let child = std::fs::create_dir(&directory).and_then(|()| {
                    orphans.start(|| {
                        let child = command.spawn()?;
                        // Whoever looks whether the process is a host waits until it is set.
                        let pid = *holder.get_or_init(|| child.id().unwrap_or_default());
                        Ok((pid, child))
                    })
                });
                // If nobody waits any more, the process is killed as it is dropped.
                let _ = answer.send(child);
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a process that works in `directory`, which is created.
    pub(super) async fn spawn(
        &self,
        program: &HostProgram,
        environment: &[(String, String)],
        directory: &Path,
        invitation: Invitation<'_>,
    ) -> io::Result<Child> {
        let mut command = Command::new(program.path());
        command
            .args(program.arguments())
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("TZ", "UTC")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env(ADDRESS_VARIABLE, invitation.address)
            .env(TOKEN_VARIABLE, invitation.ticket.token.expose())
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let (answer, child) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts hosts is gone");
        let holder = invitation.ticket.holder();
        self.requests.send(Request { command, directory: directory.to_owned(), holder, answer }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}
