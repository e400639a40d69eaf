//! Hosts whose engine is Node: the one that `OPENFN_TEST_NODE` names, else the one in the `PATH`.

use std::path::PathBuf;

use protocol::engine::{EngineSpec, ForkOrigin, NodeSpec};
use protocol::message::{Ping, Prepare};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn node() -> EngineSpec {
    let named = std::env::var_os("OPENFN_TEST_NODE").map(PathBuf::from);
    let found = named.or_else(|| {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join("node")).find(|file| file.is_file())
    });
    let program = found.expect("there is a Node in the PATH, or OPENFN_TEST_NODE names one").canonicalize().unwrap();
    let told = Command::new(&program).arg("--version").output().unwrap();
    let version = String::from_utf8(told.stdout).unwrap().trim().trim_start_matches('v').to_owned();
    EngineSpec::Node(NodeSpec { program, version, adaptors: Vec::new(), snapshot: None, origin: ForkOrigin::default() })
}

fn in_node(jobs: &[Job<'_>]) -> RunSpec {
    let mut spec = workflow(jobs);
    for step in &mut spec.steps {
        step.adaptors.clear();
    }
    RunSpec { engine: node(), ..spec }
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|process| parent_of(process) == Some(parent)).collect()
}

fn parent_of(process: &std::path::Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_workflow_runs_in_node() {
    let worker = Worker::new();
    let (mut host, process) = worker.start().await;
    let spec = in_node(&[
        (
            "a",
            "export default [(s) => { console.log('in a'); return { data: { n: 20 } }; }]",
            &[
                (Condition::Expression("state.data.n > 1".into()), "b"),
                (Condition::Expression("state.data.n > 100".into()), "c"),
            ],
        ),
        ("b", "export default [async (s) => ({ data: { n: s.data.n + 1 } })]", &[]),
        ("c", "export default [(s) => s]", &[]),
    ]);
    let prepared = host.link.call(Prepare::of(&spec)).await.unwrap();
    assert_eq!(prepared.engine.0, "node");
    let idle = host.link.call(Ping {}).await.unwrap().rss_bytes;
    assert!(idle > 30 * 1024 * 1024, "{idle}");
    assert_eq!(children(host.pid).len(), 1);

    let ran = host.run(spec).await;
    assert_eq!(ran.events, ["node", "start a", "a success", "start b", "b success"]);
    assert_eq!(ran.final_state(), r#"{"data":{"n":21}}"#);
    assert_eq!(ran.jobs, [r#"["in a"]"#]);
    for step in &ran.steps {
        assert!(step.memory.system > 30 * 1024 * 1024 && step.memory.job > 1024 * 1024, "{:?}", step.memory);
    }
    host.link.call(protocol::message::Stop {}).await.unwrap();
    assert_eq!(process.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn what_becomes_of_node_becomes_of_the_run() {
    use protocol::run::{Exit, ExitReason};
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let mut spec = in_node(&[("a", "export default [() => { const all = []; for (;;) all.push({ a: [] }); }]", &[])]);
    spec.options.memory_bytes = 100 * 1024 * 1024;
    let ran = host.run(spec).await;
    let exit = Exit::error(ExitReason::Kill, "OOMError", "Run exceeded maximum memory usage");
    assert_eq!(ran.outcome().exit, exit);
    assert_eq!(ran.steps[0].exit, exit);

    let mut spec = in_node(&[("a", "export default [() => { for (;;); }]", &[])]);
    spec.options.timeout_ms = 500;
    let ran = host.run(spec).await;
    assert_eq!(ran.outcome().exit.error.as_ref().unwrap().kind, "TimeoutError");

    let next = host.run(in_node(&[("a", "export default [() => ({ next: true })]", &[])])).await;
    assert_eq!(next.final_state(), r#"{"next":true}"#);
    until(|| children(host.pid).iter().all(|child| !is_alive(child))).await;
}

#[tokio::test]
async fn an_engine_that_died_while_it_waited_is_replaced() {
    let worker = Worker::new();
    let (mut host, _process) = worker.start().await;
    let spec = in_node(&[("a", "export default [() => ({ a: 1 })]", &[])]);
    host.link.call(Prepare::of(&spec)).await.unwrap();
    let engine = children(host.pid).pop().unwrap();
    kill(&engine);
    until(|| !is_alive(&engine)).await;
    let ran = host.run(spec).await;
    assert_eq!(ran.final_state(), r#"{"a":1}"#, "{:?}", ran.outcome());
}

#[tokio::test]
async fn node_does_not_outlive_its_host() {
    for by_signal in [true, false] {
        let worker = Worker::new();
        let (mut host, mut process) = worker.start().await;
        let spec = in_node(&[("a", "export default [() => { console.log('busy'); for (;;); }]", &[])]);
        drop(host.start(spec));
        host.until_logged("busy").await;
        let engine = children(host.pid).pop().unwrap();
        assert!(is_alive(&engine));
        if by_signal {
            process.child().kill().unwrap();
        } else {
            host.link.close().await;
        }
        until(|| !is_alive(&engine)).await;
    }
}

fn kill(process: &std::path::Path) {
    let id: i32 = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
}

/// Whether a process has not ended; one that nobody has waited for yet has.
fn is_alive(process: &std::path::Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(process.join("stat")) else { return false };
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(waiting).await;
}

#[tokio::test]
async fn what_a_run_used_counts_its_node() {
    let worker = Worker::new();
    // Longer than the host itself works in any run of a test.
    let code = "export default [(s) => { const end = Date.now() + 400; while (Date.now() < end); return s; }]";
    let (mut host, _process) = worker.start().await;
    let ran = host.run(in_node(&[("a", code, &[])])).await;
    let usage = ran.usage.expect("the host tells it");
    assert!(usage.cpu_us > 50_000 && usage.peak_bytes > 1024 * 1024, "{usage:?}");
}
