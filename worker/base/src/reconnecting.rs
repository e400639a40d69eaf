//! A websocket that is kept: opened, noticed when it is dead, and opened again for ever.
//!
//! A task owns the websocket and a [`Conversation`], which decides what is said over it. The task reads, writes and keeps
//! the time at once: a peer that takes nothing is still heard, and its silence noticed.

use std::fmt::Display;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use protocol::backoff::{Backoff, jitter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::aside::{aside, is_long};
use crate::deflate::Deflater;
use crate::optional::or_never;
use crate::writer::{LongText, write};

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause between attempts to connect in the first time of an outage; phoenix.js never waits longer.
const SOON: Duration = Duration::from_secs(5);

/// How long that time is.
const LONG_OUTAGE: Duration = Duration::from_secs(120);

/// What is said over a websocket.
pub trait Conversation: Send + Sync + 'static {
    /// What its owners ask of it.
    type Command: Send + 'static;
    /// What it sends.
    type Text: LongText + Send + Sync + 'static;
    /// What it receives.
    type Message: Send + 'static;
    /// Why something received is no message.
    type InvalidMessage: Display + Send + 'static;
    /// What the websocket is on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Why there is no websocket.
    type ConnectError: Display + Send;

    /// What the peer is, in messages to people.
    const PEER: &'static str;

    /// Where the peer is.
    fn address(&self) -> impl Display;

    /// Opens a websocket.
    fn connect(
        &self,
    ) -> impl Future<Output = Result<Connected<Self::Stream>, Self::ConnectError>> + Send + 'static + use<Self>;

    /// No websocket could be opened.
    fn refused(&mut self) {}

    /// There is a websocket.
    fn connected(&mut self);

    /// It is gone.
    fn disconnected(&mut self, why: &LinkError);

    /// Does what an owner asks for.
    fn command(&mut self, command: Self::Command);

    /// It is time for a sign of life, beside the ping that is sent anyway.
    fn heartbeat(&mut self) {}

    /// Hands over what is to be sent.
    fn flush(&mut self, texts: &UnboundedSender<Self::Text>);

    /// Waits until another message can be taken.
    fn room(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What decodes a text or binary message; by another thread if it is long.
    fn decoder(
        &mut self,
        message: WsMessage,
    ) -> impl FnOnce() -> Result<Self::Message, Self::InvalidMessage> + Send + 'static + use<Self>;

    /// Takes a message.
    fn message(&mut self, message: Self::Message);
}

/// A websocket, and what was agreed on for it.
pub struct Connected<S> {
    /// The websocket.
    pub socket: WebSocketStream<S>,
    /// Whether messages may be compressed.
    pub compression: bool,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The websocket failed.
    #[error(transparent)]
    Socket(#[from] WsError),
    /// The peer closed it, with this reason.
    #[error("the server closed the connection{0}")]
    Closed(String),
    /// The peer closed it because of the length of a message.
    #[error("the server closed the connection, as a message was too long for it (1009)")]
    TooLong,
    /// Not even a ping was answered.
    #[error("nothing was received for {}s", .0.as_secs())]
    Silent(Duration),
}

/// When a link is given up, and opened again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time between heartbeats. Nothing received from one to the next means that the link is dead.
    pub heartbeat: Duration,
    /// Shortest and longest pause between attempts to connect.
    pub reconnect: (Duration, Duration),
}

/// Starts to connect. The task ends when nobody can send commands any more and what was to be sent is out. Tells
/// whether there is a link.
pub fn spawn<C: Conversation>(
    conversation: C,
    commands: UnboundedReceiver<C::Command>,
    pace: Pace,
) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (link, connected) = watch::channel(false);
    let pauses = Pauses::new(pace.reconnect);
    let actor = Actor { conversation, commands, heartbeat: pace.heartbeat, pauses, link };
    (connected, tokio::spawn(actor.run()))
}

