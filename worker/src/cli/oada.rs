//! Options of `worker oada`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use oada::browse::Listed;
use oada::service::{FinishReporter, HalfRun, UnknownType};
use oada::{Domain, Layout};

use super::operation::LogLevel;
use super::values::{Megabytes, at_least_one, seconds, variable_name};

/// Options of `worker oada`.
#[derive(Debug, Args)]
pub struct OadaOptions {
    /// What to do with jobs instead of working them off.
    #[command(subcommand)]
    pub command: Option<OadaCommand>,
    /// Where the jobs are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How they are worked off.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL", global = true)]
    pub log: LogLevel,
}

/// Where the jobs are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The store, such as oada.example.org; http:// in front of it means without TLS.
    #[arg(long, env = "WORKER_OADA_DOMAIN", value_name = "DOMAIN", global = true)]
    pub domain: Option<Domain>,
    /// A file that holds the token of the account.
    #[arg(long, env = "WORKER_OADA_TOKEN_FILE", value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// The service's name.
    #[arg(long, env = "WORKER_OADA_SERVICE", value_name = "NAME", global = true)]
    pub service: Option<String>,
    /// The generation of the paths in the store.
    #[arg(long, env = "WORKER_OADA_LAYOUT", default_value = "v5", global = true)]
    pub layout: Layout,
}

/// What runs handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HandlerEngine {
    /// Node, with the packages beside the handlers and all that Node has.
    Node,
    /// QuickJS, without packages, files and network.
    Embedded,
}

/// How jobs are worked off.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service")]
pub struct ServeArgs {
    /// A folder with a file `<type>.js`, `.mjs`, `.cjs` or `.ts` for each type of jobs.
    #[arg(long, env = "WORKER_OADA_HANDLERS", value_name = "DIR")]
    pub handlers: Option<PathBuf>,
    /// What runs handlers; node if there is one that can be used, unless set.
    #[arg(long, env = "WORKER_OADA_HANDLER_ENGINE", value_name = "ENGINE")]
    pub handler_engine: Option<HandlerEngine>,
    /// The Node program, instead of `node` on the PATH: 20.11 or newer.
    #[arg(long, env = "WORKER_NODE", value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Variables of the worker's environment that handlers may see, such as TZ and those that they are configured by.
    #[arg(long, env = "WORKER_JOB_ENV", value_name = "NAME", value_delimiter = ',', value_parser = variable_name)]
    pub job_env: Vec<String>,
    /// Do not start if a file among the handlers cannot be used.
    #[arg(long, env = "WORKER_OADA_STRICT")]
    pub strict: bool,
    /// A file that describes reports: a JSON list.
    #[arg(long, env = "WORKER_OADA_REPORTS", value_name = "FILE")]
    pub reports: Option<PathBuf>,
    /// Jobs that run at once.
    #[arg(long, env = "WORKER_OADA_CONCURRENCY", value_name = "N", default_value = "5", value_parser = at_least_one)]
    pub concurrency: usize,
    /// Requests that are on their way to a store at once.
    #[arg(long, env = "WORKER_OADA_REQUESTS", value_name = "N", default_value = "10", value_parser = at_least_one)]
    pub requests: usize,
    /// How long a job may take whose handler does not say, in seconds.
    #[arg(long, env = "WORKER_OADA_TIMEOUT_SECONDS", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub timeout: Duration,
    /// Memory of a handler.
    #[arg(long, env = "WORKER_OADA_MEMORY_MB", value_name = "MB", default_value = "500")]
    pub memory: Megabytes,
    /// What becomes of jobs of a type that has no handler.
    #[arg(long, env = "WORKER_OADA_UNKNOWN_TYPE", default_value = "fail")]
    pub unknown_type: UnknownType,
    /// What becomes of jobs that another process has begun and not finished.
    #[arg(long, env = "WORKER_OADA_HALF_RUN", default_value = "resume")]
    pub half_run: HalfRun,
    /// How long a job stays claimed by a service that is not heard of any more, in seconds.
    #[arg(long, env = "WORKER_OADA_CLAIM_SECONDS", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub claim: Duration,
    /// Leave jobs alone that are there at the start.
    #[arg(long, env = "WORKER_OADA_SKIP_QUEUE_ON_STARTUP")]
    pub skip_queue_on_startup: bool,
    /// Tell Slack of finished jobs: slack:failure=URL or slack:success=URL. May be given several times, or as a list
    /// with commas.
    #[arg(
        long = "finish-reporter",
        env = "WORKER_OADA_FINISH_REPORTERS",
        hide_env_values = true,
        value_name = "REPORTER",
        value_delimiter = ','
    )]
    pub finish_reporters: Vec<FinishReporter>,
    /// Hosts that wait ready for a job; as many as jobs may run at once unless set.
    #[arg(long, env = "WORKER_WARM_HOSTS", value_name = "N", value_parser = at_least_one)]
    pub warm_hosts: Option<usize>,
    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE")]
    pub engine_host: Option<PathBuf>,
    /// Address of the HTTP server with probes and metrics; all of the machine's unless set.
    #[arg(long, env = "WORKER_HOST", value_name = "IP")]
    pub host: Option<IpAddr>,
    /// Port of the HTTP server; 0 for any that is free.
    #[arg(short = 'p', long, env = "WORKER_PORT", default_value = "2222")]
    pub port: u16,
    /// How long jobs may go on after a request to stop, in seconds.
    #[arg(long, env = "WORKER_SHUTDOWN_GRACE_SECONDS", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub shutdown_grace: Duration,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum OadaCommand {
    /// List the pending jobs, and those that succeeded and failed on the last day on which any did. With --handlers in
    /// front of it, or its variable, also the handlers, and why one cannot be used.
    List,
    /// Print a job.
    Print {
        /// Where it is.
        shelf: Listed,
        /// Its key, or its id.
        job: String,
    },
    /// Post a job that failed once more, as a new one.
    Retry {
        /// Its key, or its id.
        job: String,
    },
    /// Post a job.
    Post {
        /// Its type.
        #[arg(long = "type", value_name = "TYPE")]
        kind: String,
        /// Its config: a JSON object.
        #[arg(long, default_value = "{}", value_name = "JSON")]
        config: String,
        /// Wait for its end and print what happens. The exit code is 1 if it fails.
        #[arg(long)]
        wait: bool,
    },
}
