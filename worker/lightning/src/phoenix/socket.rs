//! The actor that owns the websocket: connects, keeps it alive, notices when it is dead, and connects again for ever.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::aside::{aside, is_long};
use base::deflate::Deflater;
use base::metrics::metrics;
use base::writer::write;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use protocol::backoff::{Backoff, jitter};
use secrecy::SecretString;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::channel::Channel;
use super::connect::{ConnectError, Connected, Endpoint, Network, WebSocket, connect};
use super::frame::{Frame, InvalidFrame, Message, decode_binary, decode_long, decode_text};
use super::hub::{Command, Hub, LinkEnd, Rejoin};
use super::intake::Intake;
use super::payload::Payload;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause between attempts to connect in the first time of an outage; phoenix.js never waits longer.
const SOON: Duration = Duration::from_secs(5);

/// How long that time is.
const LONG_OUTAGE: Duration = Duration::from_secs(120);

/// How a socket is kept.
pub(crate) struct SocketOptions {
    /// Where to.
    pub(crate) endpoint: Endpoint,
    /// How it is reached.
    pub(crate) network: Network,
    /// Makes the query of the URL, with a fresh token, for each connect.
    pub(crate) query: Box<dyn Fn() -> SecretString + Send + Sync>,
    /// Whether compression is offered to the server.
    pub(crate) compression: bool,
    /// Time between heartbeats. Nothing received from one to the next means that the link is dead.
    pub(crate) heartbeat: Duration,
    /// Shortest and longest pause between attempts to connect.
    pub(crate) reconnect: (Duration, Duration),
}

/// A socket that lives until this handle and all its channels are dropped.
pub(crate) struct Socket {
    commands: UnboundedSender<Command>,
    connected: watch::Receiver<bool>,
    next_channel: AtomicU64,
    task: JoinHandle<()>,
}

impl Socket {
    /// Starts connecting.
    pub(crate) fn spawn(options: SocketOptions) -> Self {
        let (commands, received) = unbounded_channel();
        let (link, connected) = watch::channel(false);
        let weak = commands.downgrade();
        let pauses = Pauses::new(options.reconnect);
        let actor =
            Actor { options, commands: received, weak, link, pauses, hub: Hub::default(), intake: Intake::default() };
        let task = tokio::spawn(actor.run());
        Self { commands, connected, next_channel: AtomicU64::new(1), task }
    }

    /// Joins `topic`, now and after each reconnect.
    pub(crate) fn open(&self, topic: String, join: Payload) -> Channel {
        let id = self.next_channel.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = unbounded_channel();
        let _ = self.commands.send(Command::Open { channel: id, topic, join, events: sender });
        Channel { id, commands: self.commands.clone(), events, epoch: 0 }
    }

    /// Follows whether there is a link.
    pub(crate) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Closes the websocket when what was sent is out. The channels must have been dropped.
    pub(crate) async fn close(self) {
        let Self { commands, task, .. } = self;
        drop(commands);
        if let Err(error) = task.await {
            tracing::error!(%error, "the socket's task failed");
        }
    }
}

struct Actor {
    options: SocketOptions,
    commands: UnboundedReceiver<Command>,
    /// For timers: the actor must not keep itself alive.
    weak: WeakUnboundedSender<Command>,
    link: watch::Sender<bool>,
    pauses: Pauses,
    hub: Hub,
    intake: Intake,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Socket(#[from] WsError),
    #[error("the server closed the connection{0}")]
    Closed(String),
    #[error("the server closed the connection, as a message was too long for it (1009)")]
    TooLong,
    #[error("nothing was received for {}s", .0.as_secs())]
    Silent(Duration),
}

impl Actor {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        while let Some(connected) = self.connect(pause).await {
            metrics().connections.inc();
            self.link.send_replace(true);
            let ended = self.serve(connected).await;
            self.link.send_replace(false);
            self.hub.link_down(match ended {
                Err(LinkError::TooLong) => LinkEnd::TooLong,
                Err(LinkError::Silent(_)) => LinkEnd::Silent,
                _ => LinkEnd::Broken,
            });
            match ended {
                Ok(()) => return,
                Err(error) => {
                    metrics().connections_lost.inc();
                    tracing::warn!("lost the connection to Lightning: {error}");
                }
            }
            // A server that restarts must not meet all its workers at once.
            pause = self.pauses.next(Instant::now(), jitter()).mul_f64(jitter());
        }
    }

