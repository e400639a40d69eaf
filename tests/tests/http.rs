//! What the worker answers over HTTP, and claims on request.

use std::time::Duration;

use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::worker::Worker;
use worker::mock_lightning::RunState;

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_lives() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    for path in ["/", "/livez"] {
        assert_eq!(worker.http("GET", path).await, (200, "OK".to_owned()), "{path}");
    }
    assert_eq!(worker.http("GET", "/nothing").await.0, 404);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_loop_it_claims_when_told() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--no-loop"]).await;
    worker.printed("joined").await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    // Many times its longest pause.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(lightning.run(&id).expect("it was queued").state, RunState::Available);

    assert_eq!(worker.http("POST", "/claim").await, (200, "complete".to_owned()));
    assert_eq!(end(&lightning, &worker, &id).await.state, RunState::Success);
    assert_eq!(worker.http("POST", "/claim").await.0, 204, "there is nothing more");
    worker.stop().await;
}
