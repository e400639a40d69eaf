//! A client of an OADA store: requests and watches over one websocket, which is made again whenever it is lost.

mod connection;
mod conversation;
mod domain;
#[cfg(fuzzing)]
mod fuzzing;
mod posting;
mod progress;
mod retry;
mod tree_put;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::reconnecting::{self, Pace};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use smart_default::SmartDefault;
use tokio::sync::watch::Receiver;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::connection::Connection;
use self::conversation::{Command, Conversation, Interrupted, WatchEntry};
pub use self::domain::{Domain, InvalidDomain};
#[cfg(fuzzing)]
pub use self::fuzzing::feed_frames;
pub use self::posting::{EnsureLink, Posted};
use self::progress::Progress;
use self::retry::Failure;
pub use self::retry::RetryPolicy;
pub use self::watch::{Watch, WatchEvent};
use super::ksuid::Ksuid;
use super::wire::{Method, Request, Response};

/// How a client behaves.
#[derive(Debug, Clone, SmartDefault)]
pub struct ClientOptions {
    /// Requests that are on their way at once; more wait.
    #[default(10)]
    pub concurrency: usize,
    /// How long an answer may take.
    #[default(Duration::from_secs(60))]
    pub request_timeout: Duration,
    /// What becomes of requests that are not answered, or refused for now.
    pub retry: RetryPolicy,
    /// Time between signs of life.
    #[default(Duration::from_secs(30))]
    pub heartbeat: Duration,
    /// Shortest and longest pause between attempts to connect.
    #[default((Duration::from_millis(250), Duration::from_secs(30)))]
    pub reconnect: (Duration, Duration),
    /// How the client introduces itself.
    #[default(concat!("openfn-worker/", env!("CARGO_PKG_VERSION")).to_owned())]
    pub user_agent: String,
}

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The store answered with an error.
    #[error("{method} {path}: the store answered {status}{}", said(.message))]
    Status {
        /// What was asked.
        method: &'static str,
        /// Where.
        path: String,
        /// HTTP's status.
        status: u16,
        /// What the store said about it.
        message: String,
        /// All of the answer.
        answer: Box<Response>,
    },
    /// There was no answer in time.
    #[error("{method} {path}: no answer within {}s", .limit.as_secs())]
    Timeout {
        /// What was asked.
        method: &'static str,
        /// Where.
        path: String,
        /// How long was waited, each time.
        limit: Duration,
    },
    /// The connection was lost after a POST was sent: it may have been done or not.
    #[error("post {path}: the connection was lost before the answer came, so it may have been done or not")]
    Interrupted {
        /// Where.
        path: String,
    },
    /// The answer lacks what an answer of this kind must have.
    #[error("{path}: the store's answer has no {what}")]
    Incomplete {
        /// Where.
        path: String,
        /// What is missing.
        what: &'static str,
    },
    /// The client is closed.
    #[error("the client of the store is closed")]
    Closed,
}

/// What was answered; none if there is nothing, or nothing that may be seen.
pub(super) fn if_there<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Err(error) if error.is_missing() => Ok(None),
        answer => answer.map(Some),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl ClientError {
    /// The status that the store answered, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the store answered, if it did.
    pub fn answer(&self) -> Option<&Response> {
        match self {
            Self::Status { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Whether there is nothing at the path: a store answers 403, too, where a resource does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self.status(), Some(403 | 404))
    }

    /// Whether another writer was faster.
    pub fn is_conflict(&self) -> bool {
        matches!(self.status(), Some(412 | 422))
    }

    /// Whether the store does not take the token: reading what does not exist is answered 403, too, writing is not.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Status { status: 401, .. } => true,
            Self::Status { status: 403, method, path, .. } => match *method {
                "put" | "post" => true,
                // A resource that is not there is answered so, too.
                "delete" => !path.starts_with("/resources/"),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the store does not take what was written, whoever writes it and whenever.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| (400..500).contains(&status)) && !self.is_unauthorized()
    }

    /// Whether the same request may work later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500,
            Self::Timeout { .. } | Self::Interrupted { .. } => true,
            Self::Incomplete { .. } | Self::Closed => false,
        }
    }
}

/// A client with the token of one account. Clones share the connection, which lives until the last one, and the last
/// watch, is dropped.
#[derive(derive_more::Debug, Clone)]
#[debug("Client({})", self.shared.domain)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    domain: Domain,
    options: ClientOptions,
    commands: mpsc::UnboundedSender<Command>,
    is_connected: Receiver<bool>,
    slots: Semaphore,
    next_watch: AtomicU64,
}

