//! All hosts of a worker: pools by type, which share one socket and one folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use protocol::engine::{EngineSpec, ForkOrigin};
use protocol::message::NotForked;
use protocol::socket::{Listener, RuntimeDir};
use tokio::sync::{broadcast, watch};

use super::arrivals::Arrivals;
use super::handle::Hosts;
use super::lines::{HostLine, Lines};
use super::options::HostsOptions;
use super::orphans::Orphans;
use super::pool::HostNumber;
use super::spawn::Spawner;
use super::status::PoolEvent;
use super::templates::{Demand, TemplatePolicy, Templates};
use super::{BrokerError, StartError};

/// Events that a slow listener may fall behind by.
const EVENTS: usize = 1024;

/// The type of the hosts that look after templates.
const TEMPLATES: &str = "templates";

/// What the pools of a worker have in common. It goes when the last of them has.
#[derive(Debug)]
pub(super) struct HostRuntime {
    pub(super) spawner: Spawner,
    pub(super) arrivals: Arrivals,
    pub(super) lines: Lines,
    /// What happens in all pools.
    pub(super) events: broadcast::Sender<PoolEvent>,
    pub(super) orphans: Arc<Orphans>,
    next_host: AtomicU64,
    /// What engines are forked from, where they are.
    templates: OnceLock<Templates>,
    /// Whether the folder is gone.
    is_lost: watch::Sender<bool>,
    /// Goes last, with everything that is in it.
    directory: RuntimeDir,
}

impl HostRuntime {
    pub(super) fn new(root: Option<&Path>) -> Result<Self, BrokerError> {
        let directory = RuntimeDir::create(root)?;
        let orphans = Arc::<Orphans>::default();
        let arrivals = Arrivals::at(Listener::bind(&directory)?, Arc::clone(&orphans));
        let spawner = Spawner::start(Arc::clone(&orphans)).map_err(BrokerError::Thread)?;
        let (next_host, is_lost) = (AtomicU64::new(1), watch::Sender::new(false));
        let (lines, events) = (Lines::default(), broadcast::Sender::new(EVENTS));
        let templates = OnceLock::new();
        Ok(Self { spawner, arrivals, lines, events, orphans, next_host, templates, is_lost, directory })
    }

    /// Each host works in a folder of its own in this one.
    pub(super) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Looks whether the folder is gone, and with it the socket, so that no host can be had any more.
    pub(super) fn is_lost(&self) -> bool {
        let is_lost = !self.folder().exists();
        if is_lost {
            self.is_lost.send_replace(true);
        }
        is_lost
    }

    /// What engines are forked from, where they are.
    pub(super) fn templates(&self) -> Option<&Templates> {
        self.templates.get()
    }

    /// Has an engine that a host is to get forked, if there is a template for it.
    pub(super) fn offer_template(&self, engine: &mut EngineSpec, memory_bytes: u64, demand: Demand) {
        if let (EngineSpec::Node(spec), Some(templates)) = (engine, self.templates()) {
            spec.origin = ForkOrigin(templates.offer(spec, memory_bytes, demand));
        }
    }

    /// A template was of no use to a host.
    pub(super) fn not_forked(&self, told: &NotForked) {
        if let Some(templates) = self.templates() {
            templates.not_forked(told);
        }
    }

    /// A number that no other host of the worker has.
    pub(super) fn next_host(&self) -> HostNumber {
        self.next_host.fetch_add(1, Ordering::Relaxed)
    }
}

/// The pools of a worker, each with a type, hosts of its own kind and a size of its own. Clones share them.
///
/// ```no_run
/// use std::time::Duration;
/// use hosts::{Broker, Embedded, HostProgram, HostsOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Broker::start(None)?;
/// let program = HostProgram::find(None, Embedded::NONE)?;
/// let engines = broker.open("engines", HostsOptions::new(program.clone())).await?;
/// // At most two of another kind, started when somebody wants one.
/// let handlers = broker.open("handlers", HostsOptions::shared(program, 2)).await?;
///
/// engines.resize(4).await?;
/// handlers.recycle().await?;
/// for status in broker.status().await {
///     println!("{}: {} hosts", status.pool, status.hosts.len());
/// }
/// broker.shutdown(Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Broker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None when the broker was shut down.
    runtime: Mutex<Option<Arc<HostRuntime>>>,
    pools: Mutex<Vec<Hosts>>,
    folder: PathBuf,
    is_lost: watch::Receiver<bool>,
    lines: Lines,
    events: broadcast::Sender<PoolEvent>,
}

