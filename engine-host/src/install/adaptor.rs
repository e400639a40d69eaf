//! Installs one adaptor and gets it ready.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::engine::{Adaptor, Needs};
use protocol::install::InstalledAdaptor;
use protocol::specifier::Specifier;
use serde::Deserialize;

use super::files::{self, Workplace};
use super::layout::{self, Layout};
use super::npm::{Npm, one_line};
use super::record::{Bundle, Record};
use super::retry::Schedule;
use super::{Failure, Workshop, bundle, reference};
use crate::engine::node::{Trial, loads};

/// Installs `name@version`, unless it is in the repo, and prepares it.
pub(super) async fn install(workshop: &Workshop, name: &str, version: &str) -> Result<InstalledAdaptor, Failure> {
    let specifier = Specifier::new(name, Some(version)).map_err(|error| Failure::Other(error.to_string()))?;
    if let Some(installed) = complete(workshop, name, version) {
        return Ok(installed);
    }
    let reference = reference::package(&workshop.layout, name, version);
    let made = match make(workshop, &specifier, version, reference.as_deref()).await {
        // A repo that cannot be written to is used as it is.
        Err(Failure::Disk { why, .. }) if reference.is_some() => {
            workshop.tell(format!("{specifier}: used as the reference worker installed it: {why}")).await;
            return Ok(reference::installed(name, version, reference.unwrap_or_default(), why));
        }
        made => made?,
    };
    if reference.is_none()
        && let Err(error) = reference::register(workshop, name, version, &made).await
    {
        workshop.tell(format!("{specifier}: the reference worker will not see it: {error}")).await;
    }
    Record::read(&made)
        .and_then(|record| record.installed(&made))
        .ok_or_else(|| Failure::Other(format!("{specifier} was installed and is gone again")))
}

/// What is known of an adaptor, if that is all that can be known.
fn complete(workshop: &Workshop, name: &str, version: &str) -> Option<InstalledAdaptor> {
    let installation = workshop.layout.adaptor(name, version);
    let record = Record::read(&installation)?;
    let is_final = workshop.repo.offline || !matches!(record.bundle, Bundle::Untried(_));
    if is_final { record.installed(&installation) } else { None }
}

/// Makes the installation, and returns its folder.
async fn make(
    workshop: &Workshop,
    specifier: &Specifier,
    version: &str,
    reference: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let name = specifier.name.as_str();
    let installation = workshop.layout.adaptor(name, version);
    let _lock = workshop.lock(&specifier.to_string()).await?;
    if complete(workshop, name, version).is_some() {
        return Ok(installation);
    }
    if let Some(record) = Record::read(&installation).filter(|record| record.installed(&installation).is_some()) {
        let record = bundle_later(workshop, &installation, record).await;
        record.write(&installation).map_err(|error| Failure::io(&installation, &error))?;
        return Ok(installation);
    }
    if reference.is_none() && workshop.repo.offline {
        return Err(Failure::Other("it is not in the repo, and this worker is offline".to_owned()));
    }
    let temporary = workshop.layout.temporary();
    let place = Workplace::create(&temporary).await.map_err(|error| Failure::io(&temporary, &error))?;
    let made = make_in(&place, workshop, specifier, version, reference).await;
    place.remove().await;
    made.map(|()| installation)
}

async fn make_in(
    place: &Workplace,
    workshop: &Workshop,
    specifier: &Specifier,
    version: &str,
    reference: Option<&Path>,
) -> Result<(), Failure> {
    let installation = workshop.layout.adaptor(&specifier.name, version);
    let folder = place.path().join("installation");
    fs::create_dir(&folder).map_err(|error| Failure::io(&folder, &error))?;
    let record = match reference {
        Some(_) => adopt(workshop, specifier, version, &folder).await?,
        None => fetch(workshop, specifier, version, &folder).await?,
    };
    record.write(&folder).map_err(|error| Failure::io(&folder, &error))?;
    remove_damaged(&installation).await?;
    place.publish(&folder, &installation).map(drop).map_err(|error| Failure::io(&installation, &error))
}

/// Takes a folder out of the way that has the name of an installation and is none, such as one of another format.
async fn remove_damaged(installation: &Path) -> Result<(), Failure> {
    if Record::read(installation).is_some_and(|record| record.installed(installation).is_some()) {
        return Ok(());
    }
    match files::remove(installation.to_owned()).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io(installation, &error)),
        _ => Ok(()),
    }
}

/// Gets an adaptor from the registry.
async fn fetch(workshop: &Workshop, specifier: &Specifier, version: &str, folder: &Path) -> Result<Record, Failure> {
    let name = specifier.name.as_str();
    let npm = Npm::find(&workshop.repo.node)?;
    npm.install(workshop, folder, &specifier.to_string(), Schedule::installation()).await?;
    let package = layout::package(folder, name);
    let found = Manifest::read(&package).and_then(|manifest| manifest.version);
    if found.as_deref() != Some(version) {
        let found = found.unwrap_or_else(|| "nothing".to_owned());
        return Err(Failure::Other(format!("npm installed {found} for {specifier}")));
    }
    prepare(workshop, specifier, version, folder, Module { import: name, package: &package }).await
}

