//! One websocket for all channels, which is opened again whenever it is lost.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::aside::is_long;
use base::metrics::metrics;
use base::reconnecting::{self, Conversation, LinkError, Pace};
use secrecy::SecretString;
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::protocol::Message as WsMessage;

use super::channel::Channel;
use super::connect::{BoxedStream, ConnectError, Connected, connect};
use super::frame::{Frame, InvalidFrame, Message, decode_binary, decode_long, decode_text};
use super::hub::{Command, Hub, LinkEnd, Rejoin};
use super::intake::Intake;
use super::payload::Payload;
use crate::LightningOptions;

/// Makes the query of the URL, with a fresh token, for each connect.
pub(crate) type Query = Box<dyn Fn() -> SecretString + Send + Sync>;

/// A socket that lives until this handle and all its channels are dropped.
pub(crate) struct Socket {
    commands: UnboundedSender<Command>,
    connected: watch::Receiver<bool>,
    next_channel: AtomicU64,
    task: JoinHandle<()>,
}

impl Socket {
    /// Starts connecting.
    pub(crate) fn spawn(options: Arc<LightningOptions>, query: Query) -> Self {
        let (commands, received) = unbounded_channel();
        let pace = Pace { heartbeat: options.heartbeat, reconnect: options.reconnect };
        let (query, weak) = (Arc::new(query), commands.downgrade());
        let conversation = Phoenix { options, query, weak, hub: Hub::default(), intake: Intake::default() };
        let (connected, task) = reconnecting::spawn(conversation, received, pace);
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

/// What is said over it: the hub's frames.
struct Phoenix {
    options: Arc<LightningOptions>,
    query: Arc<Query>,
    /// For timers: the socket must not keep itself alive.
    weak: WeakUnboundedSender<Command>,
    hub: Hub,
    intake: Intake,
}

impl Conversation for Phoenix {
    type Command = Command;
    type Text = Frame;
    type Message = Message;
    type InvalidMessage = InvalidFrame;
    type Stream = BoxedStream;
    type ConnectError = ConnectError;

    const PEER: &'static str = "Lightning";

    fn address(&self) -> impl Display {
        &self.options.endpoint
    }

    fn connect(&self) -> impl Future<Output = Result<Connected, ConnectError>> + Send + 'static + use<> {
        let (options, query) = (Arc::clone(&self.options), Arc::clone(&self.query));
        async move { connect(&options, &query()).await }
    }

    fn refused(&mut self) {
        metrics().connect_failures.inc();
    }

    fn connected(&mut self) {
        metrics().connections.inc();
        self.hub.link_up();
    }

    fn disconnected(&mut self, why: &LinkError) {
        metrics().connections_lost.inc();
        self.hub.link_down(match why {
            LinkError::TooLong => LinkEnd::TooLong,
            LinkError::Silent(_) => LinkEnd::Silent,
            LinkError::Closed(_) | LinkError::Socket(_) => LinkEnd::Broken,
        });
    }

    fn command(&mut self, command: Command) {
        self.hub.command(command);
    }

    fn heartbeat(&mut self) {
        self.hub.heartbeat();
    }

    /// Hands over what the hub wants sent, and starts its timers.
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

    async fn room(&self) {
        self.intake.room().await;
    }

    fn decoder(
        &mut self,
        message: WsMessage,
    ) -> impl FnOnce() -> Result<Message, InvalidFrame> + Send + 'static + use<> {
        let is_text = message.is_text();
        let is_long = is_long(message.len());
        let data = message.into_data();
        let data = if is_long { self.intake.admit(data) } else { data };
        move || match (is_text, is_long) {
            (true, true) => decode_long(&data),
            (true, false) => decode_text(std::str::from_utf8(&data).map_err(|_| InvalidFrame::Header)?),
            (false, _) => decode_binary(&data),
        }
    }

    fn message(&mut self, message: Message) {
        self.hub.message(message);
    }
}

#[cfg(test)]
mod tests;
