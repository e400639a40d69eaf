//! `worker oada`: the parts put together.

mod probes;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base::escape::one_line;
use base::node::NodeProgram;
use base::room::{files_needed, have_files};
use hosts::{Broker, HostProgram, Hosts, HostsOptions, PoolSize, Recycling};
use oada::browse;
use oada::client::{Client, ClientOptions, Domain};
use oada::handlers::{HandlerOptions, Handlers};
use oada::job::NewJob;
use oada::paths::Paths;
use oada::report::{Report, parse_reports};
use oada::request::{JobEvent, JobRequest};
use oada::service::{Service, ServiceBuilder};
use protocol::message::Prepare;
use secrecy::SecretString;
use serde_json::{Map, Value};
use tracing::{error, info, warn};

use self::probes::Probes;
use crate::cli::{HandlerEngine, OadaCommand, OadaOptions, ServeArgs, StoreArgs};
use crate::embedded::EMBEDDED;
use crate::http;
use crate::start::{StartError, stop_requested};

/// Time between looks at the folder of handlers.
const POLL: Duration = Duration::from_secs(1);
/// How long hosts may take to stop when no job runs any more.
const HOSTS_STOP: Duration = Duration::from_secs(5);

/// Which store and which service, all of it known.
struct Place {
    domain: Domain,
    token: SecretString,
    paths: Paths,
}

/// Does what the command line says.
pub async fn run(options: OadaOptions) -> anyhow::Result<ExitCode> {
    let place = place(&options.store)?;
    match options.command {
        None => serve(place, options.serve).await,
        Some(command) => ask(place, command, &options.serve).await,
    }
}

fn place(store: &StoreArgs) -> anyhow::Result<Place> {
    let missing = |what: &str| anyhow!("{what} is missing: `worker oada --help` tells what is needed");
    let domain = store.domain.clone().ok_or_else(|| missing("--domain (WORKER_OADA_DOMAIN)"))?;
    let file = store.token_file.as_deref().ok_or_else(|| missing("--token-file (WORKER_OADA_TOKEN_FILE)"))?;
    let name = store.service.as_deref().ok_or_else(|| missing("--service (WORKER_OADA_SERVICE)"))?;
    Ok(Place { domain, token: token(file)?, paths: Paths::new(name, store.layout).context("--service")? })
}

fn token(file: &Path) -> anyhow::Result<SecretString> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {} (--token-file)", file.display()))?;
    match text.trim() {
        "" => bail!("{} (--token-file) is empty: it must hold a token", file.display()),
        token => Ok(token.into()),
    }
}

async fn serve(place: Place, options: ServeArgs) -> anyhow::Result<ExitCode> {
    let folder = options.handlers.clone().ok_or_else(|| {
        anyhow!("--handlers (WORKER_OADA_HANDLERS) is missing: a folder with a file <type>.js for each type of jobs")
    })?;
    let reports = match options.reports.as_deref() {
        Some(file) => reports(file)?,
        None => Vec::new(),
    };
    see_to_files(&options)?;
    let listener = http::listen(options.host, options.port).await?;
    let port = listener.local_addr().map_or(options.port, |address| address.port());
    let probes = Arc::new(Probes::default());
    let server = tokio::spawn(http::serve_probes(listener, Arc::clone(&probes)));
    let broker = Broker::start(None)?;
    let hosts = open_pool(&broker, &options).await?;
    // Set here only, like the service below.
    let _ = probes.hosts.set(hosts.clone());
    let client = ClientOptions { concurrency: options.requests, ..ClientOptions::default() };
    let service = Service::builder(place.paths.service(), place.domain.clone(), place.token)
        .concurrency(options.concurrency)
        .options(|it| {
            it.layout = place.paths.layout();
            it.client = client;
            it.unknown_type = options.unknown_type;
            it.half_run = options.half_run;
            it.claim_lease = Some(options.claim);
            it.skip_queue_on_startup = options.skip_queue_on_startup;
            it.finish_reporters.clone_from(&options.finish_reporters);
        });
    let service = reports.into_iter().fold(service, ServiceBuilder::report);
    let mut handlers = Handlers::load(hosts, handler_options(&folder, &options).await?).await?;
    if options.strict && !handlers.unusable().is_empty() {
        let unusable = handlers.unusable().iter().map(|(kind, why)| format!("`{kind}`: {why}"));
        let unusable = unusable.collect::<Vec<_>>().join("; ");
        broker.shutdown(HOSTS_STOP).await;
        bail!("with --strict each handler must be usable, and these are not: {unusable}");
    }
    let service = tokio::select! {
        service = handlers.register(service).start() => Arc::new(service?),
        stopped = stop_requested() => return stopped.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    let following = handlers.follow(Arc::clone(&service));
    let _ = probes.service.set(Arc::clone(&service));
    info!(service = place.paths.service(), domain = %place.domain, port, "processing jobs");
    let is_lost = tokio::select! {
        stopped = stop_requested() => stopped.map(|()| false)?,
        () = broker.folder_lost() => true,
    };
    probes.drain();
    let grace = options.shutdown_grace;
    if is_lost {
        let folder = broker.folder().display();
        error!(?grace, "{folder} was removed and no host can start without it: finishing active jobs");
    } else {
        info!(?grace, "stopping: starting no more jobs, finishing active ones; signal again to end them");
    }
    drop(following);
    tokio::select! {
        () = service.stop(options.shutdown_grace) => {}
        stopped = stop_requested() => {
            stopped?;
            service.stop(Duration::ZERO).await;
        }
    }
    broker.shutdown(HOSTS_STOP).await;
    server.abort();
    info!("stopped");
    if is_lost { Err(StartError::FolderLost(broker.folder().to_owned()).into()) } else { Ok(ExitCode::SUCCESS) }
}

/// Sees to it that the process may open as many files as it may need.
fn see_to_files(options: &ServeArgs) -> anyhow::Result<()> {
    // Each job that ends may tell each reporter.
    let told = options.finish_reporters.len().saturating_mul(options.concurrency);
    let connections = 1_usize.saturating_add(told);
    have_files(files_needed(most_hosts(options), connections)).with_context(|| {
        format!(
            "--concurrency {} (WORKER_OADA_CONCURRENCY) is too much: lower it, or raise the limit (ulimit -n; \
             LimitNOFILE= of systemd)",
            options.concurrency
        )
    })
}

/// A job's host each, and one to look at handlers.
fn most_hosts(options: &ServeArgs) -> usize {
    options.concurrency.saturating_add(1)
}

fn reports(file: &Path) -> anyhow::Result<Vec<Report>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {} (--reports)", file.display()))?;
    parse_reports(&text).with_context(|| format!("{} (--reports)", file.display()))
}

