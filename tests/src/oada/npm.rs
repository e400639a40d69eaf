//! The real `@oada/client`, installed from the npm registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binaries;

/// The scripts that use it, and what they need.
const FILES: [&str; 3] = ["package.json", "conformance.mjs", "post_job.mjs"];

/// A folder with the client and the scripts of `data/oada-client` in it. Installed once in each test process; npm's
/// own cache makes that short.
pub fn real_client() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = binaries::target().join("oada-client");
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oada-client");
        for file in FILES {
            fs::copy(data.join(file), folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent"]);
        let output = command.current_dir(&folder).output().expect("npm is installed");
        assert!(output.status.success(), "npm install: {}", String::from_utf8_lossy(&output.stderr));
        folder
    })
}

/// Runs one of the scripts with Node; gives back what it printed, and fails if it failed.
pub async fn run(script: &str, arguments: &[&str]) -> String {
    let folder = tokio::task::spawn_blocking(real_client).await.expect("the installation does not panic");
    let mut command = tokio::process::Command::new("node");
    command.arg(script).args(arguments).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(crate::lightning::DEADLINE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{script} did not end")).expect("node is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} failed\n{out}\n{err}");
    out.into_owned()
}
