//! The task that owns a pool: it starts hosts, lends them, and hears how they fare.

mod lending;
mod managing;
mod reports;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::metrics::metrics;
use protocol::Json;
use protocol::backoff::{Growth, jitter};
use protocol::message::Prepare;
use protocol::run::Exit;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use self::lending::{Caller, Waiter};
use self::managing::{Closing, Wait};
use super::StartError;
use super::broker::HostRuntime;
use super::death::{Death, Reason};
use super::host::platform_fault;
use super::lent_host::Borrower;
use super::ops::OpsTotals;
use super::options::HostsOptions;
use super::pool::{Dismissal, HostNumber, Pool, host_id};
use super::run::{GONE, Job};
use super::status::{HostEvent, PoolEvent, PoolStatus, describe};
use super::supervisor::{HostCommand, Identity, Report, Setup, supervise};
use super::{ManageError, ManageResult};

/// What others tell the pool.
#[derive(Debug)]
pub(super) enum PoolMessage {
    Reserve(Prepare, Caller),
    Borrow(Borrower),
    /// A borrower whose host was not to be had after all.
    BorrowAgain(Borrower),
    /// Somebody is likely to borrow a host for this.
    Expect(Prepare),
    GiveBack(HostNumber, Returned),
    /// A run whose host died before anything was heard of it.
    Return(Job),
    Report(HostNumber, Report),
    Status(oneshot::Sender<PoolStatus>),
    NotifyAll(Json),
    /// Change something, and say when it is done.
    Manage(Order, oneshot::Sender<ManageResult>),
    /// End the run of this id, and say whether there is one.
    Cancel(String, Exit, oneshot::Sender<bool>),
    /// Stop all hosts, those that are left at the deadline by force, and say when it is done.
    Shutdown(Instant, oneshot::Sender<()>),
    /// Nobody is left who could want a host.
    Abandon,
}

/// How a host comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned {
    /// Nothing was asked of it.
    Unused,
    Used,
    /// Nobody knows what it does now.
    Spent,
}

/// What is to change.
#[derive(Debug)]
pub(super) enum Order {
    Recycle,
    Drain,
    Resume,
    Resize(usize),
    Reconfigure(Box<HostsOptions>),
}

#[derive(Debug)]
pub(super) struct PoolTask {
    name: Arc<str>,
    setup: Arc<Setup>,
    pool: Pool<mpsc::UnboundedSender<HostCommand>>,
    started: u64,
    last_death: Option<(String, Death)>,
    ops: OpsTotals,
    waiting: VecDeque<Waiter>,
    messages: mpsc::UnboundedReceiver<PoolMessage>,
    /// For the hosts, and for those who get one.
    sender: mpsc::UnboundedSender<PoolMessage>,
    events: broadcast::Sender<HostEvent>,
    /// Whether the circuit is closed, for who would bring runs.
    availability: watch::Sender<bool>,
    waits: Vec<Wait>,
    closing: Option<Closing>,
}

impl PoolTask {
    pub(super) fn new(
        name: Arc<str>,
        options: HostsOptions,
        runtime: Arc<HostRuntime>,
        events: broadcast::Sender<HostEvent>,
    ) -> (Self, mpsc::UnboundedSender<PoolMessage>) {
        let (sender, messages) = mpsc::unbounded_channel();
        let pool_task = Self {
            name,
            pool: Pool::new(options.policy()),
            setup: Arc::new(Setup { runtime, options }),
            started: 0,
            last_death: None,
            ops: OpsTotals::default(),
            waiting: VecDeque::new(),
            messages,
            sender: sender.clone(),
            events,
            availability: watch::Sender::new(true),
            waits: Vec::new(),
            closing: None,
        };
        (pool_task, sender)
    }

    /// Whether hosts can be had, as that changes.
    pub(super) fn availability(&self) -> watch::Receiver<bool> {
        self.availability.subscribe()
    }

