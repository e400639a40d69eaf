//! Start-up snapshots: the heap of a Node that has loaded the engine and some adaptors, from which others start in a
//! quarter of the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::engine::Adaptor;
use serde::Deserialize;
use serde_json::json;

use super::NodeEngine;
use super::launch::{Launch, Mode};
use super::load::{LoadError, Nobody, names, trial_options, version_of};
use super::process::{NoAnswer, NodeProcess};
use super::scratch::Scratch;
use super::source;
use crate::sys::free_space;

/// How long making a snapshot may take.
const BUILD_WITHIN: Duration = Duration::from_secs(120);

/// Memory that making or trying one may take.
const MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// Why there is no snapshot, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The program is no Node, or the adaptors cannot be loaded in it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// This Node cannot make any.
    #[error("Node {0} makes no snapshots that the engine can use: 22 or newer does")]
    TooOld(String),
    /// Only what is in one file can be in a snapshot.
    #[error("{0} has no bundle, so it cannot be in a snapshot")]
    NotBundled(String),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Node failed to make it.
    #[error("Node made no snapshot: {0}")]
    Failed(String),
    /// An adaptor reads something that would be the same in all runs.
    #[error("{adaptor} reads {} when it is imported, which would be the same in every run", reads.join(", "))]
    Frozen {
        /// The adaptor, as `name@version`.
        adaptor: String,
        /// What it reads, such as `crypto.randomUUID`.
        reads: Vec<String>,
    },
    /// An adaptor in it lacks exports that it had when it was installed.
    #[error("{adaptor} in the snapshot does not export {missing}")]
    Lacks {
        /// The adaptor, as `name@version`.
        adaptor: String,
        /// The first name that it lacks.
        missing: String,
    },
}

/// What the process leaves that found an adaptor which reads what a snapshot would keep.
#[derive(Deserialize)]
struct Frozen {
    adaptor: String,
    reads: Vec<String>,
}

