//! Options of `worker start`: how a run's events get to Lightning.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{Megabytes, at_least_one, milliseconds, seconds, whole_number};

/// How a run's events get to Lightning.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Delivery")]
pub struct DeliveryArgs {
    /// When an answer of Lightning is reported as missing, in seconds; requests for data are then repeated.
    #[arg(
        long,
        env = "WORKER_MESSAGE_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = seconds
    )]
    pub message_timeout: Duration,

    /// Deprecated: takes the place of --message-timeout, in seconds.
    #[arg(long, env = "WORKER_SOCKET_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    pub socket_timeout: Option<Duration>,

    /// How often a request for data is repeated.
    #[arg(long, env = "WORKER_TIMEOUT_RETRY_COUNT", value_name = "N", default_value = "10", value_parser = whole_number::<u32>)]
    pub timeout_retry_count: u32,

    /// Pause before a request for data is repeated, in milliseconds.
    #[arg(
        long,
        env = "WORKER_TIMEOUT_RETRY_DELAY_MS",
        value_name = "MS",
        default_value = "30000",
        value_parser = milliseconds
    )]
    pub timeout_retry_delay: Duration,

    /// Send log lines in batches. Needs a Lightning that knows `run:batch_logs`.
    #[arg(long, env = "WORKER_BATCH_LOGS")]
    pub batch_logs: bool,

    /// How long lines gather for a batch, in milliseconds.
    #[arg(
        long,
        env = "WORKER_BATCH_INTERVAL",
        value_name = "MS",
        default_value = "10",
        value_parser = milliseconds
    )]
    pub batch_interval: Duration,

    /// Most lines in a batch.
    #[arg(
        long,
        env = "WORKER_BATCH_LIMIT",
        value_name = "N",
        default_value = "50",
        value_parser = at_least_one
    )]
    pub batch_limit: usize,

    /// The longest message to Lightning, in MB. A step's result that makes a longer one is withheld, and the run's log says
    /// so. Lightning's own limit is 11,000,000 bytes.
    #[arg(long, env = "WORKER_MAX_MESSAGE_MB", value_name = "MB", default_value = "10.4")]
    pub max_message_mb: Megabytes,

    /// Send dataclips as JSON values first, not as strings. What Lightning does not take in one form goes in the other.
    #[arg(long, env = "WORKER_NO_STRINGIFY_STATE")]
    pub no_stringify_state: bool,

    /// Do not offer Lightning to compress messages (permessage-deflate).
    #[arg(long, env = "WORKER_NO_COMPRESSION")]
    pub no_compression: bool,

    /// Folder for a small file a run in flight, so that after a crash the next worker tells Lightning at once. The
    /// files hold the runs' tokens. Off unless set.
    #[arg(long, env = "WORKER_JOURNAL_DIR", value_name = "FOLDER")]
    pub journal_dir: Option<PathBuf>,
}
