//! What a run can put into the worker's own log is bounded.

use mock_lightning::RunState;
use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::worker::Worker;

/// Bytes that a run may put there, and what the worker says itself.
const MOST: usize = 3 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_error_is_cut() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let body = "fn(() => { throw new Error('x'.repeat(5e6)); })";
    let record = end(&lightning, &worker, &queue(&lightning, one_job(body))).await;
    assert_eq!(record.state, RunState::Failed, "{:?}", record.error_type);
    worker.printed("run ended: fail").await;
    let output = worker.output();
    let longest = output.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 20_000, "{longest}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_jobs_end_when_the_run_has_had_its_part() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--tail-jobs"]).await;
    let body = "fn(s => { for (let i = 0; i < 12000; i++) console.log('line ' + i + 'x'.repeat(i % 900)); return s; })";
    let id = queue(&lightning, one_job(body));
    end(&lightning, &worker, &id).await;
    worker.printed("has filled its part of this log").await;
    worker.printed("run ended").await;
    let output = worker.output();
    assert!(output.contains("line 0") && output.len() < MOST, "{} bytes", output.len());
    assert_eq!(output.matches("has filled its part").count(), 1);
    // Another run has its own.
    let id = queue(&lightning, one_job("fn(s => { console.log('of another run'); return s; })"));
    end(&lightning, &worker, &id).await;
    worker.printed("of another run").await;
    worker.stop().await;
}
