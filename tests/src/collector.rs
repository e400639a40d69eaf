//! A double of what takes traces and error reports over HTTP: it keeps what it is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use tokio::net::TcpListener;

use crate::lightning::DEADLINE;

/// Something that was sent.
#[derive(Debug, Clone)]
pub struct Received {
    /// Where to.
    pub path: String,
    /// With which headers.
    pub headers: HeaderMap,
    /// What.
    pub body: String,
}

/// The double. It ends with the test's runtime.
#[derive(Debug, Clone)]
pub struct Collector {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
        let port = listener.local_addr().expect("it is bound").port();
        let collector = Self { port, received: Arc::default() };
        let router = Router::new().fallback(take).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What was sent so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something like this was sent.
    pub async fn until(&self, wanted: impl Fn(&Received) -> bool) -> Received {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = self.received().into_iter().find(|it| wanted(it)) {
                return found;
            }
            assert!(Instant::now() < end, "nothing like it was sent: {:?}", self.received());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn take(State(collector): State<Collector>, uri: Uri, headers: HeaderMap, body: String) {
    let received = Received { path: uri.path().to_owned(), headers, body };
    collector.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
}
