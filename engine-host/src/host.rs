//! Serves the link: prepares engines, takes one run at a time, answers while it is under way.
//!
//! The actor here owns the engine that is ready and the means to end the run that is not over. It waits for neither a
//! job nor the worker, so that a host always answers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use protocol::engine::EngineSpec;
use protocol::handler::{Aborted, HandlerReply, HandlerRequest, Module};
use protocol::install::InstallerRequest;
use protocol::link::{HostSide, Inbox, Incoming, Link, Responder};
use protocol::message::{
    BeTemplate, Cancelled, HostNotice, HostReply, HostRequest, Pong, Prepare, Prepared, Refusal, RefusalCode, Stopping,
    WorkerNotice,
};
use protocol::run::{Exit, RunEvent, RunOutcome, RunSpec};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

use crate::engine::node::Template;
use crate::engine::{Engine, EngineLost, LogSink};
use crate::handler::{self, Loaded, Loading, Session, Work};
use crate::install::Installer;
use crate::report::{self, EngineLog, Report};
use crate::{limits, sys, walk};
use hosting::guard::say;

/// What the process is called while it executes no run.
const IDLE_NAME: &str = "engine-host";

/// What it is called when it looks after a template.
const TEMPLATE_NAME: &str = "template";

/// Starts engines of one kind.
pub trait EngineStarter: Send + 'static {
    /// The kind. Dropping one stops what it does, whatever that is, without waiting for it.
    type Engine: Engine + 'static;

    /// Starts the engine that is `wanted`, whose lines go to `log`. Dropping the future gives it up.
    fn start(
        &self,
        wanted: &Prepare,
        log: Arc<dyn LogSink>,
    ) -> impl Future<Output = Result<Self::Engine, EngineLost>> + Send + 'static;

    /// Makes a template for engines, which the host of this id looks after. There are none of most kinds.
    fn become_template(
        &self,
        _host: &str,
        _wanted: BeTemplate,
    ) -> impl Future<Output = Result<Template, Refusal>> + Send + 'static {
        async { Err(Refusal::new(RefusalCode::WrongState, "engines of this kind have no templates")) }
    }

    /// The worker tells something about an engine.
    fn hear(&self, _notice: HostNotice) {}
}

/// An engine that waits for a run.
struct Ready<E> {
    prepared: Prepare,
    log: Arc<EngineLog>,
    engine: E,
}

/// An engine that is being started. Dropping it gives the start up.
type Starting<E> = Pin<Box<dyn Future<Output = Result<Ready<E>, EngineLost>> + Send>>;

/// An engine that is being started before a run comes.
struct Preparing<E> {
    prepared: Prepare,
    starting: Starting<E>,
    /// Who waits for it.
    waiting: Waiting,
}

/// Those who asked for an engine that is being started.
type Waiting = Vec<Responder<HostSide>>;

/// What the host does.
enum State<E> {
    /// Nothing.
    Idle,
    /// It starts an engine.
    Preparing(Preparing<E>),
    /// It has an engine ready.
    Ready(Ready<E>),
    /// It executes a run.
    Running(Running),
    /// It looks after a repo of adaptors, to its end.
    Installing(Installer),
    /// It loads a handler, or has it loaded.
    Loading(LoadingHandler),
    /// It runs a handler.
    Handling(Handling),
    /// It starts a template.
    BecomingTemplate(BecomingTemplate),
    /// It looks after a template, to its end.
    Template(Box<Template>),
}

/// A template that is being started.
struct BecomingTemplate {
    starting: Pin<Box<dyn Future<Output = Result<Template, Refusal>> + Send>>,
    /// Waits for it.
    responder: Responder<HostSide>,
}

/// A handler that is being loaded before there is a job for it.
struct LoadingHandler {
    prepared: Prepare,
    loading: Loading,
    /// Who waits for it; none when it is loaded.
    waiting: Waiting,
    is_loaded: bool,
}

/// A run under way.
struct Running {
    run_id: String,
    /// Ends it; none if it was cancelled before.
    cancel: Option<oneshot::Sender<Exit>>,
    task: JoinHandle<Result<RunOutcome, EngineLost>>,
    /// Waits for the outcome.
    responder: Responder<HostSide>,
}

/// A handler at work.
struct Handling {
    session: Session,
    end: handler::Ending,
    /// Waits for the end.
    responder: Responder<HostSide>,
}

/// The actor behind a link.
struct Host<S: EngineStarter> {
    /// What the worker calls it.
    id: String,
    starter: S,
    link: Link<HostSide>,
    state: State<S::Engine>,
    stopping: bool,
}

