//! Whoever gets whichever signal, whatever is under way: only the run that is hit is harmed, it gets one end, capacity
//! comes back, and nothing is left afterwards.
//!
//! Some cells of the matrix by chance: `CELLS` says how many (or `all`), `SEED` which. With a Node that is forked
//! (`WORKER_NODE` names one, else it is the one in the `PATH`) there are cells of templates, too.

use std::time::Duration;

use mock_lightning::{MockLightning, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::leftovers;
use tests::lightning::{self, DEADLINE, LightningOptions, chain, end, logged, one_job, queue, until};
use tests::node::{NodeGround, SOURCE};
use tests::processes::{Process, command_line, descendants, gone};
use tests::random::{Random, amount};
use tests::registry::Fault;
use tests::worker::{Worker, send};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Embedded,
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Worker,
    Host,
    /// The Node process of a host.
    Engine,
    /// The Node process that engines are forked from.
    Template,
    /// The host that looks after it.
    TemplateHost,
    /// The host that has an adaptor installed.
    Installer,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Idle,
    /// A run was queued a moment ago.
    Claiming,
    /// The adaptor of a run is being installed.
    Preparing,
    Running,
    /// The last step is over, or about to be.
    Completing,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    engine: Engine,
    target: Target,
    signal: Signal,
    moment: Moment,
}

const ENGINES: [Engine; 2] = [Engine::Embedded, Engine::Node];
const TARGETS: [Target; 6] =
    [Target::Worker, Target::Host, Target::Engine, Target::Template, Target::TemplateHost, Target::Installer];
const SIGNALS: [Signal; 3] = [Signal::KILL, Signal::STOP, Signal::TERM];
const MOMENTS: [Moment; 5] = [Moment::Idle, Moment::Claiming, Moment::Preparing, Moment::Running, Moment::Completing];

/// Whether there is such a thing: the embedded engine is no process, nothing is installed for it, and an installer is at
/// work only while it installs.
fn exists(cell: &Cell) -> bool {
    let (on_node, installs) = (cell.engine == Engine::Node, cell.moment == Moment::Preparing);
    match cell.target {
        Target::Worker | Target::Host => on_node || !installs,
        Target::Engine => on_node,
        Target::Template | Target::TemplateHost => on_node && tests::node::is_forked(),
        Target::Installer => on_node && installs,
    }
}

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for engine in ENGINES {
        for target in TARGETS {
            for signal in SIGNALS {
                cells.extend(MOMENTS.map(|moment| Cell { engine, target, signal, moment }));
            }
        }
    }
    cells.retain(exists);
    cells
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_hit_is_harmed_and_nothing_is_left() {
    let mut random = Random::seeded();
    let mut cells = all_cells();
    let wanted =
        if std::env::var("CELLS").is_ok_and(|cells| cells == "all") { cells.len() } else { amount("CELLS", 5) };
    while cells.len() > wanted {
        cells.swap_remove(random.below(cells.len()));
    }
    let ground = NodeGround::start().await;
    for (number, cell) in cells.into_iter().enumerate() {
        println!("{cell:?}");
        Stage::set(&ground, cell, number).await.play().await;
    }
}

/// A job that says so when it runs, and ends when the test has had time to do something.
const SLOW: &str = "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 1500)); return s; })";
/// One that is over at once, so that its run completes.
const QUICK: &str = "fn(s => { console.log('here'); return s; })";

struct Stage<'a> {
    cell: Cell,
    ground: &'a NodeGround,
    number: usize,
    /// An adaptor that no other cell uses.
    adaptor: String,
    runtime: tempfile::TempDir,
    lightning: MockLightning,
}

impl<'a> Stage<'a> {
    async fn set(ground: &'a NodeGround, cell: Cell, number: usize) -> Self {
        let name = format!("@openfn/language-x{number}");
        ground.registry.publish(&name, "1.0.0", SOURCE);
        Self {
            cell,
            ground,
            number,
            adaptor: format!("{name}@1.0.0"),
            runtime: tempfile::tempdir().expect("a temporary folder can be made"),
            lightning: lightning::start(LightningOptions::default()).await,
        }
    }

    async fn start(&self) -> Worker {
        let mut variables = self.ground.variables(self.runtime.path());
        if self.cell.engine == Engine::Embedded {
            variables.push(("WORKER_ENGINE", "embedded".into()));
        } else if self.is_of_template() {
            variables.push(("WORKER_NODE_START", "fork".into()));
        } else if tests::node::is_forked() {
            // Engines die alike, however they came to be.
            variables.push(("WORKER_NODE_START", ["snapshot", "fork"][self.number % 2].into()));
        }
        let options = ["--capacity", "2", "--max-run-duration-seconds", "6", "--host-stop-timeout", "1"];
        Worker::start_at(&self.lightning.url(), &options, &variables).await
    }

