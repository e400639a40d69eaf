//! Where things are in a repo. Paths only; nothing here touches the disk.
//!
//! ```text
//! package.json                      {"dependencies": {"<name>_<version>": "npm:<name>@<version>"}}
//! node_modules/<name>_<version>     a link to the package below (or, in a repo of the reference worker, the package)
//! .openfn-worker/
//!   adaptors/<name>@<version>/      complete as soon as it has this name
//!     installed.json                what is known of it
//!     bundle.cjs                    all of it in one file
//!     node_modules/                 as npm made it
//!   tools/esbuild-<version>/        what bundles
//!   snapshots/<key>/                snapshot.json, and snapshot.blob if it could be made
//!   tags/<name>.json                what the registry said last
//!   locks/                          one file for each thing that only one process may do at a time
//!   tmp/<process>-<number>/         unfinished; of no meaning to anyone but the process that made it
//! ```
//!
//! Names of files spell the slash of a scope as `+`.

use std::path::{Path, PathBuf};

/// The folder in a repo that is this program's alone.
pub(super) const OWN: &str = ".openfn-worker";

/// The paths of one repo.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn of(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the reference worker and npm read: which adaptors there are.
    pub(super) fn package_json(&self) -> PathBuf {
        self.root.join("package.json")
    }

    /// Where the reference worker looks for an adaptor.
    pub(super) fn alias(&self, alias: &str) -> PathBuf {
        self.root.join("node_modules").join(alias)
    }

    fn own(&self) -> PathBuf {
        self.root.join(OWN)
    }

    pub(super) fn adaptors(&self) -> PathBuf {
        self.own().join("adaptors")
    }

    pub(super) fn adaptor(&self, name: &str, version: &str) -> PathBuf {
        self.adaptors().join(format!("{}@{version}", file_name(name)))
    }

    pub(super) fn tool(&self, name: &str, version: &str) -> PathBuf {
        self.own().join("tools").join(format!("{name}-{version}"))
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.own().join("snapshots")
    }

    pub(super) fn tags(&self, name: &str) -> PathBuf {
        self.own().join("tags").join(format!("{}.json", file_name(name)))
    }

    pub(super) fn lock(&self, thing: &str) -> PathBuf {
        self.own().join("locks").join(file_name(thing))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.own().join("tmp")
    }
}

/// What the reference worker calls an adaptor in a repo.
pub(super) fn alias(name: &str, version: &str) -> String {
    format!("{name}_{version}")
}

/// The name and version behind such an alias.
pub(super) fn read_alias(alias: &str) -> Option<(&str, &str)> {
    alias.rsplit_once('_').filter(|(name, version)| !name.is_empty() && !version.is_empty())
}

/// The package's folder in an installation.
pub(super) fn package(installation: &Path, name: &str) -> PathBuf {
    installation.join("node_modules").join(name)
}

/// The file that says what is known of an installation.
pub(super) fn record(installation: &Path) -> PathBuf {
    installation.join("installed.json")
}

fn file_name(name: &str) -> String {
    name.replace('/', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_do_not_make_folders_of_their_own() {
        let layout = Layout::of(Path::new("/repo"));
        assert_eq!(
            layout.adaptor("@openfn/language-http", "7.2.0"),
            Path::new("/repo/.openfn-worker/adaptors/@openfn+language-http@7.2.0")
        );
        assert_eq!(layout.tags("@openfn/x"), Path::new("/repo/.openfn-worker/tags/@openfn+x.json"));
    }

    #[test]
    fn aliases_are_those_of_the_reference_worker() {
        assert_eq!(alias("@openfn/language-http", "7.2.0"), "@openfn/language-http_7.2.0");
        assert_eq!(read_alias("@openfn/language-http_7.2.0"), Some(("@openfn/language-http", "7.2.0")));
        assert_eq!(read_alias("some_thing_1.0.0"), Some(("some_thing", "1.0.0")));
        assert_eq!(read_alias("left-pad"), None);
    }
}
