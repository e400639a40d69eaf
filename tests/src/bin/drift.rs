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

/// The version and one file of the newest version of a package, which is unpacked and not installed.
fn fetch(package: &str, file: &str, folder: &Path) -> Result<(String, String), String> {
    let mut pack = Command::new("npm");
    pack.args(["pack", "--json", "--pack-destination"]).arg(folder).arg(format!("{package}@latest"));
    let listed: serde_json::Value = serde_json::from_slice(&run(&mut pack)?)
        .map_err(|error| format!("npm did not say where it put {package}: {error}"))?;
    let name = listed[0]["filename"].as_str().ok_or_else(|| format!("npm did not say where it put {package}"))?;
    let packed = folder.join(name);
    let text = |path: &str| {
        let mut tar = Command::new("tar");
        tar.arg("-xOzf").arg(&packed).arg(format!("package/{path}"));
        run(&mut tar).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let manifest: serde_json::Value =
        serde_json::from_str(&text("package.json")?).map_err(|error| error.to_string())?;
    let version = manifest["version"].as_str().unwrap_or("of no version").to_owned();
    Ok((version, text(file)?))
}

/// What a program prints; an error if it cannot be started or fails.
fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("cannot start {program}: {error}"))?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{program} failed: {}", output.status)) }
}
