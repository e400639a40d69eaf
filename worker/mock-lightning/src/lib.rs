//! A double of OpenFn Lightning: what workers talk to in tests, in `demo`, and while workflows are developed.
//!
//! One port serves the websocket for workers and a small HTTP API for people. The double behaves as Lightning does,
//! refuses what Lightning refuses, and records everything. It judges the worker, so it shares no code with the part of
//! the worker that speaks to Lightning, and nothing of the real path may use it. It persists nothing.

mod channel;
mod connection;
mod deep;
mod events;
mod faults;
mod fields;
mod frame;
mod hooks;
mod http;
mod janitor;
mod memory;
mod plan;
mod postgres;
mod queue;
mod record;
mod store;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use smart_default::SmartDefault;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

pub use faults::{AppliedFault, Fault, FaultOptions, Faults};
pub use hooks::{HookVerdict, Hooks, Incoming, NoHooks};
pub use memory::MemoryConnector;
pub use plan::InvalidPlan;
pub use record::{
    Activity, ClaimRecord, ConnectionRecord, LogRecord, RecordedEvent, RunRecord, RunState, StepRecord, Violation,
};

use base::connections;
use memory::Pipes;
use plan::Submission;
use store::Store;
use token::RunTokens;

/// Pushes that a slow channel may be behind before the oldest are forgotten.
const PUSHES: usize = 1024;

/// What channels are to push to their workers.
#[derive(Debug, Clone)]
enum Push {
    /// `work-available`, on queue channels.
    WorkAvailable,
    /// `run:cancel`, on the channel of this run.
    Cancel(Arc<str>),
}

/// The longest message that Lightning's endpoint takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 11_000_000;

/// Connections that are open at once, websockets not counted.
const CONNECTIONS: usize = 1024;

/// How `fetch:dataclip` is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DataclipReply {
    /// In a binary frame, as Lightning does.
    #[default]
    Binary,
    /// As a JSON array of byte values, as the reference worker's mock does.
    ByteArray,
}

/// In which form a step's dataclip is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataclipForm {
    /// As a string that holds JSON or as a JSON value: Lightning from 2.19 on.
    #[default]
    Both,
    /// As a string alone: Lightning before 2.19, whose schema has a field of the type `:string`.
    Strings,
    /// As a value alone: what Lightning is to do after the reference worker's next major version.
    Values,
}

/// Whose habits replies have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Lightning's: `phx_reply`.
    #[default]
    Lightning,
    /// The reference worker's mock's: `chan_reply_<ref>`, pushes with an empty ref and their payload as a JSON string,
    /// heartbeats never answered, `phx_leave` refused.
    ReferenceMock,
}

/// How the double behaves.
#[derive(SmartDefault)]
pub struct MockOptions {
    /// Where to listen; port 0 takes a free one.
    #[default(SocketAddr::from(([127, 0, 0, 1], 0)))]
    pub address: SocketAddr,
    /// Secret that worker tokens must be signed with; without one any token will do.
    pub secret: Option<SecretString>,
    /// RSA key, in PEM, that run tokens are signed with; without one they are opaque.
    pub private_key: Option<SecretString>,
    /// How `fetch:dataclip` is answered.
    pub dataclip_reply: DataclipReply,
    /// Whose habits replies have.
    pub dialect: Dialect,
    /// Whether ids in plans must be UUIDs, as in Lightning. Ids that the worker makes always must.
    pub strict_ids: bool,
    /// The longest message in bytes, all of its fragments together; a longer one closes the socket with 1009. Lightning's
    /// endpoint sets `max_frame_size: 11_000_000`, by which Cowboy means the message.
    #[default(Some(MAX_MESSAGE_BYTES))]
    pub max_message_bytes: Option<usize>,
    /// Whether that bounds what a compressed message inflates to, as Cowboy does from 2.13 on. An older one bounds what
    /// comes over the wire.
    #[default(true)]
    pub bounds_inflated: bool,
    /// Whether a channel crashes on a step or dataclip that it has, and does not only refuse it. Lightning's schemas `Step`
    /// and `Dataclip` declare no `unique_constraint`, so that a second insert raises.
    #[default(true)]
    pub crash_on_duplicates: bool,
    /// Whether a channel crashes on a NUL character, which Postgres stores neither in `jsonb` nor in `text`.
    #[default(true)]
    pub crash_on_nul: bool,
    /// Whether `run:batch_logs` is known. An older Lightning's RunChannel has no clause for it and crashes.
    #[default(true)]
    pub batch_logs: bool,
    /// In which form dataclips are taken.
    pub dataclip_form: DataclipForm,
    /// Marks a run lost that has not ended this long after its own timeout, as Lightning's janitor does; none does
    /// unless set.
    pub lost_after: Option<Duration>,
    /// Whether it accepts that messages are compressed, and compresses its own.
    #[default(true)]
    pub compression: bool,
    /// Faults.
    #[default(Arc::new(NoHooks))]
    pub hooks: Arc<dyn Hooks>,
}

