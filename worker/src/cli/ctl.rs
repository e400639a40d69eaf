//! `worker ctl`: options and commands.

use std::path::PathBuf;

use clap::Args;

use crate::ctl::Request;

/// Options of `worker ctl`.
#[derive(Debug, Args)]
pub struct CtlOptions {
    /// What to ask of the worker.
    #[command(subcommand)]
    pub command: Request,
    /// The worker's admin socket. That of the only worker of this user that runs here, or for root of the systemd unit's,
    /// unless set.
    #[arg(long, env = "WORKER_ADMIN_SOCKET", value_name = "PATH", global = true)]
    pub admin_socket: Option<PathBuf>,
    /// Print the worker's answer as it is: a JSON document a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Options of `worker top`.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// The worker's admin socket. That of the only worker of this user that runs here, or for root of the systemd unit's,
    /// unless set.
    #[arg(long, env = "WORKER_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
}
