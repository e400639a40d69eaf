//! Engine hosts: processes that are started ahead of need, lent for one run each, watched, and always buried.
//!
//! Owns the host processes, the socket that they connect to and the folder that both lie in. Knows nothing of where
//! runs come from, and never runs users' code.
//!
//! Two state machines decide and do nothing else: [`host`] for one host, [`pool`] for how many there are to be. Around
//! each is one task: [`supervisor`] for a host, [`keeper`] for the pool.
//!
//! ```text
//! reserve() -> keeper -> Lease -> start(spec) -> supervisor -> run -> RunSignals
//!                |                                  |
//!             spawn, arrivals                 process, output
//! ```

mod arrivals;
mod death;
mod demand;
mod health;
mod host;
mod keeper;
mod lease;
mod output;
mod pool;
mod process;
mod program;
mod run;
mod spawn;
mod status;
mod supervisor;
mod sys;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::engine::EngineSpec;
use protocol::message::Prepare;
use protocol::socket::{Listener, RuntimeDir, SocketError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use self::arrivals::Arrivals;
pub use self::death::{Death, Phase, Reason, Status};
use self::keeper::{Keeper, Message, Validation};
use self::pool::{Pool, Room};
pub use self::program::{HostProgram, ProgramError};
use self::spawn::Spawner;
pub use self::status::{HostEvent, HostState, HostStatus, PoolStatus};
use self::supervisor::Setup;
use crate::execution::{Executor, Reservation, ReserveError};

const MB: u64 = 1024 * 1024;

/// Events that a slow listener may fall behind by.
const EVENTS: usize = 1024;

/// What hosts are started, and how many.
#[derive(Debug, Clone)]
pub struct HostsOptions {
    /// The program.
    pub program: HostProgram,
    /// Hosts that are kept ready beyond those at work; one at least.
    pub warm: usize,
    /// Memory of the hosts that wait with an engine ready, in bytes.
    pub warm_bytes: u64,
    /// What hosts prepare before any run has said what it wants.
    pub first: Option<Prepare>,
    /// How long a host may take to get ready.
    pub start_timeout: Duration,
    /// How long the very first host may take.
    pub validation_timeout: Duration,
    /// How often the first host is started again when it did not get ready.
    pub validation_retries: u32,
    /// Where the private folder for the socket is made; the user's runtime folder if none.
    pub runtime_root: Option<PathBuf>,
}

impl HostsOptions {
    /// Two warm hosts of this program, with the limits that the reference worker has.
    pub fn new(program: HostProgram) -> Self {
        Self {
            program,
            warm: 2,
            warm_bytes: 512 * MB,
            first: Some(Prepare { engine: EngineSpec::Embedded, memory_bytes: 500 * MB }),
            start_timeout: Duration::from_secs(30),
            validation_timeout: Duration::from_secs(5),
            validation_retries: 3,
            runtime_root: None,
        }
    }
}

/// Why there are no hosts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no socket for them.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no thread to start them from.
    #[error("failed to start the thread that starts engine hosts: {0}")]
    Thread(#[source] io::Error),
    /// None got ready.
    #[error("no engine host got ready in {attempts} attempts: the last one {death}")]
    Unusable {
        /// How many were started.
        attempts: u32,
        /// How the last one ended.
        death: Death,
    },
}

/// A pool of engine hosts. Clones share it; when the last one is dropped, all hosts are killed.
#[derive(Debug, Clone)]
pub struct Hosts {
    keeper: Arc<KeeperHandle>,
    events: broadcast::Sender<HostEvent>,
}

#[derive(Debug)]
struct KeeperHandle(mpsc::UnboundedSender<Message>);

impl Drop for KeeperHandle {
    fn drop(&mut self) {
        // Fails when the pool was shut down.
        let _ = self.0.send(Message::Abandon);
    }
}

impl Hosts {
    /// Starts a pool, and returns when its first host is ready. Must be called within a tokio runtime.
    pub async fn start(options: HostsOptions) -> Result<Self, StartError> {
        let directory = RuntimeDir::create(options.runtime_root.as_deref())?;
        let arrivals = Arrivals::at(Listener::bind(&directory)?);
        let setup = Setup {
            program: options.program,
            spawner: Spawner::start().map_err(StartError::Thread)?,
            arrivals,
            folder: directory.path().to_owned(),
        };
        let (events, _) = broadcast::channel(EVENTS);
        let pool = Pool::new(Room {
            warm: options.warm.max(1),
            bytes: options.warm_bytes,
            first: options.first,
            preparations: preparations(),
        });
        let (mut keeper, sender) = Keeper::new(setup, directory, pool, options.start_timeout, events.clone());
        let validation = Validation { timeout: options.validation_timeout, retries: options.validation_retries };
        keeper.validate(validation).await?;
        tokio::spawn(keeper.run());
        Ok(Self { keeper: Arc::new(KeeperHandle(sender)), events })
    }

    /// What happens from now on. Who falls behind misses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.events.subscribe()
    }

    /// A look at the pool; none when it was shut down.
    pub async fn status(&self) -> Option<PoolStatus> {
        let (asker, answer) = oneshot::channel();
        self.keeper.0.send(Message::Status(asker)).ok()?;
        answer.await.ok()
    }

    /// Stops all hosts: those that wait at once, the others when their run has ended. What is left after `grace` is
    /// killed, its run ends lost. Returns when every process is reaped and the socket is gone. Reservations are refused
    /// from the beginning.
    pub async fn shutdown(&self, grace: Duration) {
        let (done, is_done) = oneshot::channel();
        if self.keeper.0.send(Message::Shutdown(Instant::now() + grace, done)).is_ok() {
            // Fails when the pool is gone already.
            let _ = is_done.await;
        }
    }
}

/// Hosts that may prepare at once while nothing else is to be done: half of the processors' worth.
fn preparations() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

impl Executor for Hosts {
    async fn reserve(&self, wanted: Prepare) -> Result<Reservation, ReserveError> {
        let gone = || ReserveError("the pool of engine hosts was shut down".to_owned());
        let (caller, answer) = oneshot::channel();
        self.keeper.0.send(Message::Reserve(wanted, caller)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
