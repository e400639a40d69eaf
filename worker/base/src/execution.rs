//! The seam between where runs come from and what executes them.
//!
//! A source of runs has a [`RunSpec`] equipped, reserves an engine host for it, starts it there and follows its
//! [`RunSignal`]s to the end.
//! Neither side knows more of the other than what is here.

use std::future::Future;
use std::sync::Arc;

use protocol::message::Prepare;
use protocol::queue;
use protocol::run::{Exit, RunEvent, RunOutcome, RunSpec, StepCompleted};
use tokio::sync::{mpsc, oneshot, watch};

use crate::run_log::RunLog;

/// Something that lends engine hosts.
pub trait Executor: Send + Sync + 'static {
    /// Chooses the run's engine and gets in place what that needs, the adaptors above all. Writes the engine, and the
    /// exact versions of the steps' adaptors, into `spec`. An error is the exit of the run, which never starts.
    fn equip(&self, _spec: &mut RunSpec) -> impl Future<Output = Result<(), Exit>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether hosts can be had at all, as that changes; they always can unless this says otherwise. Nothing is claimed
    /// while they cannot.
    fn availability(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }

    /// Waits for a host that has prepared what is `wanted`, or will when the run starts. Dropping the future gives up
    /// the place in the queue.
    fn reserve(&self, wanted: Prepare) -> impl Future<Output = Result<Reservation, ReserveError>> + Send;
}

/// No host can be had.
#[derive(Debug, thiserror::Error)]
#[error("no engine host: {0}")]
pub struct ReserveError(pub String);

/// A host that is held for one run. Dropping it gives the host back unused.
#[derive(derive_more::Debug)]
#[debug("Reservation({host_id})")]
pub struct Reservation {
    host_id: String,
    start: Box<dyn FnOnce(RunSpec, Arc<RunLog>) -> ActiveRun + Send>,
}

impl Reservation {
    /// A reservation of the host called `host_id`, which `start` uses up.
    pub fn new(host_id: String, start: impl FnOnce(RunSpec, Arc<RunLog>) -> ActiveRun + Send + 'static) -> Self {
        Self { host_id, start: Box::new(start) }
    }

    /// Name of the host, for log lines.
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// Starts the run. What its host prints goes to `log`.
    pub fn start(self, spec: RunSpec, log: Arc<RunLog>) -> ActiveRun {
        (self.start)(spec, log)
    }
}

/// A run on a host. Dropping it kills the host.
#[derive(Debug)]
pub struct ActiveRun {
    /// What happens, in order; the last one is [`RunSignal::Ended`].
    pub signals: queue::Receiver<RunSignal>,
    /// Ends the run at once when sent an exit: the open step and the run get it. Only the first one counts.
    pub cancel: mpsc::Sender<Exit>,
}

/// Something that happened in a run.
#[derive(Debug)]
pub enum RunSignal {
    /// An event or a log line.
    Event(RunEvent),
    /// A step ended. The host waits with the next one until the acknowledgement is sent.
    StepCompleted(Box<StepCompleted>, oneshot::Sender<()>),
    /// The run is over.
    Ended(RunEnd),
}

/// How a run on a host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// The host reported the outcome.
    Finished(RunOutcome),
    /// The host died, broke its link or had to be killed: the exit to report for the open step and the run.
    Lost(Exit),
}