struct Actor<C: Conversation> {
    conversation: C,
    commands: UnboundedReceiver<C::Command>,
    heartbeat: Duration,
    pauses: Pauses,
    link: watch::Sender<bool>,
}

impl<C: Conversation> Actor<C> {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        while let Some(connected) = self.connect(pause).await {
            self.link.send_replace(true);
            self.conversation.connected();
            let ended = self.serve(connected).await;
            self.link.send_replace(false);
            let Err(error) = ended else { return };
            tracing::warn!(address = %self.conversation.address(), "lost the connection to {}: {error}", C::PEER);
            self.conversation.disconnected(&error);
            // A server that restarts must not meet all its clients at once.
            pause = self.pauses.next(Instant::now(), jitter()).mul_f64(jitter());
        }
    }

    /// Tries until there is a websocket; none when nobody wants one any more.
    async fn connect(&mut self, mut pause: Duration) -> Option<Connected<C::Stream>> {
        for failures in 0.. {
            let connecting = self.conversation.connect();
            let mut attempt = pin!(async move {
                sleep(pause).await;
                connecting.await
            });
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result,
                    command = self.commands.recv() => self.conversation.command(command?),
                }
            };
            let address = self.conversation.address();
            match result {
                Ok(connected) => {
                    let after = if failures > 0 { format!(" after {failures} failed attempts") } else { String::new() };
                    let compression = if connected.compression { ", with compression" } else { "" };
                    tracing::info!("connected to {} at {address}{after}{compression}", C::PEER);
                    return Some(connected);
                }
                // The first failure is loud and the rest are quiet.
                Err(error) if failures == 0 => {
                    tracing::error!("no connection to {} at {address}: {error}; will keep trying", C::PEER);
                }
                Err(error) => tracing::debug!("no connection to {} at {address}: {error}", C::PEER),
            }
            drop(address);
            self.conversation.refused();
            pause = self.pauses.next(Instant::now(), jitter());
        }
        None
    }

    /// Carries messages until the link ends; `Ok` when nobody wants it any more.
    async fn serve(&mut self, connected: Connected<C::Stream>) -> Result<(), LinkError> {
        let (sink, mut stream) = connected.socket.split();
        let deflater = connected.compression.then(Deflater::default);
        let (texts, outgoing) = unbounded_channel();
        let (ping, pings) = unbounded_channel();
        let mut writer = pin!(write(sink, deflater, outgoing, pings));
        let beat = self.heartbeat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = true;
        let mut decoding = None;
        loop {
            self.conversation.flush(&texts);
            tokio::select! {
                message = next(&mut stream, &self.conversation), if decoding.is_none() => {
                    heard = true;
                    match message.transpose()? {
                        Some(message) => decoding = self.receive(message)?,
                        None => return Err(LinkError::Closed(String::new())),
                    }
                }
                decoded = or_never(decoding.as_mut()) => {
                    decoding = None;
                    self.take(decoded);
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                _ = beats.tick() => {
                    if !std::mem::take(&mut heard) {
                        return Err(LinkError::Silent(beat));
                    }
                    self.conversation.heartbeat();
                    let _ = ping.send(());
                }
                ended = &mut writer => match ended {
                    Ok(()) => return Ok(()),
                    Err(error) => return Err(self.last_words(stream, error).await),
                },
            }
        }
        drop(texts);
        if timeout(CLOSE_TIMEOUT, writer).await.is_err() {
            tracing::debug!("{} did not take the rest in time", C::PEER);
        }
        Ok(())
    }

    /// A server that closes the connection while it is written to has said why before, and that may still be to read.
    async fn last_words(&mut self, mut stream: Incoming<C>, error: WsError) -> LinkError {
        let read = async {
            while let Some(Ok(message)) = stream.next().await {
                match self.receive(message) {
                    Ok(Some(decoding)) => {
                        let decoded = decoding.await;
                        self.take(decoded);
                    }
                    Ok(None) => {}
                    Err(closed) => return Some(closed),
                }
            }
            None
        };
        timeout(CLOSE_TIMEOUT, read).await.ok().flatten().unwrap_or(LinkError::Socket(error))
    }

    /// Does what is asked for, and what else is by now: so it goes to the server in one piece.
    fn obey(&mut self, first: C::Command) {
        self.conversation.command(first);
        while let Ok(command) = self.commands.try_recv() {
            self.conversation.command(command);
        }
    }

    /// Takes a message, or says how it is decoded if that takes long.
    fn receive(&mut self, message: WsMessage) -> Result<Option<Decoding<C>>, LinkError> {
        match message {
            WsMessage::Text(_) | WsMessage::Binary(_) => {
                let bytes = message.len();
                let decode = self.conversation.decoder(message);
                if is_long(bytes) {
                    return Ok(Some(Box::pin(aside(bytes, decode))));
                }
                self.take(decode());
                Ok(None)
            }
            WsMessage::Close(Some(frame)) if frame.code == CloseCode::Size => Err(LinkError::TooLong),
            WsMessage::Close(frame) => {
                let why = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason));
                Err(LinkError::Closed(why.unwrap_or_default()))
            }
            WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => Ok(None),
        }
    }

    fn take(&mut self, decoded: Decoded<C>) {
        match decoded {
            Ok(message) => {
                self.pauses.reset();
                self.conversation.message(message);
            }
            // Others share the link, so one bad message does not end it.
            Err(error) => tracing::warn!("{} sent a message that makes no sense: {error}", C::PEER),
        }
    }
}

