//! Two services on one queue run each job once, also when one of them dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::JobError;
use oada::service::HalfRun;
use serde_json::{Value, json};
use tests::oada::{Fault, Oada};

use crate::support::{LONG, PENDING, body, demo, finished, place, read, start, statuses};

#[tokio::test]
async fn two_services_run_each_job_once() {
    let oada = Oada::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let mut services = Vec::new();
    for _ in 0..2 {
        let runs = Arc::clone(&runs);
        let service = demo(&oada).on("ok", LONG, move |_, _| {
            let runs = Arc::clone(&runs);
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok::<_, JobError>(json!(1))
            }
        });
        services.push(start(&oada, service).await);
    }
    let keys: Vec<String> = (0..10).map(|number| place(&oada, &format!("J{number}"), body("ok", json!({})))).collect();
    for key in &keys {
        assert_eq!(statuses(&finished(&oada, key).await), ["started", "success"], "{key}\n{}", oada.told());
    }
    for service in services {
        service.stop(Duration::from_secs(60)).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 10);
}

fn abandoned(lease_ms: u64) -> Value {
    json!({ "service": "demo", "type": "ok", "claimed_by": "dead", "claimed_at": "2026-11-21T10:00:00.000Z",
        "claim_ms": lease_ms, "updates": { "U": { "status": "started", "time": "2026-11-21T10:00:00.000Z" } } })
}

#[tokio::test]
async fn the_claim_of_a_dead_service_runs_out() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    place(&oada, "LIVE", abandoned(3_600_000));
    place(&oada, "DEAD", abandoned(200));
    let job = finished(&oada, "DEAD").await;
    assert_eq!(statuses(&job), ["started", "started", "success"]);
    assert_eq!(oada.get("/resources/LIVE/status"), None, "the one that may live is left alone");
}

#[tokio::test]
async fn a_job_that_another_is_about_to_file_is_left_to_it() {
    let oada = Oada::start().await;
    let service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    let mut live = abandoned(3_600_000);
    live["status"] = json!("success");
    let mut dead = abandoned(200);
    dead["status"] = json!("success");
    place(&oada, "LIVE", live);
    place(&oada, "DEAD", dead);
    assert_eq!(statuses(&finished(&oada, "DEAD").await), ["started", "success"]);
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(statuses(&read(&oada, "LIVE")), ["started"]);
    assert!(oada.get(PENDING).unwrap().get("LIVE").is_some());
}

#[tokio::test]
async fn half_run_jobs_can_fail_instead() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .options(|options| options.half_run = HalfRun::Fail)
        .on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) });
    let _service = start(&oada, service).await;
    place(&oada, "DEAD", abandoned(1));
    assert_eq!(finished(&oada, "DEAD").await.failure_type(), Some("interrupted"));
}

#[tokio::test]
async fn a_long_job_stays_claimed() {
    let oada = Oada::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let lease = Duration::from_millis(300);
    let mut services = Vec::new();
    for _ in 0..2 {
        let runs = Arc::clone(&runs);
        let service = demo(&oada).options(|options| options.claim_lease = Some(lease)).on("ok", LONG, move |_, _| {
            let runs = Arc::clone(&runs);
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(lease * 5).await;
                Ok::<_, JobError>(json!(1))
            }
        });
        services.push(start(&oada, service).await);
    }
    place(&oada, "J", body("ok", json!({})));
    finished(&oada, "J").await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "{}", oada.told());
}

#[tokio::test]
async fn conflicts_while_claiming_and_finishing_are_no_end() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    oada.inject(Fault::status("conflict", 412).method("put").path("/resources/J").times(3));
    oada.inject(Fault::status("server", 500).method("put").path("/updates/").times(3));
    oada.inject(Fault::status("server", 500).method("delete").times(3));
    place(&oada, "J", body("ok", json!({})));
    assert_eq!(statuses(&finished(&oada, "J").await), ["started", "success"]);
    assert!(oada.happened("conflict") == 3 && oada.happened("server") == 6);
}

#[tokio::test]
async fn without_claims_jobs_are_run_as_they_come() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .options(|options| options.claim_lease = None)
        .on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) });
    let _service = start(&oada, service).await;
    place(&oada, "J", body("ok", json!({})));
    assert_eq!(finished(&oada, "J").await.body.get("claimed_by"), None);
}
