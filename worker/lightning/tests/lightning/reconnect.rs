//! The link dies while runs are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::json;
use tokio::sync::Notify;

use crate::fake::*;

#[tokio::test]
async fn a_server_that_goes_and_comes_back_misses_nothing() {
    let (halfway, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reached, resume) = (halfway.clone(), go_on.clone());
    let hosts = FakeHosts::new(move |_, host| {
        let (reached, resume) = (reached.clone(), resume.clone());
        async move {
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            for n in 0..100 {
                host.log(json!([n])).await;
                if n == 50 {
                    reached.notify_one();
                    resume.notified().await;
                }
            }
            host.step_completed(0, "a", StepOutput::State(json(json!({"n": 1})))).await;
            host.finish(Exit::success(), Some(json!({"n": 1})), Some(0)).await;
        }
    });
    let it = setting(1, hosts).await;
    let id = it.queue(&one_job());
    halfway.notified().await;
    it.mock.stop_listening().await;
    it.mock.cut_sockets();
    let mut status = it.lightning.watch();
    tokio::time::timeout(DEADLINE, status.wait_for(|status| !status.connected)).await.unwrap().unwrap();
    go_on.notify_one();
    it.mock.listen_again().await.unwrap();
    let run = it.end_of(&id).await;
    assert_eq!(run.state, RunState::Success);
    let expected: Vec<_> = (0..100).map(|n| json!([n])).collect();
    assert_eq!(job_lines(&run), expected);
    assert_eq!(order(&run), ["run:start", "step:start", "step:complete", "run:complete"]);
    assert_eq!(run.final_dataclip_id, run.steps[0].output_dataclip_id);
}

/// Takes what an event says and cuts the socket instead of answering, once.
struct CommitAndCut {
    event: &'static str,
    times: AtomicUsize,
}

impl Hooks for CommitAndCut {
    fn before_reply(&self, message: &Incoming<'_>, _: bool) -> HookVerdict {
        let first = message.event == self.event && self.times.fetch_add(1, Ordering::Relaxed) == 0;
        if first { HookVerdict::CloseSocket } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn what_the_server_took_without_saying_so_counts_once() {
    for event in ["fetch:plan", "run:start", "step:start", "run:log", "step:complete"] {
        let hooks = Arc::new(CommitAndCut { event, times: AtomicUsize::new(0) });
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
        it.joined().await;
        let run = it.run(&one_job()).await;
        assert_eq!((run.state, run.steps.len(), job_lines(&run).len()), (RunState::Success, 1, 1), "{event}");
        assert_eq!(run.final_dataclip_id, run.steps[0].output_dataclip_id, "{event}");
    }
}

#[tokio::test]
async fn a_run_complete_that_was_taken_frees_the_slot() {
    let hooks = Arc::new(CommitAndCut { event: "run:complete", times: AtomicUsize::new(0) });
    let mock = MockOptions { hooks, ..MockOptions::default() };
    let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
    it.joined().await;
    assert_eq!(it.run(&one_job()).await.state, RunState::Success);
    let mut status = it.lightning.watch();
    let over = status.wait_for(|status| status.runs_ended == 1 && status.active_runs == 0);
    tokio::time::timeout(DEADLINE, over).await.unwrap().unwrap();
}

/// Crashes the channel before an event is handled, a few times.
struct Crash {
    event: &'static str,
    times: AtomicUsize,
}

impl Hooks for Crash {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let crash = message.event == self.event && self.times.fetch_add(1, Ordering::Relaxed) < 2;
        if crash { HookVerdict::CloseChannel } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_channel_that_crashes_is_joined_again() {
    for event in ["fetch:plan", "step:start", "run:log", "run:complete", "claim"] {
        let hooks = Arc::new(Crash { event, times: AtomicUsize::new(0) });
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
        let run = it.run(&one_job()).await;
        assert_eq!((run.state, run.steps.len(), job_lines(&run).len()), (RunState::Success, 1, 1), "{event}");
        assert_eq!(it.mock.activity().connections.len(), 1, "{event}");
    }
}
