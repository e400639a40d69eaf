//! Lightning ends a run by a push on its channel.

use std::sync::Arc;
use std::time::Duration;

use mock_lightning::{RunRecord, RunState};
use protocol::run::{ExitReason, StepInput};

use crate::fake::*;

/// Hosts whose run goes on until it is cancelled, and then ends as it was asked to.
fn patient() -> Arc<FakeHosts> {
    FakeHosts::new(|spec, mut host| async move {
        host.run_started().await;
        host.step_started(0, &spec.steps[0].id, StepInput::Run).await;
        let exit = host.cancelled.recv().await.unwrap();
        assert_eq!(exit.reason, ExitReason::Cancel);
        host.finish(exit, None, None).await;
    })
}

async fn until_it_has_a_step(it: &Setting, id: &str) {
    let started = async {
        while it.mock.run(id).unwrap().steps.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, started).await.unwrap();
}

fn assert_cancelled(run: &RunRecord) {
    let told = (run.state, run.reason.as_deref(), run.error_type.as_deref(), run.error_message.as_deref());
    let message = "The run was cancelled in Lightning";
    assert_eq!(told, (RunState::Cancelled, Some("cancel"), Some("Cancelled"), Some(message)));
}

#[tokio::test]
async fn a_run_that_executes() {
    let it = setting(1, patient()).await;
    let id = it.queue(&one_job());
    until_it_has_a_step(&it, &id).await;
    assert!(it.mock.cancel_run(&id));
    let run = it.end_of(&id).await;
    assert_cancelled(&run);
    assert_eq!(run.steps[0].reason.as_deref(), Some("cancel"));
    it.assert_nothing_was_refused();
    assert!(!it.mock.cancel_run(&id), "it is over");
}

#[tokio::test]
async fn a_run_that_is_not_on_a_host_yet() {
    for stuck in [Stuck::Equipping, Stuck::Reserving] {
        let it = setting(1, FakeHosts::stuck(stuck)).await;
        let id = it.queue(&one_job());
        let mut status = it.lightning.watch();
        tokio::time::timeout(DEADLINE, status.wait_for(|status| status.active_runs == 1)).await.unwrap().unwrap();
        it.mock.cancel_run(&id);
        let run = it.end_of(&id).await;
        assert_cancelled(&run);
        assert_eq!(order(&run), ["run:complete"], "{stuck:?}");
        it.assert_nothing_was_refused();
    }
}

#[tokio::test]
async fn a_run_whose_worker_is_away_when_it_is_cancelled() {
    let it = setting(1, patient()).await;
    let id = it.queue(&one_job());
    until_it_has_a_step(&it, &id).await;
    it.mock.stop_listening().await;
    it.mock.cut_sockets();
    let mut status = it.lightning.watch();
    tokio::time::timeout(DEADLINE, status.wait_for(|status| !status.connected)).await.unwrap().unwrap();
    it.mock.cancel_run(&id);
    it.mock.listen_again().await.unwrap();
    assert_cancelled(&it.end_of(&id).await);
}

#[tokio::test]
async fn a_run_that_waits_is_not_given_to_anybody() {
    let it = setting(1, patient()).await;
    let first = it.queue(&one_job());
    until_it_has_a_step(&it, &first).await;
    let waiting = it.queue(&one_job());
    assert!(it.mock.cancel_run(&waiting));
    it.mock.cancel_run(&first);
    assert_cancelled(&it.end_of(&first).await);
    assert_eq!(it.mock.run(&waiting).unwrap().state, RunState::Cancelled);
    assert!(it.mock.run(&waiting).unwrap().events.is_empty());
}
