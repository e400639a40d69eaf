//! Whatever ends a run's host, its engine or the run itself, and whenever it does: the reason that is told is the right
//! one. [`cell`] is the whole matrix, for both engines and both ways to a Node process, with the reason where there is nothing to try.
//!
//! What a real host cannot be brought to from outside, a host that obeys the test does, in the worker's own tests
//! (`worker/hosts/tests/hosts/attribution.rs`).

use std::time::{Duration, Instant};

use mock_lightning::{MockLightning, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::binaries;
use tests::lightning::{self, DEADLINE, LightningOptions, end, logged, one_job, queue, until};
use tests::node::{NodeGround, SOURCE};
use tests::processes::{Process, process};
use tests::worker::Worker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Embedded,
    /// A Node process that its host has started.
    Node,
    /// One that was forked from a template, so that the worker is its parent.
    Forked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Timeout,
    Cancel,
    HeapOom,
    BufferOom,
    Exit0,
    Exit3,
    Kill,
    Segv,
    Abort,
    LinkBroken,
    HostHung,
    EngineHung,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Preparing,
    Running,
    Completing,
}

const CAUSES: [Cause; 12] = [
    Cause::Timeout,
    Cause::Cancel,
    Cause::HeapOom,
    Cause::BufferOom,
    Cause::Exit0,
    Cause::Exit3,
    Cause::Kill,
    Cause::Segv,
    Cause::Abort,
    Cause::LinkBroken,
    Cause::HostHung,
    Cause::EngineHung,
];
const PHASES: [Phase; 4] = [Phase::Idle, Phase::Preparing, Phase::Running, Phase::Completing];

