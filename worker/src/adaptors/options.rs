//! Where adaptors are, and how they are got.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::folders;
use base::node::NodeProgram;

use super::progress::Watcher;

use crate::cli::RepoArgs;

/// How long an answer of the registry about tags is good.
const TAGS_FOR: Duration = Duration::from_secs(300);
/// Installations at once.
const AT_ONCE: usize = 3;

/// Where adaptors are, and how they are got.
#[derive(Debug, Clone)]
pub struct AdaptorsOptions {
    /// The folder with installed adaptors: an absolute path.
    pub repo: PathBuf,
    /// Whether the repo is locked while it is changed.
    pub lock: bool,
    /// Whether the registry is never asked.
    pub offline: bool,
    /// Monorepos with adaptors that are worked on.
    pub monorepos: Vec<PathBuf>,
    /// Variables that are passed on to jobs, sorted.
    pub job_environment: Vec<String>,
    /// The Node that adaptors are prepared for.
    pub node: NodeProgram,
    /// How long an installation may take.
    pub install_timeout: Duration,
    /// How long an answer of the registry about tags is good.
    pub tags_for: Duration,
    /// Installations at once.
    pub at_once: usize,
    /// Who is shown how far installations are, instead of lines in the log.
    pub watcher: Option<Watcher>,
    /// Whether engines start from snapshots.
    pub snapshots: bool,
    /// Why runs are refused that need an adaptor that nothing would confine; none if they are not.
    pub unconfined: Option<&'static str>,
}

/// There is no folder that adaptors could be in.
#[derive(Debug, thiserror::Error)]
pub enum RepoPathError {
    /// None is named, and there is no usual one.
    #[error("--repo-dir (WORKER_REPO_DIR) is needed: the user has no home to put adaptors into")]
    NoHome,
    /// What is named cannot be one.
    #[error("{} is no path that can be used: {source}", path.display())]
    NoPath {
        /// What is named.
        path: PathBuf,
        /// Why it cannot.
        source: std::io::Error,
    },
}

impl AdaptorsOptions {
    /// What the command line says, for this Node.
    pub fn new(arguments: &RepoArgs, monorepos: &[PathBuf], node: NodeProgram) -> Result<Self, RepoPathError> {
        let named = arguments.repo_dir.as_deref();
        let repo = named.map(Path::to_owned).or_else(default_repo);
        let repo = repo.ok_or(RepoPathError::NoHome)?;
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| RepoPathError::NoPath { path: path.to_owned(), source })
        };
        Ok(Self {
            repo: absolute(&repo)?,
            lock: !arguments.no_repo_lock,
            offline: arguments.offline,
            monorepos: monorepos.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
            job_environment: Vec::new(),
            snapshots: true,
            node,
            install_timeout: arguments.install_timeout,
            tags_for: TAGS_FOR,
            at_once: AT_ONCE,
            watcher: None,
            unconfined: None,
        })
    }
}

/// The repo of who names none; none where the user has no home.
pub(crate) fn default_repo() -> Option<PathBuf> {
    Some(folders::data()?.join("openfn-worker/adaptors"))
}
