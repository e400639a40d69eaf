//! What a service tells over HTTP: whether it lives, whether it can work off jobs, and what it has counted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lightning::DEADLINE;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;

use crate::support::{PENDING, body, finished, place};

async fn readiness(worker: &OadaWorker, status: u16) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let (is, body) = worker.http("GET", "/readyz").await;
        if is == status {
            return serde_json::from_str(&body).unwrap();
        }
        assert!(Instant::now() < end, "{is} {body}\n{}", worker.output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_while_it_hears_of_its_jobs() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[], &[]).await;
    for path in ["/", "/livez"] {
        assert_eq!(worker.http("GET", path).await, (200, "OK".to_owned()), "{path}");
    }
    assert_eq!(worker.http("POST", "/claim").await.0, 404);
    let ready = readiness(&worker, 200).await;
    let conditions =
        ["ready", "engine_answered", "store_connected", "queue_watched", "token_accepted", "handlers_usable"];
    for condition in conditions.into_iter().chain(["circuit_closed", "not_draining"]) {
        assert_eq!(ready[condition], true, "{ready}");
    }
    assert_eq!(ready["unwatched_queues"], json!([]));

    drop(oada);
    let unready = readiness(&worker, 503).await;
    assert_eq!((&unready["store_connected"], &unready["queue_watched"]), (&json!(false), &json!(false)), "{unready}");
    assert_eq!(unready["engine_answered"], true, "{unready}");
    assert_eq!(worker.http("GET", "/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_counted_and_their_durations_are_in_the_unit_of_their_buckets() {
    let oada = Oada::start().await;
    let slow = "export default () => new Promise((resolve) => setTimeout(resolve, 1200));";
    let handlers = [("slow", slow), ("bad", "export default () => { throw new Error('no'); };")];
    let worker = OadaWorker::start(&oada, &handlers, &[]).await;
    place(&oada, "A", body("slow", json!({})));
    place(&oada, "B", body("bad", json!({})));
    place(&oada, "C", body("of a type that nobody knows", json!({})));
    for key in ["A", "B", "C"] {
        finished(&oada, key).await;
    }
    let lines = [
        r#"openfn_worker_oada_jobs{service="demo",type="slow",state="success"} 1"#,
        r#"openfn_worker_oada_jobs{service="demo",type="slow",state="queued"} 0"#,
        r#"openfn_worker_oada_jobs{service="demo",type="slow",state="running"} 0"#,
        r#"openfn_worker_oada_jobs{service="demo",type="bad",state="failure"} 1"#,
        r#"openfn_worker_oada_jobs{service="demo",type="unknown",state="failure"} 1"#,
        // More than a second, and far from what milliseconds would be.
        r#"openfn_worker_oada_job_duration_seconds_bucket{le="1.0",service="demo",type="slow",status="success"} 0"#,
        r#"openfn_worker_oada_job_duration_seconds_count{service="demo",type="slow",status="success"} 1"#,
        r#"openfn_worker_oada_job_duration_seconds_count{service="demo",type="bad",status="failure"} 1"#,
    ];
    let text = counted(&worker, &lines).await;
    let sum = r#"openfn_worker_oada_job_duration_seconds_sum{service="demo",type="slow",status="success"} "#;
    let sum: f64 = text.lines().find_map(|line| line.strip_prefix(sum)).unwrap().parse().unwrap();
    assert!((1.2..600.0).contains(&sum), "{sum}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_are_counted_as_queued() {
    let oada = Oada::start().await;
    let handlers = [("waits", "export default () => new Promise(() => {});")];
    let worker = OadaWorker::start(&oada, &handlers, &["--concurrency", "1", "--shutdown-grace", "1"]).await;
    for key in ["A", "B", "C"] {
        place(&oada, key, body("waits", json!({})));
    }
    let lines = [
        r#"openfn_worker_oada_jobs{service="demo",type="waits",state="running"} 1"#,
        r#"openfn_worker_oada_jobs{service="demo",type="waits",state="queued"} 1"#,
        r#"openfn_worker_oada_jobs{service="demo",type="unread",state="queued"} 2"#,
    ];
    counted(&worker, &lines).await;
    oada.delete(&format!("{PENDING}/C"));
    counted(&worker, &[r#"openfn_worker_oada_jobs{service="demo",type="unread",state="queued"} 1"#]).await;
    worker.stop().await;
}

/// Waits until all of these lines are among the metrics, and gives back all of them.
async fn counted(worker: &OadaWorker, lines: &[&str]) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let (status, text) = worker.http("GET", "/metrics").await;
        assert_eq!(status, 200);
        let Some(missing) = lines.iter().find(|line| !text.lines().any(|it| it == **line)) else { return text };
        assert!(Instant::now() < end, "{missing} is missing in:\n{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
