//! The websocket to a store, which is opened again whenever it is lost.

use std::fmt::Display;

use base::dial::{ADDRESS_TIMEOUT, DialError, dial, tls_config};
use base::reconnecting::{self, Connected, LinkError};
use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{Connector, MaybeTlsStream, client_async_tls_with_config};

use super::conversation::{Command, Conversation};
use super::domain::Domain;
use crate::wire::{Incoming, InvalidMessage};

/// The largest message that is taken, in bytes.
const MAX_MESSAGE_BYTES: usize = 128 * 1024 * 1024;

/// What is said to a store, and for whom.
pub(super) struct Connection {
    pub(super) domain: Domain,
    pub(super) token: SecretString,
    pub(super) user_agent: String,
    pub(super) conversation: Conversation,
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the websocket failed: {0}")]
    Socket(#[from] Box<WsError>),
    #[error("the store did not answer the websocket handshake within {}s", ADDRESS_TIMEOUT.as_secs())]
    NoHandshake,
}

impl reconnecting::Conversation for Connection {
    type Command = Command;
    type Text = String;
    type Message = Incoming;
    type InvalidMessage = InvalidMessage;
    type Stream = MaybeTlsStream<TcpStream>;
    type ConnectError = ConnectError;

    const PEER: &'static str = "the OADA store";

    fn address(&self) -> impl Display {
        &self.domain
    }

    fn connect(&self) -> impl Future<Output = Result<Connected<Self::Stream>, ConnectError>> + Send + 'static + use<> {
        connect(self.domain.clone())
    }

    fn connected(&mut self) {
        self.conversation.connected();
    }

    fn disconnected(&mut self, _why: &LinkError) {
        self.conversation.disconnected();
    }

    fn command(&mut self, command: Command) {
        self.conversation.command(command);
    }

    fn flush(&mut self, texts: &UnboundedSender<String>) {
        for (id, request) in self.conversation.outgoing.drain(..) {
            let _ = texts.send(request.frame(&id, &self.token, &self.user_agent));
        }
    }

    fn decoder(
        &mut self,
        message: Message,
    ) -> impl FnOnce() -> Result<Incoming, InvalidMessage> + Send + 'static + use<> {
        move || Incoming::parse(message.to_text().unwrap_or_default())
    }

    fn message(&mut self, message: Incoming) {
        self.conversation.incoming(message);
    }
}

async fn connect(domain: Domain) -> Result<Connected<MaybeTlsStream<TcpStream>>, ConnectError> {
    let stream = dial(&domain.host, domain.port, domain.tls).await?;
    let connector = if domain.tls { Connector::Rustls(tls_config()?) } else { Connector::Plain };
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES)).max_frame_size(Some(MAX_MESSAGE_BYTES));
    let handshake = client_async_tls_with_config(domain.websocket_url(), stream, Some(config), Some(connector));
    let answered = timeout(ADDRESS_TIMEOUT, handshake).await.map_err(|_| ConnectError::NoHandshake)?;
    let (socket, _) = answered.map_err(Box::new)?;
    Ok(Connected { socket, compression: false })
}
