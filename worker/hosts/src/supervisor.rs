//! The task that owns one host's process from its start to its grave.
//!
//! It turns what happens into [`Event`]s for the host's state machine and does what that says. It ends when the process
//! has been reaped, and in no other way.

mod asking;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::processes::waited_for_processor;
use base::run_log::RunLog;
use protocol::Json;
use protocol::link::{CallError, Incoming, WorkerSide};
use protocol::message::{Cancel, Custom, HostNotice, OpsReport, Prepare, SetEnv, Stop, WorkerNotice, WorkerRequest};
use protocol::queue;
use protocol::run::Exit;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::arrivals::{Arrival, Ticket};
use super::broker::HostRuntime;
use super::cgroup::{Cgroups, Group};
use super::connection::{Connection, Consumer, Heard};
use super::death::{Death, Reason};
use super::forked_engines::ForkedEngines;
use super::host::{self, Host, Patience};
use super::lent_host::{Borrower, Claim, LentHost, Told};
use super::options::HostsOptions;
use super::output::{Allowance, Speaker, Stream, pump};
use super::own_time::OwnTime;
use super::pool::HostNumber;
use super::pool_task::PoolMessage;
use super::process::Process;
use super::run::{Job, RunContext, RunVerdict, execute, hand_back};
use super::spawn::Invitation;
use super::templates::Demand;

/// How long a dead host's output is still read for, and what it did before is waited for: something that it started may
/// hold the pipes open.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// How long a host that was given a run may take to show that it lives.
const FIRST_SIGN: Duration = Duration::from_secs(5);
/// What may be under way with a host at the same time; more of its questions are refused, and more notices to it dropped.
const MOST_TASKS: usize = 256;
/// How many bytes of notices of a lent host may wait for who has it, and how many of its requests. One may be larger.
const TOLD: usize = 1024 * 1024;

/// What all hosts of a pool that are started at a time have in common.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) runtime: Arc<HostRuntime>,
    pub(super) options: HostsOptions,
}

/// Somebody who borrows a host, and the way back.
type Lending = (Claim, Borrower);

/// Something that happened to a host.
pub(super) type Event = host::Event<Job, Lending>;

type Action = host::Action<Job, Lending>;

/// What the pool wants of a host.
#[derive(Debug)]
pub(super) enum HostCommand {
    /// Get this ready.
    Prepare(Prepare),
    /// Say how much memory it takes.
    Measure,
    /// Execute this.
    Run(Job),
    /// End the run like this.
    Cancel(Exit),
    /// Be this one's for a while.
    Lend(Lending),
    /// Who had it is done with it.
    TakeBack,
    /// Who had it does not know what it does now.
    Discard,
    /// Tell it this.
    Tell(Json),
    /// Have it go by these variables.
    SetEnv(SetEnv),
    /// Exit, for this reason.
    Stop(Reason),
    /// Exit now.
    Shutdown,
}

/// What the pool has to know of a host.
#[derive(Debug)]
pub(super) enum Report {
    Started(Option<u32>),
    Ready,
    /// It could not prepare what it was told to, and waits with nothing: why.
    Unprepared(String),
    /// It takes so much memory, in bytes.
    Measured(u64),
    /// It executes the run of this id.
    Running(String),
    /// It said something of its run.
    Heard,
    /// It said something that is not about a run.
    Said(Said),
    /// It was asked to stop, after a run or because it is not needed.
    Stopping,
    /// It goes by other variables from now on, or it does not.
    EnvSet(bool),
    /// The last one.
    Died(Death),
}

/// What a host says that is not about a run.
#[derive(Debug)]
pub(super) enum Said {
    Message(Json),
    Ops(OpsReport),
}

/// Which host it is, and whom it reports to.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) number: HostNumber,
    pub(super) id: String,
    pub(super) pool: mpsc::UnboundedSender<PoolMessage>,
}

impl Identity {
    pub(super) fn report(&self, report: Report) {
        // Fails when the pool is gone, which then does not need to know.
        let _ = self.pool.send(PoolMessage::Report(self.number, report));
    }
}

