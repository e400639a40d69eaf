//! Serves the link: prepares engines, takes one run at a time, answers while it is under way.
//!
//! The actor here owns the engine that is ready and the means to end the run that is not over. It waits for neither a
//! job nor the worker, so that a host always answers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use protocol::link::{HostSide, Inbox, Incoming, Link, Responder};
use protocol::message::{
    Cancelled, HostReply, HostRequest, Pong, Prepare, Prepared, Refusal, RefusalCode, Stopping, WorkerNotice,
};
use protocol::run::{Exit, RunOutcome, RunSpec};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::engine::{Engine, EngineLost, LogSink};
use crate::guard::say;
use crate::report::{self, EngineLog, Report};
use crate::{limits, sys, walk};

/// What the process is called while it executes no run.
const IDLE_NAME: &str = "engine-host";

/// Starts engines of one kind.
pub trait EngineStarter: Send + 'static {
    /// The kind. Dropping one stops what it does, whatever that is, without waiting for it.
    type Engine: Engine + 'static;

    /// Starts the engine that is `wanted`, whose lines go to `log`.
    fn start(&self, wanted: &Prepare, log: Arc<dyn LogSink>) -> Result<Self::Engine, EngineLost>;
}

/// An engine that waits for a run.
struct Ready<E> {
    prepared: Prepare,
    log: Arc<EngineLog>,
    engine: E,
}

/// What the host does.
enum State<E> {
    /// Nothing.
    Idle,
    /// It has an engine ready.
    Ready(Ready<E>),
    /// It executes a run.
    Running(Running),
}

/// A run under way.
struct Running {
    run_id: String,
    /// Ends it; none if it was cancelled before.
    cancel: Option<oneshot::Sender<Exit>>,
    task: JoinHandle<RunOutcome>,
    /// Waits for the outcome.
    responder: Responder<HostSide>,
}

/// The actor behind a link.
struct Host<S: EngineStarter> {
    starter: S,
    link: Link<HostSide>,
    state: State<S::Engine>,
    stopping: bool,
}

/// Serves the worker until it asks to stop, or `stop` resolves, and no run is under way.
pub async fn serve<S: EngineStarter>(
    starter: S,
    link: Link<HostSide>,
    mut inbox: Inbox<HostSide>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut host = Host { starter, link, state: State::Idle, stopping: false };
    while !(host.stopping && host.is_free()) {
        tokio::select! {
            incoming = inbox.next() => match incoming {
                Some(Incoming::Request(request, responder)) => host.answer(request, responder),
                Some(Incoming::Notice(notice)) => match notice {},
                None => return,
            },
            () = host.run_over() => {}
            () = &mut stop, if !host.stopping => host.stopping = true,
        }
    }
}

impl<S: EngineStarter> Host<S> {
    fn is_free(&self) -> bool {
        !matches!(self.state, State::Running(_))
    }

    /// Waits for the end of the run that is under way and answers with its outcome. Waits for ever if there is none.
    async fn run_over(&mut self) {
        let State::Running(running) = &mut self.state else { return std::future::pending().await };
        let ended = (&mut running.task).await;
        sys::name_process(IDLE_NAME);
        if let State::Running(Running { responder, .. }) = std::mem::replace(&mut self.state, State::Idle) {
            match ended {
                Ok(outcome) => responder.reply(HostReply::Ran(outcome)),
                Err(panic) => responder.refuse(Refusal::failed(&panic)),
            }
        }
    }

    fn answer(&mut self, request: HostRequest, responder: Responder<HostSide>) {
        match request {
            HostRequest::Prepare(prepare) => match self.prepare(prepare) {
                Ok(engine) => responder.reply(HostReply::Prepared(Prepared { engine })),
                Err(refusal) => responder.refuse(refusal),
            },
            HostRequest::Run(spec) => match self.take_engine(&spec) {
                Ok(ready) => self.run(*spec, ready, responder),
                Err(refusal) => responder.refuse(refusal),
            },
            HostRequest::Cancel(cancel) => {
                let was_running = self.cancel(cancel.exit);
                responder.reply(HostReply::Cancelled(Cancelled { was_running }));
            }
            HostRequest::Ping(_) => responder.reply(HostReply::Pong(Pong { rss_bytes: sys::resident_bytes() })),
            HostRequest::Stop(_) => {
                self.stopping = true;
                responder.reply(HostReply::Stopping(Stopping {}));
            }
        }
    }

