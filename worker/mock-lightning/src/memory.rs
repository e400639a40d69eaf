//! Connections to the double that are pipes in memory, for tests without sockets or real time.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use base::optional::or_never;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::Shared;

/// Bytes that a pipe holds in each direction, about what a socket does.
const PIPE_BYTES: usize = 256 * 1024;

/// Opens pipes to a double.
#[derive(Clone)]
pub struct MemoryConnector {
    pub(super) shared: Arc<Shared>,
    pub(super) pipes: mpsc::UnboundedSender<DuplexStream>,
}

impl MemoryConnector {
    /// The client's end of a new pipe; refused while the double does not listen.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        if !self.shared.is_listening() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.pipes.send(theirs).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

/// The double's ends of the pipes.
pub(super) struct Pipes(pub(super) mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        (or_never(self.0.recv().await.map(ready)).await, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}
