//! Posting JSON to a URL.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use base::dial::{DialError, dial, tls_config};

/// How long posting may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Something was not posted. What it says never has the URL in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    #[error("its URL is not one of http:// or https:// with a host")]
    Url,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(u16),
    #[error("it did not answer within {}s", TIMEOUT.as_secs())]
    Timeout,
}

/// A URL that can be posted to.
pub(super) struct WebhookUrl {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl WebhookUrl {
    pub(super) fn parse(text: &str) -> Result<Self, WebhookError> {
        let uri: Uri = text.parse().map_err(|_| WebhookError::Url)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WebhookError::Url),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(WebhookError::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { tls, host, port, path })
    }
}

/// Posts it, once.
pub(super) async fn post(url: &WebhookUrl, body: &Value) -> Result<(), WebhookError> {
    tokio::time::timeout(TIMEOUT, try_post(url, body)).await.map_err(|_| WebhookError::Timeout)?
}

async fn try_post(url: &WebhookUrl, body: &Value) -> Result<(), WebhookError> {
    let stream = dial(&url.host, url.port, url.tls).await?;
    if !url.tls {
        return exchange(stream, url, body).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|_| WebhookError::Url)?;
    let connector = TlsConnector::from(Arc::clone(&tls_config()?));
    exchange(connector.connect(name, stream).await.map_err(WebhookError::Tls)?, url, body).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &WebhookUrl,
    body: &Value,
) -> Result<(), WebhookError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the answer was read or this future is dropped.
    let connection = tokio::spawn(connection);
    let request = Request::post(&url.path)
        .header(header::HOST, format!("{}:{}", url.host, url.port))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .map_err(|_| WebhookError::Url)?;
    let answer = sender.send_request(request).await?;
    connection.abort();
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(WebhookError::Status(status.as_u16())),
    }
}