/// Serves the worker until it asks to stop, or `stop` resolves, and no run is under way.
pub async fn serve<S: EngineStarter>(
    starter: S,
    id: String,
    link: Link<HostSide>,
    mut inbox: Inbox<HostSide>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut host = Host { id, starter, link, state: State::Idle, stopping: false };
    while !(host.stopping && host.is_free()) {
        tokio::select! {
            incoming = inbox.next() => match incoming {
                Some(Incoming::Request(request, responder)) => host.answer(request, responder),
                Some(Incoming::Notice(notice)) => host.starter.hear(notice),
                None => return,
            },
            () = host.work_over() => {}
            () = &mut stop, if !host.stopping => host.stopping = true,
        }
    }
}

impl<S: EngineStarter> Host<S> {
    fn is_free(&self) -> bool {
        match &self.state {
            State::Idle | State::Preparing(_) | State::Ready(_) | State::Loading(_) => true,
            State::BecomingTemplate(_) | State::Template(_) => true,
            State::Running(_) | State::Handling(_) => false,
            State::Installing(installer) => installer.is_done(),
        }
    }

    /// Waits for the end of what is under way, and answers who waits for it. Waits for ever if there is nothing.
    async fn work_over(&mut self) {
        match &mut self.state {
            State::Idle | State::Ready(_) => std::future::pending().await,
            State::Installing(installer) => installer.one_done().await,
            State::Loading(LoadingHandler { is_loaded: true, .. }) => std::future::pending().await,
            State::Loading(handler) => {
                let loaded = (&mut handler.loading).await;
                self.loaded(loaded);
            }
            State::Handling(handling) => {
                let reply = handling.end.as_mut().await;
                if let State::Handling(handling) = std::mem::replace(&mut self.state, State::Idle) {
                    handling.responder.reply(HostReply::Handler(reply));
                }
            }
            State::Preparing(preparing) => {
                let started = (&mut preparing.starting).await;
                self.prepared(started);
            }
            State::BecomingTemplate(becoming) => {
                let started = becoming.starting.as_mut().await;
                self.became_template(started);
            }
            State::Template(template) => {
                let end = template.ended().await;
                say(&format!("the template has ended: {end}"));
                // The worker starts another one.
                self.state = State::Idle;
                self.stopping = true;
            }
            State::Running(running) => {
                let ended = (&mut running.task).await;
                self.ran(ended);
            }
        }
    }

    fn loaded(&mut self, loaded: Result<Loaded, String>) {
        let before = std::mem::replace(&mut self.state, State::Idle);
        let State::Loading(LoadingHandler { prepared, waiting, .. }) = before else { return };
        for responder in waiting {
            match &loaded {
                Ok(_) => responder.reply(HostReply::Prepared(Prepared { engine: handler_engine(&prepared) })),
                Err(why) => responder.refuse(Refusal::new(RefusalCode::Failed, why.as_str())),
            }
        }
        if let Ok(loaded) = loaded {
            let loading: Loading = Box::pin(std::future::ready(Ok(loaded)));
            self.state = State::Loading(LoadingHandler { prepared, loading, waiting: Waiting::new(), is_loaded: true });
        }
    }

    /// Loads a handler, unless this one is loaded or about to be.
    fn load(&mut self, wanted: Prepare, module: Module, responder: Responder<HostSide>) {
        match &mut self.state {
            State::Loading(LoadingHandler { prepared, is_loaded: true, .. }) if *prepared == wanted => {
                responder.reply(HostReply::Prepared(Prepared { engine: handler_engine(&wanted) }));
            }
            State::Loading(handler) if handler.prepared == wanted => handler.waiting.push(responder),
            _ => {
                let loading = handler::load(module, wanted.memory_bytes);
                let waiting = vec![responder];
                self.state = State::Loading(LoadingHandler { prepared: wanted, loading, waiting, is_loaded: false });
            }
        }
    }

    fn prepared(&mut self, started: Result<Ready<S::Engine>, EngineLost>) {
        let before = std::mem::replace(&mut self.state, State::Idle);
        let State::Preparing(Preparing { waiting, .. }) = before else { return };
        tell(waiting, &started);
        if let Ok(ready) = started {
            self.state = State::Ready(ready);
        }
    }

    fn ran(&mut self, ended: Result<Result<RunOutcome, EngineLost>, JoinError>) {
        sys::name_process(IDLE_NAME);
        let before = std::mem::replace(&mut self.state, State::Idle);
        let State::Running(Running { responder, .. }) = before else { return };
        match ended {
            Ok(Ok(outcome)) => responder.reply(HostReply::Ran(outcome)),
            Ok(Err(lost)) => responder.refuse(Refusal::failed(&lost)),
            Err(panic) => responder.refuse(Refusal::failed(&panic)),
        }
    }

