use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::Json;
use protocol::link::{CallError, LinkOptions, WorkerSide};
use protocol::message::{Cancel, Ping, Prepare, Stop, Taken, WorkerReply, WorkerRequest};
use protocol::run::{ExitReason, RunEvent, StepCompleted};

use super::*;
use crate::testing::{Act, FakeEngine, workflow};
use hosting::guard::{ExitCode, until_link_ends};

const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct FakeStarter {
    engine: FakeEngine,
    started: Arc<AtomicUsize>,
    /// What every start waits for.
    gate: Option<Arc<Notify>>,
}

impl FakeStarter {
    fn hanging() -> Self {
        Self { engine: FakeEngine::new([("a", Act::Hang)]), ..Self::default() }
    }
}

impl EngineStarter for FakeStarter {
    type Engine = FakeEngine;

    fn start(
        &self,
        wanted: &Prepare,
        _log: Arc<dyn LogSink>,
    ) -> impl Future<Output = Result<FakeEngine, EngineLost>> + Send + 'static {
        let Self { engine, started, gate } = self.clone();
        let memory_bytes = wanted.memory_bytes;
        async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            if memory_bytes == 0 {
                return Err(EngineLost::OutOfMemory);
            }
            started.fetch_add(1, Ordering::Relaxed);
            Ok(engine)
        }
    }
}

/// A host and the worker's end of its link.
struct Pair {
    link: Link<WorkerSide>,
    inbox: Inbox<WorkerSide>,
    stop: Arc<Notify>,
    host: JoinHandle<ExitCode>,
}

fn pair(starter: FakeStarter) -> Pair {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (link, inbox) = Link::start(ours, LinkOptions::default());
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let host = tokio::spawn(async move {
        let (link, inbox) = Link::start(theirs, LinkOptions::default());
        let code =
            until_link_ends(&link, serve(starter, "h1".to_owned(), link.clone(), inbox, stopped.notified())).await;
        link.close().await;
        code
    });
    Pair { link, inbox, stop, host }
}

impl Pair {
    /// What comes from the host until a step has begun.
    async fn until_step_started(&mut self) {
        loop {
            match self.inbox.next().await.expect("the link lives") {
                Incoming::Notice(WorkerNotice::Event(RunEvent::StepStarted(_))) => return,
                Incoming::Notice(_) => {}
                Incoming::Request(request, _) => panic!("unexpected {request:?}"),
            }
        }
    }

    /// The next step's end, and where to answer it.
    async fn next_step(&mut self) -> (StepCompleted, Responder<WorkerSide>) {
        loop {
            if let Incoming::Request(WorkerRequest::StepCompleted(step), responder) =
                self.inbox.next().await.expect("the link lives")
            {
                return (*step, responder);
            }
        }
    }

    async fn take_step(&mut self) -> StepCompleted {
        let (step, responder) = self.next_step().await;
        responder.reply(WorkerReply::Taken(Taken {}));
        step
    }

    fn start(&self, spec: RunSpec) -> JoinHandle<Result<RunOutcome, CallError>> {
        let link = self.link.clone();
        tokio::spawn(async move { link.call_within(spec, SOON).await })
    }

    async fn cancel(&self, reason: &str) -> bool {
        let exit = Exit::error(ExitReason::Kill, "Cancelled", reason);
        self.link.call_within(Cancel { exit }, SOON).await.unwrap().was_running
    }
}

