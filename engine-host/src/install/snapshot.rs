//! Start-up snapshots of sets of adaptors: made, tried, remembered, and removed when what they were made of is gone.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use protocol::engine::Adaptor;
use protocol::install::{KnownSnapshot, SnapshotOutcome};
use serde::{Deserialize, Serialize};

use super::files::{self, Workplace};
use super::layout::Layout;
use super::npm::one_line;
use super::record::Record;
use super::{Failure, Workshop};
use crate::engine::node::snapshot::{SnapshotError, build, verify};
use crate::engine::node::{LoadError, prelude_hash};

const BLOB: &str = "snapshot.blob";
const RECORD: &str = "snapshot.json";

/// Everything that a snapshot depends on. It is of use to who has exactly the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Parts {
    /// The host, which chooses Node's flags.
    host: String,
    prelude: String,
    node: Program,
    /// As `name@version`, sorted.
    adaptors: Vec<String>,
    /// Variables that may be passed on to jobs.
    #[serde(default)]
    variables: Vec<String>,
}

/// A Node program, told apart from one that takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Program {
    path: PathBuf,
    version: String,
    bytes: u64,
    /// Seconds since the epoch.
    modified: u64,
}

/// The content of [`RECORD`].
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    parts: Parts,
    /// Why there is no blob.
    impossible: Option<String>,
}

impl Parts {
    fn of(workshop: &Workshop, adaptors: Vec<String>) -> Result<Self, Failure> {
        let path = &workshop.repo.node;
        let node = Program::at(path, &workshop.repo.node_version).map_err(|error| Failure::io(path, &error))?;
        let (host, prelude) = (env!("CARGO_PKG_VERSION").to_owned(), prelude_hash().to_owned());
        Ok(Self { host, prelude, node, adaptors, variables: workshop.repo.job_environment.clone() })
    }

    /// The name of the folder. Parts with the same name by chance are told apart by the record in it.
    fn key(&self) -> String {
        let mut hash = DefaultHasher::new();
        self.hash(&mut hash);
        format!("{:016x}", hash.finish())
    }

    /// Whether one of its adaptors does not exist any more. Its Node may be another worker's, which has the same repo.
    fn are_gone(&self, layout: &Layout) -> bool {
        let is_installed = |specifier: &String| {
            let (name, version) = specifier.rsplit_once('@').unwrap_or((specifier, ""));
            Record::read(&layout.adaptor(name, version)).is_some()
        };
        !self.adaptors.iter().all(is_installed)
    }
}

impl Program {
    fn at(path: &Path, version: &str) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { path: path.to_owned(), version: version.to_owned(), bytes: metadata.len(), modified })
    }
}

impl Snapshot {
    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()
    }

    fn outcome(self, folder: &Path) -> Option<SnapshotOutcome> {
        match self.impossible {
            Some(why) => Some(SnapshotOutcome::Impossible(why)),
            None => Some(SnapshotOutcome::Made(folder.join(BLOB).canonicalize().ok()?)),
        }
    }
}

/// Makes the snapshot of a set, unless it is known how that goes.
pub(super) async fn make(workshop: &Workshop, mut adaptors: Vec<Adaptor>) -> Result<SnapshotOutcome, Failure> {
    adaptors.sort_by_key(Adaptor::specifier);
    let parts = Parts::of(workshop, adaptors.iter().map(Adaptor::specifier).collect())?;
    let folder = workshop.layout.snapshots().join(parts.key());
    let known = || Snapshot::read(&folder).filter(|it| it.parts == parts).and_then(|it| it.outcome(&folder));
    if let Some(outcome) = known() {
        return Ok(outcome);
    }
    let _lock = workshop.lock(&format!("snapshot-{}", parts.key())).await?;
    if let Some(outcome) = known() {
        return Ok(outcome);
    }
    workshop.tell(format!("making a start-up snapshot of {}", parts.adaptors.join(", "))).await;
    let temporary = workshop.layout.temporary();
    let place = Workplace::create(&temporary).await.map_err(|error| Failure::io(&temporary, &error))?;
    let made = make_in(&place, workshop, &adaptors, &parts).await;
    place.remove().await;
    made?;
    for old in
        list(workshop).into_iter().filter(|(_, it)| it.as_ref().is_some_and(|it| it.parts.are_gone(&workshop.layout)))
    {
        // Whoever makes the next one does it, too.
        let _ = fs::remove_dir_all(old.0);
    }
    known().ok_or_else(|| Failure::Other("the snapshot was made and is gone again".to_owned()))
}

