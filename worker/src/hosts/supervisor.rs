//! The task that owns one host's process from its start to its grave.
//!
//! It turns what happens into [`Event`]s for the host's state machine and does what that says. It ends when the process
//! has been reaped, and in no other way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::link::{CallError, Inbox, Link, WorkerSide};
use protocol::message::{Cancel, Ping, Prepare, Stop};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::arrivals::{Arrival, Arrivals, Ticket};
use super::death::Death;
use super::host::{Action, Event, Host};
use super::keeper::Message;
use super::output::{Speaker, Stream, pump};
use super::pool::HostNumber;
use super::process::Process;
use super::program::HostProgram;
use super::run::{Job, Verdict, execute, hand_back};
use super::spawn::{Invitation, Spawner};

/// How long a dead host's output is still read for: something that it started may hold the pipes open.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// What all hosts of a pool have in common.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) program: HostProgram,
    pub(super) spawner: Spawner,
    pub(super) arrivals: Arrivals,
    /// Each host works in a folder of its own in this one.
    pub(super) folder: PathBuf,
}

/// What the pool wants of a host.
#[derive(Debug)]
pub(super) enum Command {
    /// Get this ready.
    Prepare(Prepare),
    /// Say how much memory it takes.
    Measure,
    Run(Job),
    Stop,
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
    Running,
    /// It said something of its run.
    Heard,
    /// It was asked to stop, after a run or because it is not needed.
    Stopping,
    /// The last one.
    Died(Death),
}

/// Which host it is, and whom it reports to.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) number: HostNumber,
    pub(super) id: String,
    pub(super) pool: mpsc::UnboundedSender<Message>,
}

impl Identity {
    pub(super) fn report(&self, report: Report) {
        // Fails when the pool is gone, which then does not need to know.
        let _ = self.pool.send(Message::Report(self.number, report));
    }
}

/// Starts a host and stays with it. Ends it when `commands` is closed.
pub(super) async fn supervise(
    setup: Arc<Setup>,
    identity: Identity,
    first: Option<Prepare>,
    start_timeout: Duration,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let folder = setup.folder.join(&identity.id);
    let mut pumps = JoinSet::new();
    let death = match start(&setup, &identity.id, &folder).await {
        Ok((process, ticket)) => {
            let mut supervisor = Supervisor::new(&identity, process, ticket);
            supervisor.pump_output(&mut pumps);
            supervisor.serve(first, start_timeout, &mut commands).await
        }
        Err(error) => Death::unborn(format!("{}: {error}", setup.program.path().display())),
    };
    commands.close();
    while let Some(command) = commands.recv().await {
        if let Command::Run(job) = command {
            hand_back(job, &identity.pool);
        }
    }
    // What still reads after that is aborted.
    let _ = timeout(LAST_OUTPUT, async { while pumps.join_next().await.is_some() {} }).await;
    drop(pumps);
    remove(folder).await;
    drop(setup);
    identity.report(Report::Died(death));
}

async fn start(setup: &Setup, host_id: &str, folder: &Path) -> io::Result<(Process, Ticket)> {
    let ticket = setup.arrivals.expect(host_id)?;
    let invitation = Invitation { address: setup.arrivals.address(), token: &ticket.token };
    let process = Process::new(setup.spawner.spawn(&setup.program, folder, invitation).await?);
    if let Some(pid) = process.id() {
        ticket.is_held_by(pid);
    }
    Ok((process, ticket))
}

async fn remove(folder: PathBuf) {
    let name = folder.display().to_string();
    let removed = tokio::task::spawn_blocking(|| std::fs::remove_dir_all(folder)).await;
    match removed {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            warn!("failed to remove {name}, the folder of an engine host: {error}");
        }
        // Otherwise the runtime shuts down; the folder goes with the one that it is in.
        _ => {}
    }
}

struct Supervisor<'a> {
    identity: &'a Identity,
    process: Process,
    /// Where the link comes from, until it is there.
    ticket: Option<Ticket>,
    link: Option<Link<WorkerSide>>,
    /// Until the run gets it.
    inbox: Option<Inbox<WorkerSide>>,
    /// A run that was taken and not started yet.
    job: Option<Job>,
    /// Where the end of a lost run goes.
    verdict: Option<oneshot::Sender<Verdict>>,
    /// The run's id, for the output.
    run: watch::Sender<Option<String>>,
    deadline: Option<Instant>,
    events: mpsc::UnboundedReceiver<Event>,
    event_sender: mpsc::UnboundedSender<Event>,
    /// Calls and watches that are of no use without this.
    tasks: JoinSet<()>,
    death: Option<Death>,
}

impl<'a> Supervisor<'a> {
    fn new(identity: &'a Identity, process: Process, ticket: Ticket) -> Self {
        let (event_sender, events) = mpsc::unbounded_channel();
        Self {
            identity,
            process,
            ticket: Some(ticket),
            link: None,
            inbox: None,
            job: None,
            verdict: None,
            run: watch::Sender::default(),
            deadline: None,
            events,
            event_sender,
            tasks: JoinSet::new(),
            death: None,
        }
    }

    fn pump_output(&mut self, pumps: &mut JoinSet<()>) {
        let speaker = Speaker { host: self.identity.id.clone(), run: self.run.subscribe() };
        let (stdout, stderr) = self.process.take_output();
        if let Some(stdout) = stdout {
            pumps.spawn(pump(stdout, Stream::Stdout, speaker.clone()));
        }
        if let Some(stderr) = stderr {
            pumps.spawn(pump(stderr, Stream::Stderr, speaker));
        }
    }

