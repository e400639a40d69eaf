//! What is known of an installed adaptor, and the file that it is kept in.
//!
//! The record is written last into a folder that only then gets its name, so that a folder with a name is complete.

use std::io;
use std::path::Path;

use protocol::engine::{Adaptor, Needs};
use protocol::install::InstalledAdaptor;
use serde::{Deserialize, Serialize};

use super::files;
use super::layout;

/// Of other formats nothing is known: what they describe is installed again.
const FORMAT: u32 = 1;

/// The content of `installed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    pub(super) name: String,
    pub(super) version: String,
    /// The package's folder, as seen from the folder of the record.
    pub(super) package: String,
    /// Names that it exports.
    pub(super) exports: Vec<String>,
    pub(super) bundle: Bundle,
    #[serde(default)]
    pub(super) needs: Needs,
    /// What its bundle reads when it is imported that differs from process to process, so that no process can begin where
    /// another one had imported it. None if that is not known.
    #[serde(default)]
    pub(super) reads: Option<Vec<String>>,
}

/// Whether an adaptor is in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bundle {
    /// In this one, in the folder of the record.
    File(String),
    /// It does not work in one: why.
    Impossible(String),
    /// There was nothing to bundle it with: why. It is worth another try.
    Untried(String),
}

impl Record {
    pub(super) fn new(name: &str, version: &str, package: String, exports: Vec<String>, bundle: Bundle) -> Self {
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { format: FORMAT, name, version, package, exports, bundle, needs: Needs::default(), reads: None }
    }

    /// Reads the record of an installation. None if it has none that can be read.
    pub(super) fn read(installation: &Path) -> Option<Self> {
        let text = std::fs::read(layout::record(installation)).ok()?;
        serde_json::from_slice(&text).ok().filter(|record: &Self| record.format == FORMAT)
    }

    /// Writes the record, whole or not at all.
    pub(super) fn write(&self, installation: &Path) -> io::Result<()> {
        files::replace(&layout::record(installation), &serde_json::to_vec_pretty(self)?)
    }

    /// What an engine has to know. None if a part is gone.
    pub(super) fn installed(&self, installation: &Path) -> Option<InstalledAdaptor> {
        let folder = installation.join(&self.package).canonicalize().ok()?;
        let (bundle, unbundled) = match &self.bundle {
            Bundle::File(name) => (Some(installation.join(name).canonicalize().ok()?), None),
            Bundle::Impossible(why) | Bundle::Untried(why) => (None, Some(why.clone())),
        };
        let adaptor = Adaptor {
            name: self.name.clone(),
            version: self.version.clone(),
            folder,
            bundle,
            exports: Some(self.exports.clone()),
            needs: self.needs,
        };
        Some(InstalledAdaptor { adaptor, prepared: true, unbundled, reads: self.reads.clone() })
    }
}
