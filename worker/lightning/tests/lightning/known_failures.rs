//! The ways in which the reference worker loses runs or doubles lines, each with what this one does.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lightning::{BatchOptions, Workloop};
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunRecord, RunState};
use protocol::run::{Exit, ExitReason, StepInput, StepOutput};
use serde_json::{Value, json};

use crate::fake::*;
use crate::network::{WorkerLog, simulate};

/// Does what a function says, before and after a message is handled, told how many of that event came before.
struct Script<F>(F, Mutex<std::collections::HashMap<(String, bool), usize>>);

fn script<F: Fn(&Incoming<'_>, bool, usize) -> HookVerdict + Send + Sync + 'static>(decide: F) -> Arc<dyn Hooks> {
    Arc::new(Script(decide, Mutex::default()))
}

impl<F: Fn(&Incoming<'_>, bool, usize) -> HookVerdict + Send + Sync + 'static> Script<F> {
    fn decide(&self, message: &Incoming<'_>, handled: bool) -> HookVerdict {
        let mut seen = self.1.lock().unwrap();
        let count = seen.entry((message.event.to_owned(), handled)).or_default();
        *count += 1;
        (self.0)(message, handled, *count - 1)
    }
}

impl<F: Fn(&Incoming<'_>, bool, usize) -> HookVerdict + Send + Sync + 'static> Hooks for Script<F> {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        self.decide(message, false)
    }

    fn before_reply(&self, message: &Incoming<'_>, _: bool) -> HookVerdict {
        self.decide(message, true)
    }
}

/// A step with ten lines.
fn ten_lines() -> Arc<FakeHosts> {
    FakeHosts::new(|spec, host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        for n in 0..10 {
            host.log(json!([n])).await;
        }
        host.step_completed(0, "a", StepOutput::State(spec.input)).await;
        host.finish(Exit::success(), Some(json!({})), Some(0)).await;
    })
}

fn ten() -> Vec<Value> {
    (0..10).map(|n| json!([n])).collect()
}

/// One run with a server that does this.
fn run_with(hooks: Arc<dyn Hooks>) -> (RunRecord, Setting, WorkerLog) {
    simulate(|log| async move {
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(20), ten_lines(), |_| {});
        it.joined().await;
        let id = it.queue(&one_job());
        let run = it.mock.wait_for_end(&id, Duration::from_secs(900)).await.unwrap();
        it.lightning.shutdown(Duration::from_secs(900)).await;
        (run, it, log)
    })
}

#[test]
fn a_server_that_is_merely_slow_gets_nothing_twice() {
    let (run, it, _) = run_with(script(|message, _, _| match message.event {
        "run:start" | "step:start" | "step:complete" | "run:complete" => HookVerdict::Delay(Duration::from_secs(55)),
        _ => HookVerdict::GoOn,
    }));
    it.assert_nothing_was_refused();
    assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()));
    let events = run.events.iter().filter(|event| !event.event.starts_with("fetch")).count();
    assert_eq!(events, 4 + run.logs.len(), "each once");
}

#[test]
fn a_late_reply_is_taken() {
    let (run, it, log) = run_with(script(|message, handled, _| match (message.event, handled) {
        ("run:complete", true) => HookVerdict::ReplyLate(Duration::from_secs(100)),
        _ => HookVerdict::GoOn,
    }));
    it.assert_nothing_was_refused();
    assert_eq!(run.state, RunState::Success);
    assert_eq!(log.lines_with(&["run ended: success"]).len(), 1);
    assert!(log.lines_with(&["lost"]).is_empty(), "{}", log.text());
}

#[test]
fn a_late_answer_to_a_question_is_taken() {
    for verdict in [HookVerdict::ReplyLate(Duration::from_secs(200)), HookVerdict::Delay(Duration::from_secs(170))] {
        // Later than the worker waits before it asks again, and joins the channel anew.
        let (run, ..) = run_with(script(move |message, after, count| match (message.event, after) {
            ("fetch:plan", false) if count == 0 => verdict.clone(),
            // Only the first is ever answered.
            ("fetch:plan", true) if count > 0 => HookVerdict::Drop,
            _ => HookVerdict::GoOn,
        }));
        assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()));
    }
}

