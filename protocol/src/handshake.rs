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
    Refused(#[source] Refusal),
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

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn hello(token: &LinkToken) -> Hello {
        Hello { protocol: PROTOCOL_VERSION, version: "1.2.3".into(), token: token.clone(), pid: 42 }
    }

    fn welcome() -> Welcome {
        Welcome { host_id: "h1".into() }
    }

    /// A map as another version may send it, in a frame.
    fn foreign(entries: &[(&str, serde_json::Value)]) -> Bytes {
        let map: serde_json::Map<_, _> = entries.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
        frame::encode_named(&map, MAX_FRAME).unwrap()
    }

    async fn meet(
        hello: &Hello,
        expected: &LinkToken,
    ) -> (Result<Welcome, HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut host, mut worker) = duplex(1024);
        let judge = |hello: &Hello| match hello.token == *expected {
            true => Ok(welcome()),
            false => Err(Refusal::new(RefusalCode::BadToken, "This token is not known.")),
        };
        tokio::join!(introduce(&mut host, hello, DEADLINE), greet(&mut worker, DEADLINE, judge))
    }

    #[tokio::test]
    async fn the_right_token_is_welcome_and_another_is_not() {
        let token = LinkToken::generate().unwrap();
        let (host, worker) = meet(&hello(&token), &token).await;
        assert_eq!((host.unwrap(), worker.unwrap()), (welcome(), hello(&token)));

        let (host, worker) = meet(&hello(&LinkToken::generate().unwrap()), &token).await;
        for side in [host.map(|_| ()), worker.map(|_| ())] {
            let error = side.unwrap_err();
            assert!(
                matches!(&error, HandshakeError::Refused(refusal) if refusal.code == RefusalCode::BadToken),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn other_versions_are_named_on_both_sides() {
        let token = LinkToken::new("t");
        let newer = Hello { protocol: PROTOCOL_VERSION + 1, ..hello(&token) };
        let (host, worker) = meet(&newer, &token).await;
        let expected = format!(
            "worker and host do not fit together: the worker speaks version {PROTOCOL_VERSION} of the link's protocol \
             and the host version {}; install both from the same release",
            newer.protocol
        );
        assert_eq!(host.unwrap_err().to_string(), expected);
        assert_eq!(worker.unwrap_err().to_string(), expected);
    }

    #[tokio::test]
    async fn a_hello_of_which_only_the_version_is_known_is_answered() {
        let (mut host, mut worker) = duplex(1024);
        host.write_all(&foreign(&[("news", serde_json::json!([{"a": 1}])), ("protocol", 7.into())])).await.unwrap();
        let greeted = greet(&mut worker, DEADLINE, |_| panic!("there is nothing to judge")).await;
        assert!(matches!(greeted, Err(HandshakeError::VersionMismatch { host: 7, worker: PROTOCOL_VERSION })));
        let answer: Answer = frame::decode(&receive(&mut host).await.unwrap()).unwrap();
        assert_eq!(answer.protocol, PROTOCOL_VERSION);
        assert!(answer.welcome.is_none() && answer.refusal.unwrap().message.contains("the host version 7"));
    }

    #[tokio::test]
    async fn unknown_keys_are_ignored() {
        let (mut host, mut worker) = duplex(1024);
        let answer = foreign(&[
            ("protocol", PROTOCOL_VERSION.into()),
            ("welcome", serde_json::json!({"host_id": "h1", "more": {}})),
            ("other", "x".into()),
        ]);
        worker.write_all(&answer).await.unwrap();
        assert_eq!(introduce(&mut host, &hello(&LinkToken::new("t")), DEADLINE).await.unwrap(), welcome());
    }

    #[tokio::test]
    async fn nothing_behind_the_handshake_is_taken() {
        let (mut host, mut worker) = duplex(1024);
        let mut sent =
            foreign(&[("protocol", PROTOCOL_VERSION.into()), ("welcome", serde_json::json!({"host_id": "h1"}))])
                .to_vec();
        sent.extend(b"first frames of the link");
        worker.write_all(&sent).await.unwrap();
        introduce(&mut host, &hello(&LinkToken::new("t")), DEADLINE).await.unwrap();
        drop(worker);
        let mut rest = Vec::new();
        host.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"first frames of the link");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_handshake_is_told() {
        async fn greeted(mut worker: DuplexStream) -> String {
            greet(&mut worker, DEADLINE, |_| Ok(welcome())).await.unwrap_err().to_string()
        }
        let cases: [(&[u8], &str); 5] = [
            (b"", "the other side closed the stream instead of a handshake"),
            (b"GET / HTTP/1.1\r\n", "no handshake: a frame of 1195725856 bytes, where at most 65536 are allowed"),
            (&[0, 0, 0, 5, 1], "no handshake: the stream ended within a frame, at least 4 bytes before its end"),
            (&[0, 0, 0, 0], "no handshake: a frame of length zero"),
            (&[0, 0, 0, 1, 0x80], "no handshake: a frame that does not hold a message: missing field `protocol`"),
        ];
        for (bytes, expected) in cases {
            let (mut host, worker) = duplex(1024);
            host.write_all(bytes).await.unwrap();
            drop(host);
            let error = greeted(worker).await;
            assert!(error.starts_with(expected), "{error}");
        }
        let (_silent, worker) = duplex(1024);
        assert_eq!(greeted(worker).await, "no handshake within 30s");
    }

    #[test]
    fn tokens_are_unlike_each_other_and_never_shown() {
        let (one, two) = (LinkToken::generate().unwrap(), LinkToken::generate().unwrap());
        assert_eq!(one.expose().len(), 64);
        assert!(one != two && one == one.clone() && LinkToken::new("") != one);
        assert!(!format!("{:?}", hello(&one)).contains(one.expose()));
    }
}
