//! All kinds of changes in the pending list.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::service::ServiceOptions;
use oada::{JobError, Service};
use serde_json::{Value, json};
use tests::oada::Oada;

use crate::support::{
    JOB, JOBS, LONG, PENDING, body, demo, finished, make_lists, place, read, shelves, start, statuses,
};

/// A service whose jobs of type `ok` are counted, and those of type `wait` end only when they are cancelled.
async fn counting(oada: &Oada, change: impl FnOnce(&mut ServiceOptions)) -> (Service, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let service = demo(oada)
        .options(change)
        .on("ok", LONG, move |_, context| {
            let counter = Arc::clone(&counter);
            async move {
                counter.fetch_add(1, Ordering::SeqCst);
                context.log.info("working", None).await.map_err(|error| JobError::of(&error))?;
                Ok::<_, JobError>(json!(1))
            }
        })
        .on("wait", LONG, |_, context| async move {
            context.cancelled().await;
            Ok::<_, JobError>(Value::Null)
        });
    (start(oada, service).await, runs)
}

async fn started(oada: &Oada, key: &str) {
    let path = format!("/resources/{key}/updates");
    oada.until("the start of the job", |oada| oada.get(&path).map(drop)).await;
}

#[tokio::test]
async fn a_job_whose_link_is_deleted_while_it_runs_is_cancelled() {
    let oada = Oada::start().await;
    let _service = counting(&oada, |_| {}).await;
    place(&oada, "J", body("wait", json!({})));
    started(&oada, "J").await;
    oada.delete(&format!("{PENDING}/J"));
    let job = finished(&oada, "J").await;
    oada.until("the filing", |oada| (shelves(oada, "J").len() == 2).then_some(())).await;
    assert_eq!(job.failure_type(), Some("cancelled"));
    assert_eq!(shelves(&oada, "J"), ["failure", "typed-failure/cancelled"]);
}

#[tokio::test]
async fn a_job_whose_link_is_deleted_while_it_waits_is_dropped() {
    let oada = Oada::start().await;
    let (service, runs) = counting(&oada, |options| options.concurrency = 1).await;
    place(&oada, "FIRST", body("wait", json!({})));
    started(&oada, "FIRST").await;
    place(&oada, "SECOND", body("ok", json!({})));
    oada.delete(&format!("{PENDING}/SECOND"));
    oada.delete(&format!("{PENDING}/FIRST"));
    place(&oada, "THIRD", body("ok", json!({})));
    finished(&oada, "THIRD").await;
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(oada.get("/resources/SECOND/status"), None);
}

