//! The task that owns the pool: it starts hosts, lends them, and hears how they fare.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::message::Prepare;
use protocol::socket::RuntimeDir;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::StartError;
use super::death::{Death, Reason};
use super::host::platform_fault;
use super::lease::Lease;
use super::pool::{HostNumber, Pool, Taken};
use super::run::{GONE, Job};
use super::status::{HostEvent, HostState, HostStatus, PoolStatus, describe};
use super::supervisor::{Command, Identity, Report, Setup, supervise};
use crate::execution::{Reservation, ReserveError};
use crate::metrics::metrics;

/// How long killed hosts are waited for at the end. A process that the kernel holds may take longer.
const BURIAL: Duration = Duration::from_secs(2);

/// What others tell the pool.
#[derive(Debug)]
pub(super) enum Message {
    Reserve(Prepare, oneshot::Sender<Result<Reservation, ReserveError>>),
    GiveBack(HostNumber),
    /// A run whose host died before anything was heard of it.
    Return(Job),
    Report(HostNumber, Report),
    Status(oneshot::Sender<PoolStatus>),
    /// Stop all hosts, those that are left at the deadline by force, and say when it is done.
    Shutdown(Instant, oneshot::Sender<()>),
    /// Nobody is left who could want a host.
    Abandon,
}

/// How the first host is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validation {
    pub(super) timeout: Duration,
    pub(super) retries: u32,
}

#[derive(Debug)]
pub(super) struct Keeper {
    setup: Arc<Setup>,
    start_timeout: Duration,
    pool: Pool,
    hosts: BTreeMap<HostNumber, Member>,
    started: u64,
    last_death: Option<(String, Death)>,
    waiting: VecDeque<Waiter>,
    messages: mpsc::UnboundedReceiver<Message>,
    /// For the hosts, and for those who get one.
    sender: mpsc::UnboundedSender<Message>,
    events: broadcast::Sender<HostEvent>,
    closing: Option<Closing>,
    /// Goes last, with everything that is in it.
    _directory: RuntimeDir,
}

#[derive(Debug)]
struct Member {
    id: String,
    pid: Option<u32>,
    state: HostState,
    /// What it has prepared, or will have when it is ready.
    prepared: Option<Prepare>,
    since: Instant,
    runs: u32,
    commands: mpsc::UnboundedSender<Command>,
}

/// Who waits for a host.
#[derive(Debug)]
enum Waiter {
    Caller(Prepare, oneshot::Sender<Result<Reservation, ReserveError>>),
    /// A run whose host died before anything was heard of it.
    Run(Job),
}

#[derive(Debug)]
struct Closing {
    deadline: Instant,
    is_forced: bool,
    done: Vec<oneshot::Sender<()>>,
}

impl Keeper {
    pub(super) fn new(
        setup: Setup,
        directory: RuntimeDir,
        pool: Pool,
        start_timeout: Duration,
        events: broadcast::Sender<HostEvent>,
    ) -> (Self, mpsc::UnboundedSender<Message>) {
        let (sender, messages) = mpsc::unbounded_channel();
        let keeper = Self {
            setup: Arc::new(setup),
            start_timeout,
            pool,
            hosts: BTreeMap::new(),
            started: 0,
            last_death: None,
            waiting: VecDeque::new(),
            messages,
            sender: sender.clone(),
            events,
            closing: None,
            _directory: directory,
        };
        (keeper, sender)
    }