    async fn serve(
        &mut self,
        first: Option<Prepare>,
        start_timeout: Duration,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Death {
        self.identity.report(Report::Started(self.process.id()));
        let (mut host, begin) = Host::spawned(first, start_timeout);
        self.perform(begin);
        let mut is_wanted = true;
        loop {
            let event = tokio::select! {
                biased;
                command = commands.recv(), if is_wanted => {
                    is_wanted = command.is_some();
                    match self.obey(command.unwrap_or(Command::Shutdown), host.is_ready()) {
                        Some(event) => event,
                        None => continue,
                    }
                }
                arrival = arrival(&mut self.ticket) => self.receive(arrival),
                Some(event) = self.events.recv() => event,
                () = self.process.ended() => Event::Exited(self.process.reap().await),
                () = sleep_until(self.deadline.unwrap_or_else(Instant::now)), if self.deadline.is_some() => {
                    self.deadline = None;
                    Event::Deadline
                }
            };
            for action in host.on(event) {
                self.perform(action);
            }
            if let Some(death) = self.death.take() {
                return death;
            }
        }
    }

    /// What a command means to the host, which can be given a run or not.
    fn obey(&mut self, command: Command, is_ready: bool) -> Option<Event> {
        match command {
            Command::Prepare(wanted) => Some(Event::Prepare(wanted)),
            Command::Run(job) if is_ready => {
                let timeout_ms = job.spec.options.timeout_ms;
                self.job = Some(job);
                Some(Event::Run { timeout_ms })
            }
            Command::Run(job) => {
                hand_back(job, &self.identity.pool);
                None
            }
            Command::Measure => {
                self.measure();
                None
            }
            Command::Stop => Some(Event::Stop),
            Command::Shutdown => Some(Event::Shutdown),
        }
    }

    fn receive(&mut self, arrival: Arrival) -> Event {
        self.ticket = None;
        match arrival {
            Ok((link, inbox)) => {
                let (watched, events) = (link.clone(), self.event_sender.clone());
                self.tasks.spawn(async move {
                    // Fails when the host is dead.
                    let _ = events.send(Event::LinkEnded(watched.ended().await.to_string()));
                });
                (self.link, self.inbox) = (Some(link), Some(inbox));
                Event::Connected
            }
            Err(failure) => Event::Unfit(failure.to_string()),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(wanted) => self.prepare(wanted),
            Action::AnnounceReady => self.identity.report(Report::Ready),
            Action::AnnounceUnprepared(why) => self.identity.report(Report::Unprepared(why)),
            Action::Execute => self.execute(),
            Action::AskToCancel(exit) => self.ask(|link| async move { link.call(Cancel { exit }).await.err() }),
            Action::AskToStop => {
                self.identity.report(Report::Stopping);
                self.ask(|link| async move { link.call(Stop {}).await.err() });
            }
            Action::Terminate => self.process.terminate(),
            Action::Kill => self.process.kill(),
            Action::SetDeadline(limit) => self.deadline = limit.map(after),
            Action::EndRun(exit) => self.judge(Verdict { exit, may_move: false }),
            Action::LoseRun(exit) => self.judge(Verdict { exit, may_move: true }),
            Action::AnnounceDeath(death) => self.death = Some(death),
        }
    }

    fn prepare(&mut self, wanted: Prepare) {
        let events = self.event_sender.clone();
        self.ask(move |link| async move {
            // The host's state has a deadline for that.
            let event = match link.call_within(wanted, Duration::MAX).await {
                Ok(_) => Event::Prepared,
                Err(failure @ CallError::Ended(_)) => return Some(failure),
                Err(failure) => Event::Unfit(failure.to_string()),
            };
            // Fails when the host is dead.
            let _ = events.send(event);
            None
        });
    }

    fn measure(&mut self) {
        let identity = self.identity.clone();
        self.ask(move |link| async move {
            match link.call(Ping {}).await {
                Ok(pong) => identity.report(Report::Measured(pong.rss_bytes)),
                Err(failure) => return Some(failure),
            }
            None
        });
    }

    fn execute(&mut self) {
        let (Some(job), Some(link), Some(inbox)) = (self.job.take(), self.link.clone(), self.inbox.take()) else {
            // Not possible: a host is ready when it has a link, and runs when it has a job.
            return drop(self.event_sender.send(Event::Abandoned));
        };
        self.identity.report(Report::Running);
        self.run.send_replace(Some(job.spec.run_id.clone()));
        let (verdict, lost) = oneshot::channel();
        self.verdict = Some(verdict);
        // Not among the tasks that end with this one: it has the last word on the run.
        tokio::spawn(execute(link, inbox, job, lost, self.event_sender.clone(), self.identity.clone()));
    }

    fn judge(&mut self, verdict: Verdict) {
        if let Some(judge) = self.verdict.take() {
            // Fails when the run has been reported.
            let _ = judge.send(verdict);
        }
    }

    /// Asks something of the host without waiting for the answer. What fails shows by itself: the host's state has a
    /// deadline, and its link is watched.
    fn ask<F: Future<Output = Option<CallError>> + Send + 'static>(
        &mut self,
        question: impl FnOnce(Link<WorkerSide>) -> F,
    ) {
        let Some(link) = self.link.clone() else { return };
        let (answer, host) = (question(link), self.identity.id.clone());
        self.tasks.spawn(async move {
            if let Some(failure) = answer.await {
                debug!(host, "the engine host did not answer: {failure}");
            }
        });
    }
}

/// Waits for what `ticket` promises; for ever if there is none.
async fn arrival(ticket: &mut Option<Ticket>) -> Arrival {
    if let Some(ticket) = ticket
        && let Ok(arrival) = (&mut ticket.arrival).await
    {
        return arrival;
    }
    std::future::pending().await
}

/// A moment from now. Limits that are beyond the clock are as good as a year.
fn after(limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + limit.min(YEAR)
}
