//! The actor that owns the websocket: connects, keeps it alive, notices when it is dead, and connects again for ever.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::aside::aside;
use base::dial::{ADDRESS_TIMEOUT, DialError, dial, tls_config};
use base::writer::write;
use futures_util::StreamExt;
use protocol::backoff::{Backoff, jitter};
use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::conversation::{Command, Conversation};
use super::domain::Domain;
use crate::wire::Incoming;

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The largest message that is taken, in bytes.
const MAX_MESSAGE_BYTES: usize = 128 * 1024 * 1024;
/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is made and kept with.
pub(super) struct Settings {
    pub(super) domain: Domain,
    /// Tells others whether there is a connection.
    pub(super) is_connected: Arc<AtomicBool>,
    pub(super) token: Arc<SecretString>,
    pub(super) user_agent: String,
    /// Time between pings. Nothing received from one to the next means that the connection is dead.
    pub(super) heartbeat: Duration,
    /// Shortest and longest pause between attempts to connect.
    pub(super) reconnect: (Duration, Duration),
}

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the websocket failed: {0}")]
    Socket(#[from] Box<WsError>),
    #[error("the store did not answer the websocket handshake within {}s", ADDRESS_TIMEOUT.as_secs())]
    NoHandshake,
    #[error("the store closed the connection{0}")]
    Closed(String),
    #[error("nothing was received for {}s", .0.as_secs())]
    Silent(Duration),
}

impl From<WsError> for ConnectionError {
    fn from(error: WsError) -> Self {
        Self::Socket(Box::new(error))
    }
}

/// Serves a client until all its handles are gone.
pub(super) async fn run(settings: Settings, commands: UnboundedReceiver<Command>) {
    let backoff = Backoff::new(settings.reconnect, 2.0);
    Actor { settings, commands, backoff, conversation: Conversation::default() }.run().await;
}

struct Actor {
    settings: Settings,
    commands: UnboundedReceiver<Command>,
    /// Starts again when the store has said something, not when it has only let us in.
    backoff: Backoff,
    conversation: Conversation,
}

impl Actor {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        while let Some(socket) = self.connect(pause).await {
            self.settings.is_connected.store(true, Ordering::Relaxed);
            let ended = self.serve(socket).await;
            self.settings.is_connected.store(false, Ordering::Relaxed);
            self.conversation.disconnected();
            match ended {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(domain = %self.settings.domain, "lost the connection to the OADA store: {error}");
                }
            }
            pause = self.backoff.next(jitter()).mul_f64(jitter());
        }
    }

    /// Tries until there is a websocket; none when nobody wants one any more.
    async fn connect(&mut self, mut pause: Duration) -> Option<WebSocket> {
        let Self { settings, commands, conversation, backoff } = self;
        for failures in 0.. {
            let mut attempt = pin!(attempt(settings, pause));
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result,
                    command = commands.recv() => conversation.command(command?),
                }
            };
            match result {
                Ok(socket) => return Some(socket),
                Err(error) if failures == 0 => {
                    tracing::error!("no connection to the OADA store {}: {error}; will keep trying", settings.domain);
                }
                Err(error) => tracing::debug!("no connection to the OADA store {}: {error}", settings.domain),
            }
            pause = backoff.next(jitter());
        }
        None
    }

    /// Carries messages until the connection ends; `Ok` when nobody wants it any more.
    async fn serve(&mut self, socket: WebSocket) -> Result<(), ConnectionError> {
        let (sink, mut stream) = socket.split();
        let (frames, outgoing) = unbounded_channel();
        let (ping, pings) = unbounded_channel();
        let mut writer = pin!(write(sink, None, outgoing, pings));
        let beat = self.settings.heartbeat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = true;
        self.conversation.connected();
        loop {
            for (id, request) in self.conversation.outgoing.drain(..) {
                let _ = frames.send(request.frame(&id, &self.settings.token, &self.settings.user_agent));
            }
            tokio::select! {
                message = stream.next() => {
                    heard = true;
                    match message.transpose()? {
                        Some(message) => self.receive(message).await?,
                        None => return Err(ConnectionError::Closed(String::new())),
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.conversation.command(command),
                    None => break,
                },
                _ = beats.tick() => {
                    if !std::mem::take(&mut heard) {
                        return Err(ConnectionError::Silent(beat));
                    }
                    let _ = ping.send(());
                }
                ended = &mut writer => return ended.map_err(Into::into),
            }
        }
        drop(frames);
        // Nobody is left who would learn that this failed.
        let _ = timeout(CLOSE_TIMEOUT, writer).await;
        Ok(())
    }

    async fn receive(&mut self, message: Message) -> Result<(), ConnectionError> {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let why = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason));
                return Err(ConnectionError::Closed(why.unwrap_or_default()));
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        match aside(text.len(), move || Incoming::parse(&text)).await {
            Ok(incoming) => {
                self.backoff.reset();
                self.conversation.incoming(incoming);
            }
            // Others share the connection, so one bad message does not end it.
            Err(error) => tracing::warn!("the OADA store sent a message that makes no sense: {error}"),
        }
        Ok(())
    }
}

async fn attempt(settings: &Settings, pause: Duration) -> Result<WebSocket, ConnectionError> {
    sleep(pause).await;
    let domain = &settings.domain;
    let stream = dial(&domain.host, domain.port, domain.tls).await?;
    let connector = if domain.tls { Connector::Rustls(tls_config()?) } else { Connector::Plain };
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES)).max_frame_size(Some(MAX_MESSAGE_BYTES));
    let handshake = client_async_tls_with_config(domain.websocket_url(), stream, Some(config), Some(connector));
    let (socket, _) = timeout(ADDRESS_TIMEOUT, handshake).await.map_err(|_| ConnectionError::NoHandshake)??;
    Ok(socket)
}
