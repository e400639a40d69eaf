//! Services: they work off the job queues of an OADA store with handlers, which are functions here.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use oada::{JobError, Service};
//!
//! let service = Service::builder("mailer", "oada.example.org".parse()?, "the token".into())
//!     .concurrency(10)
//!     .on("email", Duration::from_secs(30), |job, context| async move {
//!         let Some(to) = job.config.get("to") else { return Err(JobError::typed("nobody to write to", "bad-input")) };
//!         context.log.info("sending", to.clone()).await.map_err(|error| JobError::of(&error))?;
//!         Ok(serde_json::json!({ "sent": true }))
//!     })
//!     .start()
//!     .await?;
//! service.stop(Duration::from_secs(60)).await;
//! # Ok(())
//! # }
//! ```

mod access;
mod batch;
mod claim;
mod finish;
mod gauges;
mod handler;
mod in_progress;
mod lease;
mod options;
mod pending;
mod queue;
mod queues;
mod reporters;
mod runner;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

pub use self::batch::{BatchOptions, BatchOutcome};
use self::batch::{Collector, batch_work};
pub use self::handler::{Context, JobClient, JobClientError, JobLog, JobWatch, Outcome};
use self::handler::{Handler, Registered, work};
use self::in_progress::InProgress;
pub use self::lease::{Lease, RunOver};
pub use self::options::{Check, HalfRun, Retry, ServiceOptions, TypeOptions, UnknownType};
use self::queue::{Phase, QueueEnv};
use self::queues::{DEFAULT_QUEUE, Queues};
pub use self::reporters::{FinishReporter, InvalidReporter};
use super::client::{Client, ClientError, Domain};
use super::job::{Failure, Job};
use super::ksuid::Ksuid;
use super::paths::{InvalidName, Layout, Paths};
use super::report::{self, Report};

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its name is impossible.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Its own queue cannot be served.
    #[error("the service's own queue cannot be served: {0}")]
    Queue(#[from] ClientError),
    /// The second generation of paths has no place for reports.
    #[error("reports need the paths of the present generation, v5")]
    Reports,
}

/// What all queues and jobs of a service share.
pub(super) struct Shared {
    paths: Paths,
    options: ServiceOptions,
    /// The name under which jobs are claimed.
    instance: String,
    types: RwLock<HashMap<String, Handling>>,
    slots: Arc<Semaphore>,
    /// The jobs that are being worked on.
    in_progress: Arc<InProgress>,
    /// Those that are served, for whoever looks at them from outside.
    queues: RwLock<Vec<Weak<QueueEnv>>>,
}

/// What becomes of jobs of a type that is known.
#[derive(Clone)]
enum Handling {
    /// They are handled.
    With(Arc<Registered>),
    /// They are left alone until they can be: this is why.
    Withheld(String),
}

impl Shared {
    fn handling(&self, kind: &str) -> Option<Handling> {
        self.types.read().get(kind).cloned()
    }

    fn queue_begins(&self, env: &Arc<QueueEnv>) {
        let mut queues = self.queues.write();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(env));
    }

    fn withhold(&self, kind: &str, why: &str) {
        let mut types = self.types.write();
        types.insert(kind.to_owned(), Handling::Withheld(why.to_owned()));
    }

    /// Types whose jobs are left alone, and why.
    fn withheld(&self) -> BTreeMap<String, String> {
        let types = self.types.read();
        let why = |handling: &Handling| match handling {
            Handling::With(_) => None,
            Handling::Withheld(why) => Some(why.clone()),
        };
        types.iter().filter_map(|(kind, handling)| Some((kind.clone(), why(handling)?))).collect()
    }

    fn register(&self, kind: &str, registered: Registered) {
        let mut types = self.types.write();
        types.insert(kind.to_owned(), Handling::With(Arc::new(registered)));
    }
}

enum Registration {
    Single(TypeOptions, handler::Work),
    Batch(TypeOptions, BatchOptions, batch::BatchWork),
}

/// A service that is not started yet.
pub struct ServiceBuilder {
    name: String,
    domain: Domain,
    token: SecretString,
    options: ServiceOptions,
    types: Vec<(String, Registration)>,
    reports: Vec<Report>,
    withheld: Vec<(String, String)>,
}

