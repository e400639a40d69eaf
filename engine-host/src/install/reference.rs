//! What the reference worker left in a repo, and what it finds there of ours.
//!
//! It keeps adaptors as `node_modules/<name>_<version>`, each a dependency of the repo's `package.json` under that
//! alias, with the packages that they need beside them. What we install is elsewhere, whole; a link bears its alias.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use protocol::engine::Adaptor;
use protocol::install::InstalledAdaptor;
use serde_json::{Map, Value};

use super::adaptor::{Manifest, declared_needs};
use super::layout::{self, Layout};
use super::{Failure, Workshop, files};

/// The folder of an adaptor that the reference worker installed.
pub(super) fn package(layout: &Layout, name: &str, version: &str) -> Option<PathBuf> {
    let alias = layout::alias(name, version);
    let listed = dependencies(layout).is_some_and(|dependencies| dependencies.contains_key(&alias));
    if listed { folder(layout, name, version) } else { None }
}

/// Every adaptor that the reference worker installed.
pub(super) fn packages(layout: &Layout) -> Vec<(String, String, PathBuf)> {
    let dependencies = dependencies(layout).unwrap_or_default();
    let named = dependencies.keys().filter_map(|alias| layout::read_alias(alias));
    named.filter_map(|(name, version)| Some((name.into(), version.into(), folder(layout, name, version)?))).collect()
}

/// The folder behind an alias, if it is one of the reference worker's and holds what the alias says.
fn folder(layout: &Layout, name: &str, version: &str) -> Option<PathBuf> {
    let path = layout.alias(&layout::alias(name, version));
    let manifest = Manifest::read(&path)?;
    let is_it = manifest.name.as_deref() == Some(name) && manifest.version.as_deref() == Some(version);
    let is_link = fs::symlink_metadata(&path).ok()?.is_symlink();
    if is_it && !is_link { path.canonicalize().ok() } else { None }
}

fn dependencies(layout: &Layout) -> Option<Map<String, Value>> {
    let mut package: Map<String, Value> = serde_json::from_slice(&fs::read(layout.package_json()).ok()?).ok()?;
    match package.remove("dependencies")? {
        Value::Object(dependencies) => Some(dependencies),
        _ => None,
    }
}

/// An adaptor of the reference worker that nobody prepared.
pub(super) fn installed(name: &str, version: &str, folder: PathBuf, why: String) -> InstalledAdaptor {
    let needs = declared_needs(&folder);
    let (name, version) = (name.to_owned(), version.to_owned());
    let adaptor = Adaptor { name, version, folder, bundle: None, exports: None, needs };
    InstalledAdaptor { adaptor, prepared: false, unbundled: Some(why), reads: None }
}

/// Lets the reference worker find an installation.
pub(super) async fn register(
    workshop: &Workshop,
    name: &str,
    version: &str,
    installation: &Path,
) -> Result<(), Failure> {
    let layout = &workshop.layout;
    let _lock = workshop.lock("package.json").await?;
    let alias = layout::alias(name, version);
    link(layout, &alias, &layout::package(installation, name))?;
    list(layout, &alias, &format!("npm:{name}@{version}"))
}

/// Makes a relative link, so that the repo can be moved.
fn link(layout: &Layout, alias: &str, package: &Path) -> Result<(), Failure> {
    let path = layout.alias(alias);
    if path.join("package.json").exists() {
        return Ok(());
    }
    let failure = |error: &io::Error| Failure::io(&path, error);
    let up = "../".repeat(1 + alias.matches('/').count());
    let target = package.strip_prefix(layout.root()).map(|inner| Path::new(&up).join(inner));
    let target = target.unwrap_or_else(|_| package.to_owned());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failure(&error))?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(&error)),
        _ => {}
    }
    symlink(target, &path).map_err(|error| failure(&error))
}

