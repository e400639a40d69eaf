//! `worker ctl`: options and commands.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::ctl::Request;

/// Options of `worker ctl`.
#[derive(Debug, Args)]
pub struct CtlOptions {
    /// What to ask of the worker.
    #[command(subcommand)]
    pub command: CtlCommand,
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

/// What a worker can be asked.
#[derive(Debug, Clone, Subcommand)]
pub enum CtlCommand {
    /// How the worker is.
    Status,
    /// Its hosts.
    Hosts,
    /// The runs that are under way: what each is doing, and where.
    Runs,
    /// The last thousand runs that ended, the newest first: how, how long each phase took, memory, processor time, host.
    History {
        /// All that is known of this run, under way or ended: its phases and steps, and what did not get to Lightning at
        /// once and as it was.
        #[arg(long, value_name = "ID")]
        run: Option<String>,
        /// How many runs at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 1_000, conflicts_with = "run")]
        most: usize,
    },
    /// Replace hosts: new ones get ready first, and those at work finish what they are at.
    Recycle {
        /// Of this type; of all unless given.
        #[arg(value_name = "TYPE")]
        pool: Option<String>,
    },
    /// Claim nothing, let runs end, have no hosts; returns when that is so.
    Drain,
    /// End a drain.
    Resume,
    /// End a run.
    Cancel {
        /// Its id, or how that begins.
        run: String,
    },
    /// Keep so many hosts of a type: warm ones for runs, or hosts at all.
    Resize {
        /// The type.
        #[arg(value_name = "TYPE")]
        pool: String,
        /// How many.
        #[arg(value_name = "N")]
        size: usize,
        /// Even if they are more than four for each run of the capacity, or than the machine has room for.
        #[arg(long)]
        force: bool,
    },
    /// What hosts print: the last lines.
    Logs {
        /// Go on with what they print from now on.
        #[arg(short, long)]
        follow: bool,
        /// Of this host alone.
        #[arg(long, value_name = "ID", conflicts_with = "run")]
        host: Option<String>,
        /// Of this run alone.
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
}

impl From<CtlCommand> for Request {
    fn from(command: CtlCommand) -> Self {
        match command {
            CtlCommand::Status => Self::Status,
            CtlCommand::Hosts => Self::Hosts,
            CtlCommand::Runs => Self::Runs,
            CtlCommand::History { run: Some(run), .. } => Self::Run { run },
            CtlCommand::History { run: None, most } => Self::History { most },
            CtlCommand::Recycle { pool } => Self::Recycle { pool },
            CtlCommand::Drain => Self::Drain,
            CtlCommand::Resume => Self::Resume,
            CtlCommand::Cancel { run } => Self::Cancel { run },
            CtlCommand::Resize { pool, size, force } => Self::Resize { pool, size, force },
            CtlCommand::Logs { follow, host, run } => Self::Logs { follow, host, run },
        }
    }
}
