//! The worker stops.

use std::sync::Arc;
use std::time::Duration;

use protocol::run::StepInput;
use tokio::sync::Notify;
use worker::execution::{RunEnd, RunSignal};
use worker::lightning::ClaimError;
use worker::mock_lightning::{Hooks, Incoming, MockOptions, RunState, Verdict};

use crate::fake::*;

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_runs_is_finished() {
    let go_on = Arc::new(Notify::new());
    let resume = go_on.clone();
    let hosts = FakeHosts::new(move |spec, host| {
        let resume = resume.clone();
        async move {
            resume.notified().await;
            host.trivial(spec).await;
        }
    });
    let it = setting(1, hosts).await;
    let id = it.queue(&one_job());
    let mut status = it.lightning.watch();
    tokio::time::timeout(DEADLINE, status.wait_for(|status| status.active_runs == 1)).await.unwrap().unwrap();
    let waiting = it.queue(&one_job());
    let (lightning, mock) = (Arc::new(it.lightning), it.mock);
    let stopping = tokio::spawn({
        let lightning = lightning.clone();
        async move { lightning.shutdown(LONG).await }
    });
    while lightning.claim_once().await != Err(ClaimError::Stopping) {
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    tokio::time::timeout(DEADLINE, stopping).await.unwrap().unwrap();
    assert_eq!(mock.run(&id).unwrap().state, RunState::Success);
    assert_eq!(mock.run(&waiting).unwrap().state, RunState::Available);
    assert!(!lightning.status().connected);
    let closed = async {
        while mock.activity().connections[0].closed_at.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn nothing_to_finish() {
    let it = setting(1, FakeHosts::new(|spec, host| host.trivial(spec))).await;
    it.joined().await;
    tokio::time::timeout(DEADLINE, it.lightning.shutdown(LONG)).await.unwrap();
    let it = setting(1, FakeHosts::new(|spec, host| host.trivial(spec))).await;
    it.mock.stop_listening().await;
    tokio::time::timeout(DEADLINE, it.lightning.shutdown(LONG)).await.unwrap();
}

/// Answers claims when told to.
struct HeldClaims(Arc<Notify>);

impl Hooks for HeldClaims {
    fn before_message(&self, message: &Incoming<'_>) -> Verdict {
        if message.event != "claim" {
            return Verdict::GoOn;
        }
        self.0.notify_one();
        Verdict::Delay(Duration::from_millis(300))
    }
}

#[tokio::test]
async fn what_an_open_claim_brings_is_executed() {
    let claimed = Arc::new(Notify::new());
    let mock = MockOptions { hooks: Arc::new(HeldClaims(claimed.clone())), ..MockOptions::default() };
    let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
    claimed.notified().await;
    let id = it.mock.queue_run(one_job()).unwrap();
    tokio::time::timeout(DEADLINE, it.lightning.shutdown(LONG)).await.unwrap();
    assert_eq!(it.mock.run(&id).unwrap().state, RunState::Success);
}

fn endless() -> Arc<FakeHosts> {
    FakeHosts::new(|_, mut host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        let exit = host.cancelled.recv().await.unwrap();
        host.send(RunSignal::Ended(RunEnd::Lost(exit))).await;
    })
}

#[tokio::test]
async fn what_is_left_after_the_grace_is_killed_and_told() {
    for by_signal in [false, true] {
        let it = setting(1, endless()).await;
        let id = it.queue(&one_job());
        let started = async {
            while it.mock.run(&id).unwrap().steps.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, started).await.unwrap();
        if by_signal {
            it.lightning.kill_all();
        }
        let grace = if by_signal { LONG } else { Duration::from_millis(50) };
        tokio::time::timeout(DEADLINE, it.lightning.shutdown(grace)).await.unwrap();
        let run = it.mock.run(&id).unwrap();
        it.assert_nothing_was_refused();
        assert_eq!((run.state, run.error_type.as_deref()), (RunState::Killed, Some("Shutdown")));
        assert_eq!(run.steps[0].reason.as_deref(), Some("kill"));
    }
}
