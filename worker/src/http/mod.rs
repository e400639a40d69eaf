//! The worker's HTTP server: liveness, readiness, metrics, claims on request, and a dashboard.

mod dashboard;
mod same_site;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::connections;
use base::metrics::{Format, metrics};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};

pub use self::dashboard::Dashboard;
pub use self::same_site::Access;
use crate::health::Health;

/// What the server asks of whatever it answers for.
pub trait Probed: Send + Sync + 'static {
    /// Which of the conditions for being ready are met.
    type Conditions: Serialize;

    /// How the worker is.
    fn health(&self) -> impl Future<Output = Health> + Send;

    /// Whether it can take work, and why not.
    fn readiness(&self) -> impl Future<Output = (bool, Self::Conditions)> + Send;
}

/// What the server asks of a worker that claims runs.
pub trait Operations: Probed {
    /// Claims once in every workloop that has room: how many runs were claimed and started, or why none could be
    /// asked for.
    fn claim_once(&self) -> impl Future<Output = Result<usize, String>> + Send;
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: {source}", place(*.host, *.port))]
pub struct ListenError {
    host: Option<IpAddr>,
    port: u16,
    source: io::Error,
}

/// Where to listen, with the options that say so.
fn place(host: Option<IpAddr>, port: u16) -> String {
    match host {
        Some(host) => format!("{} (--host, WORKER_HOST; --port, WORKER_PORT)", SocketAddr::new(host, port)),
        None => format!("port {port} (--port, WORKER_PORT)"),
    }
}

/// Listens on `host`, or on all of the machine's addresses.
pub async fn listen(host: Option<IpAddr>, port: u16) -> Result<TcpListener, ListenError> {
    let bound = match host {
        Some(host) => bind(SocketAddr::new(host, port)),
        None => match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            bound => bound,
        },
    };
    bound.map_err(|source| ListenError { host, port, source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    // As the standard library does, except on Windows.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(connections::BACKLOG)
}

/// Serves for ever. `host` is the address that was to be listened on, which says who may use what is no probe.
pub async fn serve<O: Operations>(
    listener: TcpListener,
    host: Option<IpAddr>,
    worker: Arc<O>,
    dashboard: Option<Arc<Dashboard>>,
) {
    let guarded = |routes: Router, open| routes.layer(from_fn_with_state(Access::to(host, open), same_site::guard));
    let shown = dashboard.map(|dashboard| guarded(dashboard::routes(dashboard, Arc::clone(&worker)), false));
    let claims = guarded(Router::new().route("/claim", post(claim::<O>)).with_state(Arc::clone(&worker)), true);
    let router = probes().with_state(worker).merge(claims).merge(shown.unwrap_or_default());
    connections::serve(listener, router.layer(from_fn(answer_panics)), connections::MOST).await;
}

/// Serves for ever, liveness, readiness and metrics alone.
pub async fn serve_probes<P: Probed>(listener: TcpListener, probed: Arc<P>) {
    let router = probes().with_state(probed).layer(from_fn(answer_panics));
    connections::serve(listener, router, connections::MOST).await;
}

fn probes<P: Probed>() -> Router<Arc<P>> {
    Router::new()
        .route("/", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready::<P>))
        .route("/metrics", get(measure::<P>))
}

/// Answers for a handler that panics, where the connection would otherwise be closed without a word.
async fn answer_panics(request: Request, next: Next) -> Response {
    // What a handler shares with others is behind locks that ignore panics, or is read only.
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        let told = "The worker has a bug that keeps it from answering this. Its log says where.\n";
        (StatusCode::INTERNAL_SERVER_ERROR, told).into_response()
    })
}

async fn alive() -> &'static str {
    "OK"
}

async fn ready<P: Probed>(State(worker): State<Arc<P>>) -> impl IntoResponse {
    let (is_ready, conditions) = worker.readiness().await;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(conditions))
}

async fn measure<P: Probed>(State(worker): State<Arc<P>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    worker.health().await.show(metrics());
    let text = metrics().render(format);
    ([(header::CONTENT_TYPE, format.content_type())], text)
}

async fn claim<O: Operations>(State(worker): State<Arc<O>>) -> (StatusCode, String) {
    match worker.claim_once().await {
        Ok(0) => (StatusCode::NO_CONTENT, String::new()),
        Ok(_) => (StatusCode::OK, "complete".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Broken;

    impl Probed for Broken {
        type Conditions = ();

        async fn health(&self) -> Health {
            panic!("no health");
        }

        async fn readiness(&self) -> (bool, ()) {
            (true, ())
        }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_handler_that_panics_answers_and_is_counted_and_the_others_go_on() {
        crate::panics::report();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_probes(listener, Arc::new(Broken)));
        let before = metrics().panics.get();
        let answer = ask(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("has a bug"), "{answer}");
        assert!(metrics().panics.get() > before);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        server.abort();
    }
}
