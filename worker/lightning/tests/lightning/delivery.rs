//! What is delivered, how, and when it is refused.

use std::sync::Arc;
use std::time::Duration;

use lightning::BatchOptions;
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::{Value, json};

use crate::fake::*;

fn many_lines(lines: usize) -> Arc<FakeHosts> {
    FakeHosts::new(move |spec, host| async move {
        for n in 0..lines {
            host.log(json!([n])).await;
        }
        host.trivial(spec).await;
    })
}

#[tokio::test]
async fn lines_in_batches_arrive_once_and_in_order() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 50 };
    let it = with_options(MockOptions::default(), many_lines(500), |options| options.batch_logs = Some(batch)).await;
    let run = it.run(&one_job()).await;
    it.assert_nothing_was_refused();
    let expected: Vec<_> = (0..500).map(|n| json!([n])).collect();
    assert_eq!(job_lines(&run)[..500], expected);
    let pushes = run.events.iter().filter(|event| event.event == "run:batch_logs").count();
    assert!(pushes < 100, "{pushes} pushes");
    assert!(!run.events.iter().any(|event| event.event == "run:log"));
}

/// Answers log lines as a server at some distance does.
struct Far(Duration);

impl Hooks for Far {
    fn before_reply(&self, message: &Incoming<'_>, _: bool) -> HookVerdict {
        // The double delays what follows, too; a real round trip delays each reply by itself. A window of replies
        // pays once, as if it had travelled together.
        let n = message.payload["message"][0].as_u64();
        if n.is_some_and(|n| n % 50 == 0) { HookVerdict::Delay(self.0) } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn lines_keep_their_order_when_replies_lag() {
    let mock = MockOptions { hooks: Arc::new(Far(Duration::from_millis(50))), ..MockOptions::default() };
    let it = with_options(mock, many_lines(1000), |_| {}).await;
    let run = it.run(&one_job()).await;
    it.assert_nothing_was_refused();
    let expected: Vec<_> = (0..1000).map(|n| json!([n])).collect();
    assert_eq!(job_lines(&run)[..1000], expected);
}

struct Refuse(&'static str, fn(&Value) -> bool);

impl Hooks for Refuse {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        if message.event == self.0 && (self.1)(message.payload) {
            HookVerdict::Refuse(json!({"output_dataclip": ["is too large"]}))
        } else {
            HookVerdict::GoOn
        }
    }
}

#[tokio::test]
async fn a_dataclip_that_is_refused_is_withheld() {
    let hooks = Refuse("step:complete", |payload| payload.get("output_dataclip").is_some());
    let mock = MockOptions { hooks: Arc::new(hooks), ..MockOptions::default() };
    let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
    let run = it.run(&one_job()).await;
    assert_eq!(run.state, RunState::Success);
    assert_eq!(run.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    assert_eq!((run.final_dataclip_id, run.final_state), (None, Some(json!({"data": "[REDACTED]"}))));
}

#[tokio::test]
async fn a_final_state_that_is_refused_is_left_out() {
    let hooks = Refuse("run:complete", |payload| payload.get("final_state").is_some());
    let mock = MockOptions { hooks: Arc::new(hooks), ..MockOptions::default() };
    let it = with_options(mock, FakeHosts::new(|spec, host| host.trivial(spec)), |_| {}).await;
    let run = it.run(&one_job()).await;
    assert_eq!((run.state, run.final_state), (RunState::Success, None));
}

#[tokio::test]
async fn a_large_state_arrives_whole() {
    let hosts = FakeHosts::new(|_, host| async move {
        let state = json(json!({"x": "\"é\" ".repeat(400_000)}));
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        host.step_completed(0, "a", StepOutput::State(state)).await;
        host.finish(Exit::success(), None, Some(0)).await;
    });
    let it = setting(1, hosts).await;
    it.mock.add_dataclip("in", json!({"x": "é".repeat(1_000_000)}));
    let mut plan = one_job();
    plan["dataclip_id"] = "in".into();
    let run = it.run(&plan).await;
    it.assert_nothing_was_refused();
    let clip = it.mock.dataclip(run.final_dataclip_id.as_deref().unwrap()).unwrap();
    assert!(clip == json!({"x": "\"é\" ".repeat(400_000)}));
}
