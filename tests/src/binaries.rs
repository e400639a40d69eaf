//! The programs under test, built as a user would build them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Path of the `worker` program; `engine-host` lies beside it.
///
/// Cargo is asked once in each test process, so that a test never meets a stale build.
pub fn worker() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--bin", "worker", "--message-format", "json"]);
        // With the features that a test of the workspace has, so that nothing is built a second time.
        command.arg("--workspace");
        let is_bench =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(this_test()).with_extension("rs").exists();
        command.args([if is_bench { "--bench" } else { "--test" }, this_test()]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        command.arg("--manifest-path").arg(manifest).stderr(Stdio::inherit());
        // Crates that read what cargo tells a test of its own package would be built anew for it, and the worker with them.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        let output = command.output().expect("cargo can be started, it started this test");
        assert!(output.status.success(), "the worker does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "worker")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the program that it built")
    })
}

/// The name of the test or benchmark that asks, by the name of its program: `options-0d2a3dcd25169133`.
fn this_test() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let program = std::env::current_exe().expect("a process knows its program");
        let name = program.file_stem().and_then(|name| name.to_str()).expect("cargo gives names in UTF-8");
        name.rsplit_once('-').expect("cargo ends them in a hash").0.to_owned()
    })
}

/// The folder that cargo builds in, where tests may keep what they install.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let folders = test.ancestors().skip(1);
    let target =
        folders.take_while(|folder| folder.parent().is_some()).find(|folder| folder.join(".rustc_info.json").exists());
    target.unwrap_or_else(|| test.parent().expect("a program lies in a folder")).to_owned()
}