/// The double does not run.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// The address cannot be listened on.
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The private key is no RSA key in PEM.
    #[error("failed to read the private key for run tokens, which must be an RSA key in PEM")]
    PrivateKey(#[source] jsonwebtoken::errors::Error),
}

/// A run did not end.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// No such run was queued.
    #[error("there is no run {0}")]
    Unknown(String),
    /// It was still under way at the deadline.
    #[error("run {id} did not end within {deadline:?}; its state is {state:?}")]
    Deadline {
        /// The run.
        id: String,
        /// The time that it was given.
        deadline: Duration,
        /// Its state at the deadline.
        state: RunState,
    },
}

/// What the listener, its connections and the handle share.
struct Shared {
    store: Mutex<Store>,
    options: Arc<MockOptions>,
    run_tokens: RunTokens,
    listening: AtomicBool,
    pushes: broadcast::Sender<Push>,
    /// A change cuts every socket that was open before it.
    cut: watch::Sender<()>,
}

impl Shared {
    fn wake(&self) {
        // Fails only while there is no channel to wake.
        let _ = self.pushes.send(Push::WorkAvailable);
    }

    /// Ends a run: at once if it waits, else its worker is asked to. Whether it is known and not over.
    fn cancel(&self, run_id: &str) -> bool {
        let is_known = self.store.lock().cancel(run_id);
        if is_known {
            // Fails only while there is no channel, and the next one to join is told.
            let _ = self.pushes.send(Push::Cancel(run_id.into()));
        }
        is_known
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Cuts every socket and lets nobody in for this time.
    fn restart(self: &Arc<Self>, time: Duration) {
        self.listening.store(false, Ordering::Relaxed);
        self.cut.send_replace(());
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            shared.listening.store(true, Ordering::Relaxed);
        });
    }
}

/// A running double. Dropping it ends it.
#[derive(derive_more::Debug)]
#[debug("MockLightning({address})")]
pub struct MockLightning {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Mutex<Option<JoinHandle<()>>>,
    /// Where pipes go when it does not listen on a port.
    pipes: Option<mpsc::UnboundedSender<DuplexStream>>,
    janitor: Option<JoinHandle<()>>,
}

/// Starts a double.
pub async fn start(options: MockOptions) -> Result<MockLightning, MockError> {
    let mut mock = unconnected(options)?;
    mock.address = mock.listen().await?;
    Ok(mock)
}

/// Starts a double that listens on no port and is reached through [`MockLightning::connector`] alone.
pub fn start_in_memory(options: MockOptions) -> Result<MockLightning, MockError> {
    let mut mock = unconnected(options)?;
    let (pipes, incoming) = mpsc::unbounded_channel();
    mock.pipes = Some(pipes);
    mock.accept_from(Pipes(incoming));
    Ok(mock)
}

fn unconnected(options: MockOptions) -> Result<MockLightning, MockError> {
    let options = Arc::new(options);
    let shared = Arc::new(Shared {
        store: Mutex::new(Store::new(options.clone())),
        run_tokens: RunTokens::new(options.private_key.as_ref()).map_err(MockError::PrivateKey)?,
        listening: AtomicBool::new(false),
        pushes: broadcast::Sender::new(PUSHES),
        cut: watch::Sender::new(()),
        options,
    });
    let (address, lost_after) = (shared.options.address, shared.options.lost_after);
    let janitor = lost_after.map(|grace| tokio::spawn(janitor::sweep(shared.clone(), grace)));
    Ok(MockLightning { shared, address, listener: Mutex::new(None), pipes: None, janitor })
}

