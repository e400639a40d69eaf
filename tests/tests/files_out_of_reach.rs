//! Where the kernel has Landlock, what a run starts uses no files but what its engine needs.

use std::process::Command;

use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::{self, LightningOptions, chain, end, queue};
use tests::node::write_local;
use tests::worker::Worker;
use worker::mock_lightning::RunState;

/// An adaptor that may start processes, which Node's own permissions do not reach.
const SHELL: &str = "const { spawnSync } = require('node:child_process');
    const said = (program, path) => String(spawnSync(program, [path]).stdout);
    exports.look = (path) => () => ({ data: { read: said('cat', path), written: spawnSync('touch', [`${path}.new`]).status === 0 } });";

fn kernel_has_landlock() -> bool {
    let output = Command::new(binaries::worker()).args(["doctor", "--secret", "s"]).output();
    let told = String::from_utf8(output.expect("the worker was just built").stdout).expect("it prints text");
    !told.contains("the kernel does not have it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_processes_read_and_write_nothing_of_others() {
    let (folder, root) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "private").expect("the folder is ours");
    let manifest = json!({
        "name": "@openfn/language-shell", "version": "1.0.0", "main": "index.js",
        "openfn": { "needs": { "child_processes": true } },
    });
    write_local(root.path(), "shell", &manifest, SHELL);

    let repo = folder.path().join("repo").display().to_string();
    let root = root.path().display().to_string();
    let usual = ["--engine", "node", "--repo-dir", &repo, "--monorepo-dir", &root, "--offline"];
    let mut plan = chain(&[("a", &format!("look('{}')", secret.display()))]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-shell@local".into();
    let reachable = json!({ "data": { "read": "private", "written": true } });
    let restricted =
        if kernel_has_landlock() { json!({ "data": { "read": "", "written": false } }) } else { reachable.clone() };
    for (more, expected) in [(&[][..], restricted), (&["--no-landlock", "--allow-unconfined-adaptors"][..], reachable)]
    {
        let lightning = lightning::start(LightningOptions::default()).await;
        let worker = Worker::start(&lightning, &[&usual[..], more].concat()).await;
        let record = end(&lightning, &worker, &queue(&lightning, plan.clone())).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
        assert_eq!(record.final_state.unwrap_or(Value::Null), expected, "{more:?}");
        worker.stop().await;
    }
}
