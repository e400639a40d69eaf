//! A server that is slow or silent: nothing is lost that can be kept, and what is kept has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lightning::Workloop;
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fake::*;
use crate::network::simulate;

/// Answers nothing about runs for a while, once a step has started.
struct Silent {
    time: Duration,
    once: AtomicBool,
}

impl Hooks for Silent {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let now = message.event == "step:start" && !self.once.swap(true, Ordering::Relaxed);
        if now { HookVerdict::Delay(self.time) } else { HookVerdict::GoOn }
    }
}

#[test]
fn lines_that_come_faster_than_they_go_are_dropped_counted_and_told_and_states_never() {
    const LINES: usize = 100_000;
    simulate(|log| async move {
        // 40 MB of lines in a minute and a half, 32 of which may wait.
        let hosts = FakeHosts::new(|_, host| async move {
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            let text = "x".repeat(400);
            for n in 0..LINES {
                host.log(json!([n, text])).await;
                if n % 1000 == 0 {
                    sleep(Duration::from_millis(900)).await;
                }
            }
            host.step_completed(0, "a", StepOutput::State(json(json!({"n": 1})))).await;
            host.finish(Exit::success(), Some(json!({"n": 1})), Some(0)).await;
        });
        let silent = Silent { time: Duration::from_secs(110), once: AtomicBool::new(false) };
        let mock = MockOptions { hooks: Arc::new(silent), ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(5), hosts, |_| {});
        let run = it.mock.wait_for_end(&it.queue(&one_job()), Duration::from_secs(900)).await.unwrap();
        it.assert_nothing_was_refused();
        assert_eq!(run.state, RunState::Success);
        assert_eq!(order(&run), ["run:start", "step:start", "step:complete", "run:complete"]);
        let lines = job_lines(&run);
        let numbers: Vec<_> = lines.iter().map(|line| line[0].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted(), "what is left keeps its order");
        let told = |log: &mock_lightning::LogRecord| {
            let text = log.line["message"][0].as_str()?;
            text.strip_suffix(" log lines were dropped here: they came faster than Lightning took them")?
                .parse::<usize>()
                .ok()
        };
        let dropped: usize = run.logs.iter().filter_map(told).sum();
        assert!(dropped > 10_000, "{dropped}");
        assert_eq!(lines.len() + dropped, LINES);
        it.lightning.shutdown(DEADLINE).await;
        let own = log.lines_with(&[&format!("{dropped} log lines were not delivered")]);
        assert_eq!(own.len(), 1, "{}", log.text());
        assert!(!log.lines_with(&["dropping some"]).is_empty());
    });
}

/// Is silent about one event on this connection, for ever.
struct NeverAnswers(&'static str, AtomicBool);

impl Hooks for NeverAnswers {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let now = message.event == self.0 && !self.1.swap(true, Ordering::Relaxed);
        if now { HookVerdict::Hang } else { HookVerdict::GoOn }
    }
}

#[test]
fn a_channel_that_hangs_is_joined_anew_after_minutes() {
    for event in ["fetch:plan", "run:start", "step:start", "run:log", "step:complete", "run:complete"] {
        simulate(|_| async move {
            let hooks = Arc::new(NeverAnswers(event, AtomicBool::new(false)));
            let mock = MockOptions { hooks, ..MockOptions::default() };
            let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
            let it = in_memory(mock, Duration::from_millis(5), hosts, |_| {});
            let began = Instant::now();
            let run = it.mock.wait_for_end(&it.queue(&one_job()), Duration::from_secs(600)).await.unwrap();
            assert_eq!((run.state, job_lines(&run).len()), (RunState::Success, 1), "{event}");
            assert!((60..180).contains(&began.elapsed().as_secs()), "{event}: {:?}", began.elapsed());
            assert_eq!(it.mock.activity().connections.len(), 1, "{event}: the others are not disturbed");
        });
    }
}

/// Falls silent as a whole, connection and all.
struct HalfOpen(AtomicBool);

impl Hooks for HalfOpen {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let now = message.event == "step:start" && !self.0.swap(true, Ordering::Relaxed);
        if now { HookVerdict::HalfOpen } else { HookVerdict::GoOn }
    }
}

#[test]
fn a_connection_that_nothing_comes_through_is_replaced_within_a_minute() {
    simulate(|_| async move {
        let mock = MockOptions { hooks: Arc::new(HalfOpen(AtomicBool::new(false))), ..MockOptions::default() };
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = in_memory(mock, Duration::from_millis(5), hosts, |_| {});
        it.joined().await;
        let began = Instant::now();
        let run = it.mock.wait_for_end(&it.queue(&one_job()), Duration::from_secs(600)).await.unwrap();
        assert_eq!((run.state, job_lines(&run).len()), (RunState::Success, 1));
        assert!(began.elapsed() < Duration::from_secs(62), "{:?}", began.elapsed());
    });
}

#[test]
fn a_storm_of_announcements_finds_as_many_claims_as_slots() {
    simulate(|_| async move {
        let hosts = FakeHosts::new(|spec, host| async move {
            sleep(Duration::from_secs(1)).await;
            host.trivial(spec).await;
        });
        let it = in_memory(MockOptions::default(), Duration::from_millis(50), hosts, |options| {
            options.workloops = vec![Workloop::standard(3)];
        });
        it.joined().await;
        let ids: Vec<_> = (0..20).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
        for _ in 0..1000 {
            it.mock.wake();
            sleep(Duration::from_millis(1)).await;
        }
        for id in &ids {
            it.end_of(id).await;
        }
        let claims = it.mock.activity().claims;
        assert!(claims.iter().all(|claim| claim.demand <= 3), "{claims:?}");
        assert!(claims.len() < 60, "{} claims for 20 runs", claims.len());
    });
}

#[test]
fn a_thousand_lines_are_there_in_less_than_two_seconds_at_fifty_milliseconds_round_trip() {
    simulate(|_| async move {
        let hosts = FakeHosts::new(|spec, host| async move {
            for n in 0..1000 {
                host.log(json!([n])).await;
            }
            host.trivial(spec).await;
        });
        let it = in_memory(MockOptions::default(), Duration::from_millis(25), hosts, |_| {});
        it.joined().await;
        let began = Instant::now();
        let run = it.run(&one_job()).await;
        assert_eq!(job_lines(&run).len(), 1001);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    });
}
