//! Where adaptors are, and how they are got.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::NodeProgram;
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
}

impl AdaptorsOptions {
    /// What the command line says, for this Node. An error says what would be right.
    pub fn new(arguments: &RepoArgs, monorepos: &[PathBuf], node: NodeProgram) -> Result<Self, String> {
        let named = arguments.repo_dir.as_deref();
        let repo = named.map(Path::to_owned).or_else(default_repo);
        let repo = repo.ok_or("--repo-dir (WORKER_REPO_DIR) is needed: there is no HOME to put adaptors into")?;
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map_err(|error| format!("{} is no path that can be used: {error}", path.display()))
        };
        Ok(Self {
            repo: absolute(&repo)?,
            lock: !arguments.no_repo_lock,
            offline: arguments.offline,
            monorepos: monorepos.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
            node,
            install_timeout: arguments.install_timeout,
            tags_for: TAGS_FOR,
            at_once: AT_ONCE,
            watcher: None,
        })
    }
}

/// The repo of who names none; none where there is no HOME.
pub(crate) fn default_repo() -> Option<PathBuf> {
    repo_in(|name| std::env::var_os(name).map(PathBuf::from))
}

/// A folder in the user's data folder.
fn repo_in(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Some(data?.join("openfn-worker/adaptors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptors_go_into_the_users_data_folder() {
        for (data, home, expected) in [
            (Some("/data"), Some("/home/x"), Some("/data/openfn-worker/adaptors")),
            (Some("relative"), Some("/home/x"), Some("/home/x/.local/share/openfn-worker/adaptors")),
            (None, Some("/home/x"), Some("/home/x/.local/share/openfn-worker/adaptors")),
            (None, None, None),
        ] {
            let found = repo_in(|name| if name == "HOME" { home } else { data }.map(PathBuf::from));
            assert_eq!(found.as_deref(), expected.map(Path::new));
        }
    }
}