    fn is_of_template(&self) -> bool {
        matches!(self.cell.target, Target::Template | Target::TemplateHost)
    }

    fn plan(&self) -> Value {
        match self.cell.moment {
            Moment::Completing => chain(&[("a", QUICK), ("b", QUICK)]),
            Moment::Preparing => {
                let mut plan = one_job(QUICK);
                plan["jobs"][0]["adaptor"] = self.adaptor.as_str().into();
                plan
            }
            _ => one_job(SLOW),
        }
    }

    async fn play(self) {
        let worker = self.start().await;
        let bystander = queue(&self.lightning, one_job(SLOW));
        until(&self.lightning, &worker, &bystander, |record| logged(record, "here")).await;
        let is_before_the_run = matches!(self.cell.moment, Moment::Idle | Moment::Claiming);
        if self.is_of_template() || self.cell.target == Target::Engine && is_before_the_run {
            self.engine_waits(&worker, &bystander).await;
        }
        let is_held = self.cell.moment == Moment::Preparing;
        if is_held {
            self.ground.registry.set_fault(Some(Fault::HeldTarball));
        }
        let victim = (self.cell.moment != Moment::Idle).then(|| queue(&self.lightning, self.plan()));
        match (&victim, self.cell.moment) {
            (Some(victim), Moment::Running | Moment::Completing) => {
                until(&self.lightning, &worker, victim, |record| logged(record, "here")).await;
            }
            (_, Moment::Preparing) => {
                let held = tokio::time::timeout(DEADLINE, self.ground.registry.is_holding()).await;
                held.unwrap_or_else(|_| panic!("npm does not ask for the tarball\n{}", worker.output()));
            }
            _ => {}
        }
        match self.cell.target {
            Target::Worker => self.hit_worker(worker, &bystander, victim.as_deref()).await,
            _ => self.hit_another(worker, &bystander, victim.as_deref()).await,
        }
        let deadline = Duration::from_secs(20);
        let folders = [self.runtime.path().to_owned(), self.ground.repo().join(".openfn-worker/tmp")];
        for folder in &folders {
            assert_eq!(leftovers::gone(folder, deadline).await, [""; 0], "{:?}", self.cell);
        }
        assert_eq!(leftovers::processes(&self.ground.repo()), [""; 0], "{:?}", self.cell);
    }

    async fn succeeds(&self, worker: &Worker, id: &str) {
        let record = end(&self.lightning, worker, id).await;
        let told = (record.error_type, record.error_message);
        assert_eq!(record.state, RunState::Success, "{:?}: {told:?}\n{}", self.cell, worker.output());
    }

    /// Waits until these processes are gone.
    async fn all_go(&self, family: &[u32]) {
        assert_eq!(gone(family, DEADLINE).await, [0u32; 0], "{:?}: they outlive who started them", self.cell);
    }

    async fn hit_worker(&self, worker: Worker, bystander: &str, victim: Option<&str>) {
        let runs: Vec<&str> = [bystander].into_iter().chain(victim).collect();
        let family = descendants(worker.pid()).into_iter().map(|it| it.pid).collect::<Vec<_>>();
        worker.signal(self.cell.signal);
        match self.cell.signal {
            Signal::KILL => {
                assert_eq!(worker.exit(Duration::from_secs(20)).await, None);
                self.all_go(&family).await;
                self.ground.registry.go_on();
                // A successor sweeps what was left, and has made what was not finished.
                let successor = self.start().await;
                for plan in [one_job(QUICK), self.plan()] {
                    self.succeeds(&successor, &queue(&self.lightning, plan)).await;
                }
                successor.stop().await;
            }
            Signal::STOP => {
                tokio::time::sleep(Duration::from_millis(700)).await;
                worker.signal(Signal::CONT);
                self.ground.registry.go_on();
                for run in runs {
                    self.succeeds(&worker, run).await;
                }
                worker.stop().await;
            }
            _ => {
                // What is claimed ends well; what is not stays in the queue.
                self.ground.registry.go_on();
                assert_eq!(worker.exit(Duration::from_secs(30)).await, Some(0));
                let records: Vec<_> = runs.iter().filter_map(|run| self.lightning.run(run)).collect();
                let states: Vec<_> = records.iter().map(|record| record.state).collect();
                assert_eq!(states[0], RunState::Success, "{:?}", self.cell);
                let fits = |state| [RunState::Success, RunState::Available].contains(state);
                assert!(states.iter().all(fits), "{:?}: {records:?}", self.cell);
            }
        }
    }

