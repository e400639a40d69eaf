//! The worker stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::execution::{RunEnd, RunSignal};
use lightning::{ClaimError, Workloop};
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, NoHooks, RunRecord, RunState};
use protocol::run::StepInput;
use tokio::sync::Notify;

use crate::fake::*;
use crate::network::{WorkerLog, simulate};

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
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        if message.event != "claim" {
            return HookVerdict::GoOn;
        }
        self.0.notify_one();
        HookVerdict::Delay(Duration::from_millis(300))
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

/// What a worker was doing when it was told to stop, and how its run ends then.
async fn stopped_while(
    log: WorkerLog,
    hosts: Arc<FakeHosts>,
    until: &str,
    hooks: Arc<dyn Hooks>,
) -> (RunRecord, Duration) {
    let mock = MockOptions { hooks, ..MockOptions::default() };
    let it =
        in_memory(mock, Duration::from_millis(5), hosts, |options| options.workloops = vec![Workloop::standard(1)]);
    it.joined().await;
    let id = it.queue(&one_job());
    while !log.text().contains(until) && !it.mock.run(&id).unwrap().events.iter().any(|event| event.event == until) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let asked = tokio::time::Instant::now();
    it.lightning.shutdown(Duration::from_secs(20)).await;
    (it.mock.run(&id).unwrap(), asked.elapsed())
}

#[test]
fn asked_to_stop_while_adaptors_are_installed_or_a_host_is_awaited() {
    for stuck in [Stuck::Equipping, Stuck::Reserving] {
        let (run, took) = simulate(|log| stopped_while(log, FakeHosts::stuck(stuck), "fetch:plan", Arc::new(NoHooks)));
        assert_eq!((run.state, run.error_type.as_deref()), (RunState::Killed, Some("Shutdown")), "{stuck:?}");
        assert!((20..22).contains(&took.as_secs()), "{stuck:?}: {took:?}");
    }
}

#[test]
fn asked_to_stop_while_it_runs() {
    let (run, took) = simulate(|log| stopped_while(log, endless(), "step:start", Arc::new(NoHooks)));
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Killed, Some("Shutdown")));
    assert_eq!(run.steps[0].reason.as_deref(), Some("kill"));
    assert!((20..22).contains(&took.as_secs()), "{took:?}");
}

/// Is slow with the end of a run.
struct SlowEnd;

impl Hooks for SlowEnd {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        match message.event {
            "run:complete" => HookVerdict::Delay(Duration::from_secs(15)),
            _ => HookVerdict::GoOn,
        }
    }
}

#[test]
fn asked_to_stop_while_a_run_completes() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let (run, took) = simulate(|log| stopped_while(log, hosts, "step:complete", Arc::new(SlowEnd)));
    assert_eq!(run.state, RunState::Success);
    assert!((14..17).contains(&took.as_secs()), "it waits for the answer, and no longer: {took:?}");
}

/// Goes away when a step starts first, for so long.
struct GoesAway(Duration, AtomicBool);

impl Hooks for GoesAway {
    fn before_reply(&self, message: &Incoming<'_>, _: bool) -> HookVerdict {
        let now = message.event == "step:start" && !self.1.swap(true, Ordering::Relaxed);
        if now { HookVerdict::Restart(self.0) } else { HookVerdict::GoOn }
    }
}

#[test]
fn asked_to_stop_while_disconnected_and_the_server_comes_back_in_time() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let away = Arc::new(GoesAway(Duration::from_secs(3), AtomicBool::new(false)));
    let (run, took) = simulate(|log| stopped_while(log, hosts, "lost the connection", away));
    assert_eq!((run.state, job_lines(&run).len()), (RunState::Success, 1));
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn asked_to_stop_while_disconnected_for_good() {
    let ((run, took), log) = simulate(|log| async move {
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let away = Arc::new(GoesAway(Duration::from_secs(3600), AtomicBool::new(false)));
        (stopped_while(log.clone(), hosts, "lost the connection", away).await, log)
    });
    assert!(!run.state.is_final(), "nobody could tell");
    assert!((20..33).contains(&took.as_secs()), "the grace, and what it takes to give up: {took:?}");
    let told = log.lines_with(&["run lost for Lightning", "the worker stops", "ended here: success"]);
    assert_eq!(told.len(), 1, "{}", log.text());
}
