//! What a worker asks of a host that looks after a repo of adaptors.
//!
//! Such a host runs the same program as any other. It takes its role from the first request: one that has been asked
//! for any of this executes no runs. It may be asked for several things at once.
//!
//! Only the host knows how a repo is laid out. The worker gets what it needs of it in [`InstalledAdaptor`]s.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Adaptor;

/// Environment variable of a host: the variables that npm's settings files name and that are not set, as
/// `NAME in /a/file`, joined by commas.
pub const UNSET_VARIABLE: &str = "ENGINE_HOST_NPM_UNSET";

/// The folder with adaptors, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repo {
    /// An absolute path. It is made where it does not exist.
    pub folder: PathBuf,
    /// Whether what changes the repo takes a lock first, which all that share it see.
    pub lock: bool,
    /// Whether nothing may be asked of the registry.
    pub offline: bool,
    /// The Node program: what is prepared is prepared for it. An absolute path.
    pub node: PathBuf,
    /// Its version, such as `24.4.0`.
    pub node_version: String,
    /// Variables that may be passed on to jobs, sorted: what reads them at its import is in no snapshot.
    #[serde(default)]
    pub job_environment: Vec<String>,
}

/// What is asked of an installer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallerRequest {
    /// Tell what is in the repo.
    Survey(Survey),
    /// Ask the registry what a package's tags stand for.
    Resolve(Resolve),
    /// Install an adaptor.
    Install(Install),
    /// Make a start-up snapshot of adaptors.
    MakeSnapshot(MakeSnapshot),
    /// Take out of the repo what nobody needs.
    Prune(Prune),
}

/// An installer's answers, in the order of [`InstallerRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallerReply {
    /// To [`InstallerRequest::Survey`].
    Surveyed(Surveyed),
    /// To [`InstallerRequest::Resolve`].
    Resolved(Resolved),
    /// To [`InstallerRequest::Install`].
    Installed(InstalledAdaptor),
    /// To [`InstallerRequest::MakeSnapshot`].
    Snapshotted(SnapshotOutcome),
    /// To [`InstallerRequest::Prune`].
    Pruned(Pruned),
}

/// Tell everything that is in the repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Where.
    pub repo: Repo,
}

/// The answer to [`Survey`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed {
    /// All that counts as installed.
    pub adaptors: Vec<InstalledAdaptor>,
    /// The snapshots that fit the Node program and this host.
    pub snapshots: Vec<KnownSnapshot>,
}

/// An adaptor in the repo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledAdaptor {
    /// What an engine has to know.
    pub adaptor: Adaptor,
    /// Whether it was looked at after it was installed: loaded once, and bundled if that works.
    pub prepared: bool,
    /// Why there is no bundle.
    pub unbundled: Option<String>,
    /// What its bundle reads when it is imported that differs from process to process, such as `crypto.randomUUID`: no
    /// process may begin where another one had imported it, from a snapshot or by a fork. None if that is not known.
    #[serde(default)]
    pub reads: Option<Vec<String>>,
}

/// What is known of the snapshot of a set of adaptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSnapshot {
    /// The set as `name@version`, sorted.
    pub adaptors: Vec<String>,
    /// How it went.
    pub outcome: SnapshotOutcome,
}

/// How making a snapshot went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotOutcome {
    /// It is in this file, and was verified.
    Made(PathBuf),
    /// It cannot be made: why.
    Impossible(String),
}

/// Ask the registry what the tags of a package stand for. Refused with
/// [`RegistryDown`](crate::message::RefusalCode::RegistryDown) where it cannot be asked and was never before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// Where answers are kept.
    pub repo: Repo,
    /// The package's name.
    pub name: String,
}

/// The answer to [`Resolve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The tags, such as `("latest", "3.3.4")`.
    pub tags: Vec<(String, String)>,
    /// Why this is what the registry said earlier, if it is.
    pub stale: Option<String>,
}

/// Install an adaptor, unless it is there, and prepare it. Refused with the reason in one line, and with
/// [`RegistryDown`](crate::message::RefusalCode::RegistryDown) where the registry is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// Where to.
    pub repo: Repo,
    /// The package's name.
    pub name: String,
    /// Its exact version.
    pub version: String,
}

/// Make a snapshot of a set of adaptors, unless there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeSnapshot {
    /// Where to.
    pub repo: Repo,
    /// The set, sorted by name and version, each once.
    pub adaptors: Vec<Adaptor>,
}

/// Take out of the repo what nobody needs: what was never finished, snapshots for other Node programs, old versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Where.
    pub repo: Repo,
    /// How many versions of each adaptor stay, newest first; all if none.
    pub versions: Option<usize>,
}

/// The answer to [`Prune`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// What was removed, for people.
    pub removed: Vec<String>,
    /// The room that it took, in bytes.
    pub bytes: u64,
}

/// How far something has come that takes its time, in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, and to what: `@openfn/language-http@7.2.0: bundling`.
    pub what: String,
}
