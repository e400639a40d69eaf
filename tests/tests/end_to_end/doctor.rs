//! What `worker doctor` tells of the machine and of the options.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tests::binaries;
use tests::plain_user::PlainUser;

/// What it tells, and its exit code.
fn doctor(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binaries::worker());
    command.arg("doctor").args(arguments).env("WORKER_SECRET", "a secret").env("XDG_RUNTIME_DIR", std::env::temp_dir());
    let Output { status, stdout, stderr } = command.output().expect("the worker was just built");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// The line that begins like this and has this in it.
fn told(text: &str, beginning: &str, part: &str) {
    let is_it = |line: &str| line.starts_with(beginning) && line.contains(part);
    assert!(text.lines().any(is_it), "{beginning:?} with {part:?} is missing in:\n{text}");
}

/// The name of a program in a folder that says which Node it is.
fn fake_node(folder: &Path, version: &str) -> String {
    let node = folder.join("fake-node");
    std::fs::write(&node, format!("#!/bin/sh\necho {version}\n")).expect("the folder can be written to");
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o755)).expect("it is ours");
    node.to_str().expect("its name is text").to_owned()
}

#[test]
fn both_addresses_of_localhost_are_tried_as_the_worker_does() {
    // It is bound and does not accept, which makes a connection all the same.
    for (listens, over, not_over) in [("127.0.0.1:0", "IPv4", "IPv6"), ("[::1]:0", "IPv6", "IPv4")] {
        let Ok(listener) = TcpListener::bind(listens) else {
            eprintln!("this machine has no {listens}");
            continue;
        };
        let port = listener.local_addr().expect("it is bound").port();
        let endpoint = format!("ws://localhost:{port}/worker");
        let (code, text) = doctor(&["--engine", "embedded", "-l", &endpoint]);
        told(&text, "ok", &format!("takes connections over {over}"));
        told(&text, "note", &format!("over {not_over}"));
        assert_eq!(code, Some(0), "one is enough:\n{text}");

        drop(listener);
        let (code, text) = doctor(&["--engine", "embedded", "-l", &endpoint]);
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            told(&text, "BAD", &format!("({address}): "));
        }
        assert_eq!(code, Some(1), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_compared_with_lightnings_and_the_key_is_looked_at() {
    let lightning = tests::lightning::start(tests::lightning::LightningOptions::default()).await;
    let endpoint = lightning.url();
    let look = move || doctor(&["--engine", "embedded", "-l", &endpoint]);
    let (_, text) = tokio::task::spawn_blocking(look).await.expect("it does not panic");
    told(&text, "ok    clock", "this clock is Lightning's");
    told(&text, "note  key", "run tokens are not verified");
}

#[test]
fn it_looks_at_what_the_configuration_file_says() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    std::fs::write(&config, "lightning = \"ws://lightning.invalid/worker\"\nengine = \"embedded\"\n")
        .expect("the folder can be written to");
    let (code, text) = doctor(&["--config", config.to_str().expect("its name is text")]);
    told(&text, "BAD", "ws://lightning.invalid/worker: cannot resolve lightning.invalid");
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn the_node_and_the_repo_that_are_named_are_looked_at() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let name = |path: &Path| path.to_str().expect("its name is text").to_owned();
    let repo = folder.path().join("repo/inside");
    let node = fake_node(folder.path(), "v18.0.0");
    let (code, text) = doctor(&["--node", &node, "--repo-dir", &name(&repo)]);
    told(&text, "BAD", "is Node 18.0.0; 20 or newer is needed");
    assert_eq!(code, Some(1), "{text}");

    fake_node(folder.path(), "v24.1.0");
    let (_, text) = doctor(&["--node", &node, "--repo-dir", &name(&repo)]);
    told(&text, "ok", &format!("24.1.0 at {node}"));
    told(&text, "ok", &format!("can be installed into {}", name(&repo)));
    assert!(!repo.exists(), "nothing is made");

    let (code, text) = doctor(&["--node", &node, "--repo-dir", &format!("{node}/repo")]);
    told(&text, "BAD", "cannot be written to (--repo-dir, WORKER_REPO_DIR): Not a directory");
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_repo_among_what_the_kernel_shows_cannot_be_made() {
    let node = tempfile::tempdir().expect("there is a temporary folder");
    let node = fake_node(node.path(), "v24.1.0");
    for repo in ["/proc/repo", "/sys/a/repo"] {
        let (code, text) = doctor(&["--node", &node, "--repo-dir", repo]);
        told(&text, "BAD", &format!("{repo} cannot be "));
        assert_eq!(code, Some(1), "{text}");
    }
}

#[test]
fn what_stands_beside_a_repo_that_is_to_be_made_is_not_its_own() {
    let user = PlainUser::new();
    let home = user.folder("home");
    let node = fake_node(&home, "v24.1.0");
    let foreign = home.join("foreign");
    std::fs::create_dir(&foreign).expect("the folder is new");
    std::fs::set_permissions(&foreign, PermissionsExt::from_mode(0o555)).expect("it is ours");
    let doctor = |repo: &Path| {
        let mut command = Command::new(user.worker());
        command.args(["doctor", "--node", &node, "--repo-dir"]).arg(repo).env("WORKER_SECRET", "a secret");
        command.env("XDG_RUNTIME_DIR", &home).env("HOME", &home).current_dir("/");
        let output = user.start(&mut command, Command::output).expect("the worker was just copied");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    told(&doctor(&home.join("repo")), "ok", "can be installed into");
    told(&doctor(&home), "note", &format!("cannot be written to, {}", foreign.display()));
}

/// All files and folders below one, and all control groups of this process's hierarchy.
fn everything(below: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            [if is_folder { everything(&path) } else { Vec::new() }, vec![path]].concat()
        })
        .collect()
}

#[test]
fn it_only_looks() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    // Alone, so that its host program has to be unpacked.
    let program = folder.path().join("worker");
    std::fs::copy(binaries::worker(), &program).expect("there is room for the worker");
    let mine = || std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let (before, groups) = (everything(folder.path()), mine());
    let mut command = Command::new(&program);
    command.args(["doctor", "--cgroups", "--engine", "embedded"]).env("XDG_RUNTIME_DIR", folder.path());
    command.env("WORKER_SECRET", "a secret").env("HOME", folder.path()).env_remove("XDG_CACHE_HOME");
    let output = command.output().expect("the worker was just copied");
    let text = String::from_utf8_lossy(&output.stdout);
    told(&text, "ok", "answers after");
    told(&text, "ok", "no worker that this user could ask runs here");
    assert!(text.contains("memory"), "{text}");
    assert_eq!(everything(folder.path()), before, "{text}");
    assert_eq!(mine(), groups, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_the_worker_that_runs() {
    let runtime = tempfile::tempdir().expect("there is a temporary folder");
    let lightning = tests::lightning::start(Default::default()).await;
    let worker = tests::worker::Worker::start_in(&lightning, &["--capacity", "3"], runtime.path()).await;
    worker.printed("connected").await;
    let mut command = Command::new(binaries::worker());
    command.args(["doctor", "--engine", "embedded", "-l", &lightning.url()]).env("WORKER_SECRET", "a secret");
    let output = command.env("XDG_RUNTIME_DIR", runtime.path()).output().expect("the worker was just built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    told(&text, "ok", &format!("(process {})", worker.pid()));
    told(&text, "ok", "0 of 3 runs active");
    worker.stop().await;
}