#[tokio::test]
async fn a_versioned_link_tells_of_every_update_and_still_means_one_run() {
    let oada = Oada::start().await;
    make_lists(&oada);
    let (service, runs) = counting(&oada, |_| {}).await;
    oada.put("/resources/J", JOB, body("ok", json!({})));
    oada.link(PENDING, "J", json!({ "_id": "resources/J", "_rev": 0 }));
    assert_eq!(statuses(&finished(&oada, "J").await), ["started", "working", "success"]);
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_entry_without_an_id_does_not_hide_those_behind_it() {
    let oada = Oada::start().await;
    make_lists(&oada);
    let (_service, runs) = counting(&oada, |_| {}).await;
    for key in ["A", "B"] {
        oada.put(&format!("/resources/{key}"), JOB, body("ok", json!({})));
    }
    let links = json!({ "0": { "note": "no link" }, "A": { "_id": "resources/A" }, "B": { "_id": "resources/B" } });
    oada.put(PENDING, JOBS, links);
    for key in ["A", "B"] {
        finished(&oada, key).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_link_that_leads_to_another_job_cancels_the_first() {
    let oada = Oada::start().await;
    let _service = counting(&oada, |_| {}).await;
    place(&oada, "J", body("wait", json!({})));
    started(&oada, "J").await;
    oada.put("/resources/OTHER", JOB, body("ok", json!({})));
    oada.link(PENDING, "J", json!({ "_id": "resources/OTHER" }));
    oada.until("both ends", |oada| {
        let status = |id: &str| oada.get(&format!("/resources/{id}/status"));
        (status("J") == Some(json!("failure")) && status("OTHER") == Some(json!("success"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changes_that_come_twice_or_out_of_order_or_not_at_all_lose_no_job() {
    let oada = Oada::start().await;
    let (service, runs) = counting(&oada, |options| options.verify_interval = Duration::from_millis(200)).await;
    oada.duplicate_changes(true);
    place(&oada, "A", body("ok", json!({})));
    finished(&oada, "A").await;
    oada.duplicate_changes(false);
    oada.swap_changes(true);
    place(&oada, "B", body("ok", json!({})));
    place(&oada, "C", body("ok", json!({})));
    finished(&oada, "B").await;
    finished(&oada, "C").await;
    oada.swap_changes(false);
    oada.withhold_changes(true);
    place(&oada, "D", body("ok", json!({})));
    finished(&oada, "D").await;
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_list_that_is_deleted_is_made_again() {
    let oada = Oada::start().await;
    let _service = counting(&oada, |options| options.verify_interval = Duration::from_millis(100)).await;
    place(&oada, "A", body("ok", json!({})));
    finished(&oada, "A").await;
    let before = oada.get(PENDING).unwrap()["_id"].clone();
    oada.delete(PENDING);
    oada.until("a new list", |oada| oada.get(PENDING).filter(|list| list["_id"] != before)).await;
    place(&oada, "B", body("ok", json!({})));
    finished(&oada, "B").await;
}

#[tokio::test]
async fn a_list_whose_resource_is_deleted_is_made_again() {
    let oada = Oada::start().await;
    let _service = counting(&oada, |_| {}).await;
    let before = oada.get(PENDING).unwrap()["_id"].as_str().unwrap().to_owned();
    oada.delete(&format!("/{before}"));
    oada.until("a new list", |oada| oada.get(PENDING).filter(|list| list["_id"] != before)).await;
    place(&oada, "A", body("ok", json!({})));
    finished(&oada, "A").await;
}

#[tokio::test]
async fn a_link_that_is_moved_means_one_run() {
    let oada = Oada::start().await;
    let (service, runs) = counting(&oada, |options| options.concurrency = 1).await;
    place(&oada, "FIRST", body("wait", json!({})));
    started(&oada, "FIRST").await;
    // While it waits.
    place(&oada, "J", body("ok", json!({})));
    oada.link(PENDING, "MOVED", json!({ "_id": "resources/J" }));
    oada.delete(&format!("{PENDING}/J"));
    // While it runs: it is cancelled, and is over under its new key, too.
    oada.link(PENDING, "ELSEWHERE", json!({ "_id": "resources/FIRST" }));
    oada.delete(&format!("{PENDING}/FIRST"));
    oada.until("an empty list", |oada| {
        let list = oada.get(PENDING)?;
        ["MOVED", "ELSEWHERE"].iter().all(|key| list.get(key).is_none()).then_some(())
    })
    .await;
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(statuses(&read(&oada, "J")), ["started", "working", "success"]);
    assert_eq!(statuses(&read(&oada, "FIRST")), ["started", "failure"]);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(shelves(&oada, "MOVED"), ["success"]);
}

#[tokio::test]
async fn changes_of_meta_documents_mean_nothing() {
    let oada = Oada::start().await;
    let (service, runs) = counting(&oada, |_| {}).await;
    place(&oada, "WAITS", body("wait", json!({})));
    started(&oada, "WAITS").await;
    oada.put(&format!("{PENDING}/_meta/note"), JOBS, json!({ "X": { "_id": "resources/X" }, "WAITS": null }));
    place(&oada, "J", body("ok", json!({})));
    finished(&oada, "J").await;
    assert_eq!(oada.get("/resources/WAITS/status"), None);
    service.stop(Duration::ZERO).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
