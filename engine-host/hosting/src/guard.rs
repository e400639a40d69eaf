//! Brings the host to its worker, and sees to it that it does not outlive it.
//!
//! All of it is for the main thread, which nothing else is to hold up. The host's exit codes are here.

use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use protocol::handshake::{self, ADDRESS_VARIABLE, HandshakeError, LinkToken, PARENT_VARIABLE, TOKEN_VARIABLE};
use protocol::link::{HostSide, Inbox, Link, LinkEnd, LinkOptions};
use protocol::message::{Hello, PROTOCOL_VERSION};
pub use protocol::signal::StopSignals;
use protocol::socket::{self, SocketError};

use crate::process::take_variables;

/// How long a host tries to reach its worker.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// How long a worker may take to answer the handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(60);

/// Codes that a host exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It was stopped, or its worker is gone.
    Normal = 0,
    /// It could not reach its worker, or the worker did not take it.
    Failure = 1,
    /// It was started by hand.
    ByHand = 2,
    /// The operating system or a sandbox does not let it connect.
    SocketRefused = 78,
}

/// What the worker told its host in the environment.
#[derive(Debug)]
pub struct Launch {
    /// The worker's socket.
    pub address: String,
    /// What the host proves itself with.
    pub token: LinkToken,
    /// The worker's process id.
    pub parent: u32,
}

impl Launch {
    /// Takes it out of the environment, if it was a worker that started this process. To be called before there is a
    /// second thread.
    pub fn take() -> Option<Self> {
        let [address, token, parent] = take_variables([ADDRESS_VARIABLE, TOKEN_VARIABLE, PARENT_VARIABLE]);
        Some(Self { address: address?, token: LinkToken::new(token?), parent: parent?.parse().ok()? })
    }
}

/// Why a host has no worker to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The worker's socket cannot be reached.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Nobody answered.
    #[error("no connection to the worker within {CONNECT_WITHIN:?}")]
    ConnectTimeout,
    /// The worker did not take the host.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl StartError {
    /// What the host exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Socket(SocketError::Forbidden { .. } | SocketError::NoLocalSockets { .. }) => ExitCode::SocketRefused,
            _ => ExitCode::Failure,
        }
    }
}

/// Connects to the worker and introduces the host. Returns what the worker calls it, too.
pub async fn join(launch: Launch) -> Result<(String, Link<HostSide>, Inbox<HostSide>), StartError> {
    let connecting = tokio::time::timeout(CONNECT_WITHIN, socket::connect(&launch.address));
    let mut stream = connecting.await.map_err(|_| StartError::ConnectTimeout)??;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        token: launch.token,
        pid: std::process::id(),
    };
    let welcome = handshake::introduce(&mut stream, &hello, HANDSHAKE_WITHIN).await?;
    let (link, inbox) = Link::start(stream, LinkOptions::default());
    Ok((welcome.host_id, link, inbox))
}

/// Runs `serving` for as long as the link lives. A link that ended on the worker's side is a worker that is gone.
pub async fn until_link_ends(link: &Link<HostSide>, serving: impl Future<Output = ()>) -> ExitCode {
    tokio::select! {
        biased;
        end = link.ended() => after(&end),
        () = serving => ExitCode::Normal,
    }
}

/// What the host exits with after this end of its link. What is no regular one is told.
pub(crate) fn after(end: &LinkEnd) -> ExitCode {
    match end {
        LinkEnd::PeerClosed | LinkEnd::ClosedHere => ExitCode::Normal,
        broken => {
            say(&broken.to_string());
            ExitCode::Failure
        }
    }
}

/// Writes a line to stderr, which the worker reads. It may be gone: that is no error here.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_socket_has_a_code_of_its_own() {
        let refused = |kind: io::ErrorKind| (String::from("/run/link"), io::Error::from(kind));
        let (address, source) = refused(io::ErrorKind::PermissionDenied);
        let forbidden = StartError::Socket(SocketError::Forbidden { address, source });
        assert_eq!(forbidden.exit_code(), ExitCode::SocketRefused);
        let (address, source) = refused(io::ErrorKind::NotFound);
        for other in [StartError::Socket(SocketError::Connect { address, source }), StartError::ConnectTimeout] {
            assert_eq!(other.exit_code(), ExitCode::Failure);
        }
    }
}
