//! A job that succeeds: its life in the store, step by step.

use std::time::Duration;

use oada::JobError;
use serde_json::{Value, json};
use tests::oada::{Direction, Fault, Oada, USER};

use crate::support::{LONG, body, demo, finished, place, shelves, start, statuses};

#[tokio::test]
async fn each_step_comes_in_its_order() {
    let oada = Oada::start().await;
    let service = demo(&oada).on("ok", LONG, |job, context| async move {
        assert_eq!(context.job_id(), "resources/J");
        context.log.info("working", json!({ "pct": 50 })).await.map_err(|error| JobError::of(&error))?;
        let me = context.oada.get("/bookmarks").await.map_err(|error| JobError::of(&error))?;
        assert_eq!(me.data.unwrap()["_type"], "application/vnd.oada.bookmarks.1+json");
        Ok::<_, JobError>(json!({ "hello": job.config["who"] }))
    });
    let service = start(&oada, service).await;
    place(&oada, "J", body("ok", json!({ "who": "world" })));
    let job = finished(&oada, "J").await;
    assert_eq!(statuses(&job), ["started", "working", "success"]);
    assert_eq!((job.status.as_deref(), job.result), (Some("success"), Some(json!({ "hello": "world" }))));
    assert_eq!(job.updates[0].meta, Some(json!("Runner started")));
    assert_eq!(job.updates[2].meta, Some(json!("Runner finshed")));
    assert_eq!(shelves(&oada, "J"), ["success"]);
    service.stop(Duration::from_secs(30)).await;

    // What clients may rely on: the status before the last update, before the filing, before the removal.
    let writes: Vec<String> = oada
        .trace()
        .into_iter()
        .filter(|entry| entry.direction == Direction::FromClient)
        .filter(|entry| matches!(entry.message["method"].as_str(), Some("put" | "delete")))
        .filter_map(|entry| step(&entry.message))
        .collect();
    assert_eq!(writes, ["claim", "started", "working", "status success", "success", "filed", "removed"]);
    assert!(USER.starts_with("users/"));
}

/// What a write does to the job.
fn step(message: &Value) -> Option<String> {
    let (path, data) = (message["path"].as_str()?, &message["data"]);
    match (message["method"].as_str()?, path) {
        ("put", "/resources/J") => match data["status"].as_str() {
            Some(status) => Some(format!("status {status}")),
            None => data.get("claimed_by").map(|_| "claim".to_owned()),
        },
        ("put", path) if path.starts_with("/resources/J/updates/") => Some(data["status"].as_str()?.to_owned()),
        ("put", path) if path.contains("/success/day-index/") => data.get("J").map(|link| {
            assert_eq!(*link, json!({ "_id": "resources/J", "_rev": 0 }));
            "filed".to_owned()
        }),
        ("delete", path) if path.ends_with("/pending/J") => Some("removed".to_owned()),
        _ => None,
    }
}

#[tokio::test]
async fn a_result_of_nothing_is_left_out() {
    let oada = Oada::start().await;
    let service = demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(Value::Null) });
    let _service = start(&oada, service).await;
    place(&oada, "J", body("ok", json!({})));
    assert_eq!(finished(&oada, "J").await.result, None);
}

#[tokio::test]
async fn jobs_that_were_there_before_the_service_are_run_unless_they_are_to_be_skipped() {
    for skip in [false, true] {
        let oada = Oada::start().await;
        place(&oada, "OLD", body("ok", json!({})));
        let service =
            demo(&oada)
                .options(|options| options.skip_queue_on_startup = skip)
                .on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) });
        let service = start(&oada, service).await;
        place(&oada, "NEW", body("ok", json!({})));
        finished(&oada, "NEW").await;
        if skip {
            service.stop(Duration::from_secs(30)).await;
            assert_eq!(oada.get("/resources/OLD/status"), None);
        } else {
            finished(&oada, "OLD").await;
        }
    }
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_there_are_slots() {
    let oada = Oada::start().await;
    let (now, most) = (
        std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)),
        std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)),
    );
    let (counter, peak) = (now.clone(), most.clone());
    let service = demo(&oada).concurrency(2).on("ok", LONG, move |_, _| {
        let (counter, peak) = (counter.clone(), peak.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            peak.fetch_max(counter.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            counter.fetch_sub(1, SeqCst);
            Ok::<_, JobError>(Value::Null)
        }
    });
    let _service = start(&oada, service).await;
    let keys: Vec<String> = (0..8).map(|number| place(&oada, &format!("J{number}"), body("ok", json!({})))).collect();
    for key in &keys {
        finished(&oada, key).await;
    }
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stopped_service_ends_its_watches_and_begins_nothing_more() {
    let oada = Oada::start().await;
    let service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    place(&oada, "J", body("ok", json!({})));
    finished(&oada, "J").await;
    service.stop(Duration::from_secs(30)).await;
    oada.until("the end of all watches", |oada| (oada.watch_count() == 0).then_some(())).await;
    assert!(oada.requests("unwatch", "").iter().all(|request| request["requestId"] != ""));
    place(&oada, "LATE", body("ok", json!({})));
    assert_eq!(oada.get("/resources/LATE/status"), None);
}

#[tokio::test]
async fn a_result_of_any_kind_is_stored_as_it_is() {
    let oada = Oada::start().await;
    let service = demo(&oada).on("ok", LONG, |job, _| async move { Ok::<_, JobError>(job.config["result"].clone()) });
    let _service = start(&oada, service).await;
    for (number, result) in [json!("text"), json!(["a", 1]), json!(0), json!(false), json!({})].into_iter().enumerate()
    {
        let key = place(&oada, &format!("J{number}"), body("ok", json!({ "result": result })));
        assert_eq!(finished(&oada, &key).await.result, Some(result));
    }
}

#[tokio::test]
async fn a_store_that_fails_at_a_step_of_the_end_is_asked_again() {
    let oada = Oada::start().await;
    let service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    // The last update, the filing, the removal; the status is the second thing that is put into the job, after the claim.
    let steps = [
        Fault::status("status", 500).method("put").path("/resources/STATUS").skip(2),
        Fault::status("update", 500).method("put").path("/resources/UPDATE/updates/").skip(1),
        Fault::status("filing", 500).method("put").path("/success/day-index/"),
        Fault::status("removal", 500).method("delete").path("/pending/REMOVAL"),
    ];
    for (key, fault) in ["STATUS", "UPDATE", "FILING", "REMOVAL"].into_iter().zip(steps) {
        oada.inject(fault.times(2));
        place(&oada, key, body("ok", json!({})));
        let job = finished(&oada, key).await;
        assert_eq!(statuses(&job), ["started", "success"], "{key}\n{}", oada.told());
        assert_eq!(shelves(&oada, key), ["success"], "{key}");
        assert_eq!(oada.happened(&key.to_lowercase()), 2, "{key}");
    }
    service.stop(Duration::from_secs(60)).await;
}
