//! Processes that a run starts live as long as it does and no longer, whatever becomes of other runs.

use std::path::Path;
use std::time::{Duration, Instant};

use mock_lightning::{MockLightning, RunState};
use serde_json::{Value, json};
use tests::lightning::{self, DEADLINE, LightningOptions, chain, end, queue};
use tests::node::write_local;
use tests::processes::{gone, process};
use tests::worker::Worker;

/// An adaptor whose process goes on after the shell that started it, and that waits until it is let go.
const DETACHED: &str = "const { spawn } = require('node:child_process');
    exports.begin = (folder, how) => (state) => new Promise((resolve) => {
        const line = `${how} sh -c 'echo $$ > ${folder}/part && mv ${folder}/part ${folder}/pid && exec sleep 600' &`;
        const wait = `until test -e ${folder}/go; do sleep 0.02; done`;
        spawn('sh', ['-c', line], { stdio: 'ignore' }).on('exit', () =>
            spawn('sh', ['-c', wait], { stdio: 'ignore' }).on('exit', () => resolve(state)));
    });";

fn run(lightning: &MockLightning, code: &str) -> String {
    let mut plan = chain(&[("a", code)]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-detached@local".into();
    queue(lightning, plan)
}

/// The process that a run says it has started.
async fn started(folder: &Path) -> u32 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(pid) = std::fs::read_to_string(folder.join("pid")) {
            return pid.trim().parse().expect("the shell writes a number");
        }
        assert!(Instant::now() < deadline, "it started nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_with_its_run_and_not_with_another() {
    // In its group, and in a session of its own.
    for how in ["", "setsid", "setsid -f"] {
        goes_with_its_run(how).await;
    }
}

async fn goes_with_its_run(how: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let manifest: Value = json!({
        "name": "@openfn/language-detached", "version": "1.0.0", "main": "index.js",
        "openfn": { "needs": { "child_processes": true } },
    });
    write_local(folder.path(), "detached", &manifest, DETACHED);
    let root = folder.path().display().to_string();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_unconfined(&lightning, folder.path(), &std::env::temp_dir()).await;

    let long = run(&lightning, &format!("begin('{root}', '{how}')"));
    let pid = started(folder.path()).await;
    let short = run(&lightning, "(state) => state");
    assert_eq!(end(&lightning, &worker, &short).await.state, RunState::Success, "{}", worker.output());
    // Its host is buried, with all that is nobody's.
    worker.printed("host ended").await;
    assert!(process(pid).is_some(), "the run goes on, and what it started\n{}", worker.output());

    std::fs::write(folder.path().join("go"), "").expect("the folder is ours");
    assert_eq!(end(&lightning, &worker, &long).await.state, RunState::Success, "{}", worker.output());
    assert_eq!(gone(&[pid], DEADLINE).await, [0u32; 0], "it went with its run");
    worker.stop().await;
}