type Incoming<C> = SplitStream<WebSocketStream<<C as Conversation>::Stream>>;

type Decoded<C> = Result<<C as Conversation>::Message, <C as Conversation>::InvalidMessage>;

/// A long message that another thread decodes. Nothing else is read meanwhile, so that order stays.
type Decoding<C> = Pin<Box<dyn Future<Output = Decoded<C>> + Send>>;

async fn next<C: Conversation>(stream: &mut Incoming<C>, conversation: &C) -> Option<Result<WsMessage, WsError>> {
    conversation.room().await;
    stream.next().await
}

/// Pauses between attempts to connect: short ones while a server may just restart, longer ones when it is gone for long.
struct Pauses {
    soon: Backoff,
    later: Backoff,
    /// Since when there is no server that says anything.
    since: Option<Instant>,
}

impl Pauses {
    fn new((shortest, longest): (Duration, Duration)) -> Self {
        let soon = SOON.min(longest);
        Self { soon: Backoff::new((shortest, soon), 2.0), later: Backoff::new((soon, longest), 1.5), since: None }
    }

    fn next(&mut self, now: Instant, jitter: f64) -> Duration {
        let outage = now - *self.since.get_or_insert(now);
        if outage < LONG_OUTAGE { self.soon.next(jitter) } else { self.later.next(jitter) }
    }

    /// The server has said something, and not only let us in.
    fn reset(&mut self) {
        if self.since.take().is_some() {
            self.soon.reset();
            self.later.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_in_the_first_time_of_an_outage() {
        let start = Instant::now();
        let mut pauses = Pauses::new((Duration::from_secs(1), Duration::from_secs(30)));
        let play = |pauses: &mut Pauses, start: Instant| {
            let (mut now, mut seen) = (start, Vec::new());
            while now < start + Duration::from_secs(600) {
                let pause = pauses.next(now, 0.9);
                seen.push((now - start, pause));
                now += pause;
            }
            seen
        };
        let seen = play(&mut pauses, start);
        assert!(seen.iter().filter(|(at, _)| *at < LONG_OUTAGE).all(|(_, pause)| *pause <= SOON), "{seen:?}");
        assert!(seen.is_sorted_by_key(|(_, pause)| *pause), "{seen:?}");
        assert_eq!(seen.last().unwrap().1, Duration::from_secs(30));
        pauses.reset();
        assert_eq!(play(&mut pauses, start + Duration::from_secs(700)), seen, "the next outage begins anew");
    }
}