async fn make_in(place: &Workplace, workshop: &Workshop, adaptors: &[Adaptor], parts: &Parts) -> Result<(), Failure> {
    let folder = workshop.layout.snapshots().join(parts.key());
    let made = place.path().join("snapshot");
    fs::create_dir(&made).map_err(|error| Failure::io(&made, &error))?;
    let impossible = build_and_verify(workshop, adaptors, &made.join(BLOB)).await?;
    let record = Snapshot { parts: parts.clone(), impossible };
    let text = serde_json::to_vec_pretty(&record).map_err(|error| Failure::io(&made, &error.into()))?;
    files::replace(&made.join(RECORD), &text).map_err(|error| Failure::io(&made, &error))?;
    // One that cannot be used has its place, if any has.
    let _ = fs::remove_dir_all(&folder);
    place.publish(&made, &folder).map(drop).map_err(|error| Failure::io(&folder, &error))
}

/// Why it does not work, if it does not. An error is one that says nothing about these adaptors.
async fn build_and_verify(workshop: &Workshop, adaptors: &[Adaptor], blob: &Path) -> Result<Option<String>, Failure> {
    let node = &workshop.repo.node;
    let made = match build(node, adaptors, &workshop.repo.job_environment, blob).await {
        Ok(()) => verify(node, adaptors, blob, Path::new(super::OWN_FOLDER)).await,
        failed => failed,
    };
    match made {
        Ok(()) => Ok(None),
        Err(error @ (SnapshotError::Io { .. } | SnapshotError::Load(LoadError::Program { .. }))) => {
            Err(Failure::Other(error.to_string()))
        }
        Err(error) => {
            // There may be none.
            let _ = fs::remove_file(blob);
            Ok(Some(one_line(&error.to_string())))
        }
    }
}

/// The snapshots that this host can use with this Node.
pub(super) fn known(workshop: &Workshop) -> Vec<KnownSnapshot> {
    let fits = |snapshot: &Snapshot| {
        Parts::of(workshop, snapshot.parts.adaptors.clone()).is_ok_and(|parts| parts == snapshot.parts)
    };
    let fitting = list(workshop).into_iter().filter_map(|(folder, snapshot)| Some((folder, snapshot.filter(fits)?)));
    let known = fitting.filter_map(|(folder, snapshot)| {
        Some(KnownSnapshot { adaptors: snapshot.parts.adaptors.clone(), outcome: snapshot.outcome(&folder)? })
    });
    known.collect()
}

/// Folders of snapshots that this host cannot use with this Node, or whose adaptors are gone.
pub(super) fn misfits(workshop: &Workshop) -> Vec<PathBuf> {
    let fits = |snapshot: &Snapshot| {
        let parts = Parts::of(workshop, snapshot.parts.adaptors.clone());
        parts.is_ok_and(|parts| parts == snapshot.parts) && !snapshot.parts.are_gone(&workshop.layout)
    };
    let misfits = list(workshop).into_iter().filter(|(_, snapshot)| !snapshot.as_ref().is_some_and(fits));
    misfits.map(|(folder, _)| folder).collect()
}

fn list(workshop: &Workshop) -> Vec<(PathBuf, Option<Snapshot>)> {
    let entries = fs::read_dir(workshop.layout.snapshots()).into_iter().flatten().flatten();
    entries.map(|entry| (entry.path(), Snapshot::read(&entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::Bundle;
    use super::*;

    #[test]
    fn a_snapshot_of_another_worker_with_another_node_stays_as_long_as_its_adaptors_do() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(root.path());
        let installation = layout.adaptor("@openfn/language-x", "1.0.0");
        let bundle = Bundle::Impossible(String::new());
        Record::new("@openfn/language-x", "1.0.0", String::new(), vec![], bundle).write(&installation).unwrap();
        let node = Program { path: "/nowhere/node".into(), version: "24.0.0".into(), bytes: 1, modified: 1 };
        let adaptors = vec!["@openfn/language-x@1.0.0".to_owned()];
        let parts = Parts { host: String::new(), prelude: String::new(), node, adaptors, variables: vec![] };
        assert!(!parts.are_gone(&layout));
        fs::remove_dir_all(installation).unwrap();
        assert!(parts.are_gone(&layout));
    }
}
