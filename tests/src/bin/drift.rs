//! Fetches the newest packages of the reference worker from the registry, by npm, and prints what they have that
//! `data/reference.json` does not know. Exits with 1 if there is anything.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use tests::contract::Contract;

/// A package, the file of it that is read, and how.
type Source = (&'static str, &'static str, fn(&str) -> Contract);

const SOURCES: [Source; 2] = [
    ("@openfn/lexicon", "lightning.d.ts", Contract::of_lexicon),
    ("@openfn/engine-multi", "dist/index.js", Contract::of_engine),
];

fn main() -> ExitCode {
    match drift() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints everything, and says how much it was.
fn drift() -> Result<usize, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let known = Contract::known();
    let mut count = 0;
    for (package, file, read) in SOURCES {
        let (version, text) = fetch(package, file, folder.path())?;
        let found = read(&text);
        if found == Contract::default() {
            return Err(format!("{package} {version}: nothing was found in {file}, which must look different now"));
        }
        let unknown = found.beyond(&known);
        println!("{package} {version}: {} unknown", unknown.len());
        unknown.iter().for_each(|line| println!("  {line}"));
        count += unknown.len();
    }
    Ok(count)
}

/// The version and one file of the newest version of a package.
fn fetch(package: &str, file: &str, folder: &Path) -> Result<(String, String), String> {
    let prefix = folder.join(package.replace('/', "-"));
    let installed = prefix.join("node_modules").join(package);
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--silent", "--prefix"]);
    npm.arg(&prefix).arg(format!("{package}@latest")).stdout(Stdio::null());
    let status = npm.status().map_err(|error| format!("cannot start npm: {error}"))?;
    if !status.success() {
        return Err(format!("npm could not install {package}: {status}"));
    }
    let read = |name: &str| {
        std::fs::read_to_string(installed.join(name)).map_err(|error| format!("{package} has no {name}: {error}"))
    };
    let manifest: serde_json::Value =
        serde_json::from_str(&read("package.json")?).map_err(|error| error.to_string())?;
    let version = manifest["version"].as_str().unwrap_or("of no version").to_owned();
    Ok((version, read(file)?))
}
