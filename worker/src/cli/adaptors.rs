//! Options about adaptors: where they are installed, with which Node, and whether the registry may be asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::LogLevel;
use super::values::{at_least_one, seconds, trimmed};
use crate::adaptors::progress;

/// Which adaptors runs get.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Adaptors (engine node)")]
pub struct AdaptorArgs {
    /// Where they are installed.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Monorepos with adaptors that are worked on, for `@local` versions; the first that has one wins.
    #[arg(short = 'm', long, env = "OPENFN_ADAPTORS_REPO", value_name = "DIR[:DIR]", value_delimiter = ':')]
    pub monorepo_dir: Vec<PathBuf>,

    /// Where jobs find collections. Jobs have none unless set.
    #[arg(short = 'c', long, env = "WORKER_COLLECTIONS_URL", value_name = "URL", value_parser = trimmed)]
    pub collections_url: Option<String>,

    /// Version of the collections adaptor; the newest published unless set.
    #[arg(long, env = "WORKER_COLLECTIONS_VERSION", value_name = "VERSION", default_value = "latest")]
    pub collections_version: String,
}

/// A repo of adaptors, and the Node that they are for.
#[derive(Debug, Clone, Args)]
pub struct RepoArgs {
    /// The Node program, instead of `node` on the PATH: 20 or newer.
    #[arg(long, env = "WORKER_NODE", value_name = "PROGRAM")]
    pub node: Option<PathBuf>,

    /// Where adaptors are installed; a folder in the user's data folder unless set.
    #[arg(short = 'd', long, env = "WORKER_REPO_DIR", value_name = "DIR")]
    pub repo_dir: Option<PathBuf>,

    /// Do not lock the repo against other workers that share it.
    #[arg(long, env = "WORKER_NO_REPO_LOCK")]
    pub no_repo_lock: bool,

    /// Never ask the registry: use what is installed.
    #[arg(long, env = "WORKER_OFFLINE")]
    pub offline: bool,

    /// How long an installation may take, in seconds.
    #[arg(
        long,
        env = "WORKER_INSTALL_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "300",
        value_parser = seconds
    )]
    pub install_timeout: Duration,
}

/// Options of `worker adaptors`.
#[derive(Debug, Args)]
pub struct AdaptorsOptions {
    /// What to do.
    #[command(subcommand)]
    pub command: AdaptorsCommand,
}

/// What can be done to a repo of adaptors.
#[derive(Debug, Subcommand)]
pub enum AdaptorsCommand {
    /// Install adaptors ahead, with all that makes them load quickly, and print how each is loaded.
    Install {
        /// Each as `name` or `name@version`. With several, a snapshot of all together is made as well.
        #[arg(required = true)]
        adaptors: Vec<String>,
        /// Where to.
        #[command(flatten)]
        repo: RepoCommandArgs,
    },
    /// Print what is installed, and how each is loaded.
    List {
        /// Where.
        #[command(flatten)]
        repo: RepoCommandArgs,
    },
    /// Remove what is unfinished or fits no Node any more, and old versions.
    Prune {
        /// How many versions of each adaptor stay, newest first; all unless set.
        #[arg(long, value_name = "N", value_parser = at_least_one)]
        keep: Option<usize>,
        /// Where.
        #[command(flatten)]
        repo: RepoCommandArgs,
    },
}

impl AdaptorsCommand {
    /// Least level of what is logged. What a terminal shows anyway is not.
    pub fn log_level(&self) -> LogLevel {
        if self.shows_progress() { LogLevel::Error } else { self.repo().log }
    }

    /// Whether progress is drawn on a terminal. Who asks for more than is usual gets lines.
    pub fn shows_progress(&self) -> bool {
        let is_usual = self.repo().log == LogLevel::Info && std::env::var_os("RUST_LOG").is_none();
        matches!(self, Self::Install { .. }) && is_usual && progress::is_watched()
    }

    fn repo(&self) -> &RepoCommandArgs {
        let (Self::Install { repo, .. } | Self::List { repo } | Self::Prune { repo, .. }) = self;
        repo
    }
}

/// What all commands about a repo have in common.
#[derive(Debug, Args)]
pub struct RepoCommandArgs {
    /// The repo.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE")]
    pub engine_host: Option<PathBuf>,

    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,
}