/// Hosts that are for one job each.
async fn open_pool(broker: &Broker, options: &ServeArgs) -> anyhow::Result<Hosts> {
    let program = HostProgram::find(options.engine_host.as_deref(), EMBEDDED)?;
    let most = most_hosts(options);
    let least = options.warm_hosts.unwrap_or(options.concurrency).min(most);
    let size = PoolSize::Shared { least, most, idle: Duration::from_secs(30) };
    let recycling = Recycling { max_runs: Some(1), ..Recycling::default() };
    let first = None::<Prepare>;
    let environment = options.job_env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    let environment = environment.collect();
    Ok(broker
        .open("handlers", HostsOptions { size, recycling, first, environment, ..HostsOptions::new(program) })
        .await?)
}

async fn ask(place: Place, command: OadaCommand, serve: &ServeArgs) -> anyhow::Result<ExitCode> {
    let Place { domain, token, paths } = place;
    let client = Client::connect(domain, token, ClientOptions::default());
    match command {
        OadaCommand::List => {
            print!("{}", browse::list(&client, &paths).await?);
            if let Some(folder) = &serve.handlers {
                print!("{}", list_handlers(folder, serve).await?);
            }
        }
        OadaCommand::Print { shelf, job } => {
            let job = browse::find(&client, &paths, shelf, &job).await?;
            println!("{}", serde_json::to_string_pretty(&job.body)?);
        }
        OadaCommand::Retry { job } => println!("{}", browse::retry(&client, &paths, &job).await?.id),
        OadaCommand::Post { kind, config, wait } => {
            let config: Map<String, Value> = serde_json::from_str(&config).context("--config must be a JSON object")?;
            let job = NewJob { service: paths.service().to_owned(), kind, config };
            let request = JobRequest::start(&client, &job, paths.layout()).await?;
            println!("{}", request.posted().id);
            if wait {
                return follow(request).await;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The handlers in a folder as they are at present: a line each.
async fn list_handlers(folder: &Path, serve: &ServeArgs) -> anyhow::Result<String> {
    let broker = Broker::start(None)?;
    let hosts = open_pool(&broker, serve).await?;
    let options = handler_options(folder, serve).await?;
    let handlers = Handlers::load(hosts, options).await;
    broker.shutdown(HOSTS_STOP).await;
    let handlers = handlers?;
    let usable = handlers.handled().iter().map(|kind| format!("  {}  usable\n", one_line(kind)));
    let unusable = handlers.unusable().iter();
    let unusable = unusable.map(|(kind, why)| format!("  {}  cannot be used: {}\n", one_line(kind), one_line(why)));
    let lines: Vec<String> = usable.chain(unusable).collect();
    Ok(format!("handlers: {}\n{}", lines.len(), lines.concat()))
}

async fn handler_options(folder: &Path, serve: &ServeArgs) -> anyhow::Result<HandlerOptions> {
    let (timeout, memory_bytes) = (serve.timeout, serve.memory.bytes());
    let node = match serve.handler_engine {
        Some(HandlerEngine::Embedded) => None,
        Some(HandlerEngine::Node) => Some(NodeProgram::find(serve.node.as_deref()).await?),
        None => match NodeProgram::find(serve.node.as_deref()).await {
            Ok(node) => Some(node),
            Err(error) => {
                warn!("{error}: handlers run on the embedded engine, without packages and Node's own modules");
                None
            }
        },
    };
    Ok(HandlerOptions { folder: folder.to_owned(), timeout, memory_bytes, poll: POLL, node })
}

/// Prints what happens to a job until it ends.
async fn follow(mut request: JobRequest) -> anyhow::Result<ExitCode> {
    loop {
        match request.next().await? {
            JobEvent::Update(update) => {
                let meta = update.meta.map(|meta| meta.to_string()).unwrap_or_default();
                println!("{} {} {}", one_line(&update.time), one_line(&update.status), one_line(&meta));
            }
            JobEvent::Status(_) => {}
            JobEvent::Success(job) => {
                println!("success {}", job.result.unwrap_or_default());
                return Ok(ExitCode::SUCCESS);
            }
            JobEvent::Failure(job) => {
                println!("failure {}", job.result.unwrap_or_default());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
}
