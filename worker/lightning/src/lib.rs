//! The connection to OpenFn Lightning: claims runs, has them executed, and delivers what happens in them.
//!
//! Owns the websocket and everything that is said over it. Knows of hosts only what [`base::execution`] says. Never
//! writes a token, a credential or a job's output to the worker's own log.

mod claims;
mod fetch;
mod journal;
mod opening;
mod outbox;
mod phoenix;
mod plan;
mod prepare;
mod queue;
mod run;
mod server;
mod tail;
pub mod timeline;
mod token;
mod token_circuit;
mod workloop;

use std::sync::Arc;
use std::time::Duration;

use base::execution::Executor;
use parking_lot::Mutex;
use protocol::run::RunOptions;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use claims::Demand;
pub use journal::{Journal, JournalError};
pub use outbox::BatchOptions;
use phoenix::Socket;
#[cfg(any(fuzzing, test))]
pub use phoenix::feed_frames;
pub use phoenix::server_time;
pub use phoenix::{Endpoint, InvalidEndpoint, Network, Stream};
pub use plan::Collections;
#[cfg(fuzzing)]
pub use plan::fuzzing::read_plan;
use queue::{Command, Queue};
use server::{Form, Server};
pub use token::LEEWAY;
use token::WorkerTokens;
pub use token::{InvalidPublicKey, RunTokenKey};
pub use workloop::{InvalidWorkloops, Workloop, Workloops, parse_workloops};

/// The version of the contract with Lightning that this worker keeps.
const API_VERSION: &str = "1.2";

/// The longest message to send: Lightning's socket takes 11,000,000 bytes, of which some are left. These are 10.4 MB.
pub const MAX_MESSAGE_BYTES: usize = 10_905_190;

/// Time between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Shortest and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The longest time that events which links died on are held back.
const PROBATION: Duration = Duration::from_secs(10);

/// How the worker deals with one Lightning.
#[derive(Debug, Clone)]
pub struct LightningOptions {
    /// Where Lightning's worker socket is.
    pub endpoint: Endpoint,
    /// How that is reached: by TCP unless set.
    pub network: Network,
    /// Whether compression of messages is offered to Lightning.
    pub compression: bool,
    /// Time between heartbeats. A link is dead on which nothing came from one to the next.
    pub heartbeat: Duration,
    /// Shortest and longest pause between attempts to connect.
    pub reconnect: (Duration, Duration),
    /// The secret that Lightning shares with its workers.
    pub secret: SecretString,
    /// The key to check run tokens with; without one they are not checked.
    pub public_key: Option<RunTokenKey>,
    /// What to claim from, and how much at once.
    pub workloops: Vec<Workloop>,
    /// How many runs claims ask for.
    pub demand: Demand,
    /// Shortest and longest pause between claims that bring nothing.
    pub backoff: (Duration, Duration),
    /// Whether to claim without being told to.
    pub claim_by_itself: bool,
    /// When a reply counts as late; getters are asked again then.
    pub message_timeout: Duration,
    /// When a claim without a reply is reported.
    pub claim_timeout: Duration,
    /// Limits of runs whose plan does not set its own.
    pub run_defaults: RunOptions,
    /// The longest state of a run whose plan sets no limit, in bytes. Unless set, it is the run's memory.
    pub state_bytes: Option<u64>,
    /// Whether and how log lines go in batches.
    pub batch_logs: Option<BatchOptions>,
    /// Whether dataclips first go as strings that hold JSON, rather than as JSON values. What Lightning refuses in one form
    /// goes in the other.
    pub stringify_state: bool,
    /// The longest message to send, in bytes.
    pub max_message_bytes: usize,
    /// The worker's name in claims.
    pub worker_name: Option<String>,
    /// Where collections are; without it they are off.
    pub collections: Option<Collections>,
    /// How often a getter that is late is asked again.
    pub getter_retries: u32,
    /// How long to wait before that.
    pub getter_retry_delay: Duration,
    /// The worker's version, for Lightning and the runs' logs.
    pub worker_version: String,
    /// Whether what jobs and adaptors log goes to the worker's own log, too.
    pub tail_jobs: bool,
    /// Where runs in flight are written down; nowhere unless set.
    pub journal: Option<Arc<Journal>>,
}

impl LightningOptions {
    /// The options of a worker that is told nothing but where and with which secret.
    pub fn new(endpoint: Endpoint, secret: SecretString) -> Self {
        Self {
            endpoint,
            network: Network::default(),
            compression: true,
            heartbeat: HEARTBEAT,
            reconnect: RECONNECT,
            secret,
            public_key: None,
            workloops: vec![Workloop::standard(5)],
            demand: Demand::default(),
            backoff: (Duration::from_secs(1), Duration::from_secs(10)),
            claim_by_itself: true,
            message_timeout: Duration::from_secs(30),
            claim_timeout: Duration::from_secs(3600),
            run_defaults: RunOptions::default(),
            state_bytes: None,
            batch_logs: None,
            stringify_state: true,
            max_message_bytes: MAX_MESSAGE_BYTES,
            worker_name: None,
            collections: None,
            getter_retries: 10,
            getter_retry_delay: Duration::from_secs(30),
            worker_version: env!("CARGO_PKG_VERSION").into(),
            tail_jobs: false,
            journal: None,
        }
    }

    fn bounded(mut self) -> Self {
        let (shortest, longest) = &mut self.backoff;
        let batch = self.batch_logs.as_mut().map(|batch| &mut batch.interval);
        let times =
            [shortest, longest, &mut self.claim_timeout, &mut self.message_timeout, &mut self.getter_retry_delay];
        times.into_iter().chain(batch).for_each(|time| *time = bounded(*time));
        self
    }
}