/// Starts a host and stays with it. Ends it when `commands` is closed.
pub(super) async fn supervise(
    setup: Arc<Setup>,
    identity: Identity,
    first: Option<Prepare>,
    start_timeout: Duration,
    mut commands: mpsc::UnboundedReceiver<HostCommand>,
) {
    let folder = setup.runtime.folder().join(&identity.id);
    let mut pumps = JoinSet::new();
    let announced = watch::Sender::new(None);
    let patience = Patience { start: start_timeout, ..setup.options.patience() };
    let death = match start(&setup, &identity.id, &folder).await {
        Ok((process, ticket)) => {
            let mut supervisor = Supervisor::new(&setup, &identity, process, ticket, announced.subscribe());
            supervisor.pump_output(&mut pumps);
            let pid = supervisor.process.id();
            let death = supervisor.serve(first, patience, &mut commands).await;
            pid.into_iter().for_each(|pid| setup.runtime.orphans.reaped(pid));
            death
        }
        Err(_) if setup.runtime.is_lost() => {
            Death::unborn(format!("{}, the worker's folder, is gone", setup.runtime.folder().display()))
        }
        Err(error) => Death::unborn(format!("{}: {error}", setup.options.program.path().display())),
    };
    announced.send_replace(Some(death.clone()));
    commands.close();
    while let Some(command) = commands.recv().await {
        match command {
            HostCommand::Run(job) => hand_back(job, &identity.pool),
            // Fails when the pool is gone, and with it whoever waits.
            HostCommand::Lend((_, borrower)) => drop(identity.pool.send(PoolMessage::BorrowAgain(borrower))),
            _ => {}
        }
    }
    // What still reads after that is aborted.
    let _ = timeout(LAST_OUTPUT, async { while pumps.join_next().await.is_some() {} }).await;
    drop(pumps);
    setup.runtime.orphans.sweep().await;
    remove(folder).await;
    drop(setup);
    identity.report(Report::Died(death));
}

async fn start(setup: &Setup, host_id: &str, folder: &Path) -> io::Result<(Process, Ticket)> {
    let Setup { runtime, options } = setup;
    let ticket = runtime.arrivals.expect(host_id)?;
    let invitation = Invitation { address: runtime.arrivals.address(), ticket: &ticket };
    let child = runtime.spawner.spawn(&options.program, &options.environment(), folder, invitation).await?;
    let forked = |group| ForkedEngines::new(Arc::clone(&runtime.orphans), runtime.templates().cloned(), group);
    let process = Process::new(child, options.cgroups.as_ref().and_then(|cgroups| group(cgroups, host_id)), forked);
    options.memory_bytes.into_iter().for_each(|most| process.bound(most));
    Ok((process, ticket))
}

/// The group of a host. Without one it still has its engine's limit.
fn group(cgroups: &Cgroups, host_id: &str) -> Option<Group> {
    cgroups.make(host_id).inspect_err(|error| warn!(host = %host_id, "failed to create a control group: {error}")).ok()
}

async fn remove(folder: PathBuf) {
    let name = folder.display().to_string();
    // Most are empty.
    let remove = move || std::fs::remove_dir(&folder).or_else(|_| std::fs::remove_dir_all(&folder));
    let removed = tokio::task::spawn_blocking(remove).await;
    match removed {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            warn!("failed to remove {name}, the folder of an engine host: {error}");
        }
        // Otherwise the runtime shuts down; the folder goes with the one that it is in.
        _ => {}
    }
}

/// When the host's state is to hear that its time is up.
enum Timer {
    Off,
    At(Instant),
    /// When it has had so much time of its own.
    OwnTime(OwnTime),
}

impl Timer {
    /// Waits until the clock is to be looked at; for ever if it is off.
    async fn wait(&self) {
        match self {
            Self::Off => std::future::pending().await,
            Self::At(deadline) => sleep_until(*deadline).await,
            Self::OwnTime(start) => sleep_until(start.next_look().into()).await,
        }
    }
}

