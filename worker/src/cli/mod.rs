//! The command line: flags, the environment variables behind them, and what a wrong one is answered.
//!
//! A flag beats its variable, a variable beats the default. A variable that is set but empty counts as not set. A
//! variable that holds a secret may instead be named with `_FILE` at its end and hold the path of a file.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{ArgAction, BoolishValueParser, Styles, styling::AnsiColor};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use crate::lightning::{Endpoint, RunTokenKey, Workloops, parse_workloops};
use environment::{layered, name_variable, worker_name};
use values::{at_least_one, backoff, endpoint, megabytes, milliseconds, seconds, secret};

pub use values::{Backoff, MOCK_ENDPOINT, Megabytes};

mod environment;
mod values;

/// Runs OpenFn Lightning's workflows in detached engine hosts.
///
/// Without a command, `start` is meant.
#[derive(Debug, Parser)]
#[command(name = "worker", version, styles = STYLES, args_conflicts_with_subcommands = true, args_override_self = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `start`.
    #[command(flatten)]
    pub start: StartOptions,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Claim runs from Lightning and execute them (the default).
    Start(Box<StartOptions>),
    /// Run a workflow here and now, with a small Lightning in the same process, and watch it.
    Demo(DemoOptions),
    /// Serve a small Lightning for people who develop workflows or workers; `worker -l mock` connects to it.
    MockLightning(MockLightningOptions),
}

