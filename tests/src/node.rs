//! What a worker with the Node engine needs that depends on nothing outside this machine.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::registry::Registry;

/// The adaptor that the plans of [`crate::lightning::chain`] name.
pub const COMMON: (&str, &str) = ("@openfn/language-common", "3.3.4");
/// Its source: as much of it as tests use.
pub const SOURCE: &str = "exports.fn = (f) => async (state) => f(state); exports.exit = (code) => process.exit(code);";

/// Whether engines of the Node that workers of tests find are forked here, as the worker itself says.
pub fn is_forked() -> bool {
    static TOLD: LazyLock<bool> = LazyLock::new(|| {
        let output = Command::new(binaries::worker()).args(["doctor", "--secret", "s", "--engine", "node"]).output();
        let told = String::from_utf8(output.expect("the worker was just built").stdout).expect("it prints text");
        let line = told.lines().find(|line| line.contains("engines are forked") || line.contains("not forked"));
        let is_forked = line.is_some_and(|line| line.contains("are forked"));
        if !is_forked {
            println!("skipped what is about templates: {}", line.unwrap_or(&told));
        }
        is_forked
    });
    *TOLD
}

/// Writes the package of an adaptor into a monorepo.
pub fn write_local(root: &Path, short_name: &str, manifest: &Value, source: &str) {
    write_package(&root.join("packages").join(short_name), manifest, source);
}

/// Writes a package of one file into its folder.
pub fn write_package(folder: &Path, manifest: &Value, source: &str) {
    std::fs::create_dir_all(folder).expect("there is room for a package");
    std::fs::write(folder.join("package.json"), manifest.to_string()).expect("there is room for a package");
    std::fs::write(folder.join("index.js"), source).expect("there is room for a package");
}

/// A registry on loopback, and folders for adaptors and for npm.
#[derive(Debug)]
pub struct NodeGround {
    /// Where adaptors come from.
    pub registry: Registry,
    folder: TempDir,
}

impl NodeGround {
    /// With [`COMMON`] in the registry, and nothing installed.
    pub async fn start() -> Self {
        let registry = Registry::start().await;
        registry.publish(COMMON.0, COMMON.1, SOURCE);
        Self { registry, folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// Where adaptors are installed.
    pub fn repo(&self) -> std::path::PathBuf {
        self.folder.path().join("repo")
    }

    /// The variables of a worker that keeps its socket in this folder.
    pub fn variables(&self, runtime: &Path) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("XDG_RUNTIME_DIR", text(runtime)),
            ("WORKER_ENGINE", "node".into()),
            ("WORKER_REPO_DIR", text(&self.repo())),
            ("npm_config_registry", self.registry.url().into()),
            ("npm_config_cache", text(&self.folder.path().join("npm"))),
        ]
    }
}
