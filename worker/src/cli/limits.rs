//! Options of `worker start`: what a run may use.

use std::time::Duration;

use clap::Args;

use super::values::{Megabytes, megabytes_or_none, seconds};

/// What a run may use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of a run")]
pub struct LimitArgs {
    /// Wall-clock limit of a run, in seconds.
    #[arg(
        short = 't',
        long,
        env = "WORKER_MAX_RUN_DURATION_SECONDS",
        value_name = "SECONDS",
        default_value = "300",
        value_parser = seconds
    )]
    pub max_run_duration_seconds: Duration,

    /// Memory of a run, in MB.
    #[arg(long, env = "WORKER_MAX_RUN_MEMORY_MB", value_name = "MB", default_value = "500")]
    pub run_memory: Megabytes,

    /// Largest state of a run, in MB: its whole memory, and 50 at least, unless set.
    #[arg(long, env = "WORKER_MAX_STATE_MEMORY_MB", value_name = "MB")]
    pub state_memory: Option<Megabytes>,

    /// Largest dataclip that is sent to Lightning, in MB; 0 sends none.
    #[arg(
        long,
        env = "WORKER_MAX_PAYLOAD_MB",
        value_name = "MB",
        default_value = "10",
        value_parser = megabytes_or_none
    )]
    pub payload_memory: Megabytes,

    /// Longest log line that is sent to Lightning, in MB; 0 sends none.
    #[arg(
        long,
        env = "WORKER_MAX_LOG_PAYLOAD_MB",
        value_name = "MB",
        default_value = "1",
        value_parser = megabytes_or_none
    )]
    pub log_payload_memory: Megabytes,

    /// Keys taken out of a step's state before it is passed on.
    #[arg(
        long,
        env = "WORKER_STATE_PROPS_TO_REMOVE",
        value_name = "KEYS",
        default_value = "configuration,response",
        value_delimiter = ',',
        num_args = 1..
    )]
    pub state_props_to_remove: Vec<String>,
}
