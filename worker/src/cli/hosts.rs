//! Options of `worker start`: what executes runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use strum::IntoStaticStr;

use super::values::{Megabytes, at_least_one, milliseconds, variable_name, whole_number};

/// What executes runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine hosts")]
pub struct HostArgs {
    /// The JavaScript engine; node if there is one that can be used, unless set.
    #[arg(long, env = "WORKER_ENGINE")]
    pub engine: Option<EngineKind>,

    /// The engine `mock`, whatever --engine says.
    #[arg(long)]
    pub mock: bool,

    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE")]
    pub engine_host: Option<PathBuf>,

    /// Variables of the worker's environment that jobs may see, such as TZ and LANG; none unless set.
    #[arg(long, env = "WORKER_JOB_ENV", value_name = "NAME", value_delimiter = ',', value_parser = variable_name)]
    pub job_env: Vec<String>,

    /// How Node processes come to be: fork (from a template), snapshot, or fresh; auto is fork where that is possible.
    #[arg(long, env = "WORKER_NODE_START", value_name = "WAY", default_value = "auto")]
    pub node_start: NodeStart,

    /// How many hosts wait ready for a run, at most four times the capacity. As many as the capacity unless set.
    #[arg(long, env = "WORKER_WARM_HOSTS", value_name = "N", value_parser = at_least_one)]
    pub warm_hosts: Option<usize>,

    /// Memory of the hosts that wait with an engine ready for what runs have wanted of late, in MB.
    #[arg(long, env = "WORKER_WARM_MEMORY_MB", value_name = "MB", default_value = "512")]
    pub warm_memory_mb: Megabytes,

    /// How long the first engine may take to answer, in milliseconds.
    #[arg(
        long,
        env = "WORKER_VALIDATION_TIMEOUT_MS",
        value_name = "MS",
        default_value = "5000",
        value_parser = milliseconds
    )]
    pub engine_validation_timeout_ms: Duration,

    /// How often the first engine is tried again, after 1, 2, 4 … seconds.
    #[arg(long, env = "WORKER_VALIDATION_RETRIES", value_name = "N", default_value = "3", value_parser = whole_number::<u32>)]
    pub engine_validation_retries: u32,
}

impl HostArgs {
    /// The engine that is asked for.
    pub fn engine(&self) -> Option<EngineKind> {
        if self.mock { Some(EngineKind::Mock) } else { self.engine }
    }
}

/// How Node processes come to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum NodeStart {
    /// Forked where that is possible, or from a snapshot.
    #[default]
    Auto,
    /// Forked from a template, a process that has the adaptors loaded; from a snapshot while there is none.
    Fork,
    /// From a start-up snapshot, where one can be made of the adaptors.
    Snapshot,
    /// From the adaptors' files.
    Fresh,
}

/// A JavaScript engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum EngineKind {
    /// Node, with the adaptors that jobs name, as npm has them.
    Node,
    /// QuickJS inside the engine host: needs nothing installed, runs jobs of the core operations.
    Embedded,
    /// For development: jobs have the core operations and `wait`, whatever adaptor they name; nothing is installed.
    Mock,
}

impl EngineKind {
    /// What the option calls it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
