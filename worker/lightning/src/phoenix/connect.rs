//! Opens a websocket to Lightning, with TLS where the endpoint wants it.

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::header::{DATE, SEC_WEBSOCKET_EXTENSIONS};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use base::deflate::{EXTENSION, Inflater, InflatingStream, NotOffered, agreement};
use base::dial::{ADDRESS_TIMEOUT, DialError, Proxy, ProxyError, dial, environment, remedy, speaks_tls, tls_config};
use base::escape::shown_url;

use crate::LightningOptions;

/// What a websocket to Lightning is on.
pub(super) type BoxedStream = InflatingStream<Box<dyn Stream>>;

/// A websocket to Lightning.
pub(super) type Connected = base::reconnecting::Connected<BoxedStream>;

/// A stream of bytes to Lightning's address, below TLS and the websocket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens a stream to an endpoint in place of TCP.
type Dial = dyn Fn(&Endpoint) -> io::Result<Box<dyn Stream>> + Send + Sync;

/// How the endpoint is reached: by TCP, or through a network that is not the system's.
#[derive(derive_more::Debug, Clone, Default)]
#[debug("{}", if self.0.is_some() { "Network(own)" } else { "Network(tcp)" })]
pub struct Network(Option<Arc<Dial>>);

impl Network {
    /// A network that `dial` opens streams in.
    pub fn new(dial: impl Fn(&Endpoint) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(dial)))
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, ConnectError> {
        if let Some(dial) = &self.0 {
            return dial(endpoint).map_err(|error| DialError::Addresses(error.to_string()).into());
        }
        Ok(Box::new(dial(&endpoint.host, endpoint.port, endpoint.tls).await?))
    }
}

/// The largest message taken. A dataclip of 100 MB as an array of byte values, as the development mock sends it, fits.
const MAX_MESSAGE_BYTES: usize = 512 * 1024 * 1024;

/// The largest message that a compressed one may inflate to. Who compresses sends no arrays of bytes: Lightning's
/// dataclips have 10 MB unless somebody raised that.
const MAX_INFLATED_BYTES: usize = 128 * 1024 * 1024;

/// Where Lightning's worker socket is, such as `wss://app.openfn.org/worker`.
#[derive(derive_more::Display, Debug, Clone, PartialEq, Eq)]
#[display("{text}")]
pub struct Endpoint {
    text: String,
    tls: bool,
    host: String,
    port: u16,
}

/// An endpoint that cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an endpoint of Lightning: {why}; it looks like wss://app.openfn.org/worker")]
pub struct InvalidEndpoint {
    text: String,
    why: String,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let text = text.trim();
        if text.contains('@') {
            let why = "it must not hold a user's name or password".into();
            return Err(InvalidEndpoint { text: "(hidden)".into(), why });
        }
        let invalid = |why: String| InvalidEndpoint { text: shown_url(text), why };
        let uri: Uri = text.parse().map_err(|error| invalid(format!("{error}")))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(invalid("it must start with ws:// or wss://".into())),
        };
        // The parser forgets fragments.
        if text.contains(['?', '#']) {
            return Err(invalid("it must not have a query or a fragment".into()));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("it names no host".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { text: text.trim_end_matches('/').into(), tls, host, port })
    }
}

impl Endpoint {
    /// The name or address of its host; one of IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy on the way to it, if the environment names one.
    pub fn proxy(&self) -> Result<Option<Proxy>, ProxyError> {
        if self.tls { Proxy::for_host(&self.host, self.port, environment) } else { Ok(None) }
    }

