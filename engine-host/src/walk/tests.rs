use std::future::pending;
use std::sync::Arc;

use protocol::run::{ExitReason, StepMemory, StepOutput};

use super::*;
use crate::engine::{EngineLost, LogSink, Origin, Thrown};
use crate::report::{self, EngineLog, Report};
use crate::testing::{Act, FakeEngine, error, thrown, workflow};

/// Everything that a walk reports, a line each, the outcome last.
struct Walked {
    all: Vec<String>,
    /// When the steps' events and the log lines happened.
    times: Vec<u64>,
    /// Of each step that ended.
    memory: Vec<StepMemory>,
    calls: Vec<String>,
}

impl Walked {
    /// The steps' events and the outcome.
    fn events(&self) -> String {
        let events = self.all.iter().filter(|line| !line.starts_with("log"));
        events.map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn logs(&self, text: &str) -> bool {
        self.all.iter().any(|line| line.starts_with("log") && line.contains(text))
    }
}

async fn walked_until(spec: RunSpec, mut engine: FakeEngine, stop: impl Future<Output = Exit>) -> Walked {
    let (reporter, mut reports) = report::stream(&spec.options);
    let calls = engine.calls.clone();
    let walking = async {
        let outcome = walk(spec, &mut engine, &reporter, stop).await;
        drop(reporter);
        outcome
    };
    let reading = async {
        let (mut all, mut times, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(report) = reports.recv().await {
            times.extend(time(&report));
            if let Report::Completed(step, _) = &report {
                memory.push(step.memory);
            }
            all.push(describe_report(report));
        }
        (all, times, memory)
    };
    let (outcome, (mut all, times, memory)) = tokio::join!(walking, reading);
    let state = outcome.final_state.as_ref().map_or("no state", Json::as_str);
    all.push(format!("end {} {state} {:?}", show(&outcome.exit), outcome.final_step));
    Walked { all, times, memory, calls: calls.lock().unwrap().clone() }
}

async fn walked(spec: RunSpec, engine: FakeEngine) -> Walked {
    walked_until(spec, engine, pending()).await
}

fn time(report: &Report) -> Option<u64> {
    match report {
        Report::Event(RunEvent::Started(_) | RunEvent::Used(_)) => None,
        Report::Event(RunEvent::StepStarted(step)) => Some(step.timestamp_us),
        Report::Event(RunEvent::Log(line)) => Some(line.timestamp_us),
        Report::Completed(step, _) => Some(step.timestamp_us),
    }
}

fn describe_report(report: Report) -> String {
    match report {
        Report::Event(RunEvent::Started(versions)) => format!("run {:?}", versions.adaptors),
        Report::Event(RunEvent::Used(usage)) => format!("{usage:?}"),
        Report::Event(RunEvent::StepStarted(step)) => format!("start {} {} {:?}", step.index, step.step_id, step.input),
        Report::Event(RunEvent::Log(line)) => {
            format!("log {} {} {}", line.source.as_str(), line.level.as_str(), line.message.as_str())
        }
        Report::Completed(step, taken) => {
            let output = match &step.output {
                StepOutput::State(state) => state.as_str().to_owned(),
                other => format!("{other:?}"),
            };
            let response = step.webhook_response.as_ref().map(|json| format!(" + {}", json.as_str()));
            let _ = taken.send(());
            format!("done {} {} {output}{}", step.index, show(&step.exit), response.unwrap_or_default())
        }
    }
}

fn show(exit: &Exit) -> String {
    match &exit.error {
        None => exit.reason.as_str().into(),
        Some(error) => format!("{} {}: {}", exit.reason.as_str(), error.kind, error.message),
    }
}

/// Walks a workflow and compares its events, without the run's start.
async fn check(text: &str, script: impl IntoIterator<Item = (&'static str, Act)>, expected: &str) {
    let walked = walked(workflow(text), FakeEngine::new(script)).await;
    let events = walked.events();
    let expected: Vec<_> = expected.lines().map(str::trim).collect();
    assert_eq!(events.lines().skip(1).collect::<Vec<_>>(), expected, "{text}");
}

#[tokio::test]
async fn states_go_from_step_to_step() {
    check(
        "a -> b\nb",
        [("a", Act::Return(r#"{"data":{"n":1},"x":2}"#))],
        "start 0 a Run
         done 0 success {\"data\":{\"n\":1},\"x\":2}
         start 1 b Step(0)
         done 1 success {\"data\":{}}
         end success {\"data\":{}} Some(1)",
    )
    .await;
}

#[tokio::test]
async fn what_is_reported_bears_the_time_when_it_happened() {
    let before = protocol::clock::now_us();
    let walked = walked(workflow("a -> b\nb"), FakeEngine::new([("b", error("oh no"))])).await;
    let times = [vec![before], walked.times, vec![protocol::clock::now_us()]].concat();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_job_gets_its_state_assembled() {
    let mut spec = workflow("a -> b\nb");
    spec.input = Json::parse(r#"{"data":{"n":1}}"#).unwrap();
    spec.configuration = Some(Json::parse(r#"{"shared":1}"#).unwrap());
    spec.steps[1].configuration = Some(Json::parse(r#"{"own":1}"#).unwrap());
    let walked = walked(spec, FakeEngine::new([("a", Act::Return("42"))])).await;
    assert_eq!(
        walked.calls,
        [r#"a {"data":{"n":1},"configuration":{"shared":1}}"#, r#"b {"configuration":{"shared":1,"own":1},"data":{}}"#]
    );
    assert!(walked.logs("no object: Lightning gets it as"));
}

#[tokio::test]
async fn the_order_is_breadth_first_and_steps_may_run_twice() {
    check(
        "a -> b, c\nb -> d\nc -> d\nd",
        [("d", Act::Return(r#"{"n":1}"#))],
        "start 0 a Run
         done 0 success {\"data\":{}}
         start 1 b Step(0)
         done 1 success {\"data\":{}}
         start 2 c Step(0)
         done 2 success {\"data\":{}}
         start 3 d Step(1)
         done 3 success {\"n\":1}
         start 4 d Step(2)
         done 4 success {\"n\":1}
         end success {\"d\":{\"n\":1},\"d-1\":{\"n\":1}} None",
    )
    .await;
}

#[tokio::test]
async fn failures_follow_their_edges() {
    check(
        "a -> success b, failure c, never d\nb\nc\nd",
        [("a", error("boom")), ("c", Act::Return(r#"{"ok":1}"#))],
        r#"start 0 a Run
         done 0 fail JobError: boom {"data":{},"errors":{"a":{"source":"runtime","name":"JobError","severity":"fail","message":"boom"}}}
         start 1 c Step(0)
         done 1 success {"ok":1}
         end success {"ok":1} Some(1)"#,
    )
    .await;
}

#[tokio::test]
async fn an_edge_is_open_or_closed_by_how_the_step_before_it_ended() {
    let failed_itself = Act::Return(r#"{"errors":{"a":{"message":"m"}}}"#);
    let of_another = Act::Return(r#"{"errors":{"b":{"message":"m"}}}"#);
    for (act, open) in [
        (Act::Return("{}"), ["always", "success"]),
        (Act::ReturnNothing, ["always", "success"]),
        (Act::Return("5"), ["always", "success"]),
        (of_another, ["always", "success"]),
        (failed_itself, ["always", "failure"]),
        (error("boom"), ["always", "failure"]),
    ] {
        let text = "a -> always, success success, failure failure, never never\nalways\nsuccess\nfailure\nnever";
        let walked = walked(workflow(text), FakeEngine::new([("a", act.clone())])).await;
        let steps = walked.calls.iter().filter_map(|call| call.split(' ').next()).skip(1);
        assert_eq!(steps.collect::<Vec<_>>(), open, "{act:?}");
        let closed = ["always", "success", "failure", "never"].map(|to| walked.logs(&format!("a->{to} is not taken")));
        let expected = ["always", "success", "failure", "never"].map(|to| !open.contains(&to));
        assert_eq!(closed, expected, "{act:?}");
    }
}

#[tokio::test]
async fn a_failed_leaf_fails_the_run() {
    let failed =
        r#"{"data":{},"errors":{"a":{"source":"runtime","name":"JobError","severity":"fail","message":"boom"}}}"#;
    let expected =
        format!("start 0 a Run\ndone 0 fail JobError: boom {failed}\nend fail JobError: boom {failed} Some(0)");
    check("a -> success b\nb", [("a", error("boom"))], &expected).await;
}

#[tokio::test]
async fn a_failure_keeps_what_the_job_did_to_its_state() {
    let act = Act::Throw(Thrown { state: Some(r#"{"data":{"seen":1}}"#.into()), ..thrown(Origin::Job, "Error", "x") });
    let walked = walked(workflow("a"), FakeEngine::new([("a", act)])).await;
    assert!(walked.events().contains(r#"{"data":{"seen":1},"errors":{"a":"#), "{}", walked.events());
}

#[tokio::test]
async fn errors_that_cannot_be_survived_end_the_run() {
    use ExitReason::{Crash, Kill};
    let exit = |kind: &str, message: &str, reason| show(&Exit::error(reason, kind, message));
    for (act, step, run, output) in [
        (
            Act::Throw(thrown(Origin::Job, "ReferenceError", "x")),
            exit("ReferenceError", "ReferenceError: x", Crash),
            exit("RuntimeCrash", "ReferenceError: x", Crash),
            r#"{"data":{}}"#,
        ),
        (
            Act::Throw(thrown(Origin::Uncaught, "Error", "late")),
            exit("ExecutionError", "late", Crash),
            exit("ExecutionError", "late", Crash),
            "{}",
        ),
        (
            Act::Lose(EngineLost::OutOfMemory),
            exit("OOMError", "Run exceeded maximum memory usage", Kill),
            exit("OOMError", "Run exceeded maximum memory usage", Kill),
            "{}",
        ),
    ] {
        let expected = format!("start 0 a Run\ndone 0 {step} {output}\nend {run} no state None");
        check("a -> b\nb", [("a", act)], &expected).await;
    }
}

#[tokio::test]
async fn an_adaptor_for_another_engine_is_an_import_that_fails() {
    let mut spec = workflow("a -> b\nb");
    spec.steps[1].adaptors = vec!["refused-http".into()];
    let walked = walked(spec, FakeEngine::default()).await;
    let events = walked.events();
    assert!(events.ends_with(
        "start 1 b Step(0)\ndone 1 crash ImportError: http needs another engine {\"data\":{}}\n\
         end crash ImportError: http needs another engine no state None"
    ));
}

#[tokio::test]
async fn conditions_are_asked_of_the_engine() {
    let mut spec = workflow("[t] -> (true) a\na -> (true) b, (false) c\nb\nc");
    spec.input = Json::parse(r#"{"n":1}"#).unwrap();
    let walked = walked(spec, FakeEngine::default()).await;
    assert_eq!(
        walked.calls,
        [
            r#"t? true {"n":1}"#,
            r#"a {"n":1,"configuration":{},"data":{}}"#,
            r#"a? true {"data":{}}"#,
            r#"a? false {"data":{}}"#,
            r#"b {"data":{},"configuration":{}}"#
        ]
    );
    assert!(walked.logs("a->c is not taken"));
}

#[tokio::test]
async fn a_condition_that_throws_ends_the_run() {
    let exit = "crash EdgeConditionError: no is not defined";
    check("a -> (no.x) b\nb", [], &format!("start 0 a Run\ndone 0 {exit} {{}}\nend {exit} no state None")).await;
    check("[t] -> (no.x) b\nb", [], &format!("end {exit} no state None")).await;
}

#[tokio::test]
async fn steps_without_code_pass_their_input_on() {
    check("[t]", [], "end success {} None").await;
    check(
        "a -> b\n[b] -> c\nc",
        [("a", Act::Return(r#"{"n":1}"#)), ("c", Act::ReturnNothing)],
        r#"start 0 a Run
         done 0 success {"n":1}
         start 1 c Step(0)
         done 1 success {}
         end success no state Some(1)"#,
    )
    .await;
}

#[tokio::test]
async fn odd_results_are_never_lost() {
    check(
        "a",
        [("a", Act::Return("42"))],
        "start 0 a Run\ndone 0 success {\"value\":42}\nend success {\"value\":42} Some(0)",
    )
    .await;
    check(
        "a -> b\nb",
        [("a", Act::ReturnNothing), ("b", Act::Return("{}"))],
        "start 0 a Run\ndone 0 success {}\nstart 1 b Step(0)\ndone 1 success {}\nend success {} Some(1)",
    )
    .await;
    check(
        "a",
        [("a", Act::ReturnWithResponse("{}", r#"{"status":201}"#))],
        "start 0 a Run\ndone 0 success {} + {\"status\":201}\nend success {} Some(0)",
    )
    .await;
}

#[tokio::test]
async fn a_malformed_answer_to_a_webhook_is_told_in_the_log() {
    for (response, is_malformed) in
        [(r#"{"status":201,"body":{}}"#, false), (r#"{"body":"<html>"}"#, true), ("7", true)]
    {
        let walked = walked(workflow("a"), FakeEngine::new([("a", Act::ReturnWithResponse("{}", response))])).await;
        assert_eq!(walked.logs("webhookResponse is malformed"), is_malformed, "{response}");
        assert!(walked.events().contains(&format!(" + {response}")), "{response}: it goes all the same");
    }
    let walked = walked(workflow("a"), FakeEngine::new([("a", Act::ReturnWithResponse("{}", "null"))])).await;
    assert!(!walked.events().contains(" + "), "null is none");
}

#[tokio::test]
async fn large_dataclips_are_withheld_and_the_next_step_has_them_in_full() {
    let long = r#"{"data":{"text":"more than the payload limit"}}"#;
    let mut spec = workflow("a -> b\nb");
    spec.options.payload_bytes = 20;
    let script = [("a", Act::ReturnWithResponse(long, long)), ("b", Act::Return(long))];
    let walked = walked(spec, FakeEngine::new(script)).await;
    assert_eq!(
        walked.events().lines().skip(1).collect::<Vec<_>>(),
        [
            "start 0 a Run",
            "done 0 success TooLarge(47)",
            "start 1 b Step(0)",
            "done 1 success TooLarge(47)",
            r#"end success {"data":"[REDACTED]"} None"#
        ]
    );
    assert!(walked.calls[1].contains("more than the payload limit"));
    assert!(walked.logs("dataclip is withheld") && walked.logs("webhookResponse is withheld"));
}

#[tokio::test]
async fn a_state_over_its_limit_ends_the_run() {
    let mut spec = workflow("a -> b\nb");
    spec.options.state_bytes = 10;
    let walked = walked(spec, FakeEngine::new([("a", Act::Return(r#"{"data":"12345"}"#))])).await;
    let exit = "kill StateTooLargeError: State exceeds the limit of 0mb";
    assert!(walked.events().ends_with(&format!("done 0 {exit} {{}}\nend {exit} no state None")));
}

#[tokio::test]
async fn a_job_that_throws_and_leaves_too_much_is_ended_for_what_it_leaves() {
    let left = |state: Option<&str>, is_too_large| {
        Act::Throw(Thrown { state: state.map(str::to_owned), is_too_large, ..thrown(Origin::Job, "Error", "boom") })
    };
    let kill = "kill StateTooLargeError: State exceeds the limit of 0mb";
    for (act, limit, expected) in [
        (left(Some(r#"{"data":"more than that"}"#), false), 20, kill),
        // With the error itself in it, it is more.
        (left(Some("{}"), false), 20, kill),
        (left(None, true), 1_000, kill),
        (left(Some("{}"), false), 1_000, "fail JobError: boom"),
    ] {
        let mut spec = workflow("a -> failure b\nb");
        spec.options.state_bytes = limit;
        let walked = walked(spec, FakeEngine::new([("a", act.clone())])).await;
        let events = walked.events();
        assert!(events.contains(&format!("done 0 {expected}")), "{act:?}: {events}");
        assert_eq!(walked.calls.len(), if expected == kill { 1 } else { 2 }, "{act:?}: {events}");
    }
}

#[tokio::test]
async fn an_engine_that_was_stopped_is_not_heard_any_more() {
    for (text, script) in [("a", Some(("a", Act::Hang))), ("a -> (hang) b\nb", None), ("[t] -> (hang) b\nb", None)] {
        let spec = workflow(text);
        let (reporter, mut reports) = report::stream(&spec.options);
        let log = EngineLog::default();
        log.open(reporter.clone());
        let mut engine = FakeEngine::new(script);
        let hanging = Arc::clone(&engine.hanging);
        let is_heard = || log.wants(LogSource::Job, LogLevel::Error);
        let stop = async {
            hanging.notified().await;
            assert!(is_heard(), "{text}: it is not stopped yet");
            Exit::error(ExitReason::Cancel, "Cancelled", "by hand")
        };
        let reading = async {
            while let Some(report) = reports.recv().await {
                describe_report(report);
            }
        };
        tokio::select! {
            _ = walk(spec, &mut engine, &reporter, stop) => {}
            () = reading => unreachable!("the reporter is still there"),
        }
        assert!(!is_heard(), "{text}");
    }
}

#[tokio::test]
async fn jobs_get_the_globals_meta_and_the_keys_to_remove() {
    let mut spec = workflow("a -> b\nb");
    spec.globals = Some("export const ten = 10;".into());
    spec.meta = Json::parse(r#"{"runId":"r"}"#).unwrap();
    spec.options.state_props_to_remove = vec!["secret".into()];
    let engine = FakeEngine::default();
    let jobs = Arc::clone(&engine.jobs);
    walked(spec, engine).await;
    let jobs = jobs.lock().unwrap();
    assert_eq!(jobs.len(), 2);
    for job in &*jobs {
        assert!(job.globals.as_ref().is_some_and(|globals| globals.contains("ten")), "{job:?}");
        assert_eq!(job.meta.as_str(), r#"{"runId":"r"}"#);
        assert_eq!(job.state_props_to_remove, ["secret"]);
    }
}

#[tokio::test]
async fn what_is_to_be_removed_is_in_no_state_that_the_host_makes_itself() {
    let refused = |spec: &mut RunSpec| spec.steps[0].adaptors = vec!["refused-http".into()];
    for (is_refused, script) in [
        (true, None),
        (false, Some(("a", error("boom")))),
        (false, Some(("a", Act::Throw(thrown(Origin::Job, "ReferenceError", "x"))))),
    ] {
        let mut spec = workflow("a");
        spec.input = Json::parse(r#"{"secret":"s3cr3t","kept":1}"#).unwrap();
        spec.options.state_props_to_remove = vec!["secret".into()];
        if is_refused {
            refused(&mut spec);
        }
        let events = walked(spec, FakeEngine::new(script)).await.events();
        assert!(events.contains(r#""kept":1"#) && !events.contains("s3cr3t"), "{events}");
    }
}

#[tokio::test]
async fn a_step_is_reported_with_the_memory_that_its_engine_had() {
    let mut engine = FakeEngine::new([("a", Act::Return("{}")), ("b", error("boom"))]);
    (engine.heap_bytes, engine.resident_bytes) = (Some(5), 7);
    let memory = walked(workflow("a -> b\nb"), engine).await.memory;
    assert_eq!(memory.iter().map(|it| (it.job, it.system)).collect::<Vec<_>>(), [(5, 7), (5, 0)]);
}

#[tokio::test]
async fn steps_are_called_by_their_names_or_else_by_their_ids() {
    // Where the job's code is in the module that the engine gets.
    let engine = FakeEngine::default();
    let jobs = Arc::clone(&engine.jobs);
    walked(workflow("a"), engine).await;
    let code = jobs.lock().unwrap()[0].code.clone();
    let place = code.lines().zip(1..).find_map(|(line, number)| Some((number, line.find("=> s")? as u32 + 4)));
    assert!(place.is_some(), "{code}");

    for (name, label) in [(Some("Fetch patients"), "Fetch patients"), (None, "a")] {
        let mut spec = workflow("a");
        spec.steps[0].name = name.map(str::to_owned);
        let failure = Thrown { position: place, ..thrown(Origin::Job, "TypeError", "boom") };
        let walked = walked(spec, FakeEngine::new([("a", Act::Throw(failure))])).await;
        assert!(walked.logs(&format!("Starting step {label}")), "{:?}", walked.all);
        assert!(walked.logs(&format!("{label} failed after")), "{:?}", walked.all);
        assert!(walked.events().contains(&format!(r#""step":"{label}""#)), "{}", walked.events());
        assert!(walked.logs("The error is in state.errors.a"), "{:?}", walked.all);
    }
}

#[tokio::test]
async fn a_stop_ends_the_run_whatever_the_engine_does() {
    let exit = Exit::error(ExitReason::Cancel, "Cancelled", "by hand");
    for (text, script, expected) in [
        ("a -> b\nb", Some(("a", Act::Hang)), "start 0 a Run\ndone 0 {} {}\nend {} no state None"),
        ("a -> (hang) b\nb", None, "start 0 a Run\ndone 0 {} {}\nend {} no state None"),
        ("[t] -> (hang) b\nb", None, "end {} no state None"),
    ] {
        let engine = FakeEngine::new(script);
        let hanging = Arc::clone(&engine.hanging);
        let stop = async {
            hanging.notified().await;
            exit.clone()
        };
        let walked = walked_until(workflow(text), engine, stop).await;
        let expected = expected.replacen("{} {}", "cancel Cancelled: by hand @", 1);
        let expected = expected.replace("{}", "cancel Cancelled: by hand").replace('@', "{}");
        assert_eq!(walked.events().lines().skip(1).collect::<Vec<_>>().join("\n"), expected, "{text}");
    }
}

#[tokio::test]
async fn nothing_runs_of_a_workflow_with_a_mistake() {
    for (text, code, expected) in [
        ("a -> b\nb", "fn(s => {\n  const a = ;\n})", "crash CompileError: b: Unexpected token (2:12)"),
        ("a -> nope\nb", "fn(s => s)", "crash ValidationError: Cannot find job: nope"),
        (
            "a -> (state.data >) b\nb",
            "fn(s => s)",
            "crash Error: Failed to compile edge condition a->b (Unexpected end of input)",
        ),
    ] {
        let mut spec = workflow(text);
        spec.steps[1].expression = Some(code.into());
        let walked = walked(spec, FakeEngine::default()).await;
        assert_eq!(walked.events().lines().skip(1).collect::<Vec<_>>(), [format!("end {expected} no state None")]);
        assert_eq!(walked.logs("Error occurred during compilation"), expected.contains("CompileError"));
        assert!(walked.calls.is_empty());
    }
}

#[tokio::test]
async fn versions_are_told_by_adaptor() {
    let mut spec = workflow("a\nb\nc");
    spec.steps[1].adaptors = vec!["common@2".into(), "http".into()];
    let walked = walked(spec, FakeEngine::default()).await;
    assert_eq!(walked.all[0], r#"run [("common", ["1", "2"]), ("http", ["latest"])]"#);
}

#[tokio::test]
async fn an_error_is_logged_with_its_type() {
    let walked = walked(workflow("a"), FakeEngine::new([("a", error("boom"))])).await;
    assert!(walked.logs(r#"R/T error ["JobError: boom"]"#) && walked.logs("state.errors.a"));
}

#[tokio::test]
async fn long_error_messages_are_cut() {
    let message = "x".repeat(100);
    let fatal = Act::Throw(thrown(Origin::Job, "ReferenceError", &message));
    for (act, step, run) in
        [(error(&message), "fail JobError", "fail JobError"), (fatal, "crash ReferenceError", "crash RuntimeCrash")]
    {
        let mut spec = workflow("a");
        spec.options.log_payload_bytes = 50;
        let walked = walked(spec, FakeEngine::new([("a", act)])).await;
        let events = walked.events();
        for start in [format!("done 0 {step}: "), format!("end {run}: ")] {
            let message =
                events.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{events}"));
            let cut = message.find("x [cut: too long] ");
            assert_eq!(cut.map(|at| at + "x [cut: too long]".len()), Some(50), "{message}");
        }
    }
}

#[tokio::test]
async fn a_job_that_names_no_adaptor_gets_the_common_one() {
    let mut spec = workflow("a");
    spec.steps[0].adaptors.clear();
    let engine = FakeEngine::default();
    let jobs = Arc::clone(&engine.jobs);
    let walked = walked(spec, engine).await;
    assert_eq!(walked.all[0], "run []");
    assert_eq!(jobs.lock().unwrap()[0].adaptors, [DEFAULT_ADAPTOR]);
}

#[tokio::test]
async fn a_job_that_puts_an_error_at_its_own_id_has_failed() {
    for (state, expected) in [
        (r#"{"errors":{"a":{"type":"Odd","message":"m"}}}"#, "fail Odd: m"),
        (r#"{"errors":{"a":{"name":"Odd"}}}"#, r#"fail Odd: {"name":"Odd"}"#),
        (r#"{"errors":{"a":"text"}}"#, "fail JobError: text"),
        (r#"{"errors":{"a":true}}"#, "fail JobError: true"),
        (r#"{"errors":{"a":{"type":5}}}"#, r#"fail JobError: {"type":5}"#),
        (r#"{"errors":{"a":null}}"#, "success"),
        (r#"{"errors":{"b":{"message":"m"}}}"#, "success"),
        (r#"{"errors":[]}"#, "success"),
    ] {
        let walked = walked(workflow("a"), FakeEngine::new([("a", Act::Return(state))])).await;
        let expected = [format!("done 0 {expected} {state}"), format!("end {expected} {state} Some(0)")].join("\n");
        assert!(walked.events().ends_with(&expected), "{}\nis not\n{expected}", walked.events());
    }
}