struct Supervisor<'a> {
    setup: &'a Setup,
    identity: &'a Identity,
    process: Process,
    connection: Connection,
    /// Whether the host waits because nobody takes what it says.
    is_held_up: Arc<AtomicBool>,
    /// The run, for the output.
    run: watch::Sender<Option<Arc<RunLog>>>,
    speaker: Speaker,
    log_allowance: Allowance,
    timer: Timer,
    /// When to ask whether it lives.
    ping_at: Instant,
    events: mpsc::UnboundedReceiver<Event>,
    event_sender: mpsc::UnboundedSender<Event>,
    /// Calls and watches that are of no use without this.
    tasks: JoinSet<()>,
    /// Where its end is told to who has it.
    announced: watch::Receiver<Option<Death>>,
}

impl<'a> Supervisor<'a> {
    fn new(
        setup: &'a Setup,
        identity: &'a Identity,
        process: Process,
        ticket: Ticket,
        announced: watch::Receiver<Option<Death>>,
    ) -> Self {
        let (event_sender, events) = mpsc::unbounded_channel();
        let run = watch::Sender::default();
        let lines = setup.runtime.lines.clone();
        let speaker = Speaker { host: identity.id.clone(), run: run.subscribe(), lines };
        Self {
            setup,
            identity,
            process,
            connection: Connection::Awaited(ticket),
            is_held_up: Arc::default(),
            run,
            speaker,
            log_allowance: Allowance::new(std::time::Instant::now()),
            timer: Timer::Off,
            ping_at: Instant::now() + setup.options.ping_every,
            events,
            event_sender,
            tasks: JoinSet::new(),
            announced,
        }
    }

    fn pump_output(&mut self, pumps: &mut JoinSet<()>) {
        let (stdout, stderr) = self.process.take_output();
        if let Some(stdout) = stdout {
            pumps.spawn(pump(stdout, Stream::Stdout, self.speaker.clone()));
        }
        if let Some(stderr) = stderr {
            pumps.spawn(pump(stderr, Stream::Stderr, self.speaker.clone()));
        }
    }

    async fn serve(
        &mut self,
        first: Option<Prepare>,
        patience: Patience,
        commands: &mut mpsc::UnboundedReceiver<HostCommand>,
    ) -> Death {
        self.identity.report(Report::Started(self.process.id()));
        let mut host = Host::spawned(first, patience);
        self.perform(Action::AllowStart(patience.start));
        let mut is_wanted = true;
        loop {
            let event = tokio::select! {
                biased;
                command = commands.recv(), if is_wanted => {
                    is_wanted = command.is_some();
                    self.obey(command.unwrap_or(HostCommand::Shutdown))
                }
                Some(event) = self.events.recv() => Some(event),
                heard = self.connection.next() => match heard {
                    Heard::Arrival(arrival) => Some(self.receive(arrival)),
                    Heard::Said(incoming) => {
                        self.listen(incoming);
                        None
                    }
                },
                () = self.process.ended() => match self.connection.late_arrival().await {
                    Some(arrival) => Some(self.receive(arrival)),
                    None => {
                        self.hear_last().await;
                        Some(Event::Exited(self.process.reap().await))
                    }
                },
                () = self.timer.wait() => self.look_at_timer(),
                () = sleep_until(self.ping_at), if self.connection.link().is_some() => {
                    self.ping(self.setup.options.ping_timeout);
                    None
                }
            };
            for action in event.into_iter().flat_map(|event| host.on(event)) {
                if let Some(death) = self.perform(action) {
                    return death;
                }
            }
        }
    }