/// Prepares an adaptor that the reference worker installed, and leaves it where it is.
async fn adopt(workshop: &Workshop, specifier: &Specifier, version: &str, folder: &Path) -> Result<Record, Failure> {
    let alias = layout::alias(&specifier.name, version);
    let package = workshop.layout.alias(&alias);
    prepare(workshop, specifier, version, folder, Module { import: &alias, package: &package }).await
}

/// A package as it is found from the folder of an installation.
#[derive(Clone, Copy)]
struct Module<'a> {
    import: &'a str,
    package: &'a Path,
}

async fn prepare(
    workshop: &Workshop,
    specifier: &Specifier,
    version: &str,
    folder: &Path,
    module: Module<'_>,
) -> Result<Record, Failure> {
    let node = &workshop.repo.node;
    let is_within = module.package.starts_with(folder);
    let package = match module.package.strip_prefix(folder) {
        Ok(path) => path.to_owned(),
        Err(_) => Path::new("../../../node_modules").join(module.import),
    };
    let package = package.to_string_lossy().into_owned();
    let node_modules = if is_within { folder.join("node_modules") } else { workshop.layout.alias("") };
    let natives = natives(node_modules).await;
    let declared = declared_needs(module.package);
    let needs = Needs { addons: declared.addons || (is_within && !natives.is_empty()), ..declared };
    workshop.tell(format!("{specifier}: loading it once")).await;
    let trial = trial(node, &adaptor(specifier, version, module.package, None, needs)).await;
    let exports = trial.map_err(Failure::Other)?.exports;

    let bundled = bundle_once(workshop, specifier, folder, module, &natives, &exports).await;
    let needs = match &bundled {
        Ok(bundled) => Needs { addons: declared.addons || bundled.addons, ..declared },
        Err(_) => needs,
    };
    let (bundle, reads) = match bundled {
        Ok(bundled) => (Bundle::File(bundle::FILE.to_owned()), bundled.reads),
        Err(bundle) => (bundle, None),
    };
    let mut record = Record::new(&specifier.name, version, package, exports, bundle);
    (record.needs, record.reads) = (needs, reads);
    Ok(record)
}

/// What a package says that it needs.
pub(super) fn declared_needs(package: &Path) -> Needs {
    Needs::declared(&fs::read(package.join("package.json")).unwrap_or_default())
}

async fn natives(node_modules: PathBuf) -> Vec<String> {
    // It reads thousands of folders. It cannot panic, and is not cancelled.
    tokio::task::spawn_blocking(move || bundle::natives(&node_modules)).await.unwrap_or_default()
}

/// A bundle that works.
struct Working {
    addons: bool,
    reads: Option<Vec<String>>,
}

/// Bundles an adaptor and compares what the bundle exports with what the adaptor does.
async fn bundle_once(
    workshop: &Workshop,
    specifier: &Specifier,
    folder: &Path,
    module: Module<'_>,
    natives: &[String],
    expected: &[String],
) -> Result<Working, Bundle> {
    let tool = tool(workshop).await.map_err(Bundle::Untried)?;
    workshop.tell(format!("{specifier}: bundling")).await;
    let node = &workshop.repo.node;
    let bundled = bundle::bundle(node, &tool, folder, module.import, natives).await;
    let verified = match bundled {
        Ok(bundled) => {
            let version = specifier.version.as_deref().unwrap_or_default();
            let file = folder.join(bundle::FILE);
            let needs = Needs { addons: bundled.addons, ..Needs::default() };
            match trial(node, &adaptor(specifier, version, module.package, Some(file), needs)).await {
                Ok(Trial { exports, reads }) if exports == expected => {
                    return Ok(Working { addons: bundled.addons, reads });
                }
                Ok(Trial { exports, .. }) => difference(expected, &exports),
                Err(why) => format!("its bundle does not work: {why}"),
            }
        }
        Err(why) => why,
    };
    // There may be none.
    let _ = fs::remove_file(folder.join(bundle::FILE));
    workshop.tell(format!("{specifier}: it works in no bundle: {verified}")).await;
    Err(Bundle::Impossible(verified))
}

/// An adaptor as it is to be loaded on trial.
fn adaptor(specifier: &Specifier, version: &str, package: &Path, bundle: Option<PathBuf>, needs: Needs) -> Adaptor {
    Adaptor {
        name: specifier.name.clone(),
        version: version.to_owned(),
        folder: package.canonicalize().unwrap_or_else(|_| package.to_owned()),
        bundle,
        exports: None,
        needs,
    }
}

