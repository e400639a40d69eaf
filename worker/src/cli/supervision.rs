//! Options of `worker start`: how hosts are bounded and replaced.

use std::time::Duration;

use clap::Args;
use hosts::GroupLimits;

use super::values::{Megabytes, seconds, whole_number};

/// How hosts are bounded and replaced.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Supervision of hosts")]
pub struct SupervisionArgs {
    /// Bound the memory of each run by a control group (version 2), where the system lets the worker make some.
    #[arg(long, env = "WORKER_ENABLE_CGROUP_ENFORCEMENT")]
    pub cgroups: bool,

    /// Memory of a control group beyond what the run's engine may use, in MB.
    #[arg(long, env = "CGROUP_MEMORY_OVERHEAD_MB", value_name = "MB", default_value = "128")]
    pub cgroup_memory_overhead_mb: Megabytes,

    /// Most processes and threads of a host and its engine at once.
    #[arg(long, env = "WORKER_HOST_MAX_PROCESSES", value_name = "N", value_parser = whole_number::<u64>)]
    pub host_max_processes: Option<u64>,

    /// Most files that a host's processes may each have open.
    #[arg(long, env = "WORKER_HOST_MAX_OPEN_FILES", value_name = "N", default_value = "4096", value_parser = whole_number::<u64>)]
    pub host_max_open_files: u64,

    /// Most that the files of a run may take at a time, in MB. A run that writes more is killed.
    #[arg(long, env = "WORKER_SCRATCH_MB", value_name = "MB", default_value = "1024")]
    pub scratch_mb: Megabytes,

    /// Let hosts use any file that this user may. Otherwise, where the kernel has Landlock, they write nothing but their
    /// own folders and read nothing but programs, libraries and what their engine needs.
    #[arg(long, env = "WORKER_NO_LANDLOCK")]
    pub no_landlock: bool,

    /// Let adaptors that start processes or load native code run, too, where neither Node nor the kernel restricts which
    /// files those use: with a kernel without Landlock, and with --no-landlock. Otherwise runs that need one are refused.
    #[arg(long, env = "WORKER_ALLOW_UNCONFINED_ADAPTORS")]
    pub allow_unconfined_adaptors: bool,

    /// Further files and folders that hosts may read.
    #[arg(long, env = "WORKER_LANDLOCK_READ", value_name = "FOLDERS", value_delimiter = ':')]
    pub landlock_read: Vec<std::path::PathBuf>,

    /// How long a host may take to get ready, in seconds.
    #[arg(
        long,
        env = "WORKER_HOST_START_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = seconds
    )]
    pub host_start_timeout: Duration,

    /// How long a host may take to exit when asked, in seconds, before it gets SIGTERM.
    #[arg(
        long,
        env = "WORKER_HOST_STOP_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "2",
        value_parser = seconds
    )]
    pub host_stop_timeout: Duration,

    /// How long a host may take to exit after SIGTERM, in seconds, before it gets SIGKILL.
    #[arg(
        long,
        env = "WORKER_HOST_KILL_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "2",
        value_parser = seconds
    )]
    pub host_kill_timeout: Duration,

    /// Replace waiting hosts that are older, in seconds, less up to a fifth by chance.
    #[arg(long, env = "WORKER_HOST_MAX_AGE_SECONDS", value_name = "SECONDS", value_parser = seconds)]
    pub host_max_age: Option<Duration>,

    /// Replace waiting hosts that take more memory, in MB.
    #[arg(long, env = "WORKER_HOST_MAX_MEMORY_MB", value_name = "MB")]
    pub host_max_memory: Option<Megabytes>,
}

impl SupervisionArgs {
    /// What each host's control group allows, if there are to be some.
    pub fn group_limits(&self) -> Option<GroupLimits> {
        let overhead_bytes = self.cgroup_memory_overhead_mb.bytes();
        self.cgroups.then_some(GroupLimits { overhead_bytes, processes: self.host_max_processes })
    }
}
