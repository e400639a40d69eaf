//! A run that succeeds, one that fails and one that cannot be compiled reach Lightning as such.

use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, messages, one_job, queue};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn success_failure_and_compile_error() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "2"]).await;

    let good = chain(&[("a", "fn(() => ({ data: { n: 1 } }))"), ("b", "fn(s => ({ data: { n: s.data.n + 1 } }))")]);
    let good = end(&lightning, &worker, &queue(&lightning, good)).await;
    assert_eq!(good.state, RunState::Success);
    assert_eq!(good.final_state, Some(json!({ "data": { "n": 2 } })));

    let bad = end(&lightning, &worker, &queue(&lightning, one_job("fn(() => { throw new Error('no') })"))).await;
    assert_eq!(bad.state, RunState::Failed);
    assert_eq!((bad.error_type.as_deref(), bad.error_message.as_deref()), (Some("JobError"), Some("no")));

    let broken = end(&lightning, &worker, &queue(&lightning, one_job("fn(s => {"))).await;
    assert_eq!(broken.state, RunState::Crashed);
    assert_eq!(broken.error_type.as_deref(), Some("CompileError"));

    worker.stop().await;
    assert_eq!(lightning.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_opens_with_versions_and_limits_and_closes_with_the_reason() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let record = end(&lightning, &worker, &queue(&lightning, one_job("fn(s => s)"))).await;

    let versions = messages(&record, "VER").join("\n");
    for part in ["worker", env!("CARGO_PKG_VERSION"), "@openfn/language-common"] {
        assert!(versions.contains(part), "{part} is missing in {versions}");
    }
    let closing = messages(&record, "R/T").pop();
    assert_eq!(closing.as_deref(), Some("Run complete with status: success"));

    let sources: Vec<&Value> =
        record.events.iter().filter(|event| event.event == "run:log").map(|event| &event.payload["source"]).collect();
    assert_eq!(sources.first(), Some(&&json!("VER")));
    worker.stop().await;
}