impl Broker {
    /// Makes the socket, in a private folder below `root`, or below the user's folder for such things. Must be called
    /// within a tokio runtime.
    pub fn start(root: Option<&Path>) -> Result<Self, BrokerError> {
        let runtime = Arc::new(HostRuntime::new(root)?);
        let (folder, is_lost) = (runtime.folder().to_owned(), runtime.is_lost.subscribe());
        let (lines, events) = (runtime.lines.clone(), runtime.events.clone());
        let runtime = Mutex::new(Some(runtime));
        Ok(Self(Arc::new(Shared { runtime, pools: Mutex::default(), folder, is_lost, lines, events })))
    }

    /// Makes this process the one that gets what hosts leave behind, and reaps it. For a program whose children of
    /// other sessions are all hosts or theirs.
    pub fn adopt_orphans(&self) -> io::Result<()> {
        self.0.runtime.lock().as_ref().map_or(Ok(()), |runtime| runtime.orphans.adopt())
    }

    /// Opens a pool of hosts of a type. If there are always to be some, returns when the first one is ready.
    ///
    /// # Errors
    /// When no host gets ready, when there is a pool of that type, or when the broker was shut down.
    pub async fn open(&self, pool: &str, options: HostsOptions) -> Result<Hosts, StartError> {
        let taken = || StartError::Taken(pool.to_owned());
        if self.pool(pool).is_some() {
            return Err(taken());
        }
        let runtime = self.0.runtime.lock().clone().ok_or(StartError::Closed)?;
        let hosts = Hosts::open(pool, options, runtime).await?;
        let mut pools = self.0.pools.lock();
        if pools.iter().any(|known| known.pool() == pool) {
            return Err(taken());
        }
        pools.push(hosts.clone());
        Ok(hosts)
    }

    /// Has engines forked from templates, hosts of these options, which are started as they are wanted.
    ///
    /// # Errors
    /// When there are templates already, or the broker was shut down.
    pub async fn open_templates(&self, options: HostsOptions, policy: TemplatePolicy) -> Result<Templates, StartError> {
        let hosts = self.open(TEMPLATES, options).await?;
        let runtime = self.0.runtime.lock().clone().ok_or(StartError::Closed)?;
        let templates = Templates::start(hosts, policy);
        runtime.templates.set(templates.clone()).map_err(|_| StartError::Taken(TEMPLATES.to_owned()))?;
        Ok(templates)
    }

    /// What engines are forked from, where they are.
    pub fn templates(&self) -> Option<Templates> {
        self.0.runtime.lock().as_ref()?.templates().cloned()
    }

    /// The pool of this type.
    pub fn pool(&self, pool: &str) -> Option<Hosts> {
        self.0.pools.lock().iter().find(|known| known.pool() == pool).cloned()
    }

    /// All pools, in the order in which they were opened.
    pub fn all(&self) -> Vec<Hosts> {
        self.0.pools.lock().clone()
    }

    /// A look at all pools.
    pub async fn status(&self) -> Vec<super::PoolStatus> {
        let pools = self.all();
        join_all(pools.iter().map(Hosts::status)).await.into_iter().flatten().collect()
    }

    /// What happens in all pools from now on, those included that are not open yet: who asks before the first is opened
    /// misses nothing. Who falls behind misses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<PoolEvent> {
        self.0.events.subscribe()
    }

    /// The last lines that hosts printed, and those to come. Who falls behind misses the oldest ones.
    pub fn lines(&self) -> (Vec<HostLine>, broadcast::Receiver<HostLine>) {
        self.0.lines.read()
    }

    /// The private folder that the socket lies in. It goes with the hosts.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Waits until a host could not be started because the folder is gone, as when the system cleans up after a user who
    /// has left. Hosts that were there go on, and there will be no others.
    pub async fn folder_lost(&self) {
        if self.0.is_lost.clone().wait_for(|is_lost| *is_lost).await.is_err() {
            // It was shut down.
            std::future::pending().await
        }
    }

    /// Shuts all pools down, as [`Hosts::shutdown`] does. When this returns, no process and no file is left.
    pub async fn shutdown(&self, grace: Duration) {
        let pools = std::mem::take(&mut *self.0.pools.lock());
        let runtime = self.0.runtime.lock().take();
        let (templates, others): (Vec<_>, Vec<_>) = pools.into_iter().partition(|pool| pool.pool() == TEMPLATES);
        join_all(others.iter().map(|pool| pool.shutdown(grace))).await;
        // Nobody wants an engine any more. Each template has its host lent, which would keep that for the whole grace.
        runtime.iter().filter_map(|runtime| runtime.templates()).for_each(Templates::start_afresh);
        join_all(templates.iter().map(|pool| pool.shutdown(grace))).await;
        drop(runtime);
    }
}