impl ServiceBuilder {
    /// Jobs that run at once, over all queues; 1 unless set.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.options.concurrency = jobs;
        self
    }

    /// Changes options.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut ServiceOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Gives jobs of a type to a function, each for at most `timeout`.
    #[must_use]
    pub fn on<H, F, E>(self, kind: &str, timeout: Duration, handler: H) -> Self
    where
        H: Fn(Job, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.on_with(kind, TypeOptions::new(timeout), handler)
    }

    /// Gives jobs of a type to a function.
    #[must_use]
    pub fn on_with<H, F, E>(mut self, kind: &str, options: TypeOptions, handler: H) -> Self
    where
        H: Fn(Job, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.types.push((kind.to_owned(), Registration::Single(options, work(handler))));
        self
    }

    /// Gives jobs of a type to a function in batches: it gets the queue's name and the jobs.
    #[must_use]
    pub fn on_batch<H, F>(mut self, kind: &str, batch: BatchOptions, handler: H) -> Self
    where
        H: Fn(String, Vec<(Job, Context)>) -> F + Send + Sync + 'static,
        F: Future<Output = BatchOutcome> + Send + 'static,
    {
        let options = TypeOptions::new(batch.timeout);
        self.types.push((kind.to_owned(), Registration::Batch(options, batch, batch_work(handler))));
        self
    }

    /// Leaves jobs of a type alone, until there is a handler for them: `why` there is none is told by
    /// [`Service::status`].
    #[must_use]
    pub fn withhold(mut self, kind: &str, why: &str) -> Self {
        self.withheld.push((kind.to_owned(), why.to_owned()));
        self
    }

    /// Adds a report of finished jobs.
    #[must_use]
    pub fn report(mut self, report: Report) -> Self {
        self.reports.push(report);
        self
    }

    /// Starts to work. Returns when the service's own queue is watched.
    pub async fn start(self) -> Result<Service, StartError> {
        let Self { name, domain, token, options, types, reports, withheld } = self;
        let paths = Paths::new(&name, options.layout)?;
        if options.layout == Layout::V2 && !reports.is_empty() {
            return Err(StartError::Reports);
        }
        let client = Client::connect(domain, token.clone(), options.client.clone());
        let slots = Arc::new(Semaphore::new(options.concurrency.max(1)));
        let instance = options.instance.clone().unwrap_or_else(|| Ksuid::generate().to_string());
        let (types_known, in_progress, queues) = Default::default();
        let shared = Arc::new(Shared { paths, options, instance, types: types_known, slots, in_progress, queues });
        let (phase, phase_seen) = watch::channel(Phase::Run);
        for (kind, registration) in types {
            let registered = match registration {
                Registration::Single(options, work) => Registered { options, handler: Handler::Single(work) },
                Registration::Batch(options, batch, work) => {
                    let collector = Collector::start(batch, work, Arc::clone(&shared.slots), phase_seen.clone());
                    Registered { options, handler: Handler::Batch(collector) }
                }
            };
            shared.register(&kind, registered);
        }
        for (kind, why) in withheld {
            shared.withhold(&kind, &why);
        }
        let queues = Queues::start(Arc::clone(&shared), client.clone(), token, phase_seen).await?;
        let task = Mutex::new(Some(tokio::spawn(queues.run())));
        let mut tasks = JoinSet::new();
        for report in reports {
            report::start(report, client.clone(), shared.paths.clone(), &mut tasks);
        }
        Ok(Service { shared, client, phase, task, reports: Mutex::new(tasks) })
    }
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// There is a connection to the service's own store.
    pub is_connected: bool,
    /// The service's own queue is watched.
    pub is_watched: bool,
    /// The store takes the service's own token.
    pub is_authorized: bool,
    /// Other queues that are served and not watched at present, or whose token their store refuses, by name.
    pub unwatched: Vec<String>,
    /// Types whose jobs are left alone for now, and why.
    pub withheld: BTreeMap<String, String>,
}

/// A service at work. Dropping it ends what runs at once; [`Service::stop`] lets it finish.
pub struct Service {
    shared: Arc<Shared>,
    client: Client,
    phase: watch::Sender<Phase>,
    /// None when it was waited for.
    task: Mutex<Option<JoinHandle<()>>>,
    reports: Mutex<JoinSet<()>>,
}

impl Service {
    /// A service called `name`, whose own queue is in the store at `domain`, in the account of `token`.
    pub fn builder(name: &str, domain: Domain, token: SecretString) -> ServiceBuilder {
        let (name, options) = (name.to_owned(), ServiceOptions::default());
        ServiceBuilder { name, domain, token, options, types: Vec::new(), reports: Vec::new(), withheld: Vec::new() }
    }

    /// The client with the service's own token.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Gives jobs of a type to a function from now on.
    pub fn on<H, F, E>(&self, kind: &str, options: TypeOptions, handler: H)
    where
        H: Fn(Job, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.shared.register(kind, Registered { options, handler: Handler::Single(work(handler)) });
    }

    /// Leaves jobs of a type alone from now on, until there is a handler for them.
    pub fn withhold(&self, kind: &str, why: &str) {
        self.shared.withhold(kind, why);
    }

    /// Handles no more jobs of a type. Whether there was a handler.
    pub fn off(&self, kind: &str) -> bool {
        self.shared.types.write().remove(kind).is_some()
    }

    /// How it is at present.
    pub fn status(&self) -> ServiceStatus {
        let queues = self.shared.queues.read();
        let served = queues.iter().filter_map(Weak::upgrade).filter(|queue| queue.is_served());
        let (mut is_watched, mut is_authorized, mut unwatched) = (false, true, Vec::new());
        for queue in served {
            match queue.id.as_str() {
                DEFAULT_QUEUE => {
                    is_watched = queue.is_watched();
                    is_authorized = !queue.access.is_refused();
                }
                id if !queue.is_watched() || queue.access.is_refused() => unwatched.push(id.to_owned()),
                _ => {}
            }
        }
        unwatched.sort();
        let withheld = self.shared.withheld();
        ServiceStatus { is_connected: self.client.is_connected(), is_watched, is_authorized, unwatched, withheld }
    }

    /// Whether there is a handler for a type.
    pub fn handles(&self, kind: &str) -> bool {
        matches!(self.shared.handling(kind), Some(Handling::With(_)))
    }

    /// Begins no more jobs, and returns when those that run have ended, by themselves or because `grace` has. Jobs
    /// that were ended stay in their queues, for the next service.
    pub async fn stop(&self, grace: Duration) {
        self.enter(Phase::Drain);
        let mut task = self.task.lock().await;
        let Some(running) = task.as_mut() else { return };
        if tokio::time::timeout(grace, &mut *running).await.is_err() {
            self.enter(Phase::Kill);
            if let Err(error) = running.await {
                tracing::error!("a service task panicked: {error}");
            }
        }
        *task = None;
        self.reports.lock().await.shutdown().await;
    }

    /// Ends what runs at once.
    pub fn kill(&self) {
        self.enter(Phase::Kill);
    }

    /// Phases only follow each other.
    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|present| {
            let later = phase > *present;
            *present = phase.max(*present);
            later
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
