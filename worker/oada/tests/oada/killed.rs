//! Processes that are killed in the middle of a job.

use rustix::process::Signal;
use serde_json::json;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;
use tests::worker::send;

use crate::support::{body, finished, place, shelves, statuses};

/// Never ends.
const STUCK: &str = "export default (job, { log }) => log.info('begun').then(() => new Promise(() => {}));";

async fn begun(oada: &Oada, key: &str) {
    let path = format!("/resources/{key}/updates");
    oada.until("the handler's first update", |oada| {
        oada.get(&path)?.as_object()?.values().any(|update| update["status"] == "begun").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_fails_its_job_and_nothing_else() {
    let oada = Oada::start().await;
    let quick = "export default () => 'done';";
    let worker = OadaWorker::start(&oada, &[("stuck", STUCK), ("quick", quick)], &["--warm-hosts", "1"]).await;
    place(&oada, "J", body("stuck", json!({})));
    begun(&oada, "J").await;
    for host in worker.hosts() {
        send(host.pid, Signal::KILL);
    }
    let job = finished(&oada, "J").await;
    assert_eq!((job.failure_type(), statuses(&job)), (Some("host"), vec!["started", "begun", "failure"]));
    assert!(job.result.as_ref().unwrap()["message"].as_str().unwrap().contains("signal"), "{:?}", job.result);
    assert_eq!(shelves(&oada, "J"), ["failure", "typed-failure/host"]);
    place(&oada, "K", body("quick", json!({})));
    assert_eq!(finished(&oada, "K").await.result, Some(json!("done")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_leaves_a_job_that_its_successor_completes_once() {
    let oada = Oada::start().await;
    let options = ["--claim", "2"];
    let worker = OadaWorker::start(&oada, &[("stuck", STUCK)], &options).await;
    place(&oada, "J", body("stuck", json!({})));
    begun(&oada, "J").await;
    let folder = worker.kill().await;
    std::fs::write(folder.path().join("handlers/stuck.js"), "export default () => 'completed';").unwrap();
    let worker = OadaWorker::start_in(&oada, folder, &options).await;
    let job = finished(&oada, "J").await;
    assert_eq!(job.result, Some(json!("completed")));
    assert_eq!(statuses(&job), ["started", "begun", "started", "success"]);
    worker.stop().await;
    assert_eq!(shelves(&oada, "J"), ["success"]);
}
