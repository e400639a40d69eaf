//! What is in a repo.

use std::collections::BTreeSet;

use protocol::install::Surveyed;

use super::{Workshop, adaptor, reference, snapshot};

/// Everything that counts as installed.
pub(super) fn survey(workshop: &Workshop) -> Surveyed {
    let layout = &workshop.layout;
    let mut adaptors = Vec::new();
    let mut seen = BTreeSet::new();
    for (folder, record) in adaptor::installations(layout) {
        if let Some(installed) = record.installed(&folder) {
            seen.insert(installed.adaptor.specifier());
            adaptors.push(installed);
        }
    }
    for (name, version, folder) in reference::packages(layout) {
        let installed = reference::installed(&name, &version, folder, "nobody has looked at it yet".to_owned());
        if seen.insert(installed.adaptor.specifier()) {
            adaptors.push(installed);
        }
    }
    Surveyed { adaptors, snapshots: snapshot::known(workshop) }
}