    /// Starts the first host, several times if need be.
    pub(super) async fn validate(&mut self, validation: Validation) -> Result<(), StartError> {
        let mut attempt = 0;
        loop {
            let Some(death) = self.start_first(validation.timeout).await else { return Ok(()) };
            if attempt == validation.retries {
                return Err(StartError::Unusable { attempts: attempt + 1, death });
            }
            let pause = retry_pause(attempt);
            warn!("no engine host got ready; trying again in {pause:?}");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Returns the death of the host if it does not get ready.
    async fn start_first(&mut self, timeout: Duration) -> Option<Death> {
        self.launch(timeout);
        loop {
            let message = self.messages.recv().await?;
            let is_ready = matches!(message, Message::Report(_, Report::Ready));
            let death = if let Message::Report(_, Report::Died(death)) = &message { Some(death.clone()) } else { None };
            self.handle(message);
            if is_ready || death.is_some() {
                return death;
            }
        }
    }

    /// Keeps the pool until it is to be shut down and all hosts are dead.
    pub(super) async fn run(mut self) {
        loop {
            let again_at = self.tend();
            if self.closing.is_some() && self.hosts.is_empty() {
                break;
            }
            tokio::select! {
                Some(message) = self.messages.recv() => self.handle(message),
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
            if self.is_overdue() {
                break;
            }
        }
        let Self { closing, hosts, setup, mut messages, _directory, .. } = self;
        for host in hosts.values() {
            error!(host = host.id, pid = host.pid, "engine host does not die");
        }
        // The socket goes before its folder, and both before anybody hears that they are gone.
        drop((setup, _directory));
        messages.close();
        while let Ok(message) = messages.try_recv() {
            if let Message::Return(job) = message {
                job.give_up(platform_fault(GONE.to_owned()));
            }
        }
        for done in closing.into_iter().flat_map(|closing| closing.done) {
            // Fails when nobody waits.
            let _ = done.send(());
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Reserve(wanted, caller) => {
                self.pool.wanted(&wanted, now());
                self.waiting.push_back(Waiter::Caller(wanted, caller));
            }
            Message::Return(job) => self.waiting.push_front(Waiter::Run(job)),
            Message::GiveBack(host) => self.take_back(host),
            Message::Report(host, report) => self.hear(host, report),
            Message::Status(asker) => {
                // Fails when nobody waits.
                let _ = asker.send(self.status());
            }
            Message::Shutdown(deadline, done) => self.close(deadline, Some(done)),
            Message::Abandon => self.close(Instant::now(), None),
        }
    }

    fn take_back(&mut self, host: HostNumber) {
        if let Some(member) = self.hosts.get_mut(&host).filter(|member| member.state == HostState::Reserved) {
            member.state = HostState::Ready;
            self.pool.give_back(host);
        }
    }

    /// Takes in what a host reports.
    fn hear(&mut self, host: HostNumber, report: Report) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        match report {
            Report::Started(pid) => {
                member.pid = pid;
                if let Some(pid) = pid {
                    debug!(host = member.id, pid, "engine host started");
                    publish(&self.events, HostEvent::Started { host: member.id.clone(), pid });
                }
            }
            Report::Ready => {
                if member.state == HostState::Starting {
                    member.state = HostState::Ready;
                }
                let after = member.since.elapsed();
                metrics().host_ready(after);
                debug!(host = member.id, ?after, "engine host ready");
                publish(&self.events, HostEvent::Ready { host: member.id.clone(), after });
                if self.pool.is_unmeasured(host) {
                    // Fails when the host is dead, which is about to be reported.
                    let _ = member.commands.send(Command::Measure);
                }
                if self.pool.ready(host, now()) {
                    info!("engine hosts get ready again");
                    publish(&self.events, HostEvent::CircuitClosed);
                }
            }
            Report::Unprepared(why) => {
                let wanted = member.prepared.take().map_or_else(String::new, |wanted| describe(&wanted));
                warn!(host = member.id, "engine host cannot prepare {wanted}: {why}");
                if member.state == HostState::Starting {
                    member.state = HostState::Ready;
                }
                self.pool.not_prepared(host, now());
            }
            Report::Measured(bytes) => self.pool.measured(host, bytes),
            Report::Running => {
                member.state = HostState::Running;
                member.runs += 1;
            }
            Report::Stopping => {
                if member.state == HostState::Running {
                    self.pool.finished_run();
                }
                member.state = HostState::Stopping;
                self.pool.leaving(host);
            }
            Report::Heard => self.pool.heard(host),
            Report::Died(death) => self.bury(host, death),
        }
    }

    fn bury(&mut self, host: HostNumber, death: Death) {
        let Some(Member { id, pid, .. }) = self.hosts.remove(&host) else { return };
        let was_wanted = matches!(death.reason, Reason::Retired | Reason::Shutdown);
        let event = if was_wanted {
            debug!(host = id, pid, "engine host ended: {death}");
            HostEvent::Ended { host: id.clone(), death: death.clone() }
        } else {
            warn!(host = id, pid, "engine host died: {death}");
            HostEvent::Died { host: id.clone(), death: death.clone() }
        };
        publish(&self.events, event);
        metrics().host_ended(&death);
        if self.pool.died(host, death.is_failure(), now(), chance()) {
            error!("engine hosts fail one after the other; runs do not wait for them any more");
            publish(&self.events, HostEvent::CircuitOpened { death: death.clone() });
        }
        self.last_death = Some((id, death));
    }

    /// Lends what is ready, starts what is missing. Returns when this is to be done again.
    fn tend(&mut self) -> Option<Instant> {
        self.waiting.retain(|waiter| !waiter.is_gone());
        if let Some(closing) = &mut self.closing {
            if !closing.is_forced && Instant::now() >= closing.deadline {
                closing.is_forced = true;
                self.command_all(|| Command::Shutdown);
            }
            self.refuse_all("the worker shuts down");
            return self.closing.as_ref().map(Closing::next_deadline);
        }
        self.lend_all();
        if self.pool.is_open() {
            let why = self.last_death.as_ref().map_or_else(String::new, |(_, death)| format!("; the last one {death}"));
            self.refuse_all(&format!("engine hosts fail one after the other{why}"));
        }
        let plan = self.pool.plan(now(), self.waiting.len());
        for _ in 0..plan.start {
            self.launch(self.start_timeout);
        }
        for (host, wanted) in plan.prepare {
            self.prepare(host, wanted);
        }
        for host in plan.retire {
            self.retire(host);
        }
        plan.again_at.map(Instant::from_std)
    }

    /// Lends what there is to those who wait, in the order of asking. Who waits for an engine that nobody has does not
    /// hold up the others.
    fn lend_all(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            match self.pool.take(waiter.wanted(), now()) {
                Some(taken) => self.lend(taken, waiter),
                None => self.waiting.push_back(waiter),
            }
        }
    }

    /// Has an idle host get something ready.
    fn prepare(&mut self, host: HostNumber, wanted: Prepare) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        debug!(host = member.id, "engine host is to prepare {}", describe(&wanted));
        member.state = HostState::Starting;
        member.prepared = Some(wanted.clone());
        self.pool.preparing(host, wanted.clone());
        // Fails when the host is dead, which is about to be reported.
        let _ = member.commands.send(Command::Prepare(wanted));
    }

