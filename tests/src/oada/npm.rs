//! The real `@oada/client` and `@oada/jobs`, installed from the npm registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binaries;

/// A folder of `data` with scripts and a `package.json`, with its packages. Installed once in each test process; npm's
/// own cache makes that short.
#[derive(Debug)]
pub struct Package {
    name: &'static str,
    installed: OnceLock<Result<PathBuf, String>>,
}

/// `@oada/client` 5.
pub static CLIENT: Package = Package::new("oada-client");
/// `@oada/jobs` 1, the only one that the registry has.
pub static JOBS: Package = Package::new("oada-jobs");

impl Package {
    const fn new(name: &'static str) -> Self {
        Self { name, installed: OnceLock::new() }
    }

    /// The folder, if the registry serves its packages.
    fn folder(&self) -> Result<&Path, String> {
        self.installed.get_or_init(|| self.install()).as_deref().map_err(Clone::clone)
    }

    fn install(&self) -> Result<PathBuf, String> {
        let folder = binaries::target().join(self.name);
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(self.name);
        for file in fs::read_dir(&data).expect("it is there") {
            let file = file.expect("it can be read").path();
            let copied = fs::copy(&file, folder.join(file.file_name().expect("it has one")));
            copied.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        let mut command = Command::new("npm");
        command.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefer-offline",
            "--loglevel=error",
        ]);
        let output = command.current_dir(&folder).output().map_err(|error| format!("npm: {error}"))?;
        match output.status.success() {
            true => Ok(folder),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Node with one of the scripts; nothing, which is said aloud, where the registry does not serve the packages.
    pub async fn script(&'static self, script: &str, arguments: &[&str]) -> Option<tokio::process::Command> {
        let folder = tokio::task::spawn_blocking(|| self.folder()).await.expect("the installation does not panic");
        match folder {
            Ok(folder) => {
                let mut command = tokio::process::Command::new("node");
                // Jobs are filed by the days of UTC here, and by local ones there.
                command.arg(script).args(arguments).current_dir(folder).env("TZ", "UTC").kill_on_drop(true);
                Some(command)
            }
            Err(why) => {
                println!("skipped: npm did not install the packages of {}: {why}", self.name);
                None
            }
        }
    }
}

/// Runs one of the client's scripts with Node; gives back what it printed, and fails if it failed. Nothing where the
/// client cannot be had.
pub async fn run(script: &str, arguments: &[&str]) -> Option<String> {
    let mut command = CLIENT.script(script, arguments).await?;
    let output = tokio::time::timeout(crate::lightning::DEADLINE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{script} did not end")).expect("node is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} failed\n{out}\n{err}");
    Some(out.into_owned())
}
