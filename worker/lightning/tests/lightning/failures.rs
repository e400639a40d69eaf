//! Runs that fail before or while they are executed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::execution::{RunEnd, RunSignal};
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use protocol::run::{Exit, ExitReason, StepInput, StepOutput};
use serde_json::{Value, json};

use crate::fake::*;

async fn check(plan: Value, kind: &str, message: &str) {
    let it = setting(1, FakeHosts::new(|spec, host| host.trivial(spec))).await;
    it.mock.add_credential("there", json!({"a": 1}));
    let run = it.run(&plan).await;
    assert_eq!(order(&run), ["run:complete"]);
    assert_eq!(run.state, RunState::Exception);
    assert_eq!((run.error_type.as_deref(), run.error_message.as_deref()), (Some(kind), Some(message)));
    let closing: Vec<_> = run.logs.iter().map(|log| log.line["message"][0].as_str().unwrap()).collect();
    assert_eq!(closing, ["Run complete with status: exception", &format!("{kind}: {message}")]);
    let status = it.lightning.watch().wait_for(|status| status.active_runs == 0).await.unwrap().clone();
    assert_eq!(status.runs_ended, 1);
    assert_eq!(it.run(&one_job()).await.state, RunState::Success, "the slot is free again");
}

#[tokio::test]
async fn missing_credentials() {
    let job = |credential: &str| json!({"id": credential, "body": "fn(s => s)", "credential_id": credential});
    let reason = r#"[fetch:credential] {"errors":{"id":["Credential not found!"]}}"#;
    let message = format!("Failed to load credential nope: {reason}\nFailed to load credential nada: {reason}");
    check(json!({"jobs": [job("nope"), job("there"), job("nada")]}), "CredentialLoadError", &message).await;
}

struct NoDataclip;

impl Hooks for NoDataclip {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let refuse = || HookVerdict::Refuse(json!({"errors": {"id": ["Dataclip not found!"]}}));
        if message.event == "fetch:dataclip" { refuse() } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_missing_dataclip() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let mock = MockOptions { hooks: std::sync::Arc::new(NoDataclip), ..MockOptions::default() };
    let it = with_options(mock, hosts, |_| {}).await;
    let mut plan = one_job();
    plan["dataclip_id"] = "nope".into();
    let run = it.run(&plan).await;
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("DataClipError")));
    let message = r#"Failed to load dataclip nope: {"errors":{"id":["Dataclip not found!"]}}"#;
    assert_eq!(run.error_message.as_deref(), Some(message));
}

struct Never(&'static str);

impl Hooks for Never {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        if message.event == self.0 { HookVerdict::Drop } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_getter_that_is_never_answered() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let mock = MockOptions { hooks: std::sync::Arc::new(Never("fetch:credential")), ..MockOptions::default() };
    let it = with_options(mock, hosts, |options| {
        options.message_timeout = Duration::from_millis(20);
        options.getter_retry_delay = Duration::from_millis(20);
        options.getter_retries = 2;
    })
    .await;
    let mut plan = one_job();
    plan["jobs"][0]["credential_id"] = "c".into();
    let run = it.run(&plan).await;
    assert_eq!(run.error_message.as_deref(), Some("Failed to load credential c: [fetch:credential] timeout"));
}

struct OddPlan;

impl Hooks for OddPlan {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let odd = || HookVerdict::Refuse(json!({"errors": {"too_many_runs": ["enough"]}}));
        if message.event == "fetch:plan" { odd() } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_had() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let mock = MockOptions { hooks: std::sync::Arc::new(OddPlan), ..MockOptions::default() };
    let it = with_options(mock, hosts, |_| {}).await;
    let run = it.run(&one_job()).await;
    assert_eq!(run.state, RunState::Exception);
    let message = r#"Failed to load the plan: [fetch:plan] {"errors":{"too_many_runs":["enough"]}}"#;
    assert_eq!(run.error_message.as_deref(), Some(message));
}

#[tokio::test]
async fn a_host_that_dies_within_a_step() {
    let exit = Exit::error(ExitReason::Crash, "ExitError", "Process exited with code: 1");
    let lost = exit.clone();
    let hosts = FakeHosts::new(move |_, host| {
        let exit = lost.clone();
        async move {
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            host.send(RunSignal::Ended(RunEnd::Lost(exit))).await;
        }
    });
    let it = setting(1, hosts).await;
    let run = it.run(&one_job()).await;
    it.assert_nothing_was_refused();
    assert_eq!(order(&run), ["run:start", "step:start", "step:complete", "run:complete"]);
    let step = &run.steps[0];
    assert_eq!((step.reason.as_deref(), step.error_type.as_deref()), (Some("crash"), Some("ExitError")));
    assert_eq!(it.mock.dataclip(step.output_dataclip_id.as_deref().unwrap()), Some(json!({})));
    assert_eq!((run.state, run.error_message.as_deref()), (RunState::Crashed, Some("Process exited with code: 1")));
    assert_eq!(run.final_dataclip_id, None);
}

#[tokio::test]
async fn a_host_that_goes_without_a_word() {
    let hosts = FakeHosts::new(|_, host| async move { host.run_started().await });
    let it = setting(1, hosts).await;
    let run = it.run(&one_job()).await;
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Crashed, Some("ExitError")));
}

#[tokio::test]
async fn a_host_that_breaks_the_order_of_events() {
    let hosts = FakeHosts::new(|_, mut host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        host.step_completed(7, "a", StepOutput::Unwanted).await;
        host.cancelled.recv().await;
        std::future::pending::<()>().await;
    });
    let it = setting(1, hosts.clone()).await;
    let run = it.run(&one_job()).await;
    it.assert_nothing_was_refused();
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("EngineError")));
    assert_eq!(run.steps[0].reason.as_deref(), Some("exception"));
    while hosts.killed.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}

struct NoSuchJob;

impl Hooks for NoSuchJob {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let refuse = || HookVerdict::Refuse(json!({"job_id": ["does not exist"]}));
        if message.event == "step:start" { refuse() } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_refused_step_stops_the_engine_and_ends_the_run() {
    let hosts = FakeHosts::new(|_, host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        std::future::pending::<()>().await;
    });
    let mock = MockOptions { hooks: std::sync::Arc::new(NoSuchJob), ..MockOptions::default() };
    let it = with_options(mock, hosts.clone(), |_| {}).await;
    let run = it.run(&one_job()).await;
    assert_eq!(order(&run), ["run:start", "run:complete"]);
    assert_eq!(run.state, RunState::Exception);
    assert_eq!(run.error_message.as_deref(), Some("Lightning refused step:start: job_id: does not exist"));
    while hosts.killed.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}