    /// Its port, which the scheme tells where nothing else does.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why there is no websocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// There is no connection to speak over.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server answered the upgrade with an HTTP error that speaks of credentials.
    #[error("the server refused the worker's token (HTTP {0}): the worker secret is not the one that it knows")]
    Unauthorized(u16),
    /// The handshake failed.
    #[error("the websocket handshake failed: {0}")]
    Handshake(#[from] Box<WsError>),
    /// TLS could not be set up.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The server answered with an extension that the worker cannot speak.
    #[error(transparent)]
    Extension(#[from] NotOffered),
    /// One of these, with what to do about it.
    #[error("{error}: {hint}")]
    Explained { error: Box<Self>, hint: String },
    /// The handshake took too long.
    #[error("the server did not answer the websocket handshake within {}s", ADDRESS_TIMEOUT.as_secs())]
    Silent,
}

/// Opens a websocket with this query, which holds the worker's token, and offers compression if wanted.
pub(super) async fn connect(options: &LightningOptions, query: &SecretString) -> Result<Connected, ConnectError> {
    let connected = match attempt(options, query, options.compression).await {
        // What it wants cannot be spoken, and may be of no importance to it.
        Err(ConnectError::Extension(error)) if options.compression => {
            tracing::warn!("{error}: connecting without compression");
            attempt(options, query, false).await
        }
        connected => connected,
    };
    match connected {
        Err(error) => Err(explained(error, &options.network, &options.endpoint).await),
        connected => connected,
    }
}

/// The error with what to do about it, where that is known.
async fn explained(error: ConnectError, network: &Network, endpoint: &Endpoint) -> ConnectError {
    // A server of TLS answers a plain request with an alert, HTTP 400 or by hanging up.
    let status = match &error {
        ConnectError::Handshake(error) => match error.as_ref() {
            WsError::Http(answer) => Some(answer.status().as_u16()),
            _ => None,
        },
        _ => None,
    };
    let is_handshake = matches!(error, ConnectError::Handshake(_)) && status.is_none_or(|status| status == 400);
    let may_be_tls = is_handshake && !endpoint.tls && network.0.is_none();
    let hint = match remedy(&error) {
        Some(remedy) => remedy.to_owned(),
        None if status == Some(404) => "there is no websocket at this path: Lightning's ends with /worker".to_owned(),
        None if may_be_tls && speaks_tls(&endpoint.host, endpoint.port).await => {
            format!("the server speaks TLS on this port: use {}", endpoint.text.replacen("ws://", "wss://", 1))
        }
        None => return error,
    };
    ConnectError::Explained { error: Box::new(error), hint }
}

async fn attempt(options: &LightningOptions, query: &SecretString, compress: bool) -> Result<Connected, ConnectError> {
    let endpoint = &options.endpoint;
    let stream = options.network.open(endpoint).await?;
    let url = format!("{endpoint}/websocket?{}", query.expose_secret());
    let handshake = async {
        let stream = if endpoint.tls { encrypted(stream, endpoint).await? } else { stream };
        upgrade(stream, url, compress).await
    };
    timeout(ADDRESS_TIMEOUT, handshake).await.map_err(|_| ConnectError::Silent)?
}

async fn encrypted(stream: Box<dyn Stream>, endpoint: &Endpoint) -> Result<Box<dyn Stream>, ConnectError> {
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| DialError::Tls(error.to_string()))?;
    let stream = TlsConnector::from(tls_config()?).connect(name, stream).await.map_err(ConnectError::Tls)?;
    Ok(Box::new(stream))
}

/// What time it is at the endpoint, to the second, if its answer to a handshake without a token tells.
pub async fn server_time(endpoint: &Endpoint) -> Option<Timestamp> {
    let stream = Network::default().open(endpoint).await.ok()?;
    let stream = if endpoint.tls { encrypted(stream, endpoint).await.ok()? } else { stream };
    let request = format!("{endpoint}/websocket?vsn=2.0.0").into_client_request().ok()?;
    let headers = match client_async_with_config(request, stream, None).await {
        Ok((_, answer)) => answer.into_parts().0.headers,
        Err(WsError::Http(answer)) => answer.into_parts().0.headers,
        Err(_) => return None,
    };
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
}

async fn upgrade(stream: Box<dyn Stream>, url: String, compression: bool) -> Result<Connected, ConnectError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(64 * 1024)
        .write_buffer_size(64 * 1024)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut request = url.into_client_request().map_err(Box::new)?;
    if compression {
        request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(EXTENSION));
    }
    match client_async_with_config(request, InflatingStream::after_head(stream), Some(config)).await {
        Ok((mut socket, answer)) => {
            let agreement = agreement(answer.headers(), compression)?;
            let inflater = agreement.map(|it| Inflater::new(it.keeps_context, MAX_INFLATED_BYTES));
            socket.get_mut().begin(inflater);
            Ok(Connected { socket, compression: agreement.is_some() })
        }
        Err(WsError::Http(answer)) if matches!(answer.status().as_u16(), 401 | 403) => {
            Err(ConnectError::Unauthorized(answer.status().as_u16()))
        }
        Err(error) => Err(Box::new(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    use super::*;

    #[test]
    fn endpoints() {
        let cases = [
            ("ws://localhost:4000/worker", Some((false, "localhost", 4000))),
            ("wss://app.openfn.org/worker/", Some((true, "app.openfn.org", 443))),
            ("ws://[::1]/worker", Some((false, "::1", 80))),
            ("https://app.openfn.org/worker", None),
            ("localhost:4000", None),
            ("ws://x/worker?token=1", None),
            ("", None),
            ("ws://", None),
            ("ws://ann:secret@x/worker", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Endpoint>();
            let read = read.as_ref().map(|it| (it.tls, it.host.as_str(), it.port));
            assert_eq!(read.ok(), expected, "{text}");
        }
        let error = "https://x/worker".parse::<Endpoint>().unwrap_err().to_string();
        for text in [
            "ws://ann:secret@x/worker",
            "ws://x/worker?token=secret",
            "https://x?secret",
            "ws://x#secret",
            "x y?secret",
        ] {
            let hidden = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(!hidden.contains("secret"), "{hidden}");
        }
        assert!(error.contains("https://x/worker") && error.contains("ws:// or wss://"), "{error}");
    }

    fn options(endpoint: String) -> LightningOptions {
        let options = LightningOptions::new(endpoint.parse().unwrap(), "secret".into());
        LightningOptions { compression: true, ..options }
    }

    /// Answers a handshake as a server does that wants this extension, and says whether compression was offered.
    async fn agree(listener: &TcpListener, extension: Option<&str>) -> (bool, TcpStream) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            request.push(char::from(stream.read_u8().await.unwrap()));
        }
        let header = |name: &str| {
            let mut headers = request.lines().filter_map(|line| line.split_once(": "));
            headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let accept = derive_accept_key(header("Sec-WebSocket-Key").unwrap().as_bytes());
        let extension = extension.map(|it| format!("Sec-WebSocket-Extensions: {it}\r\n")).unwrap_or_default();
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        let answer = format!("{head}Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        (header("Sec-WebSocket-Extensions").is_some(), stream)
    }

    #[tokio::test]
    async fn a_server_that_wants_an_extension_that_was_not_offered_is_spoken_to_without() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = options(format!("ws://{}/worker", listener.local_addr().unwrap()));
        let query = "token=x".into();
        for odd in
            ["permessage-deflate; client_max_window_bits=10", "permessage-deflate; server_max_window_bits=99", "x"]
        {
            for is_stubborn in [false, true] {
                let server = async {
                    let (first, _) = agree(&listener, Some(odd)).await;
                    let (second, stream) = agree(&listener, is_stubborn.then_some(odd)).await;
                    (first, second, stream)
                };
                let (result, (first, second, _stream)) = tokio::join!(connect(&options, &query), server);
                assert_eq!((first, second), (true, false));
                match result {
                    Ok(connected) => assert!(!is_stubborn && !connected.compression, "{odd}"),
                    Err(error) => assert!(is_stubborn && matches!(error, ConnectError::Extension(_)), "{odd}: {error}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = options(format!("wss://{}/worker", listener.local_addr().unwrap()));
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let query = "token=x".into();
        let (result, _stream) = tokio::join!(connect(&options, &query), server);
        // A machine may have no trust roots, which is told in its own words.
        match result.map(drop).unwrap_err() {
            ConnectError::Explained { hint, .. } => assert!(hint.contains("is it ws://"), "{hint}"),
            error => assert!(matches!(error, ConnectError::Dial(DialError::Tls(_))), "{error}"),
        }
    }

    #[tokio::test]
    async fn a_path_that_is_not_lightnings_is_told_with_the_right_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = options(format!("ws://{}", listener.local_addr().unwrap()));
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream
        };
        let query = "token=x".into();
        let (result, _stream) = tokio::join!(connect(&options, &query), server);
        let error = result.map(drop).unwrap_err().to_string();
        assert!(error.contains("404") && error.ends_with("Lightning's ends with /worker"), "{error}");
    }

    #[tokio::test]
    async fn localhost_is_tried_on_both_families_and_each_failure_is_told() {
        // A port that nobody listens on: bound and released.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let connected = connect(&options(format!("ws://localhost:{port}/worker")), &"token=x".into()).await;
        let error = connected.map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains(&format!("[::1]:{port}: ")), "{error}");
    }
}