    /// Tries until there is a websocket; none when nobody wants one any more.
    async fn connect(&mut self, mut pause: Duration) -> Option<Connected> {
        let Self { options, commands, hub, pauses, .. } = self;
        for failures in 0.. {
            let mut attempt = pin!(attempt(options, pause));
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result,
                    command = commands.recv() => hub.command(command?),
                }
            };
            match result {
                Ok(connected) => {
                    let compression = if connected.compression { ", with compression" } else { "" };
                    tracing::info!("connected to Lightning at {}{}{compression}", options.endpoint, after(failures));
                    return Some(connected);
                }
                Err(error) => {
                    metrics().connect_failures.inc();
                    report_failure(&options.endpoint, failures, &error);
                }
            }
            pause = pauses.next(Instant::now(), jitter());
        }
        None
    }

    /// Carries messages until the link ends; `Ok` when nobody wants it any more.
    async fn serve(&mut self, connected: Connected) -> Result<(), LinkError> {
        let (sink, mut stream) = connected.socket.split();
        let deflater = connected.compression.then(Deflater::default);
        let (frames, outgoing) = unbounded_channel();
        let (ping, pings) = unbounded_channel();
        let mut writer = pin!(write(sink, deflater, outgoing, pings));
        let beat = self.options.heartbeat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = true;
        let mut decoding = None;
        self.hub.link_up();
        loop {
            self.flush(&frames);
            tokio::select! {
                message = next(&mut stream, &self.intake), if decoding.is_none() => {
                    heard = true;
                    match message.transpose()? {
                        Some(message) => decoding = self.receive(message)?,
                        None => return Err(LinkError::Closed(String::new())),
                    }
                }
                decoded = decoded(&mut decoding) => {
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
                    self.hub.heartbeat();
                    let _ = ping.send(());
                }
                ended = &mut writer => match ended {
                    Ok(()) => return Ok(()),
                    Err(error) => return Err(self.last_words(stream, error).await),
                },
            }
        }
        drop(frames);
        if timeout(CLOSE_TIMEOUT, writer).await.is_err() {
            tracing::debug!("the server did not take the rest in time");
        }
        Ok(())
    }

    /// A server that closes the connection while it is written to has said why before, and that may still be to read.
    async fn last_words(&mut self, mut stream: SplitStream<WebSocket>, error: WsError) -> LinkError {
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
    fn obey(&mut self, first: Command) {
        self.hub.command(first);
        while let Ok(command) = self.commands.try_recv() {
            self.hub.command(command);
        }
    }

    /// Hands what the hub wants sent to the writer, and starts its timers.
    fn flush(&mut self, frames: &UnboundedSender<Frame>) {
        for frame in self.hub.outgoing.drain(..) {
            let _ = frames.send(frame);
        }
        for Rejoin { channel, epoch, pause } in self.hub.rejoins.drain(..) {
            let weak = self.weak.clone();
            tokio::spawn(async move {
                sleep(pause).await;
                if let Some(commands) = weak.upgrade() {
                    let _ = commands.send(Command::Rejoin { channel, epoch });
                }
            });
        }
    }

    /// Takes a message, or says how it is decoded if that takes long.
    fn receive(&mut self, message: WsMessage) -> Result<Option<Decoding>, LinkError> {
        let decoded = match message {
            WsMessage::Text(text) if is_long(text.len()) => {
                let text = self.intake.admit(text.into());
                return Ok(Some(Box::pin(aside(text.len(), move || decode_long(&text)))));
            }
            WsMessage::Binary(frame) if is_long(frame.len()) => decode_binary(&self.intake.admit(frame)),
            WsMessage::Text(text) => decode_text(&text),
            WsMessage::Binary(frame) => decode_binary(&frame),
            WsMessage::Close(Some(frame)) if frame.code == CloseCode::Size => return Err(LinkError::TooLong),
            WsMessage::Close(frame) => {
                let why = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason));
                return Err(LinkError::Closed(why.unwrap_or_default()));
            }
            WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => return Ok(None),
        };
        self.take(decoded);
        Ok(None)
    }

    fn take(&mut self, decoded: Decoded) {
        match decoded {
            Ok(message) => {
                self.pauses.reset();
                self.hub.message(message);
            }
            // Other channels share the link, so one bad frame does not end it.
            Err(error) => tracing::warn!("the server sent a frame that makes no sense: {error}"),
        }
    }
}

type Decoded = Result<Message, InvalidFrame>;

/// A long message that another thread decodes. Nothing else is read meanwhile, so that order stays.
type Decoding = Pin<Box<dyn Future<Output = Decoded> + Send>>;

async fn next(stream: &mut SplitStream<WebSocket>, intake: &Intake) -> Option<Result<WsMessage, WsError>> {
    intake.room().await;
    stream.next().await
}

/// Waits for ever if nothing is decoded.
async fn decoded(decoding: &mut Option<Decoding>) -> Decoded {
    match decoding {
        Some(decoding) => decoding.await,
        None => std::future::pending().await,
    }
}

/// Pauses between attempts to connect: short ones while users' runs still wait for a server that restarts, longer ones
/// when it is gone for long.
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

async fn attempt(options: &SocketOptions, pause: Duration) -> Result<Connected, ConnectError> {
    sleep(pause).await;
    connect(&options.network, &options.endpoint, &(options.query)(), options.compression).await
}

fn after(failures: u32) -> String {
    if failures == 0 { String::new() } else { format!(" after {failures} failed attempts") }
}

/// The first failure is loud and the rest are quiet.
fn report_failure(endpoint: &Endpoint, failures: u32, error: &ConnectError) {
    if failures == 0 {
        tracing::error!("no connection to Lightning at {endpoint}: {error}; will keep trying");
    } else {
        tracing::debug!("no connection to Lightning at {endpoint}: {error}");
    }
}

#[cfg(test)]
mod tests;
