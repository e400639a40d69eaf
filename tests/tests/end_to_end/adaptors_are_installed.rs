//! `worker adaptors` with a registry on loopback: what counts as installed, whatever happens meanwhile.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tests::binaries;
use tests::lightning::DEADLINE;
use tests::processes::{descendants, gone};
use tests::registry::{Fault, Registry};
use tests::worker::send;
use tokio::process::{Child, Command};

const X: &str = "@openfn/language-x";
const SOURCE: &str = "exports.fn = (f) => (state) => f(state);";

/// A repo, and an npm cache of its own.
struct Repo {
    folder: tempfile::TempDir,
    cache: tempfile::TempDir,
}

/// What a command left.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    printed: String,
    told: String,
}

impl Repo {
    fn new() -> Self {
        let folder = || tempfile::tempdir().expect("there is room for a folder");
        Self { folder: folder(), cache: folder() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `worker adaptors` with these arguments.
    fn start(&self, registry: &Registry, arguments: &[&str]) -> Child {
        self.command(registry, arguments).spawn().expect("the worker was just built")
    }

    fn command(&self, registry: &Registry, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::worker());
        command
            .arg("adaptors")
            .args(arguments)
            .arg("--repo-dir")
            .arg(self.path())
            .env("npm_config_registry", registry.url())
            .env("npm_config_cache", self.cache.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, registry: &Registry, arguments: &[&str]) -> Outcome {
        finish(self.start(registry, arguments)).await
    }

    /// What is installed, by name and version.
    async fn list(&self, registry: &Registry) -> Vec<String> {
        let listed = self.run(registry, &["list"]).await;
        assert_eq!(listed.code, Some(0), "{listed:?}");
        let names = listed.printed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| name.starts_with('@')).map(str::to_owned).collect()
    }
}

async fn finish(child: Child) -> Outcome {
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let output = output.expect("no command takes that long").expect("a child can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), printed: text(&output.stdout), told: text(&output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_cannot_be_written_to_does_no_harm_where_there_is_a_folder_for_caches() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    let mut command = repo.command(&registry, &["install", X]);
    // Not even root makes a folder there.
    command.env_remove("npm_config_cache").env("HOME", "/dev/null").env("XDG_CACHE_HOME", repo.cache.path());
    let temporary = tempfile::tempdir().expect("there is room for a folder");
    command.env("TMPDIR", temporary.path());
    let installed = finish(command.spawn().expect("the worker was just built")).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(repo.cache.path().join("npm").is_dir(), "npm keeps there what it fetched");
    let left = temporary.path().read_dir().expect("it is still there").flatten().map(|entry| entry.path());
    assert_eq!(left.collect::<Vec<_>>(), [""; 0].map(std::path::PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adaptor_is_installed_once_and_found_without_the_registry() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    registry.publish(X, "2.0.0", SOURCE);

    let installed = repo.run(&registry, &["install", "@openfn/language-x@latest", "@openfn/language-x@1.0.0"]).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert_eq!(repo.list(&registry).await, ["@openfn/language-x@1.0.0", "@openfn/language-x@2.0.0"]);
    // The reference worker finds them, too.
    let package = std::fs::read(repo.path().join("package.json")).expect("the repo is a package");
    let package: serde_json::Value = serde_json::from_slice(&package).expect("it is JSON");
    assert_eq!(package["dependencies"]["@openfn/language-x_1.0.0"], "npm:@openfn/language-x@1.0.0");
    assert!(repo.path().join("node_modules/@openfn/language-x_2.0.0/index.js").exists());

    let before = registry.requests().len();
    let again = repo.run(&registry, &["install", "--offline", "@openfn/language-x@2.0.0", X]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let missing = repo.run(&registry, &["install", "--offline", "@openfn/language-x@3.0.0"]).await;
    assert_eq!(missing.code, Some(1));
    let why = "Error installing @openfn/language-x@3.0.0: it is not in the repo, and this worker is offline";
    assert!(missing.told.contains(why), "{missing:?}");
    assert_eq!(registry.requests().len(), before, "offline nothing is asked");

    let pruned = repo.run(&registry, &["prune", "--keep", "1"]).await;
    assert_eq!(pruned.code, Some(0), "{pruned:?}");
    assert_eq!(repo.list(&registry).await, ["@openfn/language-x@2.0.0"]);
    assert!(!repo.path().join("node_modules/@openfn/language-x_1.0.0").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_in_npms_words_and_leaves_nothing() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    registry.publish("@openfn/language-broken", "1.0.0", "throw new Error('not today')");

    let unknown = repo.run(&registry, &["install", "@openfn/language-none@1.0.0"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.told.contains("Error installing @openfn/language-none@1.0.0: Not Found - GET"), "{unknown:?}");
    let asked = registry.requests().iter().filter(|path| path.contains("language-none")).count();
    assert_eq!(asked, 1, "what does not exist is not asked for again");

    let broken = repo.run(&registry, &["install", "@openfn/language-broken@1.0.0"]).await;
    assert!(broken.told.contains("cannot be loaded: Error: not today"), "{broken:?}");

    let before = registry.requests().len();
    let foreign = repo.run(&registry, &["install", "left-pad@1.0.0"]).await;
    assert_eq!(foreign.code, Some(2), "{foreign:?}");
    assert!(foreign.told.contains("left-pad is no adaptor: only packages of @openfn"), "{foreign:?}");
    assert_eq!(registry.requests().len(), before, "it is refused before anything is fetched");

    registry.set_fault(Some(Fault::BrokenTarball));
    let cut = repo.run(&registry, &["install", "@openfn/language-x@1.0.0"]).await;
    assert_eq!(cut.code, Some(1), "{cut:?}");
    assert_eq!(repo.list(&registry).await, Vec::<String>::new());
    registry.set_fault(None);
    let mended = repo.run(&registry, &["install", "@openfn/language-x@1.0.0"]).await;
    assert_eq!(mended.code, Some(0), "{mended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_npms_settings_name_reaches_npm_and_is_told_where_it_is_missing() {
    for place in ["the repo", "the home"] {
        let (registry, repo, home) =
            (Registry::start().await, Repo::new(), tempfile::tempdir().expect("there is room"));
        registry.publish(X, "1.0.0", SOURCE);
        registry.set_fault(Some(Fault::Locked("a token of mine")));
        let folder = if place == "the repo" { repo.path() } else { home.path() };
        let host = registry.url().trim_start_matches("http:");
        let settings = format!("{host}/:_authToken=${{MY_OWN_TOKEN}}\n");
        std::fs::write(folder.join(".npmrc"), settings).expect("there is room");
        let install = async |token: Option<&str>| {
            let mut command = repo.command(&registry, &["install", "@openfn/language-x@1.0.0"]);
            command.env("HOME", home.path()).envs(token.map(|token| ("MY_OWN_TOKEN", token)));
            finish(command.spawn().expect("the worker was just built")).await
        };
        let missing = install(None).await;
        assert_eq!(missing.code, Some(1), "{place}: {missing:?}");
        let file = folder.join(".npmrc").display().to_string();
        assert!(missing.told.contains(&format!("MY_OWN_TOKEN in {file}")), "{place}: {missing:?}");
        let there = install(Some("a token of mine")).await;
        assert_eq!(there.code, Some(0), "{place}: {there:?}");
        let installation = repo.path().join(".openfn-worker/adaptors");
        for entry in std::fs::read_dir(installation).expect("it is there").flatten() {
            assert!(!entry.path().join(".npmrc").exists(), "npm's settings stay where they were");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_asked_again_and_its_last_answer_holds() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    registry.set_fault(Some(Fault::Unavailable(1)));
    let late = repo.run(&registry, &["install", "@openfn/language-x@latest"]).await;
    assert_eq!(late.code, Some(0), "{late:?}");
    assert!(late.told.contains("trying again in"), "{late:?}");

    registry.set_fault(Some(Fault::Unavailable(u32::MAX)));
    let down = repo.run(&registry, &["install", "@openfn/language-x@latest"]).await;
    assert_eq!(down.code, Some(0), "{down:?}");
    assert!(down.told.contains("the registry's last answer about @openfn/language-x is used"), "{down:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_share_a_repo_install_once() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    registry.set_fault(Some(Fault::HeldTarball));
    let first = repo.start(&registry, &["install", "@openfn/language-x@1.0.0"]);
    tokio::time::timeout(DEADLINE, registry.is_holding()).await.expect("npm asks for the tarball");
    let second = repo.start(&registry, &["install", "@openfn/language-x@1.0.0"]);
    registry.go_on();
    let (first, second) = tokio::join!(finish(first), finish(second));
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{first:?}\n{second:?}");
    assert_eq!(registry.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_leaves_nothing_that_counts() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    registry.set_fault(Some(Fault::HeldTarball));
    let worker = repo.start(&registry, &["install", "@openfn/language-x@1.0.0"]);
    tokio::time::timeout(DEADLINE, registry.is_holding()).await.expect("npm asks for the tarball");
    let pid = worker.id().expect("it was not waited for");
    let family: Vec<u32> = descendants(pid).iter().map(|process| process.pid).collect();
    assert!(family.len() >= 2, "a host and npm");
    send(pid, Signal::KILL);
    assert_eq!(finish(worker).await.code, None);
    assert_eq!(gone(&family, DEADLINE).await, Vec::<u32>::new(), "all that it started is gone");
    registry.go_on();
    assert_eq!(repo.list(&registry).await, Vec::<String>::new());

    let next = repo.run(&registry, &["install", "@openfn/language-x@1.0.0"]).await;
    assert_eq!(next.code, Some(0), "nobody holds the lock any more: {next:?}");
    let unfinished = std::fs::read_dir(repo.path().join(".openfn-worker/tmp")).expect("it is there").count();
    assert_eq!(unfinished, 0, "what the dead one left was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_at_any_moment_is_replaced() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    registry.publish(X, "1.0.0", SOURCE);
    // Spread over the time that an installation takes.
    for (round, after) in [100, 400, 900, 1600, 2500].into_iter().enumerate() {
        let version = format!("1.0.{}", round + 1);
        registry.publish(X, &version, SOURCE);
        let name = format!("{X}@{version}");
        let worker = repo.start(&registry, &["install", &name]);
        let pid = worker.id().expect("it was not waited for");
        tokio::time::sleep(Duration::from_millis(after)).await;
        for host in descendants(pid).iter().filter(|process| process.name == "engine-host") {
            send(host.pid, Signal::KILL);
        }
        let outcome = finish(worker).await;
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(repo.list(&registry).await.contains(&name), "{name} after {after} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_of_the_reference_worker_is_used_as_it_is() {
    let (registry, repo) = (Registry::start().await, Repo::new());
    let write = |path: &str, text: &str| {
        let path = repo.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("there is room");
        std::fs::write(path, text).expect("there is room");
    };
    let alias = "@openfn/language-x_1.2.3";
    write("package.json", &json!({"dependencies": {alias: "npm:@openfn/language-x@^1.2.3"}}).to_string());
    write(&format!("node_modules/{alias}/package.json"), &json!({"name": X, "version": "1.2.3"}).to_string());
    write(&format!("node_modules/{alias}/index.js"), "exports.fn = require('shared').fn; exports.more = 1;");
    write("node_modules/shared/index.js", SOURCE);

    assert_eq!(repo.list(&registry).await, ["@openfn/language-x@1.2.3"]);
    let installed = repo.run(&registry, &["install", X]).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let row = installed.printed.lines().find(|line| line.starts_with(X)).expect("it is listed");
    assert!(row.contains(" 2 "), "its two exports are known: {row}");
    assert_eq!(registry.downloads(), 0);
}