    /// Has an idle host exit.
    fn retire(&mut self, host: HostNumber) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        member.state = HostState::Stopping;
        self.pool.leaving(host);
        let _ = member.commands.send(Command::Stop);
    }

    fn lend(&mut self, Taken { host, is_prepared }: Taken, waiter: Waiter) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        metrics().reservation(is_prepared);
        member.state = HostState::Reserved;
        member.prepared = Some(waiter.wanted().clone());
        if !is_prepared {
            // Ahead of the run itself, which may have to wait for its data.
            let _ = member.commands.send(Command::Prepare(waiter.wanted().clone()));
        }
        let lease = Lease::new(host, member.commands.clone(), self.sender.clone());
        match waiter {
            Waiter::Caller(_, caller) => {
                let reservation = Reservation::new(member.id.clone(), |spec| lease.start(spec));
                // Comes back here by the lease when nobody waits.
                let _ = caller.send(Ok(reservation));
            }
            Waiter::Run(job) => lease.execute(job),
        }
    }

    fn launch(&mut self, start_timeout: Duration) {
        self.started += 1;
        metrics().host_started();
        let number = self.started;
        let id = format!("h{number}");
        let (commands, incoming) = mpsc::unbounded_channel();
        let identity = Identity { number, id: id.clone(), pool: self.sender.clone() };
        let prepared = self.pool.started(number);
        tokio::spawn(supervise(Arc::clone(&self.setup), identity, prepared.clone(), start_timeout, incoming));
        let state = HostState::Starting;
        let member = Member { id, pid: None, state, prepared, since: Instant::now(), runs: 0, commands };
        self.hosts.insert(number, member);
    }

    fn refuse_all(&mut self, why: &str) {
        for waiter in self.waiting.drain(..) {
            match waiter {
                // Fails when nobody waits.
                Waiter::Caller(_, caller) => drop(caller.send(Err(ReserveError(why.to_owned())))),
                Waiter::Run(job) => job.give_up(platform_fault(format!("no engine host: {why}"))),
            }
        }
    }

    fn close(&mut self, deadline: Instant, done: Option<oneshot::Sender<()>>) {
        if let Some(closing) = &mut self.closing {
            closing.deadline = closing.deadline.min(deadline);
            closing.done.extend(done);
            return;
        }
        self.closing = Some(Closing { deadline, is_forced: false, done: done.into_iter().collect() });
        self.command_all(|| Command::Stop);
    }

    fn command_all(&self, command: impl Fn() -> Command) {
        for host in self.hosts.values() {
            // Fails when the host is dead, which is about to be reported.
            let _ = host.commands.send(command());
        }
    }

    fn is_overdue(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.is_forced && Instant::now() >= closing.next_deadline())
    }

    fn status(&self) -> PoolStatus {
        let hosts = self.hosts.values().map(|member| HostStatus {
            id: member.id.clone(),
            pid: member.pid,
            state: member.state,
            prepared: member.prepared.as_ref().map(describe),
            age: member.since.elapsed(),
            runs: member.runs,
        });
        PoolStatus {
            hosts: hosts.collect(),
            waiting: self.waiting.len(),
            started: self.started,
            last_death: self.last_death.clone(),
            is_circuit_open: self.pool.is_open(),
        }
    }
}

impl Waiter {
    fn wanted(&self) -> &Prepare {
        match self {
            Self::Caller(wanted, _) => wanted,
            Self::Run(job) => job.wanted(),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Caller(_, caller) => caller.is_closed(),
            Self::Run(job) => job.is_abandoned(),
        }
    }
}

impl Closing {
    fn next_deadline(&self) -> Instant {
        if self.is_forced { self.deadline + BURIAL } else { self.deadline }
    }
}

fn publish(events: &broadcast::Sender<HostEvent>, event: HostEvent) {
    // Fails when nobody listens.
    let _ = events.send(event);
}

/// Pause before the first host is started once more: 1, 2, 4 seconds and so on, up to a minute.
fn retry_pause(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.min(6)).min(Duration::from_secs(60))
}

/// The clock that policy goes by.
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A random number in 0..1; a half where the operating system has no randomness to give.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_is_tried_again_after_ever_longer_pauses() {
        for (attempt, seconds) in [(0, 1), (1, 2), (2, 4), (6, 60), (u32::MAX, 60)] {
            assert_eq!(retry_pause(attempt), Duration::from_secs(seconds));
        }
    }
}
