//! Sends documents to a collector over HTTP. What it does not take is dropped and counted: watching must not hold up
//! what is watched.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, Request, Uri, header};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use base::dial::{DialError, dial, tls_config};
use base::metrics::metrics;

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An `http` or `https` address, without user, password or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    tls: bool,
    host: String,
    port: u16,
    /// What stands before the path of each request; no slash at its end.
    base: String,
}

/// An address that nothing can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as http://localhost:4318: {0}")]
pub struct InvalidDestination(&'static str);

impl FromStr for Destination {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, InvalidDestination> {
        let uri: Uri = text.trim().parse().map_err(|_| InvalidDestination("this is none"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidDestination("it must start with http:// or https://")),
        };
        let authority = uri.authority().ok_or(InvalidDestination("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidDestination("it must not hold a user's name or password"));
        }
        if uri.query().is_some() {
            return Err(InvalidDestination("it must not have a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, base: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(out, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Why a collector did not take something.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("HTTP failed: {0}")]
    Http(String),
    #[error("it answered with HTTP {0}")]
    Refused(u16),
    #[error("it did not answer within {}s", PATIENCE.as_secs())]
    Silent,
}

/// Where one kind of document goes.
pub(super) struct Exporter {
    /// What is sent, for the log and the metrics: `traces` or `errors`.
    kind: &'static str,
    destination: Destination,
    path: String,
    headers: HeaderMap,
    is_failing: bool,
}

impl Exporter {
    /// Sends to `path` below the destination, with these headers.
    pub(super) fn new(kind: &'static str, destination: Destination, path: &str, headers: HeaderMap) -> Self {
        let path = format!("{}{path}", destination.base);
        Self { kind, destination, path, headers, is_failing: false }
    }

    /// Sends a document that stands for so many things. The first of several failures is told.
    pub(super) async fn send(&mut self, document: String, things: usize) {
        let sent = timeout(PATIENCE, self.post(document)).await.unwrap_or(Err(ExportError::Silent));
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        let Self { kind, destination, .. } = self;
        match sent {
            Err(error) => {
                (0..things).for_each(|_| metrics().export_dropped(kind));
                if !was_failing {
                    tracing::warn!("{kind} cannot be sent to {destination}: {error}; they are dropped until they can");
                }
            }
            Ok(()) if was_failing => tracing::info!("{kind} can be sent to {destination} again"),
            Ok(()) => {}
        }
    }

    /// So many things were dropped before they could be sent.
    pub(super) fn missed(&self, things: u64) {
        (0..things).for_each(|_| metrics().export_dropped(self.kind));
    }

    async fn post(&self, document: String) -> Result<(), ExportError> {
        let Destination { tls, host, port, .. } = &self.destination;
        let stream = dial(host, *port, *tls).await?;
        if !tls {
            return self.speak(stream, document).await;
        }
        let failed = |error: &dyn fmt::Display| ExportError::Tls(error.to_string());
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(&error))?;
        let stream = TlsConnector::from(tls_config()?).connect(name, stream).await.map_err(|error| failed(&error))?;
        self.speak(stream, document).await
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        document: String,
    ) -> Result<(), ExportError> {
        let failed = |error: &dyn fmt::Display| ExportError::Http(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let Destination { host, port, .. } = &self.destination;
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = Request::post(&self.path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .body(document)
            .map_err(|error| failed(&error))?;
        request.headers_mut().extend(self.headers.clone());
        let answered = async { sender.send_request(request).await };
        let (answer, _) = tokio::join!(answered, connection);
        let answer = answer.map_err(|error| failed(&error))?;
        // Nothing that it says is of interest, and the connection ends here.
        let _ = answer.body().size_hint();
        if answer.status().is_success() { Ok(()) } else { Err(ExportError::Refused(answer.status().as_u16())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let cases = [
            ("http://localhost:4318", Some("http://localhost:4318")),
            ("https://otel.example.org/base/", Some("https://otel.example.org:443/base")),
            ("http://[::1]:4318/v1", Some("http://::1:4318/v1")),
            ("localhost:4318", None),
            ("grpc://localhost:4317", None),
            ("http://user:password@localhost", None),
            ("http://localhost?token=1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Destination>().map(|it| it.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text}");
        }
    }
}