    /// Gets an engine ready, unless this one is. Returns its kind and version.
    fn prepare(&mut self, wanted: Prepare) -> Result<(String, String), Refusal> {
        self.check_free()?;
        match &self.state {
            State::Ready(ready) if ready.prepared == wanted => Ok(ready.engine.version()),
            _ => {
                let ready = self.start_engine(wanted)?;
                let version = ready.engine.version();
                self.state = State::Ready(ready);
                Ok(version)
            }
        }
    }

    /// The engine for a run: the one that is ready, if it is what the run wants.
    fn take_engine(&mut self, spec: &RunSpec) -> Result<Ready<S::Engine>, Refusal> {
        self.check_free()?;
        let wanted = Prepare::of(spec);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ready(ready) if ready.prepared == wanted => Ok(ready),
            _ => self.start_engine(wanted),
        }
    }

    fn start_engine(&self, wanted: Prepare) -> Result<Ready<S::Engine>, Refusal> {
        let log = Arc::new(EngineLog::default());
        let engine = self.starter.start(&wanted, Arc::clone(&log) as Arc<dyn LogSink>);
        let engine = engine.map_err(|lost| Refusal::failed(&lost))?;
        Ok(Ready { prepared: wanted, log, engine })
    }

    fn check_free(&self) -> Result<(), Refusal> {
        let why = match &self.state {
            State::Running(running) => {
                format!("this host is busy with run {}; it takes one at a time", running.run_id)
            }
            _ if self.stopping => "this host is stopping".to_owned(),
            _ => return Ok(()),
        };
        Err(Refusal::new(RefusalCode::WrongState, why))
    }

    fn run(&mut self, spec: RunSpec, ready: Ready<S::Engine>, responder: Responder<HostSide>) {
        let run_id = spec.run_id.clone();
        sys::name_process(&format!("run {run_id}"));
        let (cancel, cancelled) = oneshot::channel();
        let task = tokio::spawn(execute(spec, ready, cancelled, self.link.clone()));
        self.state = State::Running(Running { run_id, cancel: Some(cancel), task, responder });
    }

    /// Ends the run that is under way. Only the first cancellation counts.
    fn cancel(&mut self, exit: Exit) -> bool {
        let State::Running(running) = &mut self.state else { return false };
        running.cancel.take().is_some_and(|cancel| cancel.send(exit).is_ok())
    }
}

/// Executes a run and delivers its reports, all of them before the outcome is known.
async fn execute<E: Engine>(
    spec: RunSpec,
    ready: Ready<E>,
    cancelled: oneshot::Receiver<Exit>,
    link: Link<HostSide>,
) -> RunOutcome {
    let Ready { log, mut engine, .. } = ready;
    let (reporter, reports) = report::stream(&spec.options);
    log.open(reporter.clone());
    let stop = stop_signal(spec.options.timeout_ms, cancelled);
    let over = Notify::new();
    let walking = async {
        let outcome = walk::walk(spec, &mut engine, &reporter, stop).await;
        // An engine is used up by its run, whether or not it has noticed that it is over.
        reporter.mute_engine();
        drop(engine);
        over.notify_one();
        outcome
    };
    let (outcome, ()) = tokio::join!(walking, deliver(&link, reports, over.notified()));
    outcome
}

async fn stop_signal(timeout_ms: u64, cancelled: oneshot::Receiver<Exit>) -> Exit {
    let timeout = tokio::time::sleep(Duration::from_millis(timeout_ms));
    tokio::select! {
        Ok(exit) = cancelled => exit,
        () = timeout => limits::timeout_exit(timeout_ms),
    }
}

/// Sends reports in their order until the run is over and nothing is left of them.
async fn deliver(link: &Link<HostSide>, mut reports: mpsc::Receiver<Report>, over: impl Future<Output = ()>) {
    let mut over = pin!(over);
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = &mut over, if !reports.is_closed() => {
                reports.close();
                continue;
            }
        };
        match report {
            None => return,
            Some(Report::Event(event)) => {
                if link.notify(WorkerNotice::Event(event)).await.is_err() {
                    return;
                }
            }
            Some(Report::Completed(mut step, mut taken)) => {
                step.memory.system = sys::resident_bytes();
                let request = link.call_within(step, Duration::MAX);
                tokio::select! {
                    biased;
                    answer = request => match answer {
                        Ok(_) => drop(taken.send(())),
                        Err(error) => say(&format!("a step's end was not delivered: {error}")),
                    },
                    // The run was stopped meanwhile. The request is on its way; only its answer is given up.
                    () = taken.closed() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
