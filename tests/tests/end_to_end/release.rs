//! One version everywhere, and workflows that run what they name and may do no more than they must.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text between quotes in the first line that begins like this.
fn quoted<'a>(text: &'a str, beginning: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(beginning));
    line.unwrap_or_else(|| panic!("there is no line {beginning}")).trim().trim_matches('"')
}

fn workflows() -> Vec<(String, String)> {
    let folder = root().join(".github/workflows");
    let files = fs::read_dir(&folder).expect("there are workflows").map(|entry| entry.expect("it can be read").path());
    let named = files.map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("it is text")));
    named.collect()
}

#[test]
fn every_place_names_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("deploy/helm/openfn-worker/Chart.yaml");
    for key in ["version:", "appVersion:"] {
        assert_eq!(quoted(&chart, key), version, "{key} in Chart.yaml");
    }
    let heading = format!("\n## [{version}]");
    assert!(read("CHANGELOG.md").contains(&heading), "CHANGELOG.md has nothing on {version}");
}

#[test]
fn workflows_build_with_the_oldest_rust_that_is_promised() {
    let promised = quoted(&read("Cargo.toml"), "rust-version =").to_owned();
    for (name, text) in workflows() {
        assert_eq!(quoted(&text, "RUSTUP_TOOLCHAIN:"), promised, "{name}");
    }
    assert!(read("deploy/Dockerfile").contains(&format!("FROM rust:{promised}-")), "the image is built with another");
    for page in ["README.md", "CONTRIBUTING.md", "docs/versions.md"] {
        assert!(read(page).contains(&promised), "{page} does not name Rust {promised}");
    }
}

#[test]
fn actions_are_pinned_to_commits() {
    for (name, text) in workflows() {
        let used: Vec<_> = text.lines().filter_map(|line| line.split_once("uses: ").map(|(_, what)| what)).collect();
        assert!(!used.is_empty(), "{name} uses nothing");
        for action in used {
            let pinned = action.split_once('@').and_then(|(_, rest)| rest.split_once(" # v"));
            let is_commit = pinned.is_some_and(|(commit, _)| {
                commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            });
            assert!(is_commit, "{name}: {action} is not pinned to a commit with its version beside it");
        }
    }
}

#[test]
fn workflows_have_no_permission_but_what_a_job_names() {
    for (name, text) in workflows() {
        assert!(text.contains("\npermissions: {}\n"), "{name} gives permissions to all of its jobs");
        let jobs = text.lines().skip_while(|line| *line != "jobs:");
        let count = |what: &str| jobs.clone().filter(|line| line.starts_with(what)).count();
        let is_job = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
        let named = jobs.clone().filter(is_job).count();
        assert!(named > 0);
        assert_eq!(count("    permissions:"), named, "{name}: a job does not name its permissions");
        assert_eq!(count("    timeout-minutes:"), named, "{name}: a job has no time limit");
    }
}

#[test]
fn what_workflows_run_is_there() {
    for (name, text) in workflows() {
        for folder in ["deploy/", "tests/", ".ci/"] {
            let starts = text.match_indices(folder).filter(|(at, _)| text[..*at].ends_with([' ', '\n']));
            for path in starts.map(|(at, _)| text[at..].split_whitespace().next().unwrap_or_default()) {
                assert!(root().join(path).exists(), "{name} names {path}, which is not there");
            }
        }
    }
}

#[test]
fn npm_packages_name_the_repository_that_publishes_them() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let manifest = |package: &str| folder.path().join(package).join("package.json");
    let packages = ["openfn-worker", "openfn-worker-linux-arm64"];
    for package in packages {
        fs::create_dir(folder.path().join(package)).expect("the folder is new");
    }
    fs::copy(root().join("deploy/npm/openfn-worker/package.json"), manifest(packages[0])).expect("there is room");
    for (server, expected) in [(Some("https://git.example"), "git+https://git.example/some/worker.git"), (None, "")] {
        let mut node = Command::new("node");
        node.arg(root().join("deploy/npm/manifests.mjs")).arg(folder.path()).args(["1.2.3", "arm64"]);
        node.env_remove("GITHUB_SERVER_URL").env("GITHUB_REPOSITORY", "some/worker");
        node.envs(server.map(|server| ("GITHUB_SERVER_URL", server)));
        assert!(node.status().expect("there is a Node").success());
        for package in packages {
            let written = fs::read_to_string(manifest(package)).expect("it was written");
            let written: Value = serde_json::from_str(&written).expect("it is JSON");
            assert_eq!(written["version"], "1.2.3");
            assert_eq!(written["repository"]["url"].as_str().unwrap_or_default(), expected, "{package}");
        }
    }
}
