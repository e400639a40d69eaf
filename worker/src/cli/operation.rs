//! Options of `worker start`: how the worker is run and watched.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{port, seconds};

/// How the worker is run and watched.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct OperationArgs {
    /// A TOML file whose keys are the long flags without their dashes, as in `capacity = 5`. Flags and variables beat
    /// it. Read again when it changes and on SIGHUP, as far as hosts are concerned.
    #[arg(long, env = "WORKER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address of the HTTP server; all of the machine's unless set.
    #[arg(long, env = "WORKER_HOST", value_name = "IP")]
    pub host: Option<IpAddr>,

    /// Port of the HTTP server.
    #[arg(short = 'p', long, env = "WORKER_PORT", default_value = "2222", value_parser = port)]
    pub port: u16,

    /// A second place for the admin socket that `worker ctl` talks to. One is always in the worker's private folder.
    #[arg(long, env = "WORKER_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,

    /// Replace hosts when the host program has changed on disk. For development.
    #[arg(long, env = "WORKER_WATCH")]
    pub watch: bool,

    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,

    /// How log lines look: for people, or a JSON object each.
    #[arg(long, env = "WORKER_LOG_FORMAT", default_value = "human", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// Log what jobs and adaptors print, too. It is users' data.
    #[arg(long, env = "WORKER_TAIL_JOBS")]
    pub tail_jobs: bool,

    /// How long runs may go on after a request to stop, in seconds; as long as a run may take unless set.
    #[arg(
        long,
        env = "WORKER_SHUTDOWN_GRACE_SECONDS",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    pub shutdown_grace: Option<Duration>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text, in colour on a terminal.
    Human,
    /// A JSON object on each line, with ids of runs, steps and hosts as fields.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[value(alias = "default")]
    Info,
    /// What looks wrong.
    Warn,
    /// What is wrong.
    Error,
    /// Nothing.
    #[value(alias = "none-really")]
    None,
}
