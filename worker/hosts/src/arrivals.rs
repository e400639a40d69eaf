//! The worker's end of the host links: one socket, on which each host that was started is expected with its token.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::handshake::{HandshakeError, LinkToken, greet};
use protocol::link::{Inbox, Link, LinkOptions, WorkerSide};
use protocol::message::{Hello, Refusal, RefusalCode, Welcome};
use protocol::socket::{Listener, Stream, peer_pid};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::field::display;
use tracing::{debug, error, warn};

use super::orphans::Orphans;

/// How long a connection may take to prove itself.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at once that have not proved themselves yet.
const UNPROVEN: usize = 64;
/// Pause after a failure to take connections, which a lack of file descriptors makes last.
const PAUSE: Duration = Duration::from_millis(100);

/// A host's link, or why there will be none.
pub(super) type Arrival = Result<(Link<WorkerSide>, Inbox<WorkerSide>), HandshakeError>;

/// The socket, and those that are expected there. The socket closes when this is dropped.
#[derive(Debug)]
pub(super) struct Arrivals {
    address: String,
    expected: Arc<Expected>,
    accepting: JoinHandle<()>,
}

/// What a host is expected by.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) token: LinkToken,
    pub(super) arrival: oneshot::Receiver<Arrival>,
    pid: Arc<OnceLock<u32>>,
}

impl Ticket {
    /// Takes the id of the process that gets the token, by which that is known when it fails to show it. To be set
    /// before the process can connect.
    pub(super) fn holder(&self) -> Arc<OnceLock<u32>> {
        Arc::clone(&self.pid)
    }
}

#[derive(Debug, Default)]
struct Expected(Mutex<Vec<Guest>>);

#[derive(Debug)]
struct Guest {
    host_id: String,
    token: LinkToken,
    pid: Arc<OnceLock<u32>>,
    arrival: oneshot::Sender<Arrival>,
}

impl Arrivals {
    /// Takes the connections of `hosts`.
    pub(super) fn at(listener: Listener, hosts: Arc<Orphans>) -> Self {
        let address = listener.address().to_owned();
        let expected = Arc::new(Expected::default());
        let accepting = tokio::spawn(accept(listener, hosts, Arc::clone(&expected)));
        Self { address, expected, accepting }
    }

    /// What hosts connect to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Expects a host until its ticket is dropped.
    pub(super) fn expect(&self, host_id: &str) -> io::Result<Ticket> {
        let token = LinkToken::generate()?;
        let pid = Arc::default();
        let (sender, arrival) = oneshot::channel();
        let guest = Guest { host_id: host_id.to_owned(), token: token.clone(), pid: Arc::clone(&pid), arrival: sender };
        self.expected.add(guest);
        Ok(Ticket { token, arrival, pid })
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Expected {
    fn add(&self, guest: Guest) {
        let mut guests = self.0.lock();
        guests.retain(|guest| !guest.arrival.is_closed());
        guests.push(guest);
    }

    /// The guest that `matches`, who is from then on expected no more.
    fn remove(&self, matches: impl Fn(&Guest) -> bool) -> Option<Guest> {
        let mut guests = self.0.lock();
        let position = guests.iter().position(|guest| !guest.arrival.is_closed() && matches(guest))?;
        Some(guests.swap_remove(position))
    }
}

async fn accept(listener: Listener, hosts: Arc<Orphans>, expected: Arc<Expected>) {
    let mut unproven = JoinSet::new();
    loop {
        while unproven.len() >= UNPROVEN {
            unproven.join_next().await;
        }
        while unproven.try_join_next().is_some() {}
        match listener.accept().await {
            // What users' code in them starts is not let in to keep them out.
            Ok(stream) if peer_pid(&stream).is_some_and(|pid| !hosts.has(pid)) => {
                debug!(pid = peer_pid(&stream), "refused a connection to the host link: it is from no engine host");
            }
            Ok(stream) => drop(unproven.spawn(receive(stream, Arc::clone(&expected)))),
            Err(failure) => {
                error!("failed to accept a connection from an engine host: {failure}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn receive(mut stream: Stream, expected: Arc<Expected>) {
    let mut guest = None;
    let greeted = greet(&mut stream, HANDSHAKE, |hello: &Hello| {
        let known = expected
            .remove(|guest| guest.token == hello.token)
            .ok_or_else(|| Refusal::new(RefusalCode::BadToken, "the link token is wrong, or was used before"))?;
        let welcome = Welcome { host_id: known.host_id.clone() };
        guest = Some(known);
        Ok(welcome)
    })
    .await;
    let pid = peer_pid(&stream);
    // Who fails before the token is looked at is known by its process.
    let guest = guest.or_else(|| expected.remove(|guest| pid.is_some() && guest.pid.get().copied() == pid));
    let host = guest.as_ref().map(|guest| display(&guest.host_id));
    match &greeted {
        Ok(hello) => debug!(host, pid = hello.pid, version = hello.version, "engine host connected"),
        Err(failure) => warn!(host, pid, "refused a connection to the host link: {failure}"),
    }
    if let Some(guest) = guest {
        // Fails when the host is not wanted any more; its link closes then.
        let _ = guest.arrival.send(greeted.map(|_| Link::start(stream, LinkOptions::default())));
    }
}