    /// What a command means to the host.
    fn obey(&mut self, command: HostCommand) -> Option<Event> {
        match command {
            HostCommand::Prepare(wanted) => return Some(Event::Prepare(wanted)),
            HostCommand::Measure => self.measure(),
            HostCommand::Run(run) => return Some(Event::Run { timeout_ms: run.spec.options.timeout_ms, run }),
            HostCommand::Cancel(exit) => return Some(Event::Cancel(exit)),
            HostCommand::Lend(lending) => return Some(Event::Lend(lending)),
            HostCommand::TakeBack => {
                if let Connection::Open { consumer, .. } = &mut self.connection
                    && let Consumer::Borrower { inbox, .. } = consumer
                {
                    *consumer = Consumer::Pool(inbox.take());
                }
                return Some(Event::Returned);
            }
            HostCommand::Discard => return Some(Event::Discarded),
            HostCommand::Tell(notice) => {
                while self.tasks.try_join_next().is_some() {}
                if self.tasks.len() >= MOST_TASKS {
                    warn!(host = %self.identity.id, "engine host does not read its link: dropped a notice to it");
                    return None;
                }
                self.ask(
                    |link| async move { link.notify(HostNotice::Custom(notice)).await.err().map(CallError::Ended) },
                );
            }
            HostCommand::SetEnv(set) => self.set_env(set),
            HostCommand::Stop(reason) => return Some(Event::Stop(reason)),
            HostCommand::Shutdown => return Some(Event::Shutdown),
        }
        None
    }

    /// Takes what the host sends while it executes no run.
    fn listen(&mut self, incoming: Option<(Incoming<WorkerSide>, usize)>) {
        let Some((incoming, bytes)) = incoming else {
            return self.connection.inbox().into_iter().for_each(|inbox| *inbox = None);
        };
        match incoming {
            Incoming::Notice(WorkerNotice::Custom(message)) => {
                self.identity.report(Report::Said(Said::Message(message)));
            }
            Incoming::Notice(WorkerNotice::Ops(report)) => self.identity.report(Report::Said(Said::Ops(report))),
            Incoming::Notice(WorkerNotice::Log(line)) => self.speaker.log(&line, &mut self.log_allowance),
            Incoming::Notice(WorkerNotice::NotForked(told)) => self.setup.runtime.not_forked(&told),
            Incoming::Notice(notice) => {
                if let Connection::Open { consumer: Consumer::Borrower { notices, .. }, .. } = &self.connection {
                    // Fails when too many wait, or nobody takes them.
                    let _ = notices.try_send(notice, bytes);
                }
            }
            Incoming::Request(WorkerRequest::Custom(Custom(question)), responder)
                if self.setup.options.answers.is_some() =>
            {
                self.answer(question, responder);
            }
            // Refused, as the responder is dropped, where nobody has borrowed the host or too many wait.
            Incoming::Request(request, responder) => {
                let Connection::Open { link, consumer } = &self.connection else { return };
                let others = self.process.forked().answer(request, responder, link);
                if let (Some(asked), Consumer::Borrower { requests, .. }) = (others, consumer) {
                    let _ = requests.try_send(asked, bytes);
                }
            }
        }
    }

    /// Takes what a host that has ended said before, as far as it is not for a run.
    async fn hear_last(&mut self) {
        let deadline = tokio::time::sleep(LAST_OUTPUT);
        tokio::pin!(deadline);
        while let Some(Some(inbox)) = self.connection.inbox() {
            tokio::select! {
                incoming = inbox.next_weighed() => self.listen(incoming),
                () = &mut deadline => return,
            }
        }
    }

    fn receive(&mut self, arrival: Arrival) -> Event {
        match arrival {
            Ok((link, inbox)) => {
                let (watched, events) = (link.clone(), self.event_sender.clone());
                self.tasks.spawn(async move {
                    // Fails when the host is dead.
                    let _ = events.send(Event::LinkEnded(watched.ended().await.to_string()));
                });
                self.connection = Connection::Open { link, consumer: Consumer::Pool(Some(inbox)) };
                Event::Connected
            }
            Err(failure) => {
                self.connection = Connection::Refused;
                Event::Unfit(failure.to_string())
            }
        }
    }