    fn answer(&mut self, request: HostRequest, responder: Responder<HostSide>) {
        match (request, self.refusal()) {
            (HostRequest::Prepare(_) | HostRequest::Run(_), Some(refusal)) => responder.refuse(refusal),
            (HostRequest::Prepare(prepare), None) => match prepare.engine.clone() {
                EngineSpec::Handler(module) => self.load(prepare, *module, responder),
                EngineSpec::Embedded | EngineSpec::Node(_) => self.prepare(prepare, responder),
            },
            (HostRequest::Run(spec), None) => self.run(*spec, responder),
            (HostRequest::Cancel(cancel), _) => {
                let was_running = self.cancel(cancel.exit);
                responder.reply(HostReply::Cancelled(Cancelled { was_running }));
            }
            (HostRequest::Ping(_), _) => {
                responder.reply(HostReply::Pong(Pong { rss_bytes: hosting::process::resident_bytes_of_descent() }))
            }
            (HostRequest::Stop(_), _) => {
                self.stopping = true;
                responder.reply(HostReply::Stopping(Stopping {}));
            }
            (HostRequest::Installer(request), _) => self.install(request, responder),
            (HostRequest::Handler(HandlerRequest::Abort(_)), _) => {
                let was_running = self.abort_handler();
                responder.reply(HostReply::Handler(HandlerReply::Aborted(Aborted { was_running })));
            }
            (HostRequest::Custom(_), _) => {
                responder.refuse(Refusal::new(RefusalCode::WrongState, "an engine host has no requests of its own"));
            }
            (HostRequest::SetEnv(_), _) => {
                let why = "an engine host keeps the environment that it was started with";
                responder.refuse(Refusal::new(RefusalCode::WrongState, why));
            }
            (HostRequest::Handler(_) | HostRequest::Template(_), Some(refusal)) => responder.refuse(refusal),
            (HostRequest::Template(wanted), None) => self.become_template(wanted, responder),
            (HostRequest::Handler(HandlerRequest::Inspect(inspect)), None) => {
                self.handle(Work::Inspect(inspect), responder);
            }
            (HostRequest::Handler(HandlerRequest::Handle(handle)), None) => {
                self.handle(Work::Handle(handle), responder);
            }
        }
    }

    /// Gets an engine ready, unless this one is, and says of which kind and version it is.
    fn prepare(&mut self, wanted: Prepare, responder: Responder<HostSide>) {
        match &mut self.state {
            State::Preparing(preparing) if preparing.prepared == wanted => preparing.waiting.push(responder),
            _ => {
                let (starting, waiting) = self.engine_for(&wanted);
                let waiting = waiting.into_iter().chain([responder]).collect();
                self.state = State::Preparing(Preparing { prepared: wanted, starting, waiting });
            }
        }
    }

    /// The engine that is `wanted`, and who else waits for it: the one that is ready or about to be, else a new one.
    fn engine_for(&mut self, wanted: &Prepare) -> (Starting<S::Engine>, Waiting) {
        if let State::Ready(ready) = &mut self.state
            && ready.engine.is_lost()
        {
            self.state = State::Idle;
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ready(ready) if ready.prepared == *wanted => {
                (Box::pin(std::future::ready(Ok(ready))), Waiting::new())
            }
            State::Preparing(Preparing { prepared, starting, waiting }) if prepared == *wanted => (starting, waiting),
            State::Preparing(Preparing { waiting, .. }) => {
                for responder in waiting {
                    let why = "another engine was wanted before this one was ready";
                    responder.refuse(Refusal::new(RefusalCode::WrongState, why));
                }
                (self.start_engine(wanted), Waiting::new())
            }
            _ => (self.start_engine(wanted), Waiting::new()),
        }
    }

    /// Does something to a repo of adaptors. From the first time on this host does nothing else.
    fn install(&mut self, request: InstallerRequest, responder: Responder<HostSide>) {
        if !self.stopping && matches!(self.state, State::Idle) {
            self.state = State::Installing(Installer::default());
        }
        match &mut self.state {
            State::Installing(installer) if !self.stopping => installer.take(request, self.link.clone(), responder),
            _ => {
                let why = "this host executes runs, or is stopping; it looks after no adaptors";
                responder.refuse(Refusal::new(RefusalCode::WrongState, why));
            }
        }
    }

    /// Runs a handler. An engine that is ready makes room for it.
    fn handle(&mut self, work: Work, responder: Responder<HostSide>) {
        let wanted = match &work {
            Work::Handle(handle) => {
                let engine = EngineSpec::Handler(Box::new(handle.module.clone()));
                Some(Prepare { engine, memory_bytes: handle.memory_bytes })
            }
            Work::Inspect(_) => None,
        };
        let loading = match std::mem::replace(&mut self.state, State::Idle) {
            State::Loading(handler) if Some(&handler.prepared) == wanted.as_ref() => Some(handler.loading),
            _ => None,
        };
        let (session, end) = Session::start(work, loading, self.link.clone());
        self.state = State::Handling(Handling { session, end, responder });
    }