fn refusal<T>(result: Result<T, CallError>) -> Refusal {
    match result {
        Err(CallError::Refused(refusal)) => refusal,
        Err(error) => panic!("not refused: {error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn a_run_is_reported_in_order_and_answered_at_its_end() {
    let mut pair = pair(FakeStarter::default());
    let run = pair.start(workflow("a -> b\nb"));
    let mut seen = Vec::new();
    while seen.len() < 5 {
        match pair.inbox.next().await.expect("the link lives") {
            Incoming::Notice(WorkerNotice::Event(RunEvent::Started(_))) => seen.push("run".to_owned()),
            Incoming::Notice(WorkerNotice::Event(RunEvent::StepStarted(step))) => seen.push(step.step_id),
            Incoming::Notice(_) => {}
            Incoming::Request(WorkerRequest::StepCompleted(step), responder) => {
                seen.push(format!("{} done", step.step_id));
                responder.reply(WorkerReply::Taken(Taken {}));
            }
            Incoming::Request(other, _) => panic!("a run does not ask for {other:?}"),
        }
    }
    assert_eq!(seen, ["run", "a", "a done", "b", "b done"]);
    let outcome = run.await.unwrap().unwrap();
    assert_eq!(outcome.exit, Exit::success());
    assert_eq!(outcome.final_step, Some(1));
}

#[tokio::test]
async fn an_engine_is_prepared_once_and_used_once() {
    let starter = FakeStarter::default();
    let mut pair = pair(starter.clone());
    let prepare = prepare(protocol::run::RunOptions::default().memory_bytes);
    for _ in 0..2 {
        let prepared = pair.link.call(prepare.clone()).await.unwrap();
        assert_eq!(prepared.engine, ("fake".to_owned(), "1".to_owned()));
    }
    assert_eq!(starter.started.load(Ordering::Relaxed), 1);
    for engines in 1..=2 {
        let run = pair.start(workflow("a"));
        pair.take_step().await;
        run.await.unwrap().unwrap();
        assert_eq!(starter.started.load(Ordering::Relaxed), engines);
    }
}

#[tokio::test]
async fn an_engine_with_other_limits_is_replaced() {
    let starter = FakeStarter::default();
    let mut pair = pair(starter.clone());
    pair.link.call(prepare(1)).await.unwrap();
    let run = pair.start(workflow("a"));
    pair.take_step().await;
    run.await.unwrap().unwrap();
    assert_eq!(starter.started.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_engine_that_does_not_start_is_told() {
    let pair = pair(FakeStarter::default());
    let refusal = refusal(pair.link.call(prepare(0)).await);
    assert_eq!((refusal.code, refusal.message.as_str()), (RefusalCode::Failed, "the engine exceeded its memory limit"));
}

#[tokio::test]
async fn a_host_takes_one_run_at_a_time_and_always_answers() {
    let mut pair = pair(FakeStarter::hanging());
    let run = pair.start(workflow("a"));
    pair.until_step_started().await;

    let refused = refusal(pair.link.call(workflow("b")).await);
    assert_eq!(refused.code, RefusalCode::WrongState);
    assert_eq!(refused.message, "this host is busy with run r; it takes one at a time");
    assert_eq!(refusal(pair.link.call(prepare(1)).await).code, RefusalCode::WrongState);
    pair.link.call(Ping {}).await.unwrap();

    assert!(pair.cancel("first").await);
    assert!(!pair.cancel("second").await);
    let step = pair.take_step().await;
    let exit = Exit::error(ExitReason::Kill, "Cancelled", "first");
    assert_eq!(step.exit, exit);
    assert_eq!(step.output, protocol::run::StepOutput::State(Json::empty_object()));
    assert_eq!(run.await.unwrap().unwrap(), RunOutcome { exit, final_state: None, final_step: None });
    assert!(!pair.cancel("third").await);
}

#[tokio::test]
async fn the_next_step_waits_for_the_worker_but_a_cancellation_does_not() {
    let starter = FakeStarter::default();
    let mut pair = pair(starter.clone());
    let run = pair.start(workflow("a -> b\nb"));
    let (step, responder) = pair.next_step().await;
    assert_eq!(step.exit, Exit::success());
    pair.link.call(Ping {}).await.unwrap();
    assert_eq!(starter.engine.calls.lock().unwrap().len(), 1);

    assert!(pair.cancel("now").await);
    let outcome = run.await.unwrap().unwrap();
    assert_eq!(outcome.exit, Exit::error(ExitReason::Kill, "Cancelled", "now"));
    responder.reply(WorkerReply::Taken(Taken {}));
    pair.link.call(Ping {}).await.unwrap();
    assert_eq!(starter.engine.calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_killed() {
    let pair = pair(FakeStarter::default());
    let mut spec = workflow("[t] -> (hang) a\na");
    spec.options.timeout_ms = 50;
    let outcome = pair.start(spec).await.unwrap().unwrap();
    assert_eq!(outcome.exit, limits::timeout_exit(50));
}

#[tokio::test]
async fn a_host_stops_when_its_run_is_over() {
    for by_signal in [false, true] {
        let mut pair = pair(FakeStarter::hanging());
        let run = pair.start(workflow("a"));
        pair.until_step_started().await;
        if by_signal {
            pair.stop.notify_one();
        } else {
            pair.link.call(Stop {}).await.unwrap();
            assert_eq!(refusal(pair.link.call(prepare(1)).await).code, RefusalCode::WrongState);
        }
        assert!(!pair.host.is_finished());
        assert!(pair.cancel("end").await);
        pair.take_step().await;
        run.await.unwrap().unwrap();
        assert_eq!(tokio::time::timeout(SOON, pair.host).await.unwrap().unwrap(), ExitCode::Normal);
    }
}

#[tokio::test]
async fn a_host_does_not_outlive_its_link() {
    let mut pair = pair(FakeStarter::hanging());
    let run = pair.start(workflow("a"));
    pair.until_step_started().await;
    pair.link.close().await;
    assert_eq!(tokio::time::timeout(SOON, pair.host).await.unwrap().unwrap(), ExitCode::Normal);
    assert!(run.await.unwrap().is_err());
}

/// A starter whose engines are ready when the gate opens.
fn gated() -> (FakeStarter, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    (FakeStarter { gate: Some(Arc::clone(&gate)), ..FakeStarter::default() }, gate)
}

#[tokio::test]
async fn a_host_answers_while_its_engine_starts() {
    let (starter, gate) = gated();
    let pair = pair(starter.clone());
    let ask = |memory_bytes| {
        let link = pair.link.clone();
        tokio::spawn(async move { link.call_within(prepare(memory_bytes), SOON).await })
    };
    let (first, same) = (ask(1), ask(1));
    pair.link.call(Ping {}).await.unwrap();
    gate.notify_one();
    for prepared in [first, same] {
        assert_eq!(prepared.await.unwrap().unwrap().engine.0, "fake");
    }
    assert_eq!(starter.started.load(Ordering::Relaxed), 1);

    let given_up = ask(2);
    pair.link.call(Ping {}).await.unwrap();
    let wanted = ask(3);
    assert_eq!(refusal(given_up.await.unwrap()).code, RefusalCode::WrongState);
    gate.notify_one();
    wanted.await.unwrap().unwrap();
    assert_eq!(starter.started.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_run_takes_the_engine_that_is_being_started() {
    let (starter, gate) = gated();
    let mut pair = pair(starter.clone());
    let mut spec = workflow("a");
    spec.options.timeout_ms = 50;
    let wanted = Prepare::of(&spec);
    let link = pair.link.clone();
    let prepared = tokio::spawn(async move { link.call_within(wanted, SOON).await });
    pair.link.call(Ping {}).await.unwrap();
    let run = pair.start(spec);
    // Its time begins when the engine is ready.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.notify_one();
    pair.take_step().await;
    assert_eq!(run.await.unwrap().unwrap().exit, Exit::success());
    assert_eq!(prepared.await.unwrap().unwrap().engine.0, "fake");
    assert_eq!(starter.started.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_run_whose_engine_does_not_start_can_be_cancelled() {
    let (starter, _gate) = gated();
    let pair = pair(starter);
    let run = pair.start(workflow("a"));
    pair.link.call(Ping {}).await.unwrap();
    assert!(pair.cancel("now").await);
    assert_eq!(run.await.unwrap().unwrap().exit, Exit::error(ExitReason::Kill, "Cancelled", "now"));
}

fn prepare(memory_bytes: u64) -> Prepare {
    Prepare { engine: EngineSpec::Embedded, memory_bytes }
}
