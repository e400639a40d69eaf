//! A job that takes too long is ended, and what its handler does after that is refused.

use std::sync::Arc;
use std::time::Duration;

use oada::JobError;
use serde_json::{Value, json};
use tests::lightning::DEADLINE;
use tests::oada::Oada;
use tokio::sync::Mutex;
use tokio::sync::oneshot;

use crate::support::{body, demo, finished, place, shelves, start, statuses};

#[tokio::test]
async fn late_updates_and_results_are_refused() {
    let oada = Oada::start().await;
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let service = demo(&oada).on("slow", Duration::from_millis(50), move |_, context| {
        let tell = tell.clone();
        async move {
            context.cancelled().await;
            let late = context.log.info("late-update", None).await;
            let put = context.oada.put("/resources/late", "application/json", json!({})).await;
            tell.lock().await.take().unwrap().send((late, put)).unwrap();
            Ok::<_, JobError>(json!("too late"))
        }
    });
    let _service = start(&oada, service).await;
    place(&oada, "J", body("slow", json!({})));
    let job = finished(&oada, "J").await;
    let (late, put) = tokio::time::timeout(DEADLINE, told).await.unwrap().unwrap();
    assert!(late.unwrap_err().to_string().contains("is over") && put.is_err());
    let message = "Job exceeded the allowed 50 ms running limit";
    let stack = format!("TimeoutError: {message}");
    let expected = json!({ "name": "TimeoutError", "message": message, "stack": stack });
    assert_eq!(job.result, Some(expected));
    assert_eq!(statuses(&crate::support::read(&oada, "J")), ["started", "failure"]);
    assert_eq!(shelves(&oada, "J"), ["failure", "typed-failure/timeout"]);
    assert_eq!(oada.get("/resources/late"), None);
}

#[tokio::test]
async fn a_handler_that_never_ends_gives_its_slot_back() {
    let oada = Oada::start().await;
    let service = demo(&oada).concurrency(1).on("stuck", Duration::from_millis(20), |_, _| async {
        std::future::pending::<()>().await;
        Ok::<_, JobError>(Value::Null)
    });
    let _service = start(&oada, service).await;
    for key in ["A", "B", "C"] {
        place(&oada, key, body("stuck", json!({})));
    }
    for key in ["A", "B", "C"] {
        assert_eq!(finished(&oada, key).await.failure_type(), Some("timeout"));
    }
}
