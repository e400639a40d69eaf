//! Jobs that fail are run again as often as their type says, and then put with the dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::JobError;
use oada::service::{Retry, TypeOptions};
use serde_json::json;
use tests::oada::Oada;

use crate::support::{LONG, body, demo, finished, place, shelves, start, statuses};

#[tokio::test]
async fn a_job_that_fails_is_run_again_until_it_succeeds_or_is_dead() {
    let oada = Oada::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let options =
        TypeOptions { retry: Retry { attempts: 3, pause: Duration::from_millis(10) }, ..TypeOptions::new(LONG) };
    let service = demo(&oada).on_with("flaky", options, move |job, _| {
        let counter = Arc::clone(&counter);
        async move {
            let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
            match job.config.get("works_at").and_then(serde_json::Value::as_u64) {
                Some(at) if run as u64 == at => Ok(json!(run)),
                _ => Err(JobError::typed("not yet", "flaky")),
            }
        }
    });
    let _service = start(&oada, service).await;
    place(&oada, "GOOD", body("flaky", json!({ "works_at": 2 })));
    let job = finished(&oada, "GOOD").await;
    assert_eq!(statuses(&job), ["started", "retry", "started", "success"]);
    let retry = job.updates[1].meta.as_ref().unwrap();
    assert_eq!((&retry["attempt"], &retry["failure"]["message"]), (&json!(1), &json!("not yet")));
    assert_eq!(shelves(&oada, "GOOD"), ["success"]);

    place(&oada, "BAD", body("flaky", json!({})));
    let job = finished(&oada, "BAD").await;
    assert_eq!(statuses(&job), ["started", "retry", "started", "retry", "started", "failure"]);
    assert_eq!(shelves(&oada, "BAD"), ["failure", "dead-letter", "typed-failure/flaky"]);
    assert_eq!((runs.load(Ordering::SeqCst), job.body["attempts"].as_u64()), (5, Some(3)));
}

#[tokio::test]
async fn a_job_that_takes_its_service_down_each_time_is_dead_in_the_end() {
    let oada = Oada::start().await;
    let options =
        TypeOptions { retry: Retry { attempts: 3, pause: Duration::from_millis(10) }, ..TypeOptions::new(LONG) };
    let service = demo(&oada).on_with("deadly", options, |_, _| async { Ok::<_, JobError>(json!("not run")) });
    let _service = start(&oada, service).await;
    let mut job = body("deadly", json!({}));
    job["attempts"] = json!(3);
    job["updates"] = json!({ "U": { "status": "started", "time": "2026-11-21T10:00:00.000Z" } });
    place(&oada, "J", job);
    assert_eq!(finished(&oada, "J").await.failure_type(), Some("interrupted"));
    assert_eq!(shelves(&oada, "J"), ["failure", "dead-letter", "typed-failure/interrupted"]);
}
