//! What the system lets the service open is looked at before it begins.

use serde_json::json;
use tests::binaries;
use tests::oada::program::OadaWorker;
use tests::oada::{Oada, TOKEN};
use tokio::process::Command;

use crate::support::{body, finished, place, within};

#[tokio::test(flavor = "multi_thread")]
async fn too_few_open_files_for_the_concurrency_are_an_error_at_once() {
    let oada = Oada::start().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).expect("it can be written");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 64; exec \"$0\" oada --service demo --concurrency 20 --port 0 \"$@\""])
        .arg(binaries::worker())
        .args(["--domain", &oada.url(), "--token-file"])
        .arg(&token)
        .arg("--handlers")
        .arg(folder.path())
        .kill_on_drop(true);
    let output = within("its end", &oada, command.output()).await.expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for part in ["64 files", "--concurrency 20", "WORKER_OADA_CONCURRENCY", "ulimit -n"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert_eq!(oada.trace().len(), 0, "the store is not asked for anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_may_be_raised_is_raised() {
    let oada = Oada::start().await;
    let handlers = [("quick", "export default () => 'done';")];
    let worker = OadaWorker::start_limited(&oada, &handlers, "ulimit -Sn 64").await;
    place(&oada, "JOB", body("quick", json!({})));
    assert_eq!(finished(&oada, "JOB").await.result, Some(json!("done")), "{}", worker.output());
    worker.stop().await;
}
