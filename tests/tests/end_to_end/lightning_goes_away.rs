//! A Lightning that goes away for a while costs no run and no line, and nothing arrives twice.

use mock_lightning::RunState;
use tests::lightning::{self, LightningOptions, end, logged, messages, one_job, queue, until};
use tests::worker::Worker;

const TEN_LINES: &str = "fn(async s => {
  for (let i = 0; i < 10; i += 1) { console.log('line ' + i); await new Promise(r => setTimeout(r, 60)); }
  return { data: 'done' };
})";

fn ten_lines() -> Vec<String> {
    (0..10).map(|n| format!("line {n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_sockets_lose_nothing() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "3"]).await;
    let ids: Vec<String> = (0..3).map(|_| queue(&lightning, one_job(TEN_LINES))).collect();
    for id in &ids {
        until(&lightning, &worker, id, |record| logged(record, "line 3")).await;
        lightning.cut_sockets();
    }
    for id in &ids {
        let record = end(&lightning, &worker, id).await;
        assert_eq!(record.state, RunState::Success);
        assert_eq!(messages(&record, "JOB"), ten_lines(), "{}", worker.output());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_meanwhile_is_reported_afterwards() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--tail-jobs"]).await;
    let id = queue(&lightning, one_job(TEN_LINES));
    until(&lightning, &worker, &id, |record| logged(record, "line 0")).await;
    lightning.stop_listening().await;
    lightning.cut_sockets();
    worker.printed("[JOB] line 9").await;
    lightning.listen_again().await.expect("its port is still free");

    let record = end(&lightning, &worker, &id).await;
    assert_eq!(record.state, RunState::Success);
    assert_eq!(messages(&record, "JOB"), ten_lines());
    let next = queue(&lightning, one_job("fn(s => s)"));
    assert_eq!(end(&lightning, &worker, &next).await.state, RunState::Success);
    worker.stop().await;
}