impl MockLightning {
    /// The endpoint for a worker's `--lightning`.
    pub fn url(&self) -> String {
        format!("ws://{}/worker", self.address)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What opens pipes to it; none if it listens on a port.
    pub fn connector(&self) -> Option<MemoryConnector> {
        self.pipes.clone().map(|pipes| MemoryConnector { shared: self.shared.clone(), pipes })
    }

    /// Queues a run, without waking workers, and gives its id. Takes what `POST /run` takes.
    pub fn queue_run(&self, plan: Value) -> Result<String, InvalidPlan> {
        let submission = Submission::parse(&plan.to_string(), self.shared.options.strict_ids)?;
        self.shared.store.lock().queue(submission)
    }

    /// Sets a dataclip.
    pub fn add_dataclip(&self, id: &str, body: Value) {
        self.shared.store.lock().dataclips.insert(id.to_owned(), raw(&body));
    }

    /// Sets a credential.
    pub fn add_credential(&self, id: &str, body: Value) {
        self.shared.store.lock().credentials.insert(id.to_owned(), raw(&body));
    }

    /// Body of a dataclip, also of one that a step made.
    pub fn dataclip(&self, id: &str) -> Option<Value> {
        let text = self.shared.store.lock().dataclips.get(id)?.clone();
        deep::value(text.get()).ok()
    }

    /// Pushes `work-available` to every joined queue channel.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Ends a run: at once if it waits, else its worker is asked to. Whether it is known and not over.
    pub fn cancel_run(&self, id: &str) -> bool {
        self.shared.cancel(id)
    }

    /// All that is known of a run.
    pub fn run(&self, id: &str) -> Option<RunRecord> {
        self.shared.store.lock().runs.get(id).map(|run| run.record.clone())
    }

    /// Takes out a run that is over, with its dataclips, so that what lasts long takes no more memory for it. None if there
    /// is no such run, or if it is not over.
    pub fn forget_run(&self, id: &str) -> Option<RunRecord> {
        self.shared.store.lock().forget(id)
    }

    /// Waits until the run is in a final state.
    pub async fn wait_for_end(&self, id: &str, deadline: Duration) -> Result<RunRecord, WaitError> {
        let unknown = || WaitError::Unknown(id.to_owned());
        let end = self.shared.store.lock().end_of(id).ok_or_else(unknown)?;
        let ended = tokio::time::timeout(deadline, end).await.is_ok();
        let record = self.run(id).ok_or_else(unknown)?;
        if ended { Ok(record) } else { Err(WaitError::Deadline { id: id.to_owned(), deadline, state: record.state }) }
    }

    /// Every accepted event of every run from now on, in order.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<RecordedEvent> {
        self.shared.store.lock().subscribe()
    }

    /// Every message that was refused. What a plan wrongly names (an unknown dataclip or credential) is none.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.store.lock().violations.clone()
    }

    /// What workers did apart from runs.
    pub fn activity(&self) -> Activity {
        self.shared.store.lock().activity.clone()
    }

    /// Cuts every websocket, without a close frame.
    pub fn cut_sockets(&self) {
        self.shared.cut.send_replace(());
    }

    /// Refuses new connections from now on. Open ones stay.
    pub async fn stop_listening(&self) {
        self.shared.listening.store(false, Ordering::Relaxed);
        if self.pipes.is_some() {
            return;
        }
        if let Some(listener) = self.take_listener() {
            listener.abort();
            // The port is free once the task is gone; that it was cancelled is what was asked for.
            let _ = listener.await;
        }
    }

    /// Takes connections again, on the same port, with all that was recorded.
    pub async fn listen_again(&self) -> Result<(), MockError> {
        self.stop_listening().await;
        if self.pipes.is_some() {
            self.shared.listening.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.listen().await.map(|_| ())
    }

    /// Stops listening and cuts every websocket.
    pub async fn stop(self) {
        self.stop_listening().await;
    }

    async fn listen(&self) -> Result<SocketAddr, MockError> {
        let failed = |error| MockError::Listen(self.address, error);
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = listener.tap_io(|stream| {
            // Without it replies only wait longer.
            let _ = stream.set_nodelay(true);
        });
        self.accept_from(listener);
        Ok(address)
    }

    fn accept_from<L: Listener<Addr: Clone + Send + Sync>>(&self, listener: L) {
        let task = tokio::spawn(connections::serve(listener, http::router(self.shared.clone()), CONNECTIONS));
        self.shared.listening.store(true, Ordering::Relaxed);
        *self.listener.lock() = Some(task);
    }

    fn take_listener(&self) -> Option<JoinHandle<()>> {
        self.listener.lock().take()
    }
}

impl Drop for MockLightning {
    fn drop(&mut self) {
        self.shared.listening.store(false, Ordering::Relaxed);
        if let Some(listener) = self.take_listener() {
            listener.abort();
        }
        if let Some(janitor) = &self.janitor {
            janitor.abort();
        }
        self.cut_sockets();
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a JSON value always encodes as JSON")
}