    /// Starts the first host, several times if need be, where there is always to be one.
    pub(super) async fn validate(&mut self) -> Result<(), StartError> {
        if self.pool.plan(now(), 0).start == 0 {
            return Ok(());
        }
        let mut attempt = 0;
        loop {
            let Some(death) = self.start_first().await else { return Ok(()) };
            if attempt == self.setup.options.validation_retries {
                return Err(StartError::Unusable { attempts: attempt + 1, death });
            }
            let pause = retry_pause(attempt);
            warn!(pool = &*self.name, "no engine host became ready; retrying in {pause:?}");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Returns the death of the host if it does not get ready.
    async fn start_first(&mut self) -> Option<Death> {
        self.launch(self.setup.options.validation_timeout);
        loop {
            let message = self.messages.recv().await?;
            let is_ready = matches!(message, PoolMessage::Report(_, Report::Ready));
            let death =
                if let PoolMessage::Report(_, Report::Died(death)) = &message { Some(death.clone()) } else { None };
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
            self.settle_waits();
            if self.closing.is_some() && self.pool.is_empty() {
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
        let Self { closing, pool, setup, mut messages, .. } = self;
        for host in pool.status(now()) {
            error!(host = host.id, pid = host.pid, "engine host has not exited after SIGKILL");
        }
        // The socket goes with the last pool, before anybody hears that it is gone.
        drop(setup);
        messages.close();
        while let Ok(message) = messages.try_recv() {
            if let PoolMessage::Return(job) = message {
                job.give_up(platform_fault(GONE.to_owned()));
            }
        }
        for done in closing.into_iter().flat_map(|closing| closing.done) {
            // Fails when nobody waits.
            let _ = done.send(());
        }
    }

    fn handle(&mut self, message: PoolMessage) {
        match message {
            PoolMessage::Reserve(wanted, caller) => {
                self.pool.wanted(&wanted, now());
                self.waiting.push_back(Waiter::Caller(wanted, caller));
            }
            PoolMessage::Borrow(borrower) => {
                if let Some(wanted) = &borrower.wanted {
                    self.pool.wanted(wanted, now());
                }
                self.waiting.push_back(Waiter::Borrower(borrower));
            }
            PoolMessage::BorrowAgain(borrower) => self.waiting.push_front(Waiter::Borrower(borrower)),
            PoolMessage::Expect(wanted) => self.pool.wanted(&wanted, now()),
            PoolMessage::Return(job) => self.waiting.push_front(Waiter::Run(job)),
            PoolMessage::GiveBack(host, returned) => self.take_back(host, returned),
            PoolMessage::Report(host, report) => self.hear(host, report),
            PoolMessage::Status(asker) => {
                // Fails when nobody waits.
                let _ = asker.send(self.status());
            }
            PoolMessage::NotifyAll(notice) => self.command_all(|| HostCommand::Tell(notice.clone())),
            PoolMessage::Manage(order, done) => self.manage(order, done),
            PoolMessage::Cancel(run_id, exit, asker) => {
                // Fails when the host is dead.
                let host = self.pool.handle_of_run(&run_id).map(|host| drop(host.send(HostCommand::Cancel(exit))));
                // Fails when nobody waits.
                let _ = asker.send(host.is_some());
            }
            PoolMessage::Shutdown(deadline, done) => self.close(deadline, Some(done)),
            PoolMessage::Abandon => self.close(Instant::now(), None),
        }
    }

    /// Lends what is ready, starts what is missing. Returns when this is to be done again.
    fn tend(&mut self) -> Option<Instant> {
        self.waiting.retain(|waiter| !waiter.is_gone());
        if self.closing.is_some() {
            return self.tend_to_closing();
        }
        self.lend_all();
        self.follow_circuit();
        if self.pool.is_open() {
            let why = self.last_death.as_ref().map_or_else(String::new, |(_, death)| format!("; the last one {death}"));
            self.refuse_all(&format!("circuit breaker open: engine hosts keep failing{why}"));
        }
        let plan = self.pool.plan(now(), self.waiting.len());
        for _ in 0..plan.start {
            self.launch(self.setup.options.start_timeout);
        }
        for (host, wanted) in plan.prepare {
            self.prepare(host, wanted);
        }
        for (host, dismissal) in plan.retire {
            self.retire(host, dismissal);
        }
        plan.again_at.map(Instant::from_std)
    }

    /// Tells whoever brings runs when the circuit opens and, by whatever that was, closes.
    fn follow_circuit(&self) {
        let is_closed = !self.pool.is_open();
        let has_changed = self.availability.send_if_modified(|was_closed| {
            let has_changed = *was_closed != is_closed;
            *was_closed = is_closed;
            has_changed
        });
        if has_changed && is_closed {
            info!(pool = &*self.name, "circuit breaker closed: engine hosts become ready again");
            self.publish(HostEvent::CircuitClosed);
        }
    }

    fn launch(&mut self, start_timeout: Duration) {
        self.started += 1;
        metrics().host_started();
        let number = self.setup.runtime.next_host();
        let (commands, incoming) = mpsc::unbounded_channel();
        let first = self.pool.started(number, commands, now(), jitter());
        let identity = Identity { number, id: host_id(number), pool: self.sender.clone() };
        tokio::spawn(supervise(Arc::clone(&self.setup), identity, first, start_timeout, incoming));
    }

    /// Has an idle host get something ready.
    fn prepare(&mut self, host: HostNumber, wanted: Prepare) {
        debug!(host = host_id(host), "the host is to prepare {}", describe(&wanted));
        self.pool.preparing(host, wanted.clone(), now());
        self.command(host, HostCommand::Prepare(wanted));
    }

    /// Has an idle host exit.
    fn retire(&mut self, host: HostNumber, dismissal: Dismissal) {
        self.pool.leaving(host);
        let reason = match dismissal {
            Dismissal::Surplus => Reason::Retired,
            Dismissal::Recycled => Reason::Recycled,
            Dismissal::Drained => Reason::Drained,
        };
        self.command(host, HostCommand::Stop(reason));
    }

    fn command(&self, host: HostNumber, command: HostCommand) {
        if let Some(commands) = self.pool.handle(host) {
            // Fails when the host is dead, which is about to be reported.
            let _ = commands.send(command);
        }
    }

    fn status(&self) -> PoolStatus {
        PoolStatus {
            pool: self.name.to_string(),
            hosts: self.pool.status(now()),
            size: self.setup.options.size,
            waiting: self.waiting.len(),
            started: self.started,
            last_death: self.last_death.clone(),
            is_circuit_open: self.pool.is_open(),
            is_draining: self.pool.is_draining(),
            ops: self.ops.status(),
        }
    }

    fn publish(&self, event: HostEvent) {
        // Both fail when nobody listens.
        let _ = self.events.send(event.clone());
        let _ = self.setup.runtime.events.send(PoolEvent { pool: Arc::clone(&self.name), event });
    }
}

/// Pause before the first host is started once more: 1, 2, 4 seconds and so on, up to a minute.
fn retry_pause(attempt: u32) -> Duration {
    Growth::doubling(Duration::from_secs(1), Duration::from_secs(60)).pause(attempt)
}

/// The clock that policy goes by.
fn now() -> std::time::Instant {
    std::time::Instant::now()
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
