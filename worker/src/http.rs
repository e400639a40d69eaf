//! The worker's HTTP server: liveness, and claims on request.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;

/// Claims once in every workloop that has room.
pub trait Claims: Send + Sync + 'static {
    /// How many runs were claimed and started, or why none could be asked for.
    fn claim_once(&self) -> impl Future<Output = Result<usize, String>> + Send;
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on port {port} (--port, WORKER_PORT): {source}")]
pub struct ListenError {
    port: u16,
    source: io::Error,
}

/// Listens on `host`, or on all of the machine's addresses.
pub async fn listen(host: Option<IpAddr>, port: u16) -> Result<TcpListener, ListenError> {
    let bound = match host {
        Some(host) => TcpListener::bind(SocketAddr::new(host, port)).await,
        None => match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
            }
            bound => bound,
        },
    };
    bound.map_err(|source| ListenError { port, source })
}

/// Serves for ever; fails when it cannot.
pub async fn serve<C: Claims>(listener: TcpListener, claims: Arc<C>) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(alive))
        .route("/livez", get(alive))
        .route("/claim", post(claim::<C>))
        .with_state(claims);
    axum::serve(listener, router).await
}

async fn alive() -> &'static str {
    "OK"
}

async fn claim<C: Claims>(State(claims): State<Arc<C>>) -> (StatusCode, String) {
    match claims.claim_once().await {
        Ok(0) => (StatusCode::NO_CONTENT, String::new()),
        Ok(_) => (StatusCode::OK, "complete".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
