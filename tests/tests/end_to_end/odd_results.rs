//! Whatever a job returns or logs, its run reaches Lightning, over one connection.

use mock_lightning::RunState;
use serde_json::json;
use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn no_run_is_lost_to_its_values() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let bodies = [
        "fn(() => ({ data: '😀'.slice(0, 1) }))",
        "fn(s => { console.log('half \\ud800', { '\\udfff': 1 }); return s; })",
        "fn(s => ({ ...s, webhookResponse: { body: '\\ud800' } }))",
        "fn(() => { throw new Error('half \\udc00'); })",
        "fn(() => 10n)",
        "fn(() => Symbol('s'))",
        "fn(() => [1, 2])",
        "fn(() => null)",
        "fn(() => undefined)",
        "fn(() => () => 1)",
        "fn(() => new Proxy({ a: 1 }, {}))",
        "fn(() => ({ get data() { throw new Error('no'); } }))",
        "fn(() => ({ toJSON() { throw new Error('no'); } }))",
        "fn(() => { const s = { data: {} }; s.data.s = s; return s; })",
    ];
    for body in bodies {
        let record = end(&lightning, &worker, &queue(&lightning, one_job(body))).await;
        assert!(matches!(record.state, RunState::Success | RunState::Failed), "{body}: {record:?}");
        assert!(record.final_state.is_none_or(|state| state.is_object()), "{body}");
    }
    assert_eq!(lightning.activity().connections.len(), 1, "{}", worker.output());
    assert_eq!(lightning.violations(), []);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_characters_are_marked_as_lost() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let id = queue(&lightning, one_job("fn(() => ({ data: '😀'.slice(0, 1) + '😀' }))"));
    let record = end(&lightning, &worker, &id).await;
    assert_eq!(record.final_state, Some(json!({ "data": "\u{fffd}😀" })));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_server_cannot_read_is_left_out() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    // The double reads 128 levels, and drops the connection on a frame with more.
    let deep = "fn(() => { let s = {}; for (let i = 0; i < 3000; i += 1) s = { s }; return s; })";
    let record = end(&lightning, &worker, &queue(&lightning, one_job(deep))).await;
    assert_eq!(record.state, RunState::Success);
    assert_eq!(record.final_state, None);
    assert!(record.steps[0].output_dataclip_id.is_some(), "as the dataclip of its step it is there");
    worker.stop().await;
}
