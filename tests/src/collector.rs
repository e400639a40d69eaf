//! A double of what takes traces and error reports over HTTP: it keeps what it is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};

use crate::lightning::DEADLINE;
use crate::served::serve;

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
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let port = serve(Router::new().fallback(take).with_state(Arc::clone(&received))).await.port();
        Self { port, received }
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

async fn take(State(all): State<Arc<Mutex<Vec<Received>>>>, uri: Uri, headers: HeaderMap, body: String) {
    let received = Received { path: uri.path().to_owned(), headers, body };
    all.lock().unwrap_or_else(PoisonError::into_inner).push(received);
}