    /// The process to hit, unless there is none at this moment.
    fn target(&self, worker: &Worker, bystander: &str, victim: Option<&str>) -> Option<u32> {
        let all = worker.hosts();
        // None when it is over already.
        let spared = format!("run {bystander}");
        let is_spared = |name: &str| name.len() > 4 && spared.starts_with(name);
        let is_installer =
            |host: &&Process| descendants(host.pid).iter().any(|it| command_line(it.pid).contains("npm"));
        // Engines that were forked are children of the worker, too.
        let is_host = |process: &&Process| ["engine-host", "run "].iter().any(|name| process.name.starts_with(name));
        let of_worker = || all.iter().filter(|process| process.parent == worker.pid());
        let hosts: Vec<_> = of_worker().filter(is_host).filter(|host| !is_spared(&host.name)).collect();
        if self.is_of_template() {
            let template = of_worker().find(|process| process.name == "template")?.pid;
            let node = all.iter().find(|process| process.parent == template)?.pid;
            return Some(if self.cell.target == Target::Template { node } else { template });
        }
        if self.cell.target == Target::Installer {
            return hosts.iter().copied().find(is_installer).map(|host| host.pid);
        }
        // The victim's host if it can be told yet, else the one that has waited longest.
        let of_victim = victim.map(|victim| format!("run {victim}"));
        let is_of_victim = |name: &str| of_victim.as_ref().is_some_and(|run| name.len() > 4 && run.starts_with(name));
        let others = || hosts.iter().copied().filter(|host| !is_installer(host));
        let host = others().find(|host| is_of_victim(&host.name)).or(others().next())?.pid;
        match self.cell.target {
            Target::Engine => worker.engine_of(host).map(|engine| engine.pid),
            _ => Some(host),
        }
    }

    /// Waits for an engine to be there that has no run yet.
    async fn engine_waits(&self, worker: &Worker, bystander: &str) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while self.target(worker, bystander, None).is_none() {
            assert!(tokio::time::Instant::now() < end, "no engine is prepared\n{}", worker.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether a run may end like this because of what was hit.
    fn may_be_harmed(&self, state: RunState, error: Option<&str>) -> bool {
        match (self.cell.target, self.cell.signal) {
            (Target::Host, Signal::KILL) | (Target::Engine, Signal::KILL | Signal::TERM) => {
                state == RunState::Crashed && error == Some("ExitError")
            }
            (Target::Host | Target::Engine, Signal::STOP) => {
                error == Some("TimeoutError") || error == Some("EngineHostError")
            }
            _ => false,
        }
    }

    async fn hit_another(&self, worker: Worker, bystander: &str, victim: Option<&str>) {
        let target = self.target(&worker, bystander, victim);
        println!("    process {target:?}");
        if let Some((pid, id)) = target.and_then(|pid| Some((pid, Pid::from_raw(pid.cast_signed())?))) {
            let family = descendants(pid).into_iter().map(|it| it.pid).collect::<Vec<_>>();
            // It may just have ended by itself.
            let _ = kill_process(id, self.cell.signal);
            if self.cell.signal == Signal::KILL {
                self.all_go(&family).await;
            }
        }
        self.ground.registry.go_on();
        self.succeeds(&worker, bystander).await;
        let next = (0..3).map(|_| queue(&self.lightning, one_job(QUICK)));
        let mut harmed = 0;
        for (number, run) in victim.map(str::to_owned).into_iter().chain(next).enumerate() {
            let record = end(&self.lightning, &worker, &run).await;
            let error = record.error_type.as_deref();
            let is_victim = number == 0 && victim.is_some();
            let is_expected = record.state == RunState::Success || is_victim && self.may_be_harmed(record.state, error);
            let told = record.error_message.as_deref().unwrap_or_default();
            assert!(is_expected, "{:?}: {:?} {error:?} {told}\n{}", self.cell, record.state, worker.output());
            harmed += usize::from(record.state != RunState::Success);
        }
        assert!(harmed <= 1, "{:?}: {harmed} runs were harmed\n{}", self.cell, worker.output());
        worker.stop().await;
        assert_eq!(self.lightning.violations(), []);
    }
}

/// A worker that is asked to stop while its hosts hang does stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_although_all_its_hosts_hang() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let options = ["--capacity", "2", "--max-run-duration-seconds", "6", "--host-stop-timeout", "1"];
    let worker = Worker::start_in(&lightning, &options, runtime.path()).await;
    let first = queue(&lightning, one_job(QUICK));
    end(&lightning, &worker, &first).await;
    for host in worker.hosts() {
        if tests::processes::process(host.pid).is_some() {
            send(host.pid, Signal::STOP);
        }
    }
    worker.stop().await;
    assert_eq!(leftovers::gone(runtime.path(), Duration::from_secs(10)).await, [""; 0]);
}
