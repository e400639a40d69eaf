//! Takes out of a repo what nobody needs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use protocol::install::Pruned;
use semver::Version;

use super::files::Workplace;
use super::layout::Layout;
use super::record::Record;
use super::{Failure, Workshop, adaptor, bundle, files, reference, snapshot};

/// Removes what was left unfinished, other versions of the tools, snapshots that no longer fit, and of each adaptor all
/// but its newest `versions`. What the reference worker installed stays.
pub(super) async fn prune(workshop: &Workshop, versions: Option<usize>) -> Result<Pruned, Failure> {
    let layout = &workshop.layout;
    let mut pruned = Pruned { removed: Vec::new(), bytes: 0 };
    for path in files::leftovers(&layout.temporary()) {
        remove(&mut pruned, "unfinished", path, None).await?;
    }
    let _lock = workshop.lock("package.json").await?;
    for (folder, record) in superfluous(adaptor::installations(layout), versions) {
        reference::unregister(layout, &record.name, &record.version)?;
        remove(&mut pruned, &format!("{}@{}", record.name, record.version), folder, Some(layout)).await?;
    }
    let (tool, version) = bundle::TOOL;
    let current = layout.tool(tool, version);
    for path in children(current.parent()).into_iter().filter(|path| *path != current) {
        remove(&mut pruned, "tool", path, Some(layout)).await?;
    }
    for path in snapshot::misfits(workshop) {
        remove(&mut pruned, "snapshot", path, Some(layout)).await?;
    }
    Ok(pruned)
}

/// Installations beyond the newest `keep` of each adaptor.
fn superfluous(all: Vec<(PathBuf, Record)>, keep: Option<usize>) -> Vec<(PathBuf, Record)> {
    let Some(keep) = keep else { return Vec::new() };
    let mut by_name: BTreeMap<String, Vec<(PathBuf, Record)>> = BTreeMap::new();
    for (folder, record) in all {
        by_name.entry(record.name.clone()).or_default().push((folder, record));
    }
    let oldest = |mut each: Vec<(PathBuf, Record)>| {
        each.sort_by_key(|(_, record)| Reverse(Version::parse(&record.version).ok()));
        each.split_off(keep.min(each.len()))
    };
    by_name.into_values().flat_map(oldest).collect()
}

fn children(folder: Option<&Path>) -> Vec<PathBuf> {
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a folder; one of a repo's `layout` loses its name first, so that whoever is killed here leaves nothing that
/// counts as installed.
async fn remove(pruned: &mut Pruned, what: &str, path: PathBuf, layout: Option<&Layout>) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure::io(&path, error);
    let counted = path.clone();
    // It cannot panic, and is not cancelled.
    let bytes = tokio::task::spawn_blocking(move || files::size(&counted)).await.unwrap_or_default();
    match layout {
        Some(layout) => {
            let place = Workplace::create(&layout.temporary()).await.map_err(|error| failed(&error))?;
            fs::rename(&path, place.path().join("removed")).map_err(|error| failed(&error))?;
            place.remove().await;
        }
        None => files::remove(path.clone()).await.map_err(|error| failed(&error))?,
    }
    pruned.bytes += bytes;
    pruned.removed.push(format!("{what} ({})", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::Bundle;
    use super::*;

    #[test]
    fn the_newest_versions_stay() {
        let all = [("a", "1.9.0"), ("a", "1.10.0"), ("a", "2.0.0-next.1"), ("b", "1.0.0")];
        let all = all.map(|(name, version)| {
            let record = Record::new(name, version, String::new(), vec![], Bundle::Untried(String::new()));
            (PathBuf::from(format!("{name}@{version}")), record)
        });
        let left = |keep| -> Vec<String> {
            superfluous(all.to_vec(), keep).into_iter().map(|(path, _)| path.display().to_string()).collect()
        };
        assert_eq!(left(Some(1)), ["a@1.10.0", "a@1.9.0"]);
        assert_eq!(left(Some(2)), ["a@1.9.0"]);
        assert_eq!(left(Some(9)), Vec::<String>::new());
        assert_eq!(left(None), Vec::<String>::new());
    }
}
