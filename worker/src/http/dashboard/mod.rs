//! The dashboard: one page, and what it shows as server-sent events. No users' data, no credentials, nothing from
//! third parties.

mod board;
mod update;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::unfold;
use tokio::sync::Semaphore;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use self::board::{Board, HostExit};
use self::update::Follower;
use super::Operations;
use crate::hosts::HostEvent;
use crate::telemetry;

/// The page; the nonce takes the place of `NONCE`.
const PAGE: &str = include_str!("page.html");
/// Pages that may be open at once.
const VIEWERS: usize = 16;

/// Who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Programs of this machine.
    Loopback,
    /// Whoever can connect.
    Anybody,
}

/// What all who look share.
pub struct Dashboard {
    access: Access,
    board: Mutex<Board>,
    viewers: Arc<Semaphore>,
}

impl Dashboard {
    /// A dashboard that remembers nothing yet.
    pub fn new(access: Access) -> Self {
        Self { access, board: Mutex::default(), viewers: Arc::new(Semaphore::new(VIEWERS)) }
    }

    /// Remembers what happens to runs, for ever.
    pub async fn follow_runs(&self) {
        let mut runs = telemetry::subscribe();
        loop {
            match runs.recv().await {
                Ok(run) => self.with(|board| board.run_changed(run, now().as_secs())),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Remembers how hosts end, as long as there are any.
    pub async fn follow_hosts(&self, mut events: broadcast::Receiver<HostEvent>) {
        loop {
            let (host, death, is_wanted) = match events.recv().await {
                Ok(HostEvent::Ended { host, death }) => (host, death, true),
                Ok(HostEvent::Died { host, death }) => (host, death, false),
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let at_us = u64::try_from(now().as_micros()).unwrap_or(u64::MAX);
            self.with(|board| board.host_ended(HostExit { at_us, host, death: death.to_string(), is_wanted }));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The dashboard's routes.
pub(super) fn routes<O: Operations>(dashboard: Arc<Dashboard>, worker: Arc<O>) -> Router {
    Router::new()
        .route("/dashboard", get(page))
        .route("/dashboard/events", get(events::<O>))
        .with_state((Arc::clone(&dashboard), worker))
        .layer(from_fn_with_state(dashboard.access, guard))
}

async fn page() -> impl IntoResponse {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, PAGE.replace("NONCE", &nonce))
}

async fn events<O: Operations>(State((dashboard, worker)): State<(Arc<Dashboard>, Arc<O>)>) -> Response {
    let Ok(seat) = Arc::clone(&dashboard.viewers).try_acquire_owned() else {
        let told = format!("{VIEWERS} dashboards are open already");
        return (StatusCode::SERVICE_UNAVAILABLE, told).into_response();
    };
    let follower = Follower::new(dashboard, worker, seat);
    let stream = unfold(follower, |mut follower| async move {
        let update = follower.next().await;
        let event = Event::default().json_data(update).unwrap_or_default();
        Some((Ok::<_, Infallible>(event), follower))
    });
    ([(header::CACHE_CONTROL, "no-store")], Sse::new(stream)).into_response()
}

/// Lets in who may look.
async fn guard(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if access == Access::Anybody || (is_loopback(peer.ip()) && is_asked_as_local(request.headers())) {
        return next.run(request).await;
    }
    let told = "The dashboard is for this machine only. Set --host (WORKER_HOST) to show it to others.\n";
    (StatusCode::FORBIDDEN, told).into_response()
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether the address in the browser is this machine's own: a page of somebody else may have its name resolve to us.
fn is_asked_as_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(is_loopback)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_local() {
        let cases = [
            ("localhost:2222", true),
            ("127.0.0.1", true),
            ("127.0.0.1:2222", true),
            ("[::1]:2222", true),
            ("worker.example.org:2222", false),
            ("localhost.example.org", false),
            ("10.0.0.1:2222", false),
            ("", false),
        ];
        for (host, expected) in cases {
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            assert_eq!(is_asked_as_local(&headers), expected, "{host}");
        }
        for (address, expected) in [("::ffff:127.0.0.1", true), ("::1", true), ("192.168.1.1", false)] {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }
}