/// Makes a snapshot of the engine and these adaptors, each from its bundle, in a fresh Node. The file `to` is there when
/// it is complete, or not at all. `variables` are those of the environment that jobs may see.
pub async fn build(program: &Path, adaptors: &[Adaptor], variables: &[String], to: &Path) -> Result<(), SnapshotError> {
    let version = version_of(program).await?;
    if !version.has_snapshots() {
        return Err(SnapshotError::TooOld(version.to_string()));
    }
    if let Some(unbundled) = adaptors.iter().find(|adaptor| adaptor.bundle.is_none()) {
        return Err(SnapshotError::NotBundled(unbundled.specifier()));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = Scratch::create(folder).map_err(io(|| format!("cannot make a folder in {}", folder.display())))?;
    let entry = scratch.out_of_reach("entry.cjs");
    let frozen = scratch.out_of_reach("frozen.json");
    std::fs::write(&entry, script(adaptors, variables, &frozen))
        .map_err(io(|| format!("cannot write {}", entry.display())))?;
    let blob = scratch.out_of_reach("blob");
    let mode = Mode::Build { entry: &entry, blob: &blob };
    let launch =
        Launch { program, version, mode, adaptors, heap_bytes: MEMORY_BYTES, scratch: &scratch, is_alone: false };
    let mut process = NodeProcess::spawn(launch, 0, Arc::new(Nobody))
        .map_err(io(|| format!("cannot start {}", program.display())))?;
    let ended = match tokio::time::timeout(BUILD_WITHIN, process.next_frame()).await {
        Ok(Err(NoAnswer::Ended(status))) if status.success() => Ok(()),
        Ok(Err(NoAnswer::Ended(status))) => Err(status.to_string()),
        Ok(other) => Err(format!("it did what nobody asked for: {other:?}")),
        Err(_) => Err(format!("it took longer than {BUILD_WITHIN:?}")),
    };
    let frozen = std::fs::read(&frozen).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(Frozen { adaptor, reads }) = frozen {
        return Err(SnapshotError::Frozen { adaptor, reads });
    }
    ended.map_err(|why| failure(why, &process.last_words(), folder))?;
    std::fs::rename(&blob, to).map_err(io(|| format!("cannot put the snapshot at {}", to.display())))
}

/// What it means that Node ended like this, with these last words, when it was to write into `folder`.
fn failure(why: String, words: &str, folder: &Path) -> SnapshotError {
    /// Where Node aborts when it cannot write, which says nothing about the adaptors.
    const WRITING: &str = "SnapshotData::ToFile";
    if words.contains(WRITING) {
        let what = format!("Node could not write a snapshot into {}", folder.display());
        return SnapshotError::Io { what, source: std::io::Error::other(free_space(folder)) };
    }
    SnapshotError::Failed(if words.is_empty() { why } else { format!("{why}. It printed: {words}") })
}

/// Starts a snapshot once, and checks that each adaptor in it exports what it did when it was installed.
/// In `folder` it may write.
pub async fn verify(program: &Path, adaptors: &[Adaptor], blob: &Path, folder: &Path) -> Result<(), SnapshotError> {
    let version = version_of(program).await?;
    // Without their bundles: what is not in the snapshot cannot be loaded.
    let unbundled = |adaptor: &Adaptor| Adaptor { folder: PathBuf::new(), bundle: None, ..adaptor.clone() };
    let options = trial_options(program, version, adaptors.iter().map(unbundled).collect(), MEMORY_BYTES, folder);
    let started = NodeEngine::start_as(&options, Mode::Snapshot(blob), false, Arc::new(Nobody)).await;
    let (engine, _) = started.map_err(|lost| SnapshotError::Failed(lost.to_string()))?;
    for adaptor in adaptors {
        let names = names(&engine, adaptor)?;
        let missing = adaptor.exports.iter().flatten().find(|name| !names.contains(name));
        if let Some(missing) = missing {
            return Err(SnapshotError::Lacks { adaptor: adaptor.specifier(), missing: missing.clone() });
        }
    }
    Ok(())
}

/// What is run to make the heap that is kept. It says in the file `frozen` why it is none.
fn script(adaptors: &[Adaptor], variables: &[String], frozen: &Path) -> String {
    let adaptors: Vec<_> =
        adaptors.iter().map(|adaptor| json!({ "specifier": adaptor.specifier(), "bundle": adaptor.bundle })).collect();
    let engine = source::SOURCE.as_str();
    let adaptors = json!(adaptors);
    format!(
        "const {{ Script }} = require('node:vm');\n\
         const {{ startupSnapshot }} = require('node:v8');\n\
         const engine = new Script({source}, {{ filename: 'openfn:engine' }}).runInThisContext()(require);\n\
         const adaptors = {adaptors};\n\
         const stopIf = (adaptor, reads) => {{\n\
           if (reads.length === 0) return;\n\
           require('node:fs').writeFileSync({frozen}, JSON.stringify({{ adaptor, reads }}));\n\
           process.reallyExit(1);\n\
         }};\n\
         for (const adaptor of adaptors) stopIf(adaptor.specifier, engine.addBundle(adaptor, {variables}));\n\
         startupSnapshot.addSerializeCallback(() => {{\n\
           stopIf(adaptors.map(({{ specifier }}) => specifier).join(' or '), engine.unwatch());\n\
         }});\n\
         startupSnapshot.setDeserializeMainFunction(() => engine.serve({{ isCopy: true }}));\n",
        source = json!(engine),
        variables = json!(variables),
        frozen = json!(frozen),
    )
}

fn io(what: impl FnOnce() -> String) -> impl FnOnce(std::io::Error) -> SnapshotError {
    |source| SnapshotError::Io { what: what(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_says_nothing_about_the_adaptors() {
        let folder = Path::new("/");
        let full = "node[1]: void node::SnapshotData::ToFile(FILE*) const | # Assertion failed: (num_written) == (1)";
        let told = failure("signal: 6 (SIGABRT)".into(), full, folder);
        assert!(matches!(told, SnapshotError::Io { .. }), "{told}");
        assert!(told.to_string().contains("MB free"), "{told}");
        for words in ["", "out of memory"] {
            assert!(matches!(failure("exit status: 1".into(), words, folder), SnapshotError::Failed(_)), "{words}");
        }
    }
}