/// Options of `worker start`.
#[derive(Debug, Clone, Args)]
pub struct StartOptions {
    /// Lightning's worker endpoint, or `mock` for ws://localhost:8888/worker.
    #[arg(
        short = 'l',
        long,
        alias = "lightning-service-url",
        env = "WORKER_LIGHTNING_SERVICE_URL",
        default_value = "ws://localhost:4000/worker",
        value_name = "URL",
        value_parser = endpoint,
        help_heading = "Lightning"
    )]
    pub lightning: Endpoint,

    /// The secret that Lightning knows workers by. Required unless `-l mock`.
    #[arg(
        short = 's',
        long,
        env = "WORKER_SECRET",
        hide_env_values = true,
        value_parser = secret,
        help_heading = "Lightning"
    )]
    pub secret: Option<SecretString>,

    /// Lightning's public key, PEM in base64: the tokens of runs are verified when it is set.
    #[arg(
        long,
        env = "WORKER_LIGHTNING_PUBLIC_KEY",
        hide_env_values = true,
        value_name = "BASE64",
        value_parser = RunTokenKey::from_base64_pem,
        help_heading = "Lightning"
    )]
    pub lightning_public_key: Option<RunTokenKey>,

    /// How many runs to execute at once. The same as `--workloops "manual>*:N"`.
    #[arg(long, env = "WORKER_CAPACITY", value_name = "N", value_parser = at_least_one, help_heading = "Claiming")]
    pub capacity: Option<usize>,

    /// Queues to claim from, in order of preference, with how many runs at once: `fast_lane:1 manual>*:4`.
    #[arg(long, env = "WORKER_WORKLOOPS", value_name = "LOOPS", value_parser = parse_workloops, help_heading = "Claiming")]
    pub workloops: Option<Workloops>,

    /// Shortest and longest pause between claims that bring nothing, in seconds.
    #[arg(
        long,
        env = "WORKER_BACKOFF",
        value_name = "MIN/MAX",
        default_value = "1/10",
        value_parser = backoff,
        help_heading = "Claiming"
    )]
    pub backoff: Backoff,

    /// Do not claim by itself; a POST to /claim does.
    #[arg(long = "no-loop", overrides_with = "loop_flag", help_heading = "Claiming")]
    pub no_loop: bool,

    /// Claim by itself, which is the default.
    #[arg(long = "loop", id = "loop_flag", overrides_with = "no_loop", hide = true)]
    pub loop_flag: bool,

    /// When a claim without a reply is reported, in seconds. It stays open.
    #[arg(
        long,
        env = "WORKER_CLAIM_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "3600",
        value_parser = seconds,
        help_heading = "Claiming"
    )]
    pub claim_timeout: Duration,

    /// Wall-clock limit of a run, in seconds.
    #[arg(
        short = 't',
        long,
        env = "WORKER_MAX_RUN_DURATION_SECONDS",
        value_name = "SECONDS",
        default_value = "300",
        value_parser = seconds,
        help_heading = "Limits of a run"
    )]
    pub max_run_duration_seconds: Duration,

    /// Memory of a run, in MB.
    #[arg(
        long,
        env = "WORKER_MAX_RUN_MEMORY_MB",
        value_name = "MB",
        default_value = "500",
        value_parser = megabytes,
        help_heading = "Limits of a run"
    )]
    pub run_memory: Megabytes,

    /// Largest dataclip that is sent to Lightning, in MB.
    #[arg(
        long,
        env = "WORKER_MAX_PAYLOAD_MB",
        value_name = "MB",
        default_value = "10",
        value_parser = megabytes,
        help_heading = "Limits of a run"
    )]
    pub payload_memory: Megabytes,

    /// Longest log line that is sent to Lightning, in MB.
    #[arg(
        long,
        env = "WORKER_MAX_LOG_PAYLOAD_MB",
        value_name = "MB",
        default_value = "1",
        value_parser = megabytes,
        help_heading = "Limits of a run"
    )]
    pub log_payload_memory: Megabytes,

    /// Keys taken out of a step's state before it is passed on.
    #[arg(
        long,
        env = "WORKER_STATE_PROPS_TO_REMOVE",
        value_name = "KEYS",
        default_value = "configuration,response",
        value_delimiter = ',',
        num_args = 1..,
        help_heading = "Limits of a run"
    )]
    pub state_props_to_remove: Vec<String>,

    /// When an answer of Lightning is reported as missing, in seconds; requests for data are then repeated.
    #[arg(
        long,
        env = "WORKER_MESSAGE_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = seconds,
        help_heading = "Delivery"
    )]
    pub message_timeout: Duration,

    /// How often a request for data is repeated.
    #[arg(long, env = "WORKER_TIMEOUT_RETRY_COUNT", value_name = "N", default_value = "10", help_heading = "Delivery")]
    pub timeout_retry_count: u32,

    /// Pause before a request for data is repeated, in milliseconds.
    #[arg(
        long,
        env = "WORKER_TIMEOUT_RETRY_DELAY_MS",
        value_name = "MS",
        default_value = "30000",
        value_parser = milliseconds,
        help_heading = "Delivery"
    )]
    pub timeout_retry_delay: Duration,

    /// Send log lines in batches. Needs a Lightning that knows `run:batch_logs`.
    #[arg(
        long,
        env = "WORKER_BATCH_LOGS",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        help_heading = "Delivery"
    )]
    pub batch_logs: bool,

    /// How long lines gather for a batch, in milliseconds.
    #[arg(
        long,
        env = "WORKER_BATCH_INTERVAL",
        value_name = "MS",
        default_value = "10",
        value_parser = milliseconds,
        help_heading = "Delivery"
    )]
    pub batch_interval: Duration,

    /// Most lines in a batch.
    #[arg(
        long,
        env = "WORKER_BATCH_LIMIT",
        value_name = "N",
        default_value = "50",
        value_parser = at_least_one,
        help_heading = "Delivery"
    )]
    pub batch_limit: usize,

    /// Send dataclips as JSON values, not as strings. Needs Lightning 2.19 or newer.
    #[arg(
        long,
        env = "WORKER_NO_STRINGIFY_STATE",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        help_heading = "Delivery"
    )]
    pub no_stringify_state: bool,

    /// The JavaScript engine.
    #[arg(long, env = "WORKER_ENGINE", default_value = "embedded", help_heading = "Engine hosts")]
    pub engine: EngineKind,

    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE", help_heading = "Engine hosts")]
    pub engine_host: Option<PathBuf>,

    /// How many hosts wait ready for a run. As many as the capacity unless set.
    #[arg(long, env = "WORKER_WARM_HOSTS", value_name = "N", value_parser = at_least_one, help_heading = "Engine hosts")]
    pub warm_hosts: Option<usize>,

    /// How long the first engine may take to answer, in milliseconds.
    #[arg(
        long,
        env = "WORKER_VALIDATION_TIMEOUT_MS",
        value_name = "MS",
        default_value = "5000",
        value_parser = milliseconds,
        help_heading = "Engine hosts"
    )]
    pub engine_validation_timeout_ms: Duration,

    /// How often the first engine is tried again, after 1, 2, 4 … seconds.
    #[arg(
        long,
        env = "WORKER_VALIDATION_RETRIES",
        value_name = "N",
        default_value = "3",
        help_heading = "Engine hosts"
    )]
    pub engine_validation_retries: u32,

    /// Address of the HTTP server; all of the machine's unless set.
    #[arg(long, env = "WORKER_HOST", value_name = "IP", help_heading = "Operation")]
    pub host: Option<IpAddr>,

    /// Port of the HTTP server.
    #[arg(short = 'p', long, env = "WORKER_PORT", default_value = "2222", help_heading = "Operation")]
    pub port: u16,

    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL", help_heading = "Operation")]
    pub log: LogLevel,

    /// Log what jobs and adaptors print, too. It is users' data.
    #[arg(
        long,
        env = "WORKER_TAIL_JOBS",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        help_heading = "Operation"
    )]
    pub tail_jobs: bool,

    /// How long runs may go on after a request to stop, in seconds; as long as a run may take unless set.
    #[arg(
        long,
        env = "WORKER_SHUTDOWN_GRACE_SECONDS",
        value_name = "SECONDS",
        value_parser = seconds,
        help_heading = "Operation"
    )]
    pub shutdown_grace: Option<Duration>,

    /// Name of this worker in its claims.
    #[arg(skip)]
    pub name: Option<String>,
}