    /// Becomes a template. From then on this host does nothing else.
    fn become_template(&mut self, wanted: BeTemplate, responder: Responder<HostSide>) {
        // What is forked is to belong to the worker and not to this process.
        sys::stop_adopting();
        let starting = Box::pin(self.starter.become_template(&self.id, wanted));
        self.state = State::BecomingTemplate(BecomingTemplate { starting, responder });
    }

    fn became_template(&mut self, started: Result<Template, Refusal>) {
        let before = std::mem::replace(&mut self.state, State::Idle);
        let State::BecomingTemplate(BecomingTemplate { responder, .. }) = before else { return };
        match started {
            Ok(template) => {
                let (address, private_bytes) = (template.address().clone(), template.private_bytes());
                responder.reply(HostReply::Template(protocol::message::Template { address, private_bytes }));
                sys::name_process(TEMPLATE_NAME);
                self.state = State::Template(Box::new(template));
            }
            Err(refusal) => {
                responder.refuse(refusal);
                self.stopping = true;
            }
        }
    }

    /// Tells the handler that is at work, if one is, to end.
    fn abort_handler(&self) -> bool {
        let State::Handling(handling) = &self.state else { return false };
        handling.session.abort();
        true
    }

    fn start_engine(&self, wanted: &Prepare) -> Starting<S::Engine> {
        let log = Arc::new(EngineLog::default());
        let starting = self.starter.start(wanted, Arc::clone(&log) as Arc<dyn LogSink>);
        let prepared = wanted.clone();
        Box::pin(async move { Ok(Ready { prepared, log, engine: starting.await? }) })
    }

    /// Why nothing can be started now.
    fn refusal(&self) -> Option<Refusal> {
        let why = match &self.state {
            State::Running(running) => {
                format!("this host is busy with run {}; it takes one at a time", running.run_id)
            }
            State::Installing(_) => "this host looks after adaptors; it takes no runs".to_owned(),
            State::Handling(_) => "this host is busy with a handler; it takes one at a time".to_owned(),
            State::BecomingTemplate(_) | State::Template(_) => {
                "this host looks after a template; it takes no runs".to_owned()
            }
            _ if self.stopping => "this host is stopping".to_owned(),
            _ => return None,
        };
        Some(Refusal::new(RefusalCode::WrongState, why))
    }

    fn run(&mut self, spec: RunSpec, responder: Responder<HostSide>) {
        let (starting, waiting) = self.engine_for(&Prepare::of(&spec));
        let run_id = spec.run_id.clone();
        sys::name_process(&format!("run {run_id}"));
        let (cancel, cancelled) = oneshot::channel();
        let task = tokio::spawn(start_and_execute(spec, (starting, waiting), cancelled, self.link.clone()));
        self.state = State::Running(Running { run_id, cancel: Some(cancel), task, responder });
    }

    /// Ends the run that is under way. Only the first cancellation counts.
    fn cancel(&mut self, exit: Exit) -> bool {
        let State::Running(running) = &mut self.state else { return false };
        running.cancel.take().is_some_and(|cancel| cancel.send(exit).is_ok())
    }
}

/// Kind and version of what runs a handler.
fn handler_engine(prepared: &Prepare) -> (String, String) {
    let version = match &prepared.engine {
        EngineSpec::Handler(module) => module.node.as_ref().map(|node| node.version.clone()),
        EngineSpec::Embedded | EngineSpec::Node(_) => None,
    };
    ("node".to_owned(), version.unwrap_or_default())
}

/// Answers who waits for an engine.
fn tell<E: Engine>(waiting: Waiting, started: &Result<Ready<E>, EngineLost>) {
    for responder in waiting {
        match started {
            Ok(ready) => responder.reply(HostReply::Prepared(Prepared { engine: ready.engine.version() })),
            Err(lost) => responder.refuse(Refusal::failed(lost)),
        }
    }
}

/// Executes a run when its engine is ready. The run's time begins then.
async fn start_and_execute<E: Engine>(
    spec: RunSpec,
    (starting, waiting): (Starting<E>, Waiting),
    mut cancelled: oneshot::Receiver<Exit>,
    link: Link<HostSide>,
) -> Result<RunOutcome, EngineLost> {
    let started = tokio::select! {
        biased;
        Ok(exit) = &mut cancelled => return Ok(RunOutcome { exit, final_state: None, final_step: None }),
        started = starting => started,
    };
    tell(waiting, &started);
    let outcome = execute(spec, started?, cancelled, link.clone()).await;
    // Fails when nobody is there to be told.
    let _ = link.notify(WorkerNotice::Event(RunEvent::Used(sys::usage()))).await;
    Ok(outcome)
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
                step.memory.system += sys::take_peak_resident_bytes();
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
