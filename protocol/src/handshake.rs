//! The first exchange on a stream: the host introduces itself, the worker takes it or says why not.
//!
//! Owns the token that proves a host, the names of the environment variables that a host finds the worker by, and the
//! version check. Every version must understand this exchange of every other, to tell people what is wrong: messages
//! are maps with named keys, unknown keys are ignored, and keys are only ever added.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::frame::{self, EncodeError, FrameDecoder, FrameError};
use crate::message::{Hello, PROTOCOL_VERSION, Refusal, RefusalCode, Welcome};

/// Environment variable of a host: the address of the worker's socket.
pub const ADDRESS_VARIABLE: &str = "ENGINE_HOST_LINK";

/// Environment variable of a host: its [`LinkToken`]. The host removes it, so that its own children do not get it.
pub const TOKEN_VARIABLE: &str = "ENGINE_HOST_TOKEN";

/// Environment variable of a host: the worker's process id.
pub const PARENT_VARIABLE: &str = "ENGINE_HOST_PARENT";

/// Longest message of this exchange, in bytes: who is not known yet does not make anybody reserve more.
const MAX_FRAME: usize = 64 * 1024;

/// What a host proves itself with, once. Cannot be printed, and is compared in constant time.
#[derive(Debug, Clone)]
pub struct LinkToken(SecretString);

impl LinkToken {
    /// A new one: 256 random bits in hexadecimal. Fails where the operating system has no randomness to give.
    pub fn generate() -> io::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    }

    /// The token that a host found in its environment.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text, for a host's environment and nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for LinkToken {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for LinkToken {}

impl Serialize for LinkToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for LinkToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Why a handshake failed. The stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Worker and host were built from different versions.
    #[error(
        "worker and host do not fit together: the worker speaks version {worker} of the link's protocol and the host \
         version {host}; install both from the same release"
    )]
    VersionMismatch {
        /// The worker's [`PROTOCOL_VERSION`].
        worker: u32,
        /// The host's.
        host: u32,
    },
    /// The worker does not take the host.
    #[error("the worker does not take the host: {0}")]
    Refused(Refusal),
    /// The other side did not answer in time.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// The other side closed the stream before it had said anything.
    #[error("the other side closed the stream instead of a handshake")]
    Closed,
    /// The worker's answer is neither yes nor no.
    #[error("the worker's answer neither takes nor refuses the host")]
    NoVerdict,
    /// What the other side sent is no handshake.
    #[error("no handshake: {0}")]
    Frame(#[from] FrameError),
    /// A message to the other side is too long.
    #[error("cannot introduce this side: {0}")]
    Encode(#[from] EncodeError),
    /// The operating system failed to read or write.
    #[error("the stream failed in the handshake: {0}")]
    Io(#[from] io::Error),
}

/// The part of [`Hello`] that is judged first. Its other keys may be different ones in other versions.
#[derive(Deserialize)]
struct Speaks {
    protocol: u32,
}

/// What the worker answers: exactly one of `welcome` and `refusal`.
#[derive(Serialize, Deserialize)]
struct Answer {
    protocol: u32,
    #[serde(default)]
    welcome: Option<Welcome>,
    #[serde(default)]
    refusal: Option<Refusal>,
}

/// The host's part: says hello, and waits for the answer. Afterwards the stream is ready for a link.
pub async fn introduce<S>(stream: &mut S, hello: &Hello, deadline: Duration) -> Result<Welcome, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(deadline, async {
        send(stream, hello).await?;
        let answer = receive(stream).await?;
        let worker = frame::decode::<Speaks>(&answer)?.protocol;
        if worker != hello.protocol {
            return Err(HandshakeError::VersionMismatch { worker, host: hello.protocol });
        }
        match frame::decode::<Answer>(&answer)? {
            Answer { refusal: Some(refusal), .. } => Err(HandshakeError::Refused(refusal)),
            Answer { welcome: Some(welcome), .. } => Ok(welcome),
            Answer { .. } => Err(HandshakeError::NoVerdict),
        }
    })
    .await
}

/// The worker's part: hears who is there, and answers what `judge` says of it, which is not asked about hosts of
/// another version. Afterwards the stream is ready for a link.
pub async fn greet<S>(
    stream: &mut S,
    deadline: Duration,
    judge: impl FnOnce(&Hello) -> Result<Welcome, Refusal>,
) -> Result<Hello, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(deadline, async {
        let hello = receive(stream).await?;
        let host = frame::decode::<Speaks>(&hello)?.protocol;
        if host != PROTOCOL_VERSION {
            let mismatch = HandshakeError::VersionMismatch { worker: PROTOCOL_VERSION, host };
            let refusal = Refusal::new(RefusalCode::VersionMismatch, mismatch.to_string());
            answer(stream, Err(refusal)).await?;
            return Err(mismatch);
        }
        let hello = frame::decode::<Hello>(&hello)?;
        let verdict = judge(&hello);
        answer(stream, verdict.clone()).await?;
        verdict.map(|_| hello).map_err(HandshakeError::Refused)
    })
    .await
}

async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(HandshakeError::Timeout(deadline)))
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    verdict: Result<Welcome, Refusal>,
) -> Result<(), HandshakeError> {
    let (welcome, refusal) = match verdict {
        Ok(welcome) => (Some(welcome), None),
        Err(refusal) => (None, Some(refusal)),
    };
    send(stream, &Answer { protocol: PROTOCOL_VERSION, welcome, refusal }).await
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<(), HandshakeError> {
    stream.write_all(&frame::encode_named(message, MAX_FRAME)?).await?;
    Ok(stream.flush().await?)
}

/// Reads one frame and nothing behind it, because that belongs to the link.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, HandshakeError> {
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    loop {
        if let Some(payload) = decoder.next_frame()? {
            return Ok(payload);
        }
        let missing = decoder.missing()? as u64;
        if (&mut *stream).take(missing).read_buf(decoder.room()).await? == 0 {
            decoder.finish()?;
            return Err(HandshakeError::Closed);
        }
    }
}