/// Adds a dependency to the repo's `package.json`, and leaves the rest of it as it is.
fn list(layout: &Layout, alias: &str, source: &str) -> Result<(), Failure> {
    let path = layout.package_json();
    let mut package: Map<String, Value> = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| Failure::Other(format!("{} is not a JSON object: {error}", path.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_package(),
        Err(error) => return Err(Failure::io(path, &error)),
    };
    let dependencies = package.entry("dependencies").or_insert_with(|| Map::new().into());
    match dependencies {
        Value::Object(dependencies) if dependencies.contains_key(alias) => return Ok(()),
        Value::Object(dependencies) => drop(dependencies.insert(alias.to_owned(), source.into())),
        _ => return Err(Failure::Other(format!("the dependencies in {} are no object", path.display()))),
    }
    let mut text = serde_json::to_vec_pretty(&package).map_err(|error| Failure::io(&path, &error.into()))?;
    text.push(b'\n');
    files::replace(&path, &text).map_err(|error| Failure::io(path, &error))
}

fn new_package() -> Map<String, Value> {
    let keys = [("name", "openfn-repo"), ("description", "Adaptors for OpenFn workers"), ("version", "1.0.0")];
    let mut package: Map<String, Value> =
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    package.insert("private".to_owned(), true.into());
    package
}

/// Takes an adaptor out of the reference worker's sight: the link and the dependency, not what it installed itself.
pub(super) fn unregister(layout: &Layout, name: &str, version: &str) -> Result<(), Failure> {
    let alias = layout::alias(name, version);
    let path = layout.alias(&alias);
    if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok(());
    }
    fs::remove_file(&path).map_err(|error| Failure::io(&path, &error))?;
    let path = layout.package_json();
    let text = fs::read(&path).map_err(|error| Failure::io(&path, &error))?;
    let Ok(mut package) = serde_json::from_slice::<Map<String, Value>>(&text) else { return Ok(()) };
    if let Some(Value::Object(dependencies)) = package.get_mut("dependencies") {
        dependencies.shift_remove(&alias);
    }
    let text = serde_json::to_vec_pretty(&package).map_err(|error| Failure::io(&path, &error.into()))?;
    files::replace(&path, &text).map_err(|error| Failure::io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "@openfn/language-x";

    fn write(path: &Path, value: &Value) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    /// A repo as the reference worker leaves it: alias, and what the package calls itself.
    fn reference_repo(alias: &str, name: &str, version: &str) -> (tempfile::TempDir, Layout) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(root.path());
        write(&layout.package_json(), &serde_json::json!({"dependencies": {alias: format!("npm:{name}@^{version}")}}));
        write(&layout.alias(alias).join("package.json"), &serde_json::json!({"name": name, "version": version}));
        (root, layout)
    }

    #[test]
    fn an_alias_counts_when_it_holds_what_it_says() {
        let (_root, layout) = reference_repo("@openfn/language-x_1.2.3", NAME, "1.2.3");
        assert!(package(&layout, NAME, "1.2.3").is_some());
        assert_eq!(package(&layout, NAME, "1.2.4"), None);
        assert_eq!(packages(&layout).len(), 1);
        for (alias, name, version) in [
            ("@openfn/language-x_1.2.3", NAME, "1.3.0"),
            ("@openfn/language-x_1.2.3", "@openfn/language-y", "1.2.3"),
            ("@openfn/language-x", NAME, "1.2.3"),
        ] {
            let (_root, layout) = reference_repo(alias, name, version);
            assert_eq!(package(&layout, NAME, "1.2.3"), None, "{alias} {name} {version}");
            assert_eq!(packages(&layout), [], "{alias} {name} {version}");
        }
    }

    #[test]
    fn what_npm_did_not_finish_does_not_count() {
        let (_root, layout) = reference_repo("@openfn/language-x_1.2.3", NAME, "1.2.3");
        fs::remove_file(layout.package_json()).unwrap();
        assert_eq!(package(&layout, NAME, "1.2.3"), None, "npm lists it last");
    }

    #[test]
    fn ours_are_listed_and_linked_and_taken_out_again() {
        let (_root, layout) = reference_repo("@openfn/language-x_1.2.3", NAME, "1.2.3");
        let installation = layout.adaptor(NAME, "2.0.0");
        let manifest = serde_json::json!({"name": NAME, "version": "2.0.0"});
        write(&layout::package(&installation, NAME).join("package.json"), &manifest);
        link(&layout, "@openfn/language-x_2.0.0", &layout::package(&installation, NAME)).unwrap();
        list(&layout, "@openfn/language-x_2.0.0", "npm:@openfn/language-x@2.0.0").unwrap();

        let link = layout.alias("@openfn/language-x_2.0.0");
        assert!(fs::read_link(&link).unwrap().is_relative());
        assert_eq!(Manifest::read(&link).unwrap().version.as_deref(), Some("2.0.0"));
        let listed: Vec<String> = dependencies(&layout).unwrap().keys().cloned().collect();
        assert_eq!(listed, ["@openfn/language-x_1.2.3", "@openfn/language-x_2.0.0"]);
        assert_eq!(packages(&layout).len(), 1, "ours is not taken for one of the reference worker's");

        unregister(&layout, NAME, "2.0.0").unwrap();
        unregister(&layout, NAME, "1.2.3").unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert!(package(&layout, NAME, "1.2.3").is_some(), "what the reference worker installed stays");
    }

    #[test]
    fn a_package_json_that_is_no_object_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(root.path());
        for text in ["[]", "{\"dependencies\": 1}", "{"] {
            fs::write(layout.package_json(), text).unwrap();
            assert!(list(&layout, "x_1", "npm:x@1").is_err());
            assert_eq!(fs::read_to_string(layout.package_json()).unwrap(), text);
        }
    }
}
