//! What delivery takes: a thousand log lines over a distance, and the worker's memory for large states.
//!
//! `cargo bench --workspace --bench delivery`.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::lightning::{self, DEADLINE, LightningOptions, end, one_job, queue};
use tests::relay;
use tests::states::{MB, ROOMY, run_with_state};
use tests::worker::Worker;

#[tokio::main]
async fn main() {
    for batched in [false, true] {
        let took = thousand_lines(batched).await;
        let how = if batched { "in batches" } else { "one by one" };
        println!("1,000 log lines, {how}, 50 ms round trip: {:.0} ms", took.as_secs_f64() * 1e3);
    }
    let lightning = lightning::start(LightningOptions { any_length: true, ..LightningOptions::default() }).await;
    let worker = Worker::start(&lightning, &ROOMY).await;
    end(&lightning, &worker, &queue(&lightning, one_job("fn(s => s)"))).await;
    for size in [10, 100] {
        let (record, rise) = run_with_state(&lightning, &worker, size * MB).await;
        let took = record.finished_at.zip(record.claimed_at).map_or(0, |(end, start)| end - start);
        let (rise, state) = (rise as f64 / MB as f64, record.state);
        println!("state of {size} MB: worker's memory +{rise:.1} MB, {:.0} ms, {state:?}", took as f64 / 1e3);
    }
    worker.stop().await;
}

/// From the start of the run to its end, as the server sees it.
async fn thousand_lines(batched: bool) -> Duration {
    let lightning = lightning::start(LightningOptions::default()).await;
    let address = relay::distant(lightning.address(), Duration::from_millis(25)).await;
    let options: &[&str] = if batched { &["--batch-logs", "--log", "warn"] } else { &["--log", "warn"] };
    let worker = Worker::start_at(&format!("ws://{address}/worker"), options, &[] as &[(&str, &str)]).await;
    while lightning.activity().queue_joins.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut events = lightning.subscribe();
    let body = "fn(s => { for (let i = 0; i < 1000; i += 1) console.log('line', i); return s; })";
    lightning.queue_run(json!(one_job(body))).expect("the plan is valid");
    lightning.wake();
    let mut began = None;
    let waited = Instant::now();
    loop {
        assert!(waited.elapsed() < DEADLINE, "the run does not end");
        let event = events.recv().await.expect("the double lives");
        match event.event.as_str() {
            "run:start" => began = Some(event.at),
            "run:complete" => {
                worker.stop().await;
                return Duration::from_micros(event.at - began.unwrap_or(event.at));
            }
            _ => {}
        }
    }
}