/// Options of `worker demo`.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// A workflow to run instead of the bundled one: a Lightning plan, with `dataclips` and `credentials` if it
    /// needs any.
    pub file: Option<PathBuf>,
    /// The JavaScript engine.
    #[arg(long, env = "WORKER_ENGINE", default_value = "embedded")]
    pub engine: EngineKind,
    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE")]
    pub engine_host: Option<PathBuf>,
    /// Least level of what the worker itself logs.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "warn", value_name = "LEVEL")]
    pub log: LogLevel,
}

/// Options of `worker mock-lightning`.
#[derive(Debug, Args)]
pub struct MockLightningOptions {
    /// Port to listen on.
    #[arg(short = 'p', long, default_value = "8888")]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub host: IpAddr,
    /// Secret that workers must prove to know; any worker may connect unless set.
    #[arg(short = 's', long, env = "WORKER_SECRET", hide_env_values = true, value_parser = secret)]
    pub secret: Option<SecretString>,
    /// Private key (a PEM file) that the tokens of runs are signed with.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,
}

/// A JavaScript engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// QuickJS inside the engine host: needs nothing installed, runs jobs of the core operations.
    Embedded,
}

impl EngineKind {
    /// What the option calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What looks wrong.
    Warn,
    /// What is wrong.
    Error,
    /// Nothing.
    None,
}

impl Cli {
    /// Reads the program's arguments and environment. An error is ready to be shown: it names the flag and the
    /// variable.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        // Package managers put a `--` in front of what they pass on.
        if arguments.get(1).is_some_and(|first| first == "--") {
            arguments.remove(1);
        }
        let mut command = layered(Self::command(), |name| std::env::var_os(name))?;
        let parsed = command
            .try_get_matches_from_mut(arguments)
            .and_then(|matches| exclusive(&matches).map(|()| matches))
            .and_then(|matches| Self::from_arg_matches(&matches));
        let mut cli = parsed.map_err(|error| name_variable(error, &Self::command()).format(&mut command))?;
        cli.start.name = worker_name(|name| std::env::var(name).ok());
        if let Some(Command::Start(options)) = &mut cli.command {
            options.name = cli.start.name.clone();
        }
        Ok(cli)
    }
}

/// `--capacity` and `--workloops` say the same in two ways.
fn exclusive(matches: &ArgMatches) -> Result<(), clap::Error> {
    let matches = matches.subcommand_matches("start").unwrap_or(matches);
    let given = |id| {
        matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id).is_some_and(|source| source != ValueSource::DefaultValue)
    };
    if given("capacity") && given("workloops") {
        return Err(clap::Error::raw(
            ErrorKind::ArgumentConflict,
            "--capacity (WORKER_CAPACITY) and --workloops (WORKER_WORKLOOPS) exclude each other: \
             set only one of them\n",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_value_names_flag_variable_and_value() {
        let text = Cli::read(["worker", "--capacity", "none"].map(OsString::from)).unwrap_err().to_string();
        for part in ["--capacity", "WORKER_CAPACITY", "none", "whole number"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn capacity_and_workloops_exclude_each_other() {
        let arguments = ["worker", "start", "--capacity", "2", "--workloops", "*:1"];
        let text = Cli::read(arguments.map(OsString::from)).unwrap_err().to_string();
        assert!(text.contains("exclude each other"), "{text}");
    }

    #[test]
    fn a_leading_double_dash_is_accepted() {
        let cli = Cli::read(["worker", "--", "--port", "1234"].map(OsString::from)).unwrap();
        assert_eq!(cli.start.port, 1234);
    }
}