/// What all parts go by.
#[derive(Debug, Clone)]
struct Settings {
    options: Arc<LightningOptions>,
    server: Server,
}

/// What the worker knows of its Lightning. What is skipped, `worker ctl` does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LightningStatus {
    /// There is a websocket.
    pub connected: bool,
    /// The queue is joined, so that runs can be claimed.
    pub joined: bool,
    /// Runs that have not ended.
    pub active_runs: usize,
    /// Runs that may be active at once.
    pub capacity: usize,
    /// Claims without a reply.
    pub open_claims: usize,
    /// Runs that ended, however.
    pub runs_ended: u64,
    /// Nothing is claimed, because somebody wants it so.
    #[serde(skip)]
    pub paused: bool,
    /// Runs that were refused because their token is not valid.
    #[serde(skip)]
    pub refused_tokens: u64,
    /// Why runs are claimed only as probes, when their tokens are refused one after the other.
    #[serde(skip)]
    pub token_fault: Option<String>,
    /// Each workloop.
    #[serde(default)]
    pub workloops: Vec<WorkloopStatus>,
}

/// What a workloop is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloopStatus {
    /// Its queues in order of preference.
    pub name: String,
    /// Runs that may be active at once.
    pub capacity: usize,
    /// Runs that have not ended.
    pub active: usize,
    /// Runs that are claimed and not answered.
    pub open: usize,
}

/// Why no claim could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// There is no connection, or Lightning did not let the worker in.
    #[error("Lightning's queue is not joined")]
    NotJoined,
    /// The worker was drained, or has no host that could execute a run.
    #[error("claims are paused: the worker was drained, or no engine host gets ready")]
    Paused,
    /// Run tokens are refused one after the other, so that runs are claimed only as probes.
    #[error("claims pause: run tokens are refused; GET /readyz says why")]
    TokensRefused,
    /// Every slot is taken.
    #[error("the worker is at its capacity")]
    Full,
    /// The worker is about to end.
    #[error("the worker is stopping")]
    Stopping,
}

/// A worker's life with Lightning. Dropping it ends everything at once; [`Lightning::shutdown`] ends it well.
#[derive(Debug)]
pub struct Lightning {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<LightningStatus>,
    actor: Mutex<Option<JoinHandle<()>>>,
}

/// Connects, claims and executes until it is told to stop. Must be called within a Tokio runtime.
pub fn start<E: Executor>(options: LightningOptions, executor: Arc<E>) -> Lightning {
    let options = options.bounded();
    let tokens = WorkerTokens::new(&options.secret);
    let endpoint = &options.endpoint;
    match endpoint.proxy() {
        Ok(None) => tracing::info!("this worker is {} for Lightning at {endpoint}", tokens.worker_id()),
        Ok(Some(proxy)) => tracing::info!(
            "this worker is {} for Lightning at {endpoint}, through the proxy {proxy} (HTTPS_PROXY)",
            tokens.worker_id()
        ),
        Err(error) => tracing::error!("Lightning at {endpoint} cannot be reached: {error}"),
    }
    let version = options.worker_version.clone();
    let query = move || {
        let token = tokens.issue();
        let token = token.expose_secret();
        format!("vsn=2.0.0&token={token}&api_version={API_VERSION}&worker_version={version}").into()
    };
    let form = if options.stringify_state { Form::String } else { Form::Value };
    let server = Server::new(form, options.max_message_bytes);
    let settings = Settings { options: Arc::new(options), server };
    let socket = Socket::spawn(Arc::clone(&settings.options), Box::new(query));
    let (status, seen) = watch::channel(LightningStatus::default());
    let (commands, received) = mpsc::unbounded_channel();
    let queue = Queue::new(settings, executor, socket, status);
    let actor = tokio::spawn(queue.run(received));
    Lightning { commands, status: seen, actor: Mutex::new(Some(actor)) }
}

impl Lightning {
    /// Claims one run in each workloop that has a free slot, and says how many runs started. Waits for Lightning's
    /// answer as long as there is a connection.
    pub async fn claim_once(&self) -> Result<usize, ClaimError> {
        let (answer, answered) = oneshot::channel();
        let (asked_by, mut brought) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::ClaimOnce(answer, asked_by));
        answered.await.unwrap_or(Err(ClaimError::Stopping))?;
        let mut runs = 0;
        while let Some(count) = brought.recv().await {
            runs += count;
        }
        Ok(runs)
    }

    /// Claims nothing for now, or claims again. What was claimed before goes on.
    pub fn pause(&self, paused: bool) {
        let _ = self.commands.send(Command::Pause(paused));
    }

    /// What is known now.
    pub fn status(&self) -> LightningStatus {
        self.status.borrow().clone()
    }

    /// Follows what is known.
    pub fn watch(&self) -> watch::Receiver<LightningStatus> {
        self.status.clone()
    }

    /// Claims no more, lets what is active and what open claims bring end, and leaves. What is left after `grace` is
    /// killed and reported so. Returns when the connection is closed.
    pub async fn shutdown(&self, grace: Duration) {
        let _ = self.commands.send(Command::Shutdown(bounded(grace)));
        let actor = self.actor.lock().take();
        match actor {
            Some(actor) => {
                if let Err(error) = actor.await {
                    tracing::error!("the workloop task failed: {error}");
                }
            }
            None => self.commands.closed().await,
        }
    }

    /// Kills what is active, reports it so, and ends as [`Lightning::shutdown`] does, which may be waiting already.
    pub fn kill_all(&self) {
        let _ = self.commands.send(Command::Kill);
    }
}

/// What stands for ever: whatever options, plans and tokens say, times stay within what a clock can add up.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

fn bounded(duration: Duration) -> Duration {
    duration.min(EVER)
}
