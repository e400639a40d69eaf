//! Options of `worker start`: which runs are claimed, and how many.

use std::time::Duration;

use clap::Args;
use lightning::{Workloops, parse_workloops};

use super::values::{Backoff, at_least_one, backoff, seconds};

/// Which runs are claimed, and how many.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Claiming")]
pub struct ClaimingArgs {
    /// How many runs to execute at once. The same as `--workloops "manual>*:N"`.
    #[arg(long, env = "WORKER_CAPACITY", value_name = "N", value_parser = at_least_one)]
    pub capacity: Option<usize>,

    /// Queues to claim from, in order of preference, with how many runs at once: `fast_lane:1 manual>*:4`.
    #[arg(long, env = "WORKER_WORKLOOPS", value_name = "LOOPS", value_parser = parse_workloops)]
    pub workloops: Option<Workloops>,

    /// Shortest and longest pause between claims that bring nothing, in seconds.
    #[arg(
        long,
        env = "WORKER_BACKOFF",
        value_name = "MIN/MAX",
        default_value = "1/10",
        value_parser = backoff
    )]
    pub backoff: Backoff,

    /// Do not claim by itself; a POST to /claim does. --loop, the default, takes it back.
    #[arg(long = "no-loop", overrides_with = "loop_flag")]
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
        value_parser = seconds
    )]
    pub claim_timeout: Duration,

    /// Name of this worker in its claims.
    #[arg(skip)]
    pub name: Option<String>,
}
