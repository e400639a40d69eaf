//! The port: plain HTTP, and websockets on any path.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Shared;
use super::connection::{self, Fate};
use super::record::Direction;
use super::requests::{Answer, Request};

/// The largest body that is taken, in bytes.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

async fn serve(State(shared): State<Arc<Shared>>, mut request: HttpRequest) -> Response {
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        let accept = derive_accept_key(key.as_bytes());
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(connection::serve(shared, upgraded));
        let headers = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        ];
        return (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let data = match body.is_empty() {
        true => None,
        false => match serde_json::from_slice::<Value>(&body) {
            Ok(data) => Some(data),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
    };
    let request = Request {
        method: parts.method.as_str().to_lowercase(),
        path: parts.uri.path().to_owned(),
        headers: headers_of(&parts.headers),
        data,
    };
    let said = json!({
        "method": request.method, "path": request.path, "headers": request.headers, "data": request.data,
    });
    shared.record(0, Direction::FromClient, &said);
    match connection::answer(&shared, &request).await {
        Fate::Answered(answer) => response(answer),
        Fate::Silent => std::future::pending().await,
        // A server that is gone says as much as this to an HTTP client.
        Fate::Disconnected => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn headers_of(headers: &HeaderMap) -> std::collections::HashMap<String, String> {
    let text =
        |(name, value): (&HeaderName, &HeaderValue)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()));
    headers.iter().filter_map(text).collect()
}

fn response(answer: Answer) -> Response {
    let has_body = answer.data.is_some();
    let mut response = match answer.data {
        Some(data) => axum::Json(data).into_response(),
        None => Body::empty().into_response(),
    };
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("answers have valid statuses");
    // A type promises a body.
    for (name, value) in answer.headers.into_iter().filter(|(name, _)| has_body || name != "content-type") {
        let name: HeaderName = name.parse().expect("answers have valid headers");
        let value: HeaderValue = value.parse().expect("answers have valid headers");
        response.headers_mut().insert(name, value);
    }
    response
}
