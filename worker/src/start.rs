//! `worker start`: the parts put together, and taken down in order.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::room::{MOST_PER_SLOT, files_needed, have_files};
use hosts::{self, Broker, Containment, HostProgram, Hosts, HostsOptions, PoolSize, Recycling, TemplatePolicy};
use lightning::{self, BatchOptions, Collections, Journal, Lightning, LightningOptions, Workloop};
use protocol::confinement::Confinement;
use protocol::engine::{EngineSpec, JOB_ENVIRONMENT_VARIABLE};
use protocol::message::Prepare;
use protocol::run::RunOptions;
use protocol::signal::StopSignals;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

use crate::adaptors::{AdaptorsOptions, PACKAGES, unconfined};
use crate::cli::{Effective, MOCK_ENDPOINT, Megabytes, NodeStart, StartOptions, SupervisionArgs};
use crate::ctl::{Admin, AdminSocket, AdminSocketError};
use crate::embedded::EMBEDDED;
use crate::engines::{self, Choice, ChoiceError, Engines};
use crate::forking;
use crate::health::{Health, Readiness};
use crate::http::{self, Operations, Probed};
use crate::reload::{Reload, Reread, Translate};
use crate::sys::landlock_version;
use crate::systemd;
use crate::watchers::Watchers;

/// Runs at once where nothing is said.
pub(crate) const DEFAULT_CAPACITY: usize = 5;
/// The type of the hosts that execute runs.
const ENGINES: &str = "engines";
/// Templates that there are at most, whatever their memory.
const MOST_TEMPLATES: usize = 32;
/// How long hosts may take to stop when nothing runs any more.
const HOSTS_STOP: Duration = Duration::from_secs(5);
/// How long the ends of runs that are killed may take, with their hosts' ends, beyond what each host may take.
const KILLED_STOP: Duration = Duration::from_secs(15);
/// Beyond the grace of runs: how long their ends and their hosts' ends may take.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// The worker could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is missing or wrong.
    #[error("{0}")]
    Options(String),
    /// The engine that the options name cannot be had.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The HTTP port cannot be had.
    #[error(transparent)]
    Http(#[from] http::ListenError),
    /// There is no host program.
    #[error(transparent)]
    Program(#[from] hosts::ProgramError),
    /// No host answered.
    #[error(transparent)]
    Hosts(#[from] hosts::StartError),
    /// The journal's folder cannot be used.
    #[error(transparent)]
    Journal(#[from] lightning::JournalError),
    /// The admin socket cannot be had.
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    /// The folder in which hosts find the worker is gone. A worker that is started anew makes another one.
    #[error("the worker has ended because {} was removed, in which engine hosts find it; start it again", .0.display())]
    FolderLost(PathBuf),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
}

impl StartError {
    /// Whether other options would help.
    pub fn is_about_options(&self) -> bool {
        use hosts::ProgramError::Named;
        matches!(self, Self::Options(_) | Self::Choice(_) | Self::Journal(_) | Self::Program(Named { .. }))
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_requested() -> Result<(), StartError> {
    StopSignals::listen().map_err(StartError::Signals)?.next().await;
    Ok(())
}

/// Hosts that execute runs, for which nobody claims yet.
pub struct StartedHosts {
    broker: Broker,
    hosts: Arc<Hosts>,
    engines: Engines,
}

impl StartedHosts {
    /// Returns when the first host has answered.
    /// Node engines are forked where there is a policy for `templates`.
    pub async fn start(
        hosts: HostsOptions,
        engine: Choice,
        templates: Option<TemplatePolicy>,
    ) -> Result<Self, StartError> {
        let broker = Broker::start(None).map_err(hosts::StartError::from)?;
        if let Err(error) = broker.adopt_orphans() {
            warn!("cannot adopt the processes that hosts leave behind: {error}");
        }
        let options = hosts;
        if let Some(policy) = templates {
            broker.open_templates(template_options_of(&options), policy).await?;
        }
        let hosts = Arc::new(broker.open(ENGINES, options.clone()).await?);
        let engines = Engines::start(engine, &broker, &options, Arc::clone(&hosts)).await?;
        Ok(Self { broker, hosts, engines })
    }

    /// Claims runs for them.
    pub fn claim(self, lightning: LightningOptions) -> Worker {
        let lightning = Arc::new(lightning::start(lightning, Arc::new(self.engines)));
        Worker { broker: self.broker, hosts: self.hosts, lightning }
    }
}

/// Hosts, and what claims runs for them.
pub struct Worker {
    broker: Broker,
    hosts: Arc<Hosts>,
    lightning: Arc<Lightning>,
}

impl Worker {
    /// Claims no more, and waits until all runs have ended, by themselves or because `grace` has; then stops hosts.
    pub async fn finish(self, grace: Duration) {
        self.lightning.shutdown(grace).await;
        self.broker.shutdown(HOSTS_STOP).await;
    }
}

/// Runs the worker until it is asked to stop and has finished.
/// Options for hosts are read again by `reread` when that is asked for, and compared with those that are `in_force`.
pub async fn run(options: StartOptions, in_force: Vec<Effective>, reread: Reread) -> Result<(), StartError> {
    let Prepared { lightning, engine, hosts, templates, containment } = prepare(&options).await?;
    let program = hosts.program.path().to_owned();
    let equipment = engine.adaptors().cloned();
    let hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let mut signals = StopSignals::listen().map_err(StartError::Signals)?;
    let listener = http::listen(options.operation.host, options.operation.port).await?;
    let port = listener.local_addr().map_or(options.operation.port, |address| address.port());
    info!(version = env!("CARGO_PKG_VERSION"), engine = engine.name(), port, limits = %containment, "worker starting");

    let running = Arc::new(Running::default());
    let mut watchers = Watchers::start(&options);
    let dashboard = watchers.dashboard.clone();
    let server = tokio::spawn(http::serve(listener, options.operation.host, Arc::clone(&running), dashboard));
    let hosts = tokio::select! {
        hosts = StartedHosts::start(hosts, engine, templates) => hosts?,
        () = signals.next() => return Ok(()),
    };
    // A worker that cannot have it ends, and must not have claimed runs by then.
    let mut admin_socket = AdminSocket::bind(hosts.broker.folder(), options.operation.admin_socket.as_deref())?;
    let worker = hosts.claim(lightning);
    // Set here only.
    let _ = running.parts.set((Arc::clone(&worker.hosts), Arc::clone(&worker.lightning)));
    admin_socket.serve(Admin::new(worker.broker.clone(), Arc::clone(&worker.lightning), containment.to_string()));
    let reload = Reload {
        broker: worker.broker.clone(),
        engines: Arc::clone(&worker.hosts),
        in_force,
        reread,
        hosts_options: read_again(options.supervision.no_landlock, equipment, containment),
        config: options.operation.config.clone(),
        program: options.operation.watch.then_some(program),
    };
    let reload = tokio::spawn(reload.follow(hangup));
    watchers.watch(&worker.hosts, &worker.lightning, &options);
    systemd::ready();

    let folder_lost = tokio::select! {
        () = signals.next() => None,
        () = worker.broker.folder_lost() => Some(worker.broker.folder().to_owned()),
    };
    reload.abort();
    running.draining.store(true, Ordering::Relaxed);
    let grace = options.operation.shutdown_grace.unwrap_or(options.limits.max_run_duration_seconds);
    match &folder_lost {
        Some(folder) => {
            error!(?grace, "{} was removed and no host can start without it: finishing active runs", folder.display());
        }
        None => info!(?grace, "stopping: no more claims, finishing active runs; signal again to stop at once"),
    }
    watchers.stopping(grace.saturating_add(STOP_MARGIN));
    let supervision = &options.supervision;
    let kill_within = KILLED_STOP + supervision.host_stop_timeout + supervision.host_kill_timeout;
    finish(worker, grace, &mut signals, kill_within).await;
    // Until here it answers that the worker lives. Nobody who is slow to ask is waited for.
    server.abort();
    watchers.stop().await;
    drop(admin_socket);
    info!("stopped");
    folder_lost.map_or(Ok(()), |folder| Err(StartError::FolderLost(folder)))
}

/// What the options come down to on this machine, before anything is started.
struct Prepared {
    lightning: LightningOptions,
    engine: Choice,
    hosts: HostsOptions,
    /// None where engines are not forked.
    templates: Option<TemplatePolicy>,
    containment: Containment,
}

/// Looks at what is there (Node, Landlock, control groups), and makes the folders that have to be.
async fn prepare(options: &StartOptions) -> Result<Prepared, StartError> {
    let mut lightning = lightning_options(options)?;
    see_to_files(options)?;
    let journal = options.delivery.journal_dir.as_deref();
    let journal = journal.map(|folder| Journal::open(folder, &lightning.endpoint)).transpose()?;
    lightning.journal = journal.map(Arc::new);
    let engine = choose_engine(options).await?;
    let forks = forks(options, &engine)?;
    let adaptors = engine.adaptors();
    // Hosts may read what was there when they started.
    if let Some(AdaptorsOptions { repo, .. }) = adaptors
        && let Err(error) = std::fs::create_dir_all(repo)
    {
        warn!("cannot create {}, the folder of adaptors (--repo-dir, WORKER_REPO_DIR): {error}", repo.display());
    }
    let containment = Containment::choose(options.supervision.group_limits());
    let hosts = HostsOptions { cgroups: containment.cgroups(), ..hosts_options_of(options, adaptors)? };
    let templates = forks.then(|| template_policy_of(&hosts, options));
    Ok(Prepared { lightning, engine, hosts, templates, containment })
}

/// The engine, with what its adaptors get and whether they are refused.
async fn choose_engine(options: &StartOptions) -> Result<Choice, ChoiceError> {
    let (adaptors, supervision) = (&options.adaptors, &options.supervision);
    let engine = engines::choose(options.hosts.engine(), &adaptors.repo, &adaptors.monorepo_dir).await?;
    let unconfined =
        unconfined::refusal(landlock_version(), supervision.no_landlock, supervision.allow_unconfined_adaptors);
    let mut engine = engine.refusing(unconfined);
    if let Choice::Node(adaptors) = &mut engine {
        adaptors.job_environment = options.hosts.job_env.clone();
        adaptors.job_environment.sort();
        adaptors.snapshots = options.hosts.node_start != NodeStart::Fresh;
    }
    Ok(engine)
}

/// Options for hosts from those that are read while the worker runs.
fn read_again(no_landlock: bool, equipment: Option<AdaptorsOptions>, containment: Containment) -> Box<Translate> {
    Box::new(move |options| {
        let mut options = options.clone();
        // Which adaptors are refused was decided by it.
        options.supervision.no_landlock = no_landlock;
        let read = hosts_options_of(&options, equipment.as_ref())?;
        Ok(HostsOptions { cgroups: containment.cgroups(), ..read })
    })
}

/// Stops the worker when its runs have ended, at the latest after `grace`; sooner upon another signal.
async fn finish(worker: Worker, grace: Duration, signals: &mut StopSignals, kill_within: Duration) {
    let lightning = Arc::clone(&worker.lightning);
    let finished = worker.finish(grace);
    tokio::pin!(finished);
    tokio::select! {
        () = &mut finished => return,
        () = signals.next() => {}
    }
    warn!("second signal: killing all runs");
    lightning.kill_all();
    if tokio::time::timeout(kill_within, finished).await.is_err() {
        error!("some hosts did not exit within {kill_within:?}: exiting, the kernel kills them");
    }
}

/// The worker as the HTTP server sees it.
#[derive(Default)]
struct Running {
    /// Once the first engine has answered.
    parts: OnceLock<(Arc<Hosts>, Arc<Lightning>)>,
    draining: AtomicBool,
}

impl Operations for Running {
    async fn claim_once(&self) -> Result<usize, String> {
        match self.parts.get() {
            Some((_, lightning)) => lightning.claim_once().await.map_err(|error| error.to_string()),
            None => Err("no engine has answered yet".to_owned()),
        }
    }
}

impl Probed for Running {
    type Conditions = Readiness;

    async fn readiness(&self) -> (bool, Readiness) {
        let readiness = self.health().await.readiness();
        (readiness.ready, readiness)
    }

    async fn health(&self) -> Health {
        let draining = self.draining.load(Ordering::Relaxed);
        match self.parts.get() {
            Some((hosts, lightning)) => {
                Health { draining, lightning: Some(lightning.status()), pool: hosts.status().await }
            }
            None => Health { draining, ..Health::default() },
        }
    }
}

/// Checks the options as [`run`] would, and starts nothing.
pub fn check(options: &StartOptions) -> Result<(), StartError> {
    warm_hosts(options)?;
    lightning_options(options).map(drop)
}

/// Sees to it that the worker may open as many files as it may need.
fn see_to_files(options: &StartOptions) -> Result<(), StartError> {
    let (capacity, warm) = (capacity(options), warm_hosts(options)?);
    have_files(files_needed(capacity.saturating_add(warm), connections(options))).map_err(|few| {
        StartError::Options(format!(
            "{few} with a capacity of {capacity} and {warm} warm hosts: raise the limit (ulimit -n; LimitNOFILE= of \
             systemd), or lower --capacity (WORKER_CAPACITY)"
        ))
    })
}

/// Connections that the worker keeps to servers: to Lightning, and to those that are told of runs and errors.
pub(crate) fn connections(options: &StartOptions) -> usize {
    let told = &options.observation;
    1 + usize::from(told.otlp_endpoint.is_some()) + usize::from(told.sentry_dsn.is_some())
}

pub(crate) fn capacity(options: &StartOptions) -> usize {
    workloops(options).iter().map(|workloop| workloop.capacity).sum()
}

/// How many hosts are to wait; an error if they are far more than runs could use.
fn warm_hosts(options: &StartOptions) -> Result<usize, StartError> {
    let capacity = capacity(options);
    let warm = options.hosts.warm_hosts.unwrap_or(capacity);
    match warm > MOST_PER_SLOT.saturating_mul(capacity) {
        true => Err(StartError::Options(format!(
            "--warm-hosts (WORKER_WARM_HOSTS) is {warm}, and at most {MOST_PER_SLOT} for each run of the capacity, which \
             is {capacity}, can be of use: lower it, or raise --capacity (WORKER_CAPACITY)"
        ))),
        false => Ok(warm),
    }
}

fn lightning_options(options: &StartOptions) -> Result<LightningOptions, StartError> {
    let batches = BatchOptions { interval: options.delivery.batch_interval, limit: options.delivery.batch_limit };
    Ok(LightningOptions {
        public_key: options.lightning.lightning_public_key.clone(),
        workloops: workloops(options),
        backoff: (options.claiming.backoff.min, options.claiming.backoff.max),
        claim_by_itself: options.claiming.loop_flag || !options.claiming.no_loop,
        message_timeout: message_timeout(options),
        claim_timeout: options.claiming.claim_timeout,
        getter_retries: options.delivery.timeout_retry_count,
        getter_retry_delay: options.delivery.timeout_retry_delay,
        run_defaults: run_defaults(options),
        state_bytes: options.limits.state_memory.map(Megabytes::bytes),
        batch_logs: options.delivery.batch_logs.then_some(batches),
        stringify_state: !options.delivery.no_stringify_state,
        max_message_bytes: usize::try_from(options.delivery.max_message_mb.bytes()).unwrap_or(usize::MAX),
        compression: !options.delivery.no_compression,
        worker_name: options.claiming.name.clone(),
        tail_jobs: options.operation.tail_jobs,
        collections: collections(options),
        ..LightningOptions::new(options.lightning.lightning.clone(), secret(options)?)
    })
}

fn collections(options: &StartOptions) -> Option<Collections> {
    let Some(url) = options.adaptors.collections_url.clone() else {
        warn!("jobs have no collections: --collections-url (WORKER_COLLECTIONS_URL) is not set");
        return None;
    };
    Some(Collections { url, version: options.adaptors.collections_version.clone() })
}

fn message_timeout(options: &StartOptions) -> Duration {
    let deprecated = options.delivery.socket_timeout;
    if deprecated.is_some() {
        warn!(
            "--socket-timeout (WORKER_SOCKET_TIMEOUT_SECONDS) is deprecated and takes the place of --message-timeout \
             (WORKER_MESSAGE_TIMEOUT_SECONDS): use that instead"
        );
    }
    deprecated.unwrap_or(options.delivery.message_timeout)
}

fn secret(options: &StartOptions) -> Result<SecretString, StartError> {
    match &options.lightning.secret {
        Some(secret) => Ok(secret.clone()),
        None if options.lightning.lightning.to_string() == MOCK_ENDPOINT => Ok(SecretString::default()),
        None => {
            let message = "the worker's secret is missing: set --secret, WORKER_SECRET or WORKER_SECRET_FILE to the \
                           secret that Lightning was started with";
            Err(StartError::Options(message.into()))
        }
    }
}

pub(crate) fn workloops(options: &StartOptions) -> Vec<Workloop> {
    let Some(workloops) = &options.claiming.workloops else {
        return vec![Workloop::standard(options.claiming.capacity.unwrap_or(DEFAULT_CAPACITY))];
    };
    for warning in &workloops.warnings {
        warn!("--workloops: {warning}");
    }
    workloops.list.clone()
}

fn run_defaults(options: &StartOptions) -> RunOptions {
    let memory_bytes = options.limits.run_memory.bytes();
    RunOptions {
        timeout_ms: u64::try_from(options.limits.max_run_duration_seconds.as_millis()).unwrap_or(u64::MAX),
        memory_bytes,
        state_bytes: RunOptions::state_bytes_of(memory_bytes),
        payload_bytes: options.limits.payload_memory.bytes(),
        log_payload_bytes: options.limits.log_payload_memory.bytes(),
        state_props_to_remove: options.limits.state_props_to_remove.clone(),
        ..RunOptions::default()
    }
}

/// Whether Node engines are forked; an error if they are to be and cannot.
fn forks(options: &StartOptions, engine: &Choice) -> Result<bool, ChoiceError> {
    let landlock = landlock_version().filter(|_| !options.supervision.no_landlock);
    let refusal = match engine.adaptors() {
        Some(adaptors) => forking::refusal(&adaptors.node.version, forking::HAS_PLATFORM, landlock.is_some()),
        None => Some(format!("it is Node that is forked, and the engine is {}", engine.name())),
    };
    match (options.hosts.node_start, refusal) {
        (NodeStart::Snapshot | NodeStart::Fresh, _) => Ok(false),
        (NodeStart::Auto | NodeStart::Fork, None) => Ok(true),
        (NodeStart::Auto, Some(why)) => {
            debug!("engines are not forked: {why}");
            Ok(false)
        }
        (NodeStart::Fork, Some(why)) => Err(ChoiceError::NotForked(why)),
    }
}

/// The hosts that look after templates for hosts of these options. They run nobody's code, and what is forked from what
/// they start confines itself.
pub(crate) fn template_options_of(hosts: &HostsOptions) -> HostsOptions {
    HostsOptions {
        confinement: Confinement { is_of_forks: true, ..hosts.confinement.clone() },
        memory_bytes: None,
        size: PoolSize::Shared { least: 0, most: MOST_TEMPLATES, idle: Duration::ZERO },
        first: None,
        recycling: Recycling::default(),
        ..hosts.clone()
    }
}

fn template_policy_of(hosts: &HostsOptions, options: &StartOptions) -> TemplatePolicy {
    TemplatePolicy {
        memory_bytes: hosts.warm_bytes,
        variables: options.hosts.job_env.clone(),
        ..TemplatePolicy::default()
    }
}

pub(crate) fn hosts_options_of(
    options: &StartOptions,
    adaptors: Option<&AdaptorsOptions>,
) -> Result<HostsOptions, StartError> {
    let warm = warm_hosts(options)?;
    let program = HostProgram::find(options.hosts.engine_host.as_deref(), EMBEDDED)?;
    let supervision = &options.supervision;
    let embedded = Prepare { engine: EngineSpec::Embedded, memory_bytes: options.limits.run_memory.bytes() };
    Ok(HostsOptions {
        size: PoolSize::OneRunEach { warm },
        warm_bytes: options.hosts.warm_memory_mb.bytes(),
        // Which adaptors a Node is to have loaded, the first runs tell.
        first: adaptors.is_none().then_some(embedded),
        validation_timeout: options.hosts.engine_validation_timeout_ms,
        validation_retries: options.hosts.engine_validation_retries,
        start_timeout: supervision.host_start_timeout,
        stop_timeout: supervision.host_stop_timeout,
        kill_timeout: supervision.host_kill_timeout,
        recycling: Recycling {
            max_age: supervision.host_max_age,
            max_bytes: supervision.host_max_memory.map(Megabytes::bytes),
            ..Recycling::default()
        },
        confinement: Confinement {
            is_of_forks: false,
            open_files: Some(supervision.host_max_open_files),
            processes: supervision.host_max_processes,
            scratch_bytes: Some(supervision.scratch_mb.bytes()),
            readable: (!supervision.no_landlock).then(|| readable(&program, supervision, adaptors)),
            packages: adaptors.iter().flat_map(|it| &it.monorepos).map(|root| root.join(PACKAGES)).collect(),
        },
        environment: job_environment(&options.hosts.job_env),
        ..HostsOptions::new(program)
    })
}

/// The variables that jobs may see, and their names, by which hosts tell them from their own.
fn job_environment(names: &[String]) -> Vec<(String, String)> {
    if names.is_empty() {
        return Vec::new();
    }
    let set = names.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    set.chain([(JOB_ENVIRONMENT_VARIABLE.to_owned(), names.join(","))]).collect()
}

/// Variables that name certificates, which hosts get.
const CERTIFICATES: [&str; 3] = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_DIR", "SSL_CERT_FILE"];

/// What hosts read beside what the system has.
fn readable(program: &HostProgram, supervision: &SupervisionArgs, adaptors: Option<&AdaptorsOptions>) -> Vec<PathBuf> {
    let certificates = CERTIFICATES.into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let of_node = adaptors.into_iter().flat_map(|it| [&it.repo, &it.node.path].into_iter().chain(&it.monorepos));
    let named = supervision.landlock_read.iter();
    [program.path().to_owned()].into_iter().chain(of_node.chain(named).cloned()).chain(certificates).collect()
}
