//! SIGTERM finishes what runs; a second one, or the end of the grace period, ends it and says so.

use std::sync::Arc;
use std::time::Duration;

use mock_lightning::{HookVerdict, Hooks, Incoming, RunState};
use rustix::process::Signal;
use tests::lightning::{self, DEADLINE, LightningOptions, logged, one_job, queue, until};
use tests::node::NodeGround;
use tests::processes;
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_is_finished() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    let body =
        "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 700)); return { data: 1 }; })";
    let id = queue(&lightning, one_job(body));
    let later = queue(&lightning, one_job("fn(s => s)"));
    until(&lightning, &worker, &id, |record| logged(record, "here")).await;
    let hosts: Vec<u32> = worker.hosts().iter().map(|host| host.pid).collect();
    worker.stop().await;

    assert_eq!(lightning.run(&id).expect("it was queued").state, RunState::Success);
    assert_eq!(lightning.run(&later).expect("it was queued").state, RunState::Available, "no claim after the signal");
    assert_eq!(processes::gone(&hosts, Duration::from_secs(1)).await, [0u32; 0]);
}

/// Answers claims late.
struct LateClaims;

impl Hooks for LateClaims {
    fn before_reply(&self, message: &Incoming<'_>, _: bool) -> HookVerdict {
        if message.event == "claim" { HookVerdict::ReplyLate(Duration::from_millis(700)) } else { HookVerdict::GoOn }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_open_claim_brings_is_executed() {
    let lightning =
        lightning::start(LightningOptions { hooks: Some(Arc::new(LateClaims)), ..LightningOptions::default() }).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    until(&lightning, &worker, &id, |record| record.state != RunState::Available).await;
    worker.stop().await;
    assert_eq!(lightning.run(&id).expect("it was queued").state, RunState::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_in_time_is_told_everything() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    let body =
        "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 300)); console.log('over'); })";
    let id = queue(&lightning, one_job(body));
    until(&lightning, &worker, &id, |record| logged(record, "here")).await;
    let host = worker.host_of(&id).pid;
    lightning.stop_listening().await;
    lightning.cut_sockets();
    worker.signal(Signal::TERM);
    assert_eq!(processes::gone(&[host], DEADLINE).await, [0u32; 0], "its host ends with the run");
    lightning.listen_again().await.expect("its port is still free");
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
    let record = lightning.run(&id).expect("it was queued");
    assert_eq!(record.state, RunState::Success);
    assert!(logged(&record, "over"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let id = queue(&lightning, one_job("fn(s => { console.log('busy'); for (;;); })"));
    until(&lightning, &worker, &id, |record| logged(record, "busy")).await;
    worker.signal(Signal::TERM);
    worker.printed("finish").await;
    worker.signal(Signal::INT);
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
    check_shutdown(&lightning, &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_has_an_end() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--shutdown-grace", "0.5"]).await;
    let id = queue(&lightning, one_job("fn(s => { console.log('busy'); return new Promise(() => {}); })"));
    until(&lightning, &worker, &id, |record| logged(record, "busy")).await;
    worker.stop().await;
    check_shutdown(&lightning, &id);
}

fn check_shutdown(lightning: &mock_lightning::MockLightning, id: &str) {
    let record = lightning.run(id).expect("it was queued");
    assert_eq!(record.state, RunState::Killed);
    assert_eq!(record.error_type.as_deref(), Some("Shutdown"));
    assert_eq!(record.steps[0].reason.as_deref(), Some("kill"));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_end_with_the_worker_and_are_not_given_up() {
    if !tests::node::is_forked() {
        return;
    }
    let (ground, runtime) = (NodeGround::start().await, tempfile::tempdir().expect("a folder"));
    let lightning = lightning::start(LightningOptions::default()).await;
    let mut variables = ground.variables(runtime.path());
    variables.push(("WORKER_NODE_START", "fork".into()));
    let worker = Worker::start_at(&lightning.url(), &["--capacity", "1"], &variables).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    until(&lightning, &worker, &id, |record| record.state == RunState::Success).await;
    worker.printed("is forked from now on").await;
    worker.signal(Signal::TERM);
    worker.printed(" stopped").await;
    assert!(!worker.output().contains("not forked"), "{}", worker.output());
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}
