//! The dashboard: one page, and what it shows as server-sent events. No users' data, no credentials, nothing from
//! third parties.

mod board;
mod update;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::unfold;
use hosts::HostEvent;
use lightning::timeline;
use parking_lot::Mutex;
use protocol::clock::{now_us, unix_seconds};
use smart_default::SmartDefault;
use tokio::sync::Semaphore;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use self::board::{Board, HostExit};
use self::update::Follower;
use super::Operations;

/// The page; the nonce takes the place of `NONCE`.
const PAGE: &str = include_str!("page.html");
/// Pages that may be open at once.
const VIEWERS: usize = 16;

/// What all who look share.
#[derive(SmartDefault)]
pub struct Dashboard {
    board: Mutex<Board>,
    #[default(Arc::new(Semaphore::new(VIEWERS)))]
    viewers: Arc<Semaphore>,
}

impl Dashboard {
    /// Remembers what happens to runs, for ever.
    pub async fn follow_runs(&self) {
        let mut runs = timeline::subscribe();
        loop {
            match runs.recv().await {
                Ok(run) => self.with(|board| board.run_changed(run, unix_seconds())),
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
            let at_us = now_us();
            self.with(|board| board.host_ended(HostExit { at_us, host, death: death.to_string(), is_wanted }));
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.board.lock())
    }
}

/// The dashboard's routes.
pub(super) fn routes<O: Operations>(dashboard: Arc<Dashboard>, worker: Arc<O>) -> Router {
    Router::new()
        .route("/dashboard", get(page))
        .route("/dashboard/events", get(events::<O>))
        .with_state((dashboard, worker))
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
