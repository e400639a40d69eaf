//! Sends documents to a collector over HTTP. What it does not take is sent again for some seconds, then dropped and
//! counted: watching must not hold up what is watched.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use base::http::{PostError, parse_url, post};
use base::metrics::metrics;
use protocol::backoff::{Growth, jitter, spread};
use tokio::time::sleep;

/// How often a document is sent that the collector may take later.
const ATTEMPTS: u32 = 4;
/// The pause before the second time; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);

/// An `http` or `https` address, without user, password or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Uri);

/// An address that nothing can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as http://localhost:4318: {0}")]
pub struct InvalidDestination(&'static str);

impl FromStr for Destination {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, InvalidDestination> {
        let uri = parse_url(text).map_err(InvalidDestination)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(InvalidDestination("it must not hold a user's name or password"));
        }
        if uri.query().is_some() {
            return Err(InvalidDestination("it must not have a query"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let host = self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.0.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        write!(out, "{scheme}://{host}:{port}{}", self.0.path().trim_end_matches('/'))
    }
}

/// Where one kind of document goes.
pub(super) struct Exporter {
    /// What is sent, for the log and the metrics: `traces` or `errors`.
    kind: &'static str,
    destination: Destination,
    url: Uri,
    headers: HeaderMap,
    is_failing: bool,
}

impl Exporter {
    /// Sends to `path` below the destination, with these headers.
    pub(super) fn new(kind: &'static str, destination: Destination, path: &str, headers: HeaderMap) -> Self {
        let base = destination.0.to_string();
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let url = url.parse().expect("what is below an address without a query is an address");
        Self { kind, destination, url, headers, is_failing: false }
    }

    /// Sends a document that stands for so many things. The first of several failures is told.
    pub(super) async fn send(&mut self, document: String, things: usize) {
        let sent = self.post(document).await;
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

    async fn post(&self, document: String) -> Result<(), PostError> {
        let pauses = Growth::doubling(PAUSE, Duration::MAX);
        // A collector that is known to be away is not waited for.
        let again = if self.is_failing { 0 } else { ATTEMPTS - 1 };
        for failures in 0..again {
            match post(&self.url, self.headers.clone(), document.clone()).await {
                Err(error) if error.is_passing() => sleep(spread(pauses.pause(failures), jitter())).await,
                done => return done,
            }
        }
        post(&self.url, self.headers.clone(), document).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_refused_for_now_is_sent_again_and_nothing_else() {
        for (statuses, is_failing) in
            [(&["503 Service Unavailable", "429 Too Many Requests", "200 OK"][..], false), (&["400 Bad Request"], true)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let destination = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
            let server = async {
                for status in statuses {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"{}") {
                        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                    }
                    let request = String::from_utf8(request).unwrap();
                    assert!(request.starts_with("POST /base/v1/traces HTTP/1.1\r\n"), "{request}");
                    stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
                }
            };
            let mut exporter = Exporter::new("traces", destination, "/v1/traces", HeaderMap::new());
            tokio::join!(exporter.send("{}".to_owned(), 1), server);
            assert_eq!(exporter.is_failing, is_failing, "{statuses:?}");
        }
    }

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
