//! Hosts that do what a test says, and a worker on a double of Lightning.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::execution::{ActiveRun, Executor, Reservation, ReserveError, RunEnd, RunSignal};
use lightning::{Lightning, LightningOptions, Workloop, start};
use mock_lightning::{MockLightning, MockOptions, RunRecord, start as start_mock, start_in_memory};
use protocol::Json;
use protocol::message::Prepare;
use protocol::queue;
use protocol::run::{
    Exit, LogLevel, LogLine, LogSource, RunEvent, RunOutcome, RunSpec, StepCompleted, StepIndex, StepInput, StepMemory,
    StepOutput, StepStarted, Versions,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::network;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

type Script = dyn Fn(RunSpec, Host) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What a run can wait for before it is on a host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stuck {
    /// Its adaptors.
    Equipping,
    /// A host.
    Reserving,
}

/// Lends hosts that follow a script.
pub(crate) struct FakeHosts {
    script: Arc<Script>,
    started: AtomicUsize,
    /// What never comes to an end.
    stuck: Option<Stuck>,
    /// Hosts that were dropped by the worker before their script ended.
    pub(crate) killed: Arc<AtomicUsize>,
}

impl FakeHosts {
    pub(crate) fn new<F>(script: impl Fn(RunSpec, Host) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Arc<Script> = Arc::new(move |spec, host| Box::pin(script(spec, host)));
        Arc::new(Self { script, started: AtomicUsize::new(0), stuck: None, killed: Arc::default() })
    }

    /// Never gets a run onto a host.
    pub(crate) fn stuck(stuck: Stuck) -> Arc<Self> {
        let script: Arc<Script> = Arc::new(|_, _| Box::pin(std::future::ready(())));
        Arc::new(Self { script, started: AtomicUsize::new(0), stuck: Some(stuck), killed: Arc::default() })
    }

    async fn wait_for_ever_if(&self, stuck: Stuck) {
        if self.stuck == Some(stuck) {
            std::future::pending().await
        }
    }
}

impl Executor for FakeHosts {
    async fn equip(&self, _spec: &mut RunSpec) -> Result<(), Exit> {
        self.wait_for_ever_if(Stuck::Equipping).await;
        Ok(())
    }

    async fn reserve(&self, _wanted: Prepare) -> Result<Reservation, ReserveError> {
        self.wait_for_ever_if(Stuck::Reserving).await;
        let (script, killed) = (self.script.clone(), self.killed.clone());
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Ok(Reservation::new(format!("fake-{number}"), move |spec, _| {
            let (sender, signals) = queue::channel(1024);
            let (cancel, cancelled) = mpsc::channel(1);
            let host = Host { signals: sender.clone(), cancelled };
            tokio::spawn(async move {
                tokio::select! {
                    () = script(spec, host) => {}
                    () = sender.closed() => drop(killed.fetch_add(1, Ordering::Relaxed)),
                }
            });
            ActiveRun { signals, cancel }
        }))
    }
}

/// The script's side of a host.
pub(crate) struct Host {
    signals: queue::Sender<RunSignal>,
    pub(crate) cancelled: mpsc::Receiver<Exit>,
}

pub(crate) fn json(value: Value) -> Json {
    Json::encode(&value).unwrap()
}

impl Host {
    pub(crate) async fn send(&self, signal: RunSignal) {
        let _ = self.signals.send(signal, 0).await;
    }

    pub(crate) async fn run_started(&self) {
        let versions = Versions {
            engine: ("fake".into(), "1.0.0".into()),
            adaptors: vec![("@openfn/language-common".into(), vec!["3.3.4".into()])],
        };
        self.send(RunSignal::Event(RunEvent::Started(versions))).await;
    }

    pub(crate) async fn step_started(&self, index: StepIndex, job: &str, input: StepInput) {
        let step = StepStarted { index, step_id: job.into(), input, timestamp_us: 1_700_000_000_500_000 };
        self.send(RunSignal::Event(RunEvent::StepStarted(step))).await;
    }

    /// Ends a step and waits until the worker has it.
    pub(crate) async fn step_completed(&self, index: StepIndex, job: &str, output: StepOutput) {
        self.step_ended(index, job, output, Exit::success()).await;
    }

    pub(crate) async fn step_ended(&self, index: StepIndex, job: &str, output: StepOutput, exit: Exit) {
        let step = StepCompleted {
            index,
            step_id: job.into(),
            exit,
            output,
            webhook_response: None,
            duration_ms: 3,
            memory: StepMemory { job: 10, system: 20 },
            timestamp_us: 1_700_000_002_000_000,
        };
        let (taken, acknowledged) = oneshot::channel();
        self.send(RunSignal::StepCompleted(Box::new(step), taken)).await;
        let _ = acknowledged.await;
    }

    pub(crate) async fn log(&self, message: Value) {
        let line = LogLine {
            source: LogSource::Job,
            level: LogLevel::Info,
            message: json(message),
            timestamp_us: 4_000_000_000_000_000,
        };
        self.send(RunSignal::Event(RunEvent::Log(line))).await;
    }

    pub(crate) async fn finish(&self, exit: Exit, final_state: Option<Value>, final_step: Option<StepIndex>) {
        let outcome = RunOutcome { exit, final_state: final_state.map(json), final_step };
        self.send(RunSignal::Ended(RunEnd::Finished(outcome))).await;
    }

    /// A run of one step whose result is its input.
    pub(crate) async fn trivial(self, spec: RunSpec) {
        let job = spec.steps.iter().find(|step| step.expression.is_some()).map(|step| step.id.clone()).unwrap();
        let state: Value = spec.input.decode().unwrap();
        self.run_started().await;
        self.step_started(0, &job, StepInput::Run).await;
        self.log(json!(["hello", {"n": 1}])).await;
        self.step_completed(0, &job, StepOutput::State(spec.input)).await;
        self.finish(Exit::success(), Some(state), Some(0)).await;
    }
}

/// A double and a worker on it.
pub(crate) struct Setting {
    pub(crate) mock: MockLightning,
    pub(crate) lightning: Lightning,
}

/// A double as it is by default and a worker with `capacity` whose claims without runs pause for a minute.
pub(crate) async fn setting(capacity: usize, hosts: Arc<FakeHosts>) -> Setting {
    with_options(MockOptions::default(), hosts, |options| options.workloops = vec![Workloop::standard(capacity)]).await
}

pub(crate) async fn with_options(
    mock: MockOptions,
    hosts: Arc<FakeHosts>,
    change: impl FnOnce(&mut LightningOptions),
) -> Setting {
    let secret = mock.secret.clone().unwrap_or_else(|| "a secret".into());
    let mock = start_mock(mock).await.unwrap();
    let mut options = LightningOptions::new(mock.url().parse().unwrap(), secret);
    options.backoff = (Duration::from_secs(60), Duration::from_secs(60));
    change(&mut options);
    Setting { lightning: start(options, hosts), mock }
}

/// The same in memory, with bytes that take `latency` each way.
pub(crate) fn in_memory(
    mock: MockOptions,
    latency: Duration,
    hosts: Arc<FakeHosts>,
    change: impl FnOnce(&mut LightningOptions),
) -> Setting {
    let secret = mock.secret.clone().unwrap_or_else(|| "a secret".into());
    let mock = start_in_memory(mock).unwrap();
    let mut options = LightningOptions::new(mock.url().parse().unwrap(), secret);
    options.network = network::to(&mock, latency);
    options.backoff = (Duration::from_secs(60), Duration::from_secs(60));
    change(&mut options);
    Setting { lightning: start(options, hosts), mock }
}

impl Setting {
    /// Queues a run and wakes the worker.
    pub(crate) fn queue(&self, plan: &Value) -> String {
        let id = self.mock.queue_run(plan.clone()).unwrap();
        self.mock.wake();
        id
    }

    pub(crate) async fn end_of(&self, id: &str) -> RunRecord {
        self.mock.wait_for_end(id, DEADLINE).await.unwrap()
    }

    /// Queues a run and waits for its end.
    pub(crate) async fn run(&self, plan: &Value) -> RunRecord {
        let id = self.queue(plan);
        self.end_of(&id).await
    }

    pub(crate) async fn joined(&self) {
        let mut status = self.lightning.watch();
        tokio::time::timeout(DEADLINE, status.wait_for(|status| status.joined)).await.unwrap().unwrap();
    }

    pub(crate) fn assert_only_refused(&self, why: &str) {
        let violations = self.mock.violations();
        assert!(violations.iter().all(|violation| violation.reason.contains(why)), "{violations:#?}");
    }

    pub(crate) fn assert_nothing_was_refused(&self) {
        let violations = self.mock.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// A plan of one job.
pub(crate) fn one_job() -> Value {
    json!({"jobs": [{"id": "a", "name": "A", "body": "fn(s => s)", "adaptor": "@openfn/language-common@3.3.4"}]})
}

/// Names of the events of a run, less its log lines.
pub(crate) fn order(run: &RunRecord) -> Vec<&str> {
    run.events
        .iter()
        .map(|event| event.event.as_str())
        .filter(|event| !event.contains("log") && !event.starts_with("fetch"))
        .collect()
}

/// The messages of a run's `JOB` lines.
pub(crate) fn job_lines(run: &RunRecord) -> Vec<Value> {
    let mut lines: Vec<_> = run.logs.iter().map(|log| &log.line).filter(|line| line["source"] == "JOB").collect();
    let time = |line: &Value| line["timestamp"].as_str().and_then(|time| time.parse::<u64>().ok());
    lines.sort_by_key(|line| time(line));
    lines.into_iter().map(|line| line["message"].clone()).collect()
}

/// Remembers what a host was given.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<RunSpec>>>);

impl Seen {
    pub(crate) fn add(&self, spec: &RunSpec) {
        self.0.lock().unwrap().push(spec.clone());
    }

    pub(crate) fn only(&self) -> RunSpec {
        let seen = self.0.lock().unwrap();
        assert_eq!(seen.len(), 1);
        seen[0].clone()
    }
}
