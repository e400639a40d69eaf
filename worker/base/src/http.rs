//! Posts documents over HTTP, by the same names, proxies and trusted roots as every other connection.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use crate::dial::{DialError, dial, tls_config};

/// How long an answer may take, the way to the server included.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a document was not taken. What it says has no path or query in it, which may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// There is no TLS to speak.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There was no answer.
    #[error("{0}")]
    Http(String),
    /// It was answered with this status.
    #[error("it answered with HTTP {}", .0.as_u16())]
    Refused(StatusCode),
    /// There was no answer in time.
    #[error("it did not answer within {}s", PATIENCE.as_secs())]
    Silent,
}

impl PostError {
    /// Whether the same document may be taken later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Http(_) | Self::Silent => true,
            Self::Refused(status) => matches!(status.as_u16(), 429 | 502..=504),
        }
    }
}

/// Reads an `http` or `https` address; the error says what it lacks.
pub fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.trim().parse().map_err(|_| "this is none")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some("http" | "https"), _) => Err("it names no host"),
        _ => Err("it must start with http:// or https://"),
    }
}

/// Posts a document, once. Of the answer only its status is read.
pub async fn post(url: &Uri, headers: HeaderMap, document: String) -> Result<(), PostError> {
    let mut request = Request::post(url.clone()).body(document).map_err(|error| PostError::Http(error.to_string()))?;
    *request.headers_mut() = headers;
    let answered = async {
        if url.scheme_str() != Some("https") {
            return send(Dialer, request).await;
        }
        let tls = HttpsConnectorBuilder::new().with_tls_config((*tls_config()?).clone()).https_only().enable_http1();
        send(tls.wrap_connector(Dialer), request).await
    };
    timeout(PATIENCE, answered).await.unwrap_or(Err(PostError::Silent))
}

async fn send(
    connector: impl Connect + Clone + Send + Sync + 'static,
    request: Request<String>,
) -> Result<(), PostError> {
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let answer = client.request(request).await.map_err(|error| PostError::Http(explained(&error)))?;
    if answer.status().is_success() { Ok(()) } else { Err(PostError::Refused(answer.status())) }
}

/// What an error of the client comes from, in one line. It says nothing itself.
fn explained(error: &(dyn Error + 'static)) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    words.dedup();
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

/// Opens connections as everywhere.
#[derive(Clone)]
struct Dialer;

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Box::pin(async move { dial(&host, port, tls).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_http() {
        for good in ["http://x", "https://x:1/y?z", " http://[::1]:8/ "] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in ["", "x", "/x", "ftp://x", "http://", "http:///x", "x:1"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_error_tells_the_cause_and_not_the_path() {
        let url = parse_url("http://127.0.0.1:1/very/secret?key=1").unwrap();
        let error = post(&url, HeaderMap::new(), String::new()).await.unwrap_err();
        assert!(error.is_passing());
        let error = error.to_string();
        assert!(error.starts_with("cannot connect: 127.0.0.1:1") && !error.contains("secret"), "{error}");
    }
}
