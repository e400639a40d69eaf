//! Jobs that are handled together.

use std::collections::HashMap;
use std::time::Duration;

use oada::JobError;
use oada::cron::Cron;
use oada::service::{BatchOptions, BatchOutcome};
use serde_json::json;
use tests::oada::Oada;

use crate::support::{LONG, body, demo, finished, place, start, statuses, within};

const NEVER: Duration = Duration::from_secs(3600);

fn options(size: usize, age: Duration) -> BatchOptions {
    BatchOptions { size, age, cron: None, timeout: LONG }
}

#[tokio::test]
async fn enough_jobs_make_a_batch_with_one_result_and_exceptions() {
    let oada = Oada::start().await;
    let service = demo(&oada).concurrency(1).on_batch("many", options(3, NEVER), |queue, jobs| async move {
        for (_, context) in &jobs {
            context.log.info("together", json!(jobs.len())).await.unwrap();
        }
        let each = HashMap::from([("B".to_owned(), Err(JobError::typed("not this one", "odd").into()))]);
        BatchOutcome { all: Ok(json!({ "queue": queue, "jobs": jobs.len() })), each }
    });
    let _service = start(&oada, service).await;
    for key in ["A", "B", "C"] {
        place(&oada, key, body("many", json!({})));
    }
    let (a, b, c) = (finished(&oada, "A").await, finished(&oada, "B").await, finished(&oada, "C").await);
    let expected = Some(json!({ "queue": "default-service-queue", "jobs": 3 }));
    assert_eq!((a.result.clone(), c.result), (expected.clone(), expected));
    assert_eq!(b.failure_type(), Some("odd"));
    assert_eq!(statuses(&a), ["started", "together", "success"]);
}

#[tokio::test]
async fn a_batch_is_complete_when_its_first_job_is_old_enough_or_it_is_time() {
    let oada = Oada::start().await;
    let cron = BatchOptions { cron: Some("* * * * * *".parse::<Cron>().unwrap()), ..options(100, NEVER) };
    let count = |_, jobs: Vec<_>| async move { BatchOutcome::same(Ok(json!(jobs.len()))) };
    let service = demo(&oada)
        .on_batch("aged", options(100, Duration::from_millis(50)), count)
        .on_batch("timed", cron, count)
        .on_batch("slow", BatchOptions { timeout: Duration::from_millis(20), ..options(1, NEVER) }, |_, _| async {
            std::future::pending::<BatchOutcome>().await
        })
        .on_batch("panics", options(1, NEVER), |_, jobs| async move {
            assert!(jobs.is_empty(), "no jobs wanted");
            BatchOutcome::same(Ok(json!(0)))
        });
    let _service = start(&oada, service).await;
    for kind in ["aged", "timed", "slow", "panics"] {
        place(&oada, kind, body(kind, json!({})));
    }
    assert_eq!(finished(&oada, "aged").await.result, Some(json!(1)));
    assert_eq!(finished(&oada, "timed").await.result, Some(json!(1)));
    assert_eq!(finished(&oada, "slow").await.failure_type(), Some("timeout"));
    let panicked = finished(&oada, "panics").await.result.unwrap();
    assert_eq!(panicked["message"], "the handler panicked: no jobs wanted");
}

#[tokio::test]
async fn a_batch_is_complete_when_its_service_is_to_end() {
    let oada = Oada::start().await;
    let count = |_, jobs: Vec<_>| async move { BatchOutcome::same(Ok(json!(jobs.len()))) };
    let service = start(&oada, demo(&oada).on_batch("many", options(100, NEVER), count)).await;
    for key in ["A", "B"] {
        place(&oada, key, body("many", json!({})));
        oada.until("its start", |oada| oada.get(&format!("/resources/{key}/updates"))).await;
    }
    within("the stop", &oada, service.stop(NEVER)).await;
    for key in ["A", "B"] {
        assert_eq!(finished(&oada, key).await.status.as_deref(), Some("success"), "{key}");
    }
}