#[test]
fn a_cut_socket_loses_no_event_and_doubles_no_line() {
    for event in ["run:start", "step:start", "run:log", "step:complete", "run:complete"] {
        for handled in [false, true] {
            let (run, ..) = run_with(script(move |message, after, count| {
                let now = message.event == event && after == handled && count < 2;
                if now { HookVerdict::CloseSocket } else { HookVerdict::GoOn }
            }));
            assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()), "{event} {handled}");
            let order: Vec<_> = run.steps.iter().map(|step| step.reason.as_deref()).collect();
            assert_eq!(order, [Some("success")], "{event} {handled}");
        }
    }
}

#[test]
fn a_step_whose_answer_was_lost_keeps_its_output_although_the_channel_crashes_on_it() {
    let hooks = script(|message, after, count| match (message.event, after) {
        ("step:complete", true) if count == 0 => HookVerdict::CloseSocket,
        _ => HookVerdict::GoOn,
    });
    let (run, it, log) = simulate(|log| async move {
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(20), ten_lines(), |_| {});
        it.joined().await;
        let run = it.run(&one_job()).await;
        (run, it, log)
    });
    assert_eq!((run.state, run.final_state), (RunState::Success, Some(json!({}))), "{}", log.text());
    let output = run.steps[0].output_dataclip_id.as_deref().expect("it is still the step's");
    assert_eq!((run.steps[0].reason.as_deref(), it.mock.dataclip(output)), (Some("success"), Some(json!({}))));
}

#[test]
fn an_input_whose_answer_was_lost_on_its_way_is_not_taken_for_none() {
    for (keeps_data, expected) in [(true, RunState::Success), (false, RunState::Exception)] {
        let hooks = script(|message, after, count| match (message.event, after) {
            ("fetch:dataclip", true) if count == 0 => HookVerdict::CloseSocket,
            _ => HookVerdict::GoOn,
        });
        let run = simulate(|_| async move {
            let mock = MockOptions { hooks, ..MockOptions::default() };
            let it = in_memory(mock, Duration::from_millis(20), ten_lines(), |_| {});
            it.joined().await;
            it.mock.add_dataclip("input", json!({"n": 1}));
            let mut plan = one_job();
            plan["dataclip_id"] = "input".into();
            plan["options"] = json!({ "output_dataclips": keeps_data });
            it.run(&plan).await
        });
        assert_eq!(run.state, expected, "{:?}", run.error_message);
        if !keeps_data {
            assert_eq!(run.error_type.as_deref(), Some("DataClipError"));
        }
    }
}

#[test]
fn lines_in_batches_come_once_when_sockets_are_cut() {
    let hooks = script(|message, after, count| match (message.event, after) {
        ("run:batch_logs", true) if count < 3 => HookVerdict::CloseSocket,
        _ => HookVerdict::GoOn,
    });
    let run = simulate(|_| async move {
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(20), ten_lines(), |options| {
            options.batch_logs = Some(BatchOptions { interval: Duration::from_millis(10), limit: 3 });
        });
        it.joined().await;
        it.run(&one_job()).await
    });
    assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()));
}