impl Client {
    /// A client that begins to connect. Must be called within a tokio runtime.
    pub fn connect(domain: Domain, token: SecretString, options: ClientOptions) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let connection = Connection {
            domain: domain.clone(),
            token,
            user_agent: options.user_agent.clone(),
            conversation: Conversation::default(),
        };
        let pace = Pace { heartbeat: options.heartbeat, reconnect: options.reconnect };
        let (is_connected, _task) = reconnecting::spawn(connection, received, pace);
        let slots = Semaphore::new(options.concurrency.max(1));
        let shared = Shared { domain, options, commands, is_connected, slots, next_watch: AtomicU64::new(1) };
        Self { shared: Arc::new(shared) }
    }

    /// Where the store is.
    pub fn domain(&self) -> &Domain {
        &self.shared.domain
    }

    /// Whether there is a connection to the store at present.
    pub fn is_connected(&self) -> bool {
        *self.shared.is_connected.borrow()
    }

    /// Reads headers.
    pub async fn head(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::Head, path)).await
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::Get, path)).await
    }

    /// Merges deeply into what is there, or creates it.
    pub async fn put(&self, path: &str, media_type: &str, data: Value) -> Result<Response, ClientError> {
        self.send(Request::new(Method::Put, path).body(media_type, data)).await
    }

    /// Puts under a key that the store makes. Not sent again when it is unknown whether it was done.
    pub async fn post(&self, path: &str, media_type: &str, data: Value) -> Result<Response, ClientError> {
        self.send(Request::new(Method::Post, path).body(media_type, data)).await
    }

    /// Takes a link away.
    pub async fn delete(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Request::new(Method::Delete, path)).await
    }

    /// Asks the store for a sign of life.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.send(Request::new(Method::Ping, "")).await.map(drop)
    }

    /// Sends a request, again and again as the options say. An answer that is an error is an `Err`.
    pub async fn send(&self, request: Request) -> Result<Response, ClientError> {
        let options = &self.shared.options;
        let mut failures = 0;
        loop {
            let outcome = self.try_once(&request).await?;
            let failure = match &outcome {
                Some(response) if response.is_ok() => return Ok(response.clone()),
                Some(response) => Failure::Answered(response),
                None => Failure::Silence,
            };
            match options.retry.again(request.method, failure, failures, Timestamp::now()) {
                Some(pause) => {
                    tracing::debug!(method = request.method.name(), path = request.path, ?pause, "asking again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(self.error(&request, outcome)),
            }
            failures += 1;
        }
    }

    /// Watches the resource at `path`: hears of all changes after `rev`, or from now on.
    pub async fn watch(&self, path: &str, rev: Option<u64>) -> Result<Watch, ClientError> {
        let shared = &self.shared;
        let id = shared.next_watch.fetch_add(1, Ordering::Relaxed);
        let processed = Arc::new(AtomicU64::new(rev.unwrap_or(0)));
        let (events, incoming) = mpsc::unbounded_channel();
        let entry = WatchEntry { path: path.to_owned(), processed: Arc::clone(&processed), events };
        let (answer, answered) = oneshot::channel();
        let command = Command::Watch { watch: id, entry, answer };
        shared.commands.send(command).map_err(|_| ClientError::Closed)?;
        let progress = Progress::new(rev.unwrap_or(0));
        // From here on, whatever happens, dropping this takes the watch back.
        let mut watch = Watch { id, commands: shared.commands.clone(), events: incoming, processed, progress };
        let response = match answered.await {
            Ok(Ok(response)) => response,
            // A watch is not interrupted: it is set again. Its sender is dropped with the connection's actor.
            Ok(Err(Interrupted)) | Err(_) => return Err(ClientError::Closed),
        };
        if !response.is_ok() {
            return Err(self.error(&Request::new(Method::Watch, path), Some(response)));
        }
        if rev.is_none() {
            watch.progress = Progress::new(response.rev().unwrap_or(0));
        }
        Ok(watch)
    }

    /// The answer; none if there was none in time.
    async fn try_once(&self, request: &Request) -> Result<Option<Response>, ClientError> {
        let shared = &self.shared;
        let _slot = shared.slots.acquire().await.map_err(|_| ClientError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let id = Ksuid::generate().to_string();
        let command = Command::Request { id: id.clone(), request: request.clone(), answer };
        shared.commands.send(command).map_err(|_| ClientError::Closed)?;
        let mut waiting = Waiting { id: Some(id), commands: &shared.commands };
        let Ok(answer) = tokio::time::timeout(shared.options.request_timeout, answered).await else { return Ok(None) };
        waiting.id = None;
        match answer {
            Ok(Ok(response)) => Ok(Some(response)),
            Ok(Err(Interrupted)) => Err(ClientError::Interrupted { path: request.path.clone() }),
            Err(_) => Err(ClientError::Closed),
        }
    }

    fn error(&self, request: &Request, outcome: Option<Response>) -> ClientError {
        let (method, path) = (request.method.name(), request.path.clone());
        match outcome {
            Some(response) => {
                let message = response.message().to_owned();
                ClientError::Status { method, path, status: response.status, message, answer: Box::new(response) }
            }
            None => ClientError::Timeout { method, path, limit: self.shared.options.request_timeout },
        }
    }
}

/// A request under way, withdrawn when nobody waits for it any more.
struct Waiting<'a> {
    /// None when it was answered.
    id: Option<String>,
    commands: &'a mpsc::UnboundedSender<Command>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // Fails when the client is closed.
            let _ = self.commands.send(Command::Withdraw { id });
        }
    }
}