/// Loads an adaptor once. Returns what it did, the names that it exports sorted, or the reason in one line.
async fn trial(node: &Path, adaptor: &Adaptor) -> Result<Trial, String> {
    let mut trial =
        loads(node, adaptor, Path::new(super::OWN_FOLDER)).await.map_err(|error| one_line(&error.to_string()))?;
    trial.exports.sort();
    Ok(trial)
}

/// How a bundle differs from the adaptor.
fn difference(adaptor: &[String], bundle: &[String]) -> String {
    let lacks = adaptor.iter().find(|name| !bundle.contains(name));
    let adds = bundle.iter().find(|name| !adaptor.contains(name));
    match (lacks, adds) {
        (Some(name), _) => format!("the bundle does not export {name}"),
        (None, Some(name)) => format!("the bundle exports {name}, which the adaptor does not"),
        (None, None) => "the bundle exports a name twice".to_owned(),
    }
}

/// Bundles an adaptor that was installed when there was nothing to bundle it with.
async fn bundle_later(workshop: &Workshop, installation: &Path, mut record: Record) -> Record {
    let specifier = Specifier { name: record.name.clone(), version: Some(record.version.clone()) };
    let alias = layout::alias(&record.name, &record.version);
    let own = layout::package(installation, &record.name);
    let package = installation.join(&record.package);
    let (import, node_modules) = if own.exists() {
        (record.name.as_str(), installation.join("node_modules"))
    } else {
        (alias.as_str(), workshop.layout.alias(""))
    };
    let module = Module { import, package: &package };
    let natives = natives(node_modules).await;
    match bundle_once(workshop, &specifier, installation, module, &natives, &record.exports).await {
        Ok(bundled) => {
            record.needs.addons |= bundled.addons;
            record.reads = bundled.reads;
            record.bundle = Bundle::File(bundle::FILE.to_owned());
        }
        Err(bundle) => record.bundle = bundle,
    }
    record
}

/// The folder where the bundler is installed, once for the repo. An error is the reason in one line.
async fn tool(workshop: &Workshop) -> Result<PathBuf, String> {
    let (name, version) = bundle::TOOL;
    let folder = workshop.layout.tool(name, version);
    if folder.exists() {
        return Ok(folder);
    }
    if workshop.repo.offline {
        return Err(format!("{name} {version} is not in the repo, and this worker is offline"));
    }
    let installed = install_tool(workshop, &format!("{name}@{version}"), &folder).await;
    installed.map(|()| folder).map_err(|failure| format!("{name} {version} cannot be installed: {failure}"))
}

async fn install_tool(workshop: &Workshop, specifier: &str, folder: &Path) -> Result<(), Failure> {
    let _lock = workshop.lock(specifier).await?;
    if folder.exists() {
        return Ok(());
    }
    let npm = Npm::find(&workshop.repo.node)?;
    let temporary = workshop.layout.temporary();
    let place = Workplace::create(&temporary).await.map_err(|error| Failure::io(&temporary, &error))?;
    let made = place.path().join("tool");
    fs::create_dir(&made).map_err(|error| Failure::io(&made, &error))?;
    let installed = npm.install(workshop, &made, specifier, Schedule::lookup()).await;
    let published = installed
        .map_err(Failure::from)
        .and_then(|()| place.publish(&made, folder).map(drop).map_err(|error| Failure::io(folder, &error)));
    place.remove().await;
    published
}

/// What a package says of itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Manifest {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
}

impl Manifest {
    /// Reads a package's `package.json`. None if it has none that can be read.
    pub(super) fn read(package: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(package.join("package.json")).ok()?).ok()
    }
}

/// All installations in a repo with their records. A folder of another name than its record's is none.
pub(super) fn installations(layout: &Layout) -> Vec<(PathBuf, Record)> {
    let entries = fs::read_dir(layout.adaptors()).into_iter().flatten().flatten();
    let recorded = entries.filter_map(|entry| Some((entry.path(), Record::read(&entry.path())?)));
    let mut found: Vec<_> =
        recorded.filter(|(folder, record)| *folder == layout.adaptor(&record.name, &record.version)).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) {
        let record = Record::new("@s/x", "1.0.0", String::new(), vec![], Bundle::Impossible(String::new()));
        record.write(folder).unwrap();
    }

    #[test]
    fn what_has_lost_its_name_is_not_installed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(root.path());
        let folder = layout.adaptor("@s/x", "1.0.0");
        write(&folder);
        write(&folder.with_added_extension("removed"));
        let found: Vec<PathBuf> = installations(&layout).into_iter().map(|(folder, _)| folder).collect();
        assert_eq!(found, [folder]);
    }

    #[tokio::test]
    async fn only_what_is_damaged_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (whole, damaged) = (root.path().join("whole"), root.path().join("damaged"));
        write(&whole);
        fs::create_dir(&damaged).unwrap();
        for folder in [&whole, &damaged, &root.path().join("none")] {
            remove_damaged(folder).await.unwrap();
        }
        assert!(whole.exists() && !damaged.exists());
    }
}
