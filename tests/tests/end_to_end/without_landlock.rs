//! Where the kernel has no Landlock, nothing confines an adaptor that starts processes or loads native code: its runs are
//! refused unless the operator allows it.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use mock_lightning::{MockLightning, RunState};
use serde_json::{Value, json};
use tests::binaries;
use tests::lesser_kernel::{Lacks, on_a_kernel_that};
use tests::lightning::{self, LightningOptions, chain, end, queue};
use tests::node::write_local;
use tests::worker::{Worker, local_adaptors};

const SHELL: &str = "const { spawnSync } = require('node:child_process');
    exports.read = (path) => () => ({ data: String(spawnSync('cat', [path]).stdout) });";
const PLAIN: &str = "exports.read = () => () => ({ data: 'nothing' });";

/// Adaptors, with what each needs, whether something confines it, its source, and the data that it leaves.
const ADAPTORS: &[(&str, &str, bool, &str, &str)] = &[
    ("shell", "child_processes", false, SHELL, "private"),
    ("native", "addons", false, PLAIN, "nothing"),
    ("threads", "workers", true, PLAIN, "nothing"),
];

fn start(lightning: &MockLightning, folder: &Path, more: &[&str]) -> Worker {
    let mut command = Command::new(binaries::worker());
    command
        .args(["--lightning", &lightning.url(), "--port", "0", "--backoff", "0.05/0.2"])
        .args(local_adaptors("node", &folder.join("root")))
        .args(more)
        .env("XDG_RUNTIME_DIR", folder.join("runtime"))
        .env("WORKER_SECRET", lightning::SECRET);
    on_a_kernel_that(Lacks::Landlock, move || Worker::spawn(&mut command.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn adaptors_that_nothing_confines_are_refused_unless_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (root, secret) = (folder.path().join("root"), folder.path().join("secret"));
    for (name, needs, _, source, _) in ADAPTORS {
        let package = format!("@openfn/language-{name}");
        let needs = json!({ *needs: true });
        let manifest = json!({ "name": package, "version": "1.0.0", "main": "index.js", "openfn": { "needs": needs } });
        write_local(&root, name, &manifest, source);
    }
    std::fs::create_dir(folder.path().join("runtime")).expect("the folder is ours");
    std::fs::write(&secret, "private").expect("the folder is ours");
    let plan = |name: &str| {
        let mut plan = chain(&[("a", &format!("read('{}')", secret.display()))]);
        plan["jobs"][0]["adaptor"] = format!("@openfn/language-{name}@local").into();
        plan
    };

    let lightning = lightning::start(LightningOptions::default()).await;
    for (more, is_allowed) in [(&[][..], false), (&["--no-landlock"], false), (&["--allow-unconfined-adaptors"], true)]
    {
        let worker = start(&lightning, folder.path(), more);
        for (name, _, is_confined, _, data) in ADAPTORS {
            let record = end(&lightning, &worker, &queue(&lightning, plan(name))).await;
            let told = || format!("{more:?} {name}: {record:?}\n{}", worker.output());
            if *is_confined || is_allowed {
                assert_eq!(record.state, RunState::Success, "{}", told());
                let found = record.final_state.as_ref().map(|state| &state["data"]);
                assert_eq!(found, Some(&Value::from(*data)), "{}", told());
            } else {
                let end = (record.state, record.error_type.as_deref());
                assert_eq!(end, (RunState::Killed, Some("SecurityError")), "{}", told());
                let message = record.error_message.clone().unwrap_or_default();
                for part in [*name, "this kernel has no Landlock", "--allow-unconfined-adaptors"] {
                    assert!(message.contains(part), "{part} is missing in {message}");
                }
            }
        }
        worker.stop().await;
    }
}

#[test]
fn doctor_says_so() {
    let told = on_a_kernel_that(Lacks::Landlock, || {
        Command::new(binaries::worker()).args(["doctor", "--secret", "s"]).output()
    });
    let told = String::from_utf8(told.expect("the worker was just built").stdout).expect("it prints text");
    let line = told.lines().find(|line| line.contains("landlock")).unwrap_or_default();
    assert!(line.contains("does not have it") && line.contains("--allow-unconfined-adaptors"), "{told}");
}
