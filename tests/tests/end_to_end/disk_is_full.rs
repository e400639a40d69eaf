//! Where hosts have no room, they and not the runs are to blame: a run waits for another host, and nothing is claimed until
//! there is room.
//!
//! The worker keeps its folders on a small file system of its own, in a mount namespace of its own, which takes root.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mock_lightning::{MockLightning, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::{self, DEADLINE, LightningOptions, chain, end, queue};
use tests::node::write_local;
use tests::worker::Worker;

/// What the worker's file system has room for.
const MOUNT: &str = "mount -t tmpfs -o size=64m,nr_inodes=200 tmpfs \"$XDG_RUNTIME_DIR\"";

/// Why this cannot be tried here.
fn obstacle() -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new("unshare");
    let tried = command.args(["-m", "sh", "-c", MOUNT]).env("XDG_RUNTIME_DIR", folder.path()).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    }
}

struct Stage {
    lightning: MockLightning,
    worker: Worker,
    folder: tempfile::TempDir,
    plan: Value,
}

impl Stage {
    async fn set(engine: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let manifest = json!({ "name": "@openfn/language-plain", "version": "1.0.0", "main": "index.js" });
        write_local(&folder.path().join("root"), "plain", &manifest, "exports.fn = (f) => (state) => f(state);");
        std::fs::create_dir(folder.path().join("runtime")).expect("the folder is ours");
        let lightning = lightning::start(LightningOptions::default()).await;
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", &format!("{MOUNT} && exec \"$@\""), "sh"])
            .arg(binaries::worker())
            .args(["--lightning", &lightning.url(), "--port", "0", "--backoff", "0.05/0.2", "--engine", engine])
            .args(["--repo-dir", &path("repo"), "--monorepo-dir", &path("root"), "--offline"])
            .args(["--capacity", "1", "--warm-hosts", "1"])
            .env("XDG_RUNTIME_DIR", path("runtime"))
            .env("WORKER_SECRET", lightning::SECRET);
        let worker = Worker::spawn(&mut command.into());
        worker.printed("joined Lightning's queue").await;
        let mut plan = chain(&[("a", "fn((state) => ({ data: 'done' }))")]);
        if engine == "node" {
            plan["jobs"][0]["adaptor"] = "@openfn/language-plain@local".into();
        }
        Self { lightning, worker, folder, plan }
    }

    /// The worker's file system, seen from here.
    fn runtime(&self) -> PathBuf {
        let path = self.folder.path().join("runtime");
        let inside = path.strip_prefix("/").expect("it is absolute");
        Path::new("/proc").join(self.worker.pid().to_string()).join("root").join(inside).join("fill")
    }

    fn fill(&self) {
        let made = std::fs::create_dir(self.runtime());
        assert!(made.is_ok() || self.runtime().exists(), "there is room at first");
        for number in self.runtime().read_dir().expect("it is ours").count().. {
            match std::fs::write(self.runtime().join(number.to_string()), "") {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Fills it, and what the end of a host makes room for, until no host is left and the worker says so.
    async fn fill_for_good(&self) {
        let end = Instant::now() + DEADLINE;
        while !self.worker.output().contains("circuit breaker open: engine hosts keep failing") {
            assert!(Instant::now() < end, "the circuit does not open\n{}", self.worker.output());
            self.fill();
            for host in self.worker.hosts() {
                let id = i32::try_from(host.pid).ok().and_then(Pid::from_raw).expect("a pid is positive");
                // It may just have ended.
                let _ = kill_process(id, Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn empty(&self) {
        std::fs::remove_dir_all(self.runtime()).expect("it is ours");
    }

    fn queue(&self) -> String {
        queue(&self.lightning, self.plan.clone())
    }

    async fn succeeds(&self, id: &str) {
        let record = end(&self.lightning, &self.worker, id).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", self.worker.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_host_that_has_room() {
    if let Some(why) = obstacle() {
        return println!("skipped, as there is no mount namespace: {why}");
    }
    // The embedded engine needs room for its host's folder alone, Node for its own, too.
    let stage = Stage::set("node").await;
    stage.fill();
    let id = stage.queue();
    stage.worker.printed("No space left").await;
    stage.empty();
    stage.succeeds(&id).await;
    stage.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_claimed_until_there_is_room() {
    if let Some(why) = obstacle() {
        return println!("skipped, as there is no mount namespace: {why}");
    }
    for engine in ["embedded", "node"] {
        let stage = Stage::set(engine).await;
        stage.succeeds(&stage.queue()).await;
        stage.fill_for_good().await;
        let waits = stage.queue();
        let (status, body) = stage.worker.http("GET", "/readyz").await;
        assert_eq!(status, 503, "{engine}: {body}");
        let record = stage.lightning.run(&waits).expect("it was queued");
        assert_eq!(record.state, RunState::Available, "{engine}: {}", stage.worker.output());
        stage.empty();
        stage.succeeds(&waits).await;
        stage.worker.stop().await;
    }
}
