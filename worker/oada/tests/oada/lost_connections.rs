//! The service outlives the loss of its connection: no job is lost, none is run twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::JobError;
use serde_json::json;
use tests::oada::{Action, Fault, Oada};

use crate::support::{LONG, PENDING, body, demo, finished, place, start, statuses};

#[tokio::test]
async fn jobs_that_come_while_there_is_no_connection_are_run() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    for number in 0..5 {
        oada.disconnect_all();
        let key = place(&oada, &format!("J{number}"), body("ok", json!({})));
        finished(&oada, &key).await;
    }
}

#[tokio::test]
async fn lost_history_is_made_up_for_by_reading_the_list() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    oada.disconnect_all();
    place(&oada, "J", body("ok", json!({})));
    oada.forget_history(PENDING);
    finished(&oada, "J").await;
}

#[tokio::test]
async fn a_connection_that_is_lost_at_any_step_costs_nothing() {
    let oada = Oada::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let service = demo(&oada).on("ok", LONG, move |_, context| {
        let counter = Arc::clone(&counter);
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            context.log.info("working", None).await.map_err(|error| JobError::of(&error))?;
            Ok::<_, JobError>(json!(1))
        }
    });
    let service = start(&oada, service).await;
    let mut keys = Vec::new();
    for (number, action) in [Action::Disconnect, Action::DisconnectAfter].into_iter().cycle().take(16).enumerate() {
        oada.inject(Fault::new("cut", action).skip(number / 2));
        let key = place(&oada, &format!("J{number}"), body("ok", json!({})));
        let job = finished(&oada, &key).await;
        assert_eq!(statuses(&job), ["started", "working", "success"], "cut at step {}\n{}", number / 2, oada.told());
        keys.push(key);
    }
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), keys.len());
    assert_eq!(oada.happened("cut"), 16);
}
