//! Runs of real jobs.

use protocol::message::Cancel;
use protocol::run::{Exit, ExitReason, StepOutput};

use super::*;

#[tokio::test]
async fn a_workflow_runs_to_its_end() {
    let worker = Worker::new();
    let (mut host, process) = worker.start().await;
    let ran = host
        .run(workflow(&[
            ("a", "fn(s => ({ data: { n: 20 } }));\nfn(s => ({ data: { n: s.data.n + 1 } }))", &[(Condition::Always, "b")]),
            (
                "b",
                "fn(async s => { console.log('n is', s.data.n); await new Promise(r => setTimeout(r, 5)); return { data: { n: s.data.n * 2 } }; })",
                &[],
            ),
        ]))
        .await;
    assert_eq!(ran.events, ["quickjs", "start a", "a success", "start b", "b success"]);
    assert_eq!(ran.final_state(), r#"{"data":{"n":42}}"#);
    assert_eq!(ran.jobs, [r#"["n is",21]"#]);
    assert!(ran.steps.iter().all(|step| step.memory.system > 0));

    host.link.call(protocol::message::Stop {}).await.unwrap();
    let (status, stderr) = process.end().await;
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn globals_do_what_jobs_do() {
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let mut spec =
        workflow(&[("a", "fn(() => { define(); return {}; });\nfn(() => ({ half: half(42), ...text }));", &[])]);
    let globals = "export function define() { half = (n) => n / 2; }\nexport const text = { ...'ab' };";
    spec.globals = Some(globals.to_owned());
    let ran = host.run(spec).await;
    assert_eq!(ran.final_state(), r#"{"0":"a","1":"b","half":21}"#);
}

#[tokio::test]
async fn a_failure_takes_its_edge() {
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let ran = host
        .run(workflow(&[
            (
                "a",
                "fn(s => { s.data.seen = 1; return s; });\n\nfn(s => s.nope.deep)",
                &[(Condition::OnSuccess, "b"), (Condition::OnFailure, "c")],
            ),
            ("b", "fn(s => s)", &[]),
            ("c", "fn(s => ({ data: { ...s.data, line: s.errors.a.pos.line } }))", &[]),
        ]))
        .await;
    assert_eq!(ran.events, ["quickjs", "start a", "a fail", "start c", "c success"]);
    assert_eq!(ran.final_state(), r#"{"data":{"seen":1,"line":3}}"#);
    assert_eq!(ran.outcome().exit, Exit::success());
    assert!(ran.runtime.iter().any(|line| line == r#"["3: fn(s => s.nope.deep)"]"#), "{:?}", ran.runtime);
}

#[tokio::test]
async fn a_busy_job_can_be_cancelled() {
    let worker = Worker::new();
    let (mut host, process) = worker.start().await;
    let run = host.start(workflow(&[("a", BUSY, &[])]));
    host.until_logged("busy").await;

    let exit = Exit::error(ExitReason::Cancel, "Cancelled", "not needed any more");
    assert!(host.link.call(Cancel { exit: exit.clone() }).await.unwrap().was_running);
    let mut ran = Ran::default();
    while ran.steps.is_empty() {
        ran.take(within(host.inbox.next()).await.expect("the link lives"));
    }
    assert_eq!(ran.steps[0].exit, exit);
    assert_eq!(ran.steps[0].output, StepOutput::State(Json::empty_object()));
    assert_eq!(run.await.unwrap().unwrap(), RunOutcome { exit, final_state: None, final_step: None });

    let next = host.run(workflow(&[("a", "fn(() => ({ next: true }))", &[])])).await;
    assert_eq!(next.final_state(), r#"{"next":true}"#);
    host.link.close().await;
    assert_eq!(process.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_killed() {
    for code in [BUSY, "fn(s => new Promise(() => {}))"] {
        let worker = Worker::new();
        let (mut host, _process) = worker.start().await;
        let mut spec = workflow(&[("a", code, &[])]);
        spec.options.timeout_ms = 1000;
        let ran = host.run(spec).await;
        let exit = Exit::error(ExitReason::Kill, "TimeoutError", "Workflow failed to return within 1000ms");
        assert_eq!(ran.outcome().exit, exit);
        assert_eq!(ran.steps[0].exit, exit);
        assert_eq!(ran.steps[0].output, StepOutput::State(Json::empty_object()));
    }
}

#[tokio::test]
async fn a_job_that_takes_too_much_memory_is_killed() {
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let mut spec =
        workflow(&[("a", "fn(() => { const all = []; for (;;) all.push('x'.repeat(1000) + all.length); })", &[])]);
    spec.options.memory_bytes = 32 * 1024 * 1024;
    let ran = host.run(spec).await;
    let exit = Exit::error(ExitReason::Kill, "OOMError", "Run exceeded maximum memory usage");
    assert_eq!(ran.outcome().exit, exit);
    assert_eq!(ran.steps[0].exit, exit);
}

#[tokio::test]
async fn every_line_of_a_long_log_arrives_in_order() {
    const LINES: usize = 100_000;
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let code = format!("fn(s => {{ for (let n = 0; n < {LINES}; n += 1) console.log(n); return s; }})");
    let ran = host.run(workflow(&[("a", &code, &[])])).await;
    assert_eq!(ran.outcome().exit, Exit::success());
    assert_eq!(ran.jobs.len(), LINES);
    assert!(ran.jobs.iter().enumerate().all(|(n, line)| *line == format!("[{n}]")));
}
