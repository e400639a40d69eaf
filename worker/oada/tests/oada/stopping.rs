//! A service that is asked to stop twice ends, whatever it waits for.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tests::lightning::DEADLINE;
use tests::oada::program::OadaWorker;
use tests::oada::{Action, Fault, Oada};

use crate::support::{PENDING, body, place, read, statuses};

/// Well below the minutes that a request is given.
const SOON: Duration = Duration::from_secs(30);

const STUCK: &str = "export default (job, { log }) => log.info('begun').then(() => new Promise(() => {}));";
const ASKS: &str = "export default (job, { log, oada }) => log.info('begun').then(() => oada.get('/resources/SLOW'));";
const QUICK: &str = "export default () => 'done';";

/// Asks twice, and tells how long it took from the second time to the end.
async fn stops(oada: &Oada, worker: OadaWorker, case: &str) {
    worker.signal(Signal::TERM);
    worker.printed("signal again").await;
    let asked = Instant::now();
    worker.signal(Signal::TERM);
    let code = worker.exit(DEADLINE).await;
    assert_eq!(code, Some(0), "{case}\n{}", oada.told());
    assert!(asked.elapsed() < SOON, "{case} took {:?}\n{}", asked.elapsed(), oada.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_request_to_stop_counts_at_every_step_of_a_job_while_the_store_does_not_answer() {
    // What is not answered any more: the reading, the claim, the first update, the status, the last update, the filing,
    // the end of the link.
    let steps = [
        ("get", "/resources/JOB", 0),
        ("put", "/resources/JOB", 0),
        ("put", "/resources/JOB/updates", 0),
        ("put", "/resources/JOB", 2),
        ("put", "/resources/JOB/updates", 1),
        ("head", "/jobs/success/day-index", 0),
        ("delete", PENDING, 0),
    ];
    for (number, (method, path, skip)) in steps.into_iter().enumerate() {
        let oada = Oada::start().await;
        let worker = OadaWorker::start(&oada, &[("quick", QUICK)], &["--warm-hosts", "1"]).await;
        oada.inject(Fault::new("away", Action::Ignore).method(method).path(path).skip(skip).times(1000));
        place(&oada, "JOB", body("quick", json!({})));
        oada.until("the silence", |oada| (oada.happened("away") > 0).then_some(())).await;
        stops(&oada, worker, &format!("step {number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_request_to_stop_counts_while_a_handler_runs_and_the_store_is_away() {
    for (handler, case) in [(STUCK, "a handler"), (ASKS, "a handler's request")] {
        let oada = Oada::start().await;
        let worker = OadaWorker::start(&oada, &[("it", handler)], &["--warm-hosts", "1"]).await;
        oada.inject(Fault::new("slow", Action::Ignore).path("/resources/SLOW").times(1000));
        place(&oada, "JOB", body("it", json!({})));
        oada.until("the handler", |oada| {
            oada.get("/resources/JOB/updates")?.as_object()?.values().any(|it| it["status"] == "begun").then_some(())
        })
        .await;
        oada.inject(Fault::new("away", Action::Ignore).times(1000));
        oada.disconnect_all();
        stops(&oada, worker, case).await;
        assert_eq!(statuses(&read(&oada, "JOB")), ["started", "begun"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_at_once_where_no_job_runs_and_the_list_is_being_read() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[], &["--warm-hosts", "1"]).await;
    oada.inject(Fault::new("away", Action::Ignore).times(1000));
    oada.forget_history(PENDING);
    oada.disconnect_all();
    oada.until("the silence", |oada| (oada.happened("away") > 0).then_some(())).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit(DEADLINE).await, Some(0), "{}", oada.told());
}
