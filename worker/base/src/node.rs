//! Finds Node, and asks which version it is.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The oldest version that the engine works on.
const OLDEST: u64 = 20;
/// How long Node may take to tell its version.
const ANSWER: Duration = Duration::from_secs(20);

/// A Node that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProgram {
    /// Its real path.
    pub path: PathBuf,
    /// Its version, such as `24.4.0`.
    pub version: String,
}

/// There is no Node that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// There is none.
    #[error("Node was not found on the PATH")]
    Missing,
    /// It does not start, or is not Node.
    #[error("{} is not a Node that can be used: {why}", .path.display())]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// It is too old.
    #[error("{} is Node {version}; {OLDEST} or newer is needed", .path.display())]
    TooOld {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: String,
    },
}

impl NodeProgram {
    /// The program at `named` if given, else the one on the PATH.
    pub async fn find(named: Option<&Path>) -> Result<Self, NodeError> {
        let path = match named {
            Some(path) if path.components().count() > 1 => path.to_owned(),
            Some(name) => on_path(name).ok_or(NodeError::Missing)?,
            None => on_path(Path::new("node")).ok_or(NodeError::Missing)?,
        };
        let unusable = |why: String| NodeError::Unusable { path: path.clone(), why };
        let real = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let mut command = Command::new(&real);
        command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(ANSWER, command.output()).await;
        let output = output.map_err(|_| unusable(format!("no answer to --version within {ANSWER:?}")))?;
        let output = output.map_err(|error| unusable(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = said.strip_prefix('v').and_then(|version| semver::Version::parse(version).ok());
        let version = version.ok_or_else(|| unusable(format!("it answered {said:?} to --version")))?;
        if version.major < OLDEST {
            return Err(NodeError::TooOld { path, version: version.to_string() });
        }
        Ok(Self { path: real, version: version.to_string() })
    }
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that answers with `text`.
    fn program(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("node");
        std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_node_must_be_one_and_new_enough() {
        let folder = tempfile::tempdir().unwrap();
        for (said, expected) in [
            ("v20.0.0", Ok("20.0.0")),
            ("v24.4.1", Ok("24.4.1")),
            ("v25.0.0-nightly2026", Ok("25.0.0-nightly2026")),
            ("v18.20.1", Err("is Node 18.20.1; 20 or newer is needed")),
            ("hello", Err("it answered \"hello\" to --version")),
            ("", Err("it answered \"\" to --version")),
        ] {
            let found = NodeProgram::find(Some(&program(folder.path(), said))).await;
            match (found, expected) {
                (Ok(node), Ok(version)) => assert_eq!(node.version, version),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (found, _) => panic!("{said}: {found:?}"),
            }
        }
        let missing = NodeProgram::find(Some(&folder.path().join("nowhere"))).await;
        assert!(matches!(missing, Err(NodeError::Unusable { .. })), "{missing:?}");
        assert_eq!(NodeProgram::find(Some(Path::new("no-such-program"))).await, Err(NodeError::Missing));
    }
}