    /// Returns the death of the host, when it is dead.
    fn perform(&mut self, action: Action) -> Option<Death> {
        match action {
            Action::Prepare(wanted) => self.prepare(wanted),
            Action::AnnounceReady => {
                self.identity.report(Report::Ready);
                // Where the worker does not see what it uses, a host may not wait long enough to tell it otherwise.
                self.measure();
            }
            Action::AnnounceUnprepared(why) => self.identity.report(Report::Unprepared(why)),
            Action::Execute(job) => self.execute(job),
            Action::HandBack(job) => hand_back(job, &self.identity.pool),
            Action::HandOver(lending) => self.hand_over(lending),
            // Fails when the pool is gone, and with it whoever waits.
            Action::BorrowAgain((_, borrower)) => drop(self.identity.pool.send(PoolMessage::BorrowAgain(borrower))),
            Action::AskToCancel(exit) => self.ask(|link| async move { link.call(Cancel { exit }).await.err() }),
            Action::AskToStop => {
                self.identity.report(Report::Stopping);
                self.ask(|link| async move { link.call(Stop {}).await.err() });
            }
            Action::Terminate => self.process.terminate(),
            Action::Kill => self.process.kill(),
            Action::SetDeadline(limit) => self.timer = limit.map_or(Timer::Off, |limit| Timer::At(after(limit))),
            Action::AllowStart(limit) => {
                self.timer = Timer::OwnTime(OwnTime::new(limit, std::time::Instant::now()));
            }
            Action::EndRun(verdict) => self.end_run(verdict),
            Action::AnnounceDeath(death) => return Some(death),
        }
        None
    }

    /// Time is up, or it is looked how much of its own time a host that gets ready has had.
    fn look_at_timer(&mut self) -> Option<Event> {
        let waited = || self.process.id().and_then(waited_for_processor);
        if let Timer::OwnTime(start) = &mut self.timer
            && !start.look(std::time::Instant::now(), waited())
        {
            return None;
        }
        self.timer = Timer::Off;
        Some(Event::Deadline)
    }

    fn hand_over(&mut self, (claim, borrower): Lending) {
        let Connection::Open { link, consumer } = &mut self.connection else { return };
        let (notices, told) = queue::channel(TOLD);
        let (requests, asked) = queue::channel(TOLD);
        if let Consumer::Pool(inbox) = consumer {
            *consumer = Consumer::Borrower { inbox: inbox.take(), notices, requests };
        }
        let told = Told { notices: told, requests: asked };
        let (id, link, death) = (self.identity.id.clone(), link.clone(), self.announced.clone());
        // It comes back by itself when nobody waits.
        let _ = borrower.send(Ok(LentHost::new(id, link, told, death, claim)));
    }

    fn execute(&mut self, mut job: Job) {
        let idle = match &mut self.connection {
            Connection::Open { link, consumer: consumer @ Consumer::Pool(Some(_)) } => {
                let (sender, verdict) = oneshot::channel();
                match std::mem::replace(consumer, Consumer::Run(sender)) {
                    Consumer::Pool(Some(inbox)) => Some((link.clone(), inbox, verdict)),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some((link, inbox, verdict)) = idle else {
            // The host ended between two looks: it was ready, and has got a run of which nothing was heard.
            hand_back(job, &self.identity.pool);
            return drop(self.event_sender.send(Event::Abandoned));
        };
        let memory_bytes = job.spec.options.memory_bytes;
        self.setup.runtime.offer_template(&mut job.spec.engine, memory_bytes, Demand::Known);
        self.process.bound(memory_bytes);
        self.identity.report(Report::Running(job.spec.run_id.clone()));
        self.run.send_replace(Some(Arc::clone(&job.log)));
        // Not among the tasks that end with this one: it has the last word on the run.
        let context = RunContext {
            events: self.event_sender.clone(),
            identity: self.identity.clone(),
            is_held_up: Arc::clone(&self.is_held_up),
            forked: self.process.forked().clone(),
            runtime: Arc::clone(&self.setup.runtime),
        };
        tokio::spawn(execute(link, inbox, job, verdict, context));
        // A host that hung while it waited is found out before the run has lost much time.
        self.ping(self.setup.options.ping_timeout.min(FIRST_SIGN));
    }

    fn end_run(&mut self, verdict: RunVerdict) {
        if let Connection::Open { consumer: consumer @ Consumer::Run(_), .. } = &mut self.connection
            && let Consumer::Run(run) = std::mem::replace(consumer, Consumer::Nobody)
        {
            // Fails when the run has been reported.
            let _ = run.send(verdict);
        }
    }
}

/// A moment from now. Limits that are beyond the clock are as good as a year.
fn after(limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + limit.min(YEAR)
}
