//! A run that is not over shortly before its token expires is ended while Lightning still hears of it.

use std::sync::Arc;
use std::time::Duration;

use mock_lightning::{MockOptions, RunRecord, RunState};
use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::json;

use crate::fake::*;
use crate::network::simulate;

/// How long the runs may take, and what Lightning grants beyond that: what their tokens say.
const LIFETIME: Duration = Duration::from_secs(5 + 60);

/// One run with a token that expires.
fn run_on(hosts: Arc<FakeHosts>) -> (RunRecord, Duration) {
    simulate(|_| async move {
        let private_key = Some(include_str!("../../../mock-lightning/tests/mock_lightning/key.pem").into());
        let mock = MockOptions { private_key, ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(5), hosts, |_| {});
        it.joined().await;
        let mut plan = one_job();
        plan["options"] = json!({ "run_timeout_ms": 5_000 });
        let queued = tokio::time::Instant::now();
        let id = it.queue(&plan);
        let run = it.mock.wait_for_end(&id, 2 * LIFETIME).await.unwrap();
        (run, queued.elapsed())
    })
}

#[test]
fn it_ends_although_nothing_was_ready_for_it() {
    for stuck in [Stuck::Equipping, Stuck::Reserving] {
        let (run, took) = run_on(FakeHosts::stuck(stuck));
        assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("PrepareTimeoutError")));
        assert!(took < LIFETIME, "{took:?}");
    }
}

#[test]
fn it_ends_although_it_would_go_on() {
    let hosts = FakeHosts::new(|_, mut host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        // It gets its own time limit, which does not count how long it was waited for.
        let exit: Exit = host.cancelled.recv().await.unwrap();
        host.step_ended(0, "a", StepOutput::Unwanted, exit.clone()).await;
        host.finish(exit, None, None).await;
    });
    let (run, took) = run_on(hosts);
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Killed, Some("TimeoutError")));
    assert_eq!(run.steps[0].reason.as_deref(), Some("kill"));
    assert!(took < LIFETIME, "{took:?}");
}
