//! Puts an adaptor and all that it needs into one CommonJS file, by esbuild.
//!
//! esbuild comes from npm, once for a repo, in a pinned version. Packages with native code stay outside of the file,
//! which lies where Node finds them. What no start-up snapshot can hold is loaded when it is first used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::npm::one_line;
use super::process;
use crate::links::packages;

/// The package, and the version that bundles are made with.
pub(super) const TOOL: (&str, &str) = ("esbuild", "0.28.2");
/// The file that is made.
pub(super) const FILE: &str = "bundle.cjs";

/// How long bundling may take.
const BUNDLE_WITHIN: Duration = Duration::from_secs(120);
/// What bundles: a script for Node.
const SCRIPT: &str = include_str!("bundle.js");

/// A bundle that was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundled {
    /// Whether it loads packages with native code.
    pub(super) addons: bool,
}

/// esbuild's account of what it did.
#[derive(Deserialize)]
struct Account {
    outputs: BTreeMap<String, AccountOutput>,
}

#[derive(Deserialize)]
struct AccountOutput {
    #[serde(default)]
    imports: Vec<AccountImport>,
}

#[derive(Deserialize)]
struct AccountImport {
    path: String,
    #[serde(default)]
    external: bool,
}

/// Makes [`FILE`] in `folder` of the package that is called `module` from there. `tool` is the folder where the tool
/// was installed. An error is the reason in one line.
pub(super) async fn bundle(
    node: &Path,
    tool: &Path,
    folder: &Path,
    module: &str,
    natives: &[String],
) -> Result<Bundled, String> {
    let script = folder.join("bundling.cjs");
    let account = folder.join("account.json");
    fs::write(&script, SCRIPT).map_err(|error| format!("cannot write {}: {error}", script.display()))?;
    let mut command = process::command(node, folder, []);
    command.arg(&script).arg(tool).args([module, FILE]).args(natives);
    let output = tokio::time::timeout(BUNDLE_WITHIN, process::output(command)).await;
    let text = fs::read_to_string(&account);
    for made in [&script, &account] {
        // Best effort: nobody looks for them.
        let _ = fs::remove_file(made);
    }
    let output = output
        .map_err(|_| format!("bundling took longer than {BUNDLE_WITHIN:?}"))?
        .map_err(|error| format!("cannot run {}: {error}", node.display()))?;
    if !output.status.success() {
        return Err(reason(&output.stderr).unwrap_or_else(|| format!("esbuild failed: {}", output.status)));
    }
    let text = text.map_err(|error| format!("esbuild left no account: {error}"))?;
    let account = serde_json::from_str(&text).map_err(|error| format!("esbuild's account cannot be read: {error}"))?;
    Ok(Bundled { addons: uses(&account, natives) })
}

/// esbuild's first error.
fn reason(stderr: &str) -> Option<String> {
    let error = stderr.lines().find_map(|line| line.split_once("[ERROR] "));
    error.map(|(_, words)| one_line(words))
}

fn uses(account: &Account, natives: &[String]) -> bool {
    let imports = account.outputs.values().flat_map(|output| &output.imports).filter(|import| import.external);
    let is_of = |path: &str, package: &String| {
        path.strip_prefix(package.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    imports.into_iter().any(|import| natives.iter().any(|package| is_of(&import.path, package)))
}

/// Names of the packages in a `node_modules` that have native code, which no bundle can hold.
pub(super) fn natives(node_modules: &Path) -> Vec<String> {
    let native = packages(node_modules).into_iter().filter(|folder| folder.is_dir() && is_native(folder, true));
    let names = native.filter_map(|folder| Some(folder.strip_prefix(node_modules).ok()?.to_str()?.to_owned()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Whether a package has a library of native code, or the plan of one. Packages within it are not its own.
fn is_native(folder: &Path, is_top: bool) -> bool {
    if is_top && folder.join("binding.gyp").exists() {
        return true;
    }
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => entry.file_name() != "node_modules" && is_native(&entry.path(), false),
        Ok(kind) => kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "node"),
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_native_code_are_found() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for path in [
            "plain/index.js",
            "planned/binding.gyp",
            "@s/built/prebuilds/linux-x64/x.node",
            "outer/node_modules/inner/x.node",
            "named/node.js",
            ".bin/x.node",
        ] {
            file(path);
        }
        assert_eq!(natives(root.path()), ["@s/built", "planned"]);
    }

    #[test]
    fn only_native_packages_that_are_imported_count() {
        let account = |path: &str| {
            let text = format!(
                r#"{{"inputs":{{}},"outputs":{{"bundle.cjs":{{"imports":[{{"path":"{path}","kind":"require-call","external":true}}]}}}}}}"#
            );
            serde_json::from_str::<Account>(&text).unwrap()
        };
        let natives = ["ssh".to_owned(), "@s/x".to_owned()];
        for (path, expected) in [("ssh", true), ("ssh/lib", true), ("@s/x", true), ("ssh2", false), ("fs", false)] {
            assert_eq!(uses(&account(path), &natives), expected, "{path}");
        }
    }

    #[test]
    fn the_first_error_is_the_reason() {
        let stderr = "\n✘ [ERROR] Could not resolve \"gone\"\n\n    node_modules/x/index.js:1:8:\n\n1 error\n";
        assert_eq!(reason(stderr).as_deref(), Some("Could not resolve \"gone\""));
        assert_eq!(reason("node: bad option\n"), None);
    }
}