/// One cell of the matrix.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// A run ends like this, with this in its message.
    Run(RunState, &'static str, &'static str),
    /// The worker logs this of the host, and no run is harmed.
    Host(&'static str),
    /// The host that obeys tests is used for it.
    StandIn,
    /// It cannot happen, because of this.
    Impossible(&'static str),
}

fn cell(engine: Engine, cause: Cause, phase: Phase) -> Cell {
    use Cell::{Host, Impossible, Run, StandIn};
    use RunState::{Cancelled, Crashed, Exception, Killed};
    match (phase, cause) {
        (Phase::Running, Cause::Timeout | Cause::EngineHung) => Run(Killed, "TimeoutError", "within 1000ms"),
        (Phase::Running, Cause::Cancel) => Run(Cancelled, "Cancelled", ""),
        (Phase::Running, Cause::HeapOom | Cause::BufferOom) => Run(Killed, "OOMError", "maximum memory usage"),
        (Phase::Running, Cause::Exit0 | Cause::Exit3) if engine == Engine::Embedded => {
            Impossible("a job in QuickJS has no process that it could end")
        }
        (Phase::Running, Cause::Exit0) => Run(Crashed, "ExitError", "Process exited with code: 0"),
        (Phase::Running, Cause::Exit3) => Run(Crashed, "ExitError", "Process exited with code: 3"),
        (Phase::Running, Cause::Kill) => Run(Crashed, "ExitError", "SIGKILL"),
        (Phase::Running, Cause::Segv) => Run(Crashed, "ExitError", "SIGSEGV"),
        (Phase::Running, Cause::Abort) => Run(Crashed, "ExitError", "SIGABRT"),
        (Phase::Running, Cause::HostHung) => Run(Exception, "EngineHostError", "did not answer any more"),
        // A link is its host's: nothing outside of it can break it.
        (_, Cause::LinkBroken) => StandIn,
        (Phase::Idle | Phase::Preparing, Cause::Timeout) => Impossible("the time of a run begins with the run"),
        (Phase::Idle | Phase::Preparing, Cause::Cancel) => Impossible("no host has a run that could be cancelled"),
        (Phase::Completing, Cause::Timeout | Cause::Cancel) => Impossible("the run's end is told already"),
        (_, Cause::HeapOom | Cause::BufferOom) => Impossible("no job runs"),
        (_, Cause::EngineHung) => Impossible("an engine that nothing is asked of is not late with it"),
        (_, Cause::Exit0 | Cause::Exit3) | (Phase::Completing, _) => StandIn,
        (Phase::Preparing, _) if engine == Engine::Embedded => StandIn,
        (Phase::Preparing, _) if engine == Engine::Forked => Impossible("a fork takes a few milliseconds"),
        (Phase::Idle, Cause::Kill) => Host("crashed while ready (Process killed by signal SIGKILL)"),
        (Phase::Idle, Cause::Segv) => Host("crashed while ready (Process killed by signal SIGSEGV)"),
        (Phase::Idle, Cause::Abort) => Host("crashed while ready (Process killed by signal SIGABRT)"),
        (Phase::Idle, Cause::HostHung) => Host("hung and was killed while ready (Process killed by signal SIGKILL)"),
        (Phase::Preparing, Cause::Kill) => Host("crashed while preparing (Process killed by signal SIGKILL)"),
        (Phase::Preparing, Cause::Segv) => Host("crashed while preparing (Process killed by signal SIGSEGV)"),
        (Phase::Preparing, Cause::Abort) => Host("crashed while preparing (Process killed by signal SIGABRT)"),
        (Phase::Preparing, Cause::HostHung) => {
            Host("hung and was killed while preparing (Process killed by signal SIGKILL)")
        }
    }
}

/// The job that meets this, or waits to be met.
fn job(cause: Cause) -> String {
    let act = match cause {
        Cause::EngineHung => "for (;;);",
        Cause::HeapOom => "const all = []; for (;;) all.push(new Array(10000).fill(1.5));",
        Cause::BufferOom => "const all = []; for (;;) all.push(new Uint8Array(8 * 1024 * 1024).fill(1));",
        Cause::Exit0 => "exit(0);",
        Cause::Exit3 => "exit(3);",
        _ => "await new Promise((wake) => setTimeout(wake, 200000));",
    };
    format!("fn(async (state) => {{ console.log('here'); {act} return state; }})")
}

fn plan(cause: Cause) -> Value {
    let mut plan = one_job(&job(cause));
    plan["options"]["run_memory_limit_mb"] = MEMORY_MB.into();
    if matches!(cause, Cause::Timeout | Cause::EngineHung) {
        plan["options"]["run_timeout_ms"] = 1000.into();
    }
    plan
}

/// Memory of all runs, which their engines are prepared for.
const MEMORY_MB: u64 = 100;

/// What is sent, if anything is.
fn signal(cause: Cause) -> Option<Signal> {
    match cause {
        Cause::Kill => Some(Signal::KILL),
        Cause::Segv => Some(Signal::SEGV),
        Cause::Abort => Some(Signal::ABORT),
        Cause::HostHung => Some(Signal::STOP),
        _ => None,
    }
}

/// Sends a signal until it has had its effect: Rust's own handler takes the first SIGSEGV.
async fn hit(pid: u32, signal: Signal) {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is positive");
    let end = Instant::now() + DEADLINE;
    while process(pid).is_some() {
        // It may just have ended.
        let _ = kill_process(id, signal);
        if signal == Signal::STOP {
            return;
        }
        assert!(Instant::now() < end, "{pid} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Stage {
    engine: Engine,
    lightning: MockLightning,
    worker: Worker,
    runtime: tempfile::TempDir,
    ground: NodeGround,
}

impl Stage {
    async fn set(engine: Engine, options: &[&str]) -> Self {
        let runtime = tempfile::tempdir().expect("a temporary folder can be made");
        let (lightning, ground) = (lightning::start(LightningOptions::default()).await, NodeGround::start().await);
        let mut variables = ground.variables(runtime.path());
        match engine {
            Engine::Embedded => variables.push(("WORKER_ENGINE", "embedded".into())),
            Engine::Node => variables.push(("WORKER_NODE_START", "snapshot".into())),
            Engine::Forked => variables.push(("WORKER_NODE_START", "fork".into())),
        }
        let worker = Worker::start_at(&lightning.url(), options, &variables).await;
        let stage = Self { engine, lightning, worker, runtime, ground };
        stage.goes_on().await;
        if engine == Engine::Forked {
            stage.goes_on().await;
            stage.worker.printed("is forked from now on").await;
            // Those that were started before it was there are taken first.
            let end = Instant::now() + DEADLINE;
            while stage.hosts().iter().any(|(_, engine)| engine.is_some()) {
                assert!(Instant::now() < end, "some engines are not forked\n{}", stage.worker.output());
                stage.goes_on().await;
            }
        }
        stage
    }

    /// A run that does nothing ends well.
    async fn goes_on(&self) {
        let mut plan = one_job("fn((state) => state)");
        plan["options"]["run_memory_limit_mb"] = MEMORY_MB.into();
        self.ends_well(plan).await;
    }

    /// So does one that loads this adaptor.
    async fn goes_on_with(&self, adaptor: &str) {
        let mut plan = one_job("fn((state) => state)");
        plan["jobs"][0]["adaptor"] = adaptor.into();
        self.ends_well(plan).await;
    }

    async fn ends_well(&self, plan: Value) {
        let id = queue(&self.lightning, plan);
        let record = end(&self.lightning, &self.worker, &id).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", self.worker.output());
    }

    /// Ends a run like this; gives its id.
    async fn begin(&self, cause: Cause, hits_engine: bool) -> String {
        let id = queue(&self.lightning, plan(cause));
        until(&self.lightning, &self.worker, &id, |record| logged(record, "here")).await;
        if cause == Cause::Cancel {
            let mut ctl = tokio::process::Command::new(binaries::worker());
            ctl.args(["ctl", "cancel", &id]).env("XDG_RUNTIME_DIR", self.runtime.path());
            assert!(ctl.status().await.expect("the worker was just built").success());
        }
        if let Some(signal) = signal(cause) {
            let host = self.worker.host_of(&id).pid;
            let engine = || {
                let engine = self.worker.engine_of(host).expect("it has an engine");
                let parent = if self.engine == Engine::Forked { self.worker.pid() } else { host };
                assert_eq!(engine.parent, parent, "{engine:?}\n{}", self.worker.output());
                engine.pid
            };
            hit(if hits_engine { engine() } else { host }, signal).await;
        }
        id
    }

    async fn is_attributed(&self, id: &str, what: &str, (state, kind, message): (RunState, &str, &str)) {
        let record = end(&self.lightning, &self.worker, id).await;
        let told = record.error_message.as_deref().unwrap_or_default();
        let found = (record.state, record.error_type.as_deref());
        assert_eq!(found, (state, Some(kind)), "{what}: {told}\n{}", self.worker.output());
        assert!(told.contains(message), "{what}: {told}");
    }

    /// Hosts with what they have started: a Node that was not forked.
    fn hosts(&self) -> Vec<(Process, Option<Process>)> {
        let all = self.worker.hosts();
        let hosts = all.iter().filter(|host| host.parent == self.worker.pid() && host.name != "template");
        hosts.map(|host| (host.clone(), all.iter().find(|it| it.parent == host.pid).cloned())).collect()
    }

    /// Waits for a host like this.
    async fn host(&self, is_wanted: impl Fn(&Option<Process>) -> bool) -> u32 {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some((host, _)) = self.hosts().iter().find(|(_, engine)| is_wanted(engine)) {
                return host.pid;
            }
            assert!(Instant::now() < end, "no host gets there\n{}", self.worker.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn cells(engine: Engine, phase: Phase) -> impl Iterator<Item = (Cause, Cell)> {
    CAUSES.into_iter().map(move |cause| (cause, cell(engine, cause, phase)))
}

async fn while_running(engine: Engine) {
    let stage = Stage::set(engine, &["--capacity", "3", "--warm-hosts", "2"]).await;
    let mut begun = Vec::new();
    for (cause, cell) in cells(engine, Phase::Running) {
        let Cell::Run(state, kind, message) = cell else { continue };
        let is_sent_to_engine = signal(cause).is_some() && cause != Cause::HostHung && engine != Engine::Embedded;
        for hits_engine in [false, true] {
            if hits_engine && !is_sent_to_engine {
                continue;
            }
            let what = format!("{engine:?}: {cause:?} while running, sent to the engine: {hits_engine}");
            let id = stage.begin(cause, hits_engine).await;
            begun.push((id, what, (state, kind, message)));
        }
    }
    for (id, what, expected) in begun {
        stage.is_attributed(&id, &what, expected).await;
    }
    stage.goes_on().await;
    stage.worker.stop().await;
}

/// The adaptor that takes a while to load.
const SLOW: &str = "@openfn/language-slow@1.0.0";

/// Hosts that have no run, one cause after the other; the last one's takes longest.
async fn without_a_run(engine: Engine, phase: Phase) {
    let stage = Stage::set(engine, &["--capacity", "1", "--warm-hosts", "1", "--engine-validation-retries", "0"]).await;
    if phase == Phase::Preparing {
        // Loading it takes a while where runs' engines load it.
        let slow = format!(
            "if (process.permission) while (process.cpuUsage().user < 2e6) for (let i = 0; i < 1e6; i++);\n{SOURCE}"
        );
        stage.ground.registry.publish("@openfn/language-slow", "1.0.0", &slow);
        stage.goes_on_with(SLOW).await;
    }
    for (cause, cell) in cells(engine, phase) {
        let Cell::Host(words) = cell else { continue };
        let begins = stage.worker.output().len();
        let pid = match phase {
            Phase::Preparing => {
                // What takes the place of the host that this run takes has to be prepared.
                idle(&stage).await;
                stage.goes_on_with(SLOW).await;
                let busy = Duration::from_millis(500)..Duration::from_millis(1500);
                stage.host(|engine| engine.as_ref().is_some_and(|engine| busy.contains(&engine.cpu))).await
            }
            _ => idle(&stage).await,
        };
        hit(pid, signal(cause).expect("it is a signal")).await;
        let end = Instant::now() + DEADLINE;
        while !stage.worker.output()[begins..].contains(words) {
            assert!(Instant::now() < end, "{engine:?}: {cause:?} while {phase:?}\n{}", stage.worker.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stage.goes_on().await;
    stage.worker.stop().await;
}

/// A host that waits for a run, as the worker says.
async fn idle(stage: &Stage) -> u32 {
    let end = Instant::now() + DEADLINE;
    loop {
        let mut ctl = tokio::process::Command::new(binaries::worker());
        ctl.args(["ctl", "hosts", "--json"]).env("XDG_RUNTIME_DIR", stage.runtime.path());
        let output = ctl.output().await.expect("the worker was just built").stdout;
        let told: Value = serde_json::from_slice(&output).expect("it prints JSON");
        let hosts = told["hosts"].as_array().expect("it lists hosts");
        // Its memory is known when its engine is ready.
        let name = if stage.engine == Engine::Embedded { "embedded" } else { "node" };
        let ready = hosts.iter().find(|host| {
            let has_engine = host["engine"].as_str().is_some_and(|engine| engine.starts_with(name));
            host["pool"] == "engines" && host["state"] == "ready" && has_engine && host["memory_bytes"].is_u64()
        });
        if let Some(pid) = ready.and_then(|host| host["pid"].as_u64()) {
            return u32::try_from(pid).expect("it is a pid");
        }
        assert!(Instant::now() < end, "no host gets ready: {told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_run_is_executed() {
    tokio::join!(while_running(Engine::Embedded), while_running(Engine::Node));
    if tests::node::is_forked() {
        while_running(Engine::Forked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_host_waits() {
    tokio::join!(without_a_run(Engine::Embedded, Phase::Idle), without_a_run(Engine::Node, Phase::Idle));
    if tests::node::is_forked() {
        without_a_run(Engine::Forked, Phase::Idle).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_host_prepares() {
    without_a_run(Engine::Node, Phase::Preparing).await;
}

#[test]
fn every_cell_is_tried_or_has_a_reason() {
    for engine in [Engine::Embedded, Engine::Node, Engine::Forked] {
        for phase in PHASES {
            for (cause, cell) in cells(engine, phase) {
                let what = format!("{engine:?}: {cause:?} while {phase:?} is {cell:?}");
                println!("{what}");
                let fits = match cell {
                    Cell::Run(..) => phase == Phase::Running,
                    Cell::Host(_) => phase != Phase::Running && signal(cause).is_some(),
                    Cell::StandIn => !matches!(cause, Cause::Timeout | Cause::Cancel | Cause::EngineHung),
                    Cell::Impossible(why) => !why.is_empty(),
                };
                assert!(fits, "{what}");
            }
        }
    }
}