#[test]
fn a_channel_that_dies_alone_is_joined_again() {
    let (run, it, _) = run_with(script(|message, _, count| match message.event {
        "run:log" if count == 3 => HookVerdict::CloseChannel,
        _ => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()));
    assert_eq!(it.mock.activity().connections.len(), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (run, ..) = run_with(script(|message, after, count| match message.event {
        "fetch:plan" | "run:start" | "step:complete" | "run:complete" | "phx_join" if !after && count < 3 => {
            HookVerdict::Refuse(json!({"reason": "server busy"}))
        }
        _ => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, run.steps[0].reason.as_deref()), (RunState::Success, Some("success")));
}

#[test]
fn lines_that_the_server_is_too_busy_for_keep_their_order() {
    let (run, ..) = run_with(script(|message, after, count| match message.event {
        "run:log" if !after && count % 3 == 1 => HookVerdict::Refuse(json!({"reason": "server busy"})),
        _ => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, job_lines(&run)), (RunState::Success, ten()));
}

#[test]
fn the_end_of_a_run_does_not_shut_out_its_last_line() {
    let refusals = AtomicUsize::new(0);
    let (run, ..) = run_with(script(move |message, after, _| {
        let last = !after && message.payload["message"].to_string().contains("Run complete");
        match last && refusals.fetch_add(1, Ordering::Relaxed) < 3 {
            true => HookVerdict::Refuse(json!({"reason": "server busy"})),
            false => HookVerdict::GoOn,
        }
    }));
    let last = run.logs.last().unwrap();
    assert_eq!((run.state, &last.line["message"]), (RunState::Success, &json!(["Run complete with status: success"])));
}

#[test]
fn nothing_is_sent_for_a_run_whose_time_is_over_and_its_outcome_is_logged() {
    simulate(|log| async move {
        let ends = Arc::new(Mutex::new(0));
        let seen = ends.clone();
        let hooks = script(move |message, after, _| {
            let is_end = message.event == "run:complete" && !after;
            *seen.lock().unwrap() += usize::from(is_end);
            if is_end { HookVerdict::Refuse(json!({"reason": "server busy"})) } else { HookVerdict::GoOn }
        });
        let mock = MockOptions { hooks, ..MockOptions::default() };
        let it = in_memory(mock, Duration::from_millis(20), ten_lines(), |_| {});
        it.joined().await;
        let mut plan = one_job();
        plan["options"] = json!({"run_timeout_ms": 1000});
        it.queue(&plan);
        let mut status = it.lightning.watch();
        status.wait_for(|status| status.active_runs == 1).await.unwrap();
        status.wait_for(|status| status.active_runs == 0).await.unwrap();
        let told = log.lines_with(&["its time is over", "success"]);
        let unsure = log.lines_with(&["run ended: success; whether Lightning has its end is not known"]);
        assert_eq!(told.len() + unsure.len(), 1, "{}", log.text());
        let sent = *ends.lock().unwrap();
        assert!(sent > 1, "it was tried again");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(*ends.lock().unwrap(), sent);
    });
}

#[test]
fn a_dataclip_that_is_refused_does_not_lose_the_run() {
    let (run, ..) = run_with(script(|message, _, _| match message.payload.get("output_dataclip") {
        Some(_) => HookVerdict::Refuse(json!({"output_dataclip": ["is too large"]})),
        None => HookVerdict::GoOn,
    }));
    assert_eq!(run.state, RunState::Success);
    assert_eq!(run.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
}

#[test]
fn an_end_that_is_refused_goes_without_its_state_and_then_as_an_exception() {
    let (run, ..) = run_with(script(|message, _, _| match message.payload.get("final_state") {
        Some(_) => HookVerdict::Refuse(json!({"final_state": ["is invalid"]})),
        None => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, run.final_state), (RunState::Success, None));
    let (run, ..) = run_with(script(|message, _, _| match &message.payload["reason"] {
        Value::String(reason) if message.event == "run:complete" && reason == "success" => {
            HookVerdict::Refuse(json!({"state": ["is invalid"]}))
        }
        _ => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("LightningError")));
}

#[test]
fn a_step_that_is_refused_stops_its_run_alone() {
    let (run, ..) = run_with(script(|message, _, _| match message.event {
        "step:start" => HookVerdict::Refuse(json!({"job_id": ["does not exist"]})),
        _ => HookVerdict::GoOn,
    }));
    assert_eq!((run.state, run.steps.len()), (RunState::Exception, 0));
    assert_eq!(run.error_message.as_deref(), Some("Lightning refused step:start: job_id: does not exist"));
}

#[test]
fn a_step_that_never_started_is_never_completed() {
    let run = simulate(|_| async move {
        let hosts = FakeHosts::new(|_, mut host| async move {
            host.run_started().await;
            host.step_completed(0, "a", StepOutput::Unwanted).await;
            host.cancelled.recv().await;
        });
        let it = in_memory(MockOptions::default(), Duration::ZERO, hosts, |_| {});
        let run = it.run(&one_job()).await;
        it.assert_nothing_was_refused();
        run
    });
    assert_eq!((run.state, order(&run)), (RunState::Exception, vec!["run:start", "run:complete"]));
}

#[test]
fn a_dataclip_that_the_server_does_not_have_is_never_named() {
    let run = simulate(|_| async move {
        let hosts = FakeHosts::new(|_, host| async move {
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            host.step_completed(0, "a", StepOutput::TooLarge(99)).await;
            host.step_started(1, "a", StepInput::Step(0)).await;
            host.step_completed(1, "a", StepOutput::State(json(json!({})))).await;
            host.finish(Exit::success(), Some(json!({})), Some(1)).await;
        });
        let it = in_memory(MockOptions::default(), Duration::ZERO, hosts, |_| {});
        let run = it.run(&one_job()).await;
        it.assert_nothing_was_refused();
        run
    });
    assert_eq!((run.state, run.steps[1].input_dataclip_id.as_deref()), (RunState::Success, None));
}

#[test]
fn a_run_that_the_server_has_given_up_ends_as_it_does_or_its_outcome_is_logged() {
    // The server judges by what it knew when the channel was joined.
    for (rejoins, expected) in [(false, RunState::Failed), (true, RunState::Lost)] {
        simulate(|log| async move {
            let hosts = FakeHosts::new(|_, host| async move {
                host.run_started().await;
                host.step_started(0, "a", StepInput::Run).await;
                tokio::time::sleep(Duration::from_secs(300)).await;
                host.finish(Exit::error(ExitReason::Fail, "JobError", "the clinic is closed"), None, None).await;
            });
            let mock = MockOptions { lost_after: Some(Duration::from_secs(60)), ..MockOptions::default() };
            let it = in_memory(mock, Duration::ZERO, hosts, |options| options.workloops = vec![Workloop::standard(1)]);
            let mut plan = one_job();
            plan["options"] = json!({"run_timeout_ms": 1000});
            let id = it.queue(&plan);
            let lost = it.mock.wait_for_end(&id, Duration::from_secs(900)).await.unwrap();
            assert_eq!(lost.state, RunState::Lost);
            if rejoins {
                it.mock.cut_sockets();
            }
            let mut status = it.lightning.watch();
            status.wait_for(|status| status.active_runs == 0).await.unwrap();
            assert_eq!(it.mock.run(&id).unwrap().state, expected);
            let told =
                log.lines_with(&["run lost for Lightning", "it ended here: fail", "JobError: the clinic is closed"]);
            assert_eq!(told.len(), usize::from(rejoins), "{}", log.text());
            it.assert_only_refused("already in completed state");
        });
    }
}

#[test]
fn a_bad_run_token_refuses_that_run_and_nothing_else() {
    // The double signs with no key here, so that no token of its can be verified.
    simulate(|log| async move {
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = in_memory(MockOptions::default(), Duration::ZERO, hosts, |options| {
            options.public_key = Some(lightning::RunTokenKey::from_base64_pem(PUBLIC_KEY).unwrap());
            options.workloops = vec![Workloop::standard(2)];
        });
        it.joined().await;
        for refused in 1..=5 {
            it.queue(&one_job());
            let mut status = it.lightning.watch();
            status.wait_for(|status| status.refused_tokens == refused && status.open_claims == 0).await.unwrap();
        }
        let status = it.lightning.status();
        assert!(status.joined && status.active_runs == 0, "{status:?}");
        assert_eq!(log.lines_with(&["its token is not valid"]).len(), 5);
    });
}

/// An RSA key that nobody has the other half of.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKsBX37kzzKqOgwzHi2eMeFp1e/iaxpo
0j0cuHtyr9lHdoN5MMNkeQrtKZiK8XFmSZSobGz0HmDJeVmzghgKyKcCAwEAAQ==
-----END PUBLIC KEY-----
";
