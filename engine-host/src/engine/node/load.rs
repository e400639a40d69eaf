//! Loads an adaptor once, to see whether it can be and what it exports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::engine::{Adaptor, ForkOrigin, NodeSpec};
use protocol::run::{LogLevel, LogSource};
use tokio::process::Command;

use super::launch::Mode;
use super::version::{BadVersion, NodeVersion};
use super::{CodeCache, NodeEngine, NodeOptions, code_cache};
use crate::engine::{Engine as _, EngineLost, Exports, LogSink};

/// As much as runs have by default: V8 before Node 24 takes code only if its heap has the size that it was made with.
const MEMORY_BYTES: u64 = 500 * 1024 * 1024;

/// How long a Node may take to tell its version.
const VERSION_WITHIN: Duration = Duration::from_secs(20);

/// Why an adaptor could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The program is no Node, or none that can be used.
    #[error("{} is no Node that can be used: {why}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Node ended or did not get ready.
    #[error("failed to load {adaptor}: {lost}")]
    Lost {
        /// The adaptor, as `name@version`.
        adaptor: String,
        /// How Node ended.
        lost: EngineLost,
    },
    /// The adaptor threw.
    #[error("{0}")]
    Threw(String),
}

/// What an adaptor did when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Names that it exports.
    pub exports: Vec<String>,
    /// What it read meanwhile that differs from process to process, such as `crypto.randomUUID`: a process that begins where
    /// another one had loaded it would have that in common. None if it was not loaded from a bundle, and nobody looked.
    pub reads: Option<Vec<String>>,
}

/// Loads an adaptor in a fresh Node, from its bundle if it has one, else as it is installed, and returns what it
/// did; in `folder` it may write. Beside a bundle it leaves the code that V8 makes of it (as `<bundle>.v8`), which
/// makes it load faster.
pub async fn loads(program: &Path, adaptor: &Adaptor, folder: &Path) -> Result<Trial, LoadError> {
    let version = version_of(program).await?;
    let options = trial_options(program, version, vec![adaptor.clone()], MEMORY_BYTES, folder);
    let started = NodeEngine::start_as(&options, Mode::Sent, true, Arc::new(Nobody)).await;
    let (engine, caches) = started.map_err(|lost| LoadError::Lost { adaptor: adaptor.specifier(), lost })?;
    let exports = names(&engine, adaptor)?;
    let reads = engine.reads.get(&adaptor.specifier()).cloned();
    if let Some(bundle) = &adaptor.bundle {
        for CodeCache { code, .. } in caches.iter().filter(|cache| cache.specifier == adaptor.specifier()) {
            // Without it the bundle is only slower.
            let _ = replace(&code_cache(bundle), code);
        }
    }
    Ok(Trial { exports, reads })
}

/// For an engine that only loads these adaptors.
pub(super) fn trial_options(
    program: &Path,
    version: NodeVersion,
    adaptors: Vec<Adaptor>,
    memory_bytes: u64,
    folder: &Path,
) -> NodeOptions {
    let (program, version, origin) = (program.to_owned(), version.to_string(), ForkOrigin::default());
    NodeOptions {
        spec: NodeSpec { program, version, adaptors, snapshot: None, origin },
        memory_bytes,
        folder: folder.to_owned(),
        scratch_bytes: None,
        forks: None,
    }
}

/// What an adaptor of an engine exports.
pub(super) fn names(engine: &NodeEngine, adaptor: &Adaptor) -> Result<Vec<String>, LoadError> {
    match engine.exports(&adaptor.specifier()) {
        Exports::Known(names) => Ok(names),
        Exports::Refused(why) => Err(LoadError::Threw(why)),
        Exports::Unknown => Ok(Vec::new()),
    }
}

/// Asks a program for its version.
pub(super) async fn version_of(program: &Path) -> Result<NodeVersion, LoadError> {
    let unusable = |why: String| LoadError::Program { program: program.to_owned(), why };
    let asking = Command::new(program).arg("--version").env_clear().kill_on_drop(true).output();
    let told = tokio::time::timeout(VERSION_WITHIN, asking).await;
    let told = told.map_err(|_| unusable(format!("it did not tell its version within {VERSION_WITHIN:?}")))?;
    let told = told.map_err(|error| unusable(error.to_string()))?;
    String::from_utf8_lossy(&told.stdout).parse().map_err(|error: BadVersion| unusable(error.to_string()))
}

/// Writes a file that is either there as a whole or not at all.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = file.with_added_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&unfinished, bytes)
        .and_then(|()| std::fs::rename(&unfinished, file))
        .inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}

/// Nobody reads the log of an engine without a run.
#[derive(Debug)]
pub(super) struct Nobody;

impl LogSink for Nobody {
    fn wants(&self, _source: LogSource, _level: LogLevel) -> bool {
        false
    }

    fn write(&self, _source: LogSource, _level: LogLevel, _message: String) {}
}
