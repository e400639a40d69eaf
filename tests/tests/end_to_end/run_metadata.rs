//! Every job has a frozen global `meta` with what Lightning says of its run, the same in each step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, queue};
use tests::node::NodeGround;
use tests::worker::Worker;

async fn jobs_see_their_run(options: &[&str], variables: &[(&str, String)]) {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_at(&lightning.url(), options, variables).await;
    let first = "fn(() => { try { meta.runId = 'mine' } catch (error) { return { data: {}, first: meta, error: error.name } } })";
    let mut plan = chain(&[("a", first), ("b", "fn(state => ({ ...state, second: meta }))")]);
    plan["meta"] = json!({"work_order_id": "an order", "workflow_id": "a workflow", "project_id": "a project"});
    let id = queue(&lightning, plan);
    let run = end(&lightning, &worker, &id).await;
    assert_eq!(run.state, RunState::Success, "{run:?}");
    let state = run.final_state.expect("it has a state");
    assert_eq!(state["error"], "TypeError", "{state}");
    let mut meta = state["first"].clone();
    assert_eq!(state["second"], meta);
    let time = meta.as_object_mut().and_then(|meta| meta.remove("startTime")).unwrap_or_default();
    // In milliseconds, as `Date.now()` gives.
    let began = time.as_u64().map(Duration::from_millis).unwrap_or_default();
    let age = SystemTime::now().duration_since(UNIX_EPOCH + began).expect("it began before now");
    assert!(age < Duration::from_secs(600), "{time}");
    let expected: Value =
        json!({"runId": id, "workOrderId": "an order", "workflowId": "a workflow", "projectId": "a project"});
    assert_eq!(meta, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_embedded_engine() {
    jobs_see_their_run(&["--engine", "embedded"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_mock_engine() {
    jobs_see_their_run(&["--mock"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_node() {
    let (ground, runtime) = (NodeGround::start().await, tempfile::tempdir().expect("a temporary folder can be made"));
    jobs_see_their_run(&[], &ground.variables(runtime.path())).await;
}
