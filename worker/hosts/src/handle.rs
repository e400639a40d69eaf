//! What others hold of a pool.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::execution::{Executor, Reservation, ReserveError};
use protocol::message::Prepare;
use protocol::run::Exit;
use protocol::{InvalidJson, Json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::broker::HostRuntime;
use super::lent_host::{Borrower, LentHost, RequestError};
use super::options::HostsOptions;
use super::pool_task::{Order, PoolMessage, PoolTask};
use super::status::{HostEvent, PoolStatus};
use super::{ManageError, StartError};

/// Events that a slow listener may fall behind by.
const EVENTS: usize = 1024;

/// A pool of hosts. Clones share it; when the last one is dropped, all hosts are killed.
///
/// ```no_run
/// use hosts::{Embedded, HostEvent, HostProgram, Hosts, HostsOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let hosts = Hosts::start(HostsOptions::new(HostProgram::find(None, Embedded::NONE)?)).await?;
/// let mut events = hosts.events();
/// tokio::spawn(async move {
///     while let Ok(event) = events.recv().await {
///         if let HostEvent::Died { host, death } = event {
///             eprintln!("{host} {death}");
///         }
///     }
/// });
/// // No runs for a while.
/// hosts.drain().await?;
/// hosts.resume().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Hosts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Arc<str>,
    messages: mpsc::UnboundedSender<PoolMessage>,
    events: broadcast::Sender<HostEvent>,
    availability: watch::Receiver<bool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Fails when the pool was shut down.
        let _ = self.messages.send(PoolMessage::Abandon);
    }
}

/// A pool of hosts that is not kept by this.
#[derive(Debug)]
pub(super) struct WeakHosts(Weak<Shared>);

impl WeakHosts {
    /// The pool, if somebody keeps it.
    pub(super) fn upgrade(&self) -> Option<Hosts> {
        self.0.upgrade().map(Hosts)
    }
}

impl Hosts {
    /// The pool, kept by others alone.
    pub(super) fn downgrade(&self) -> WeakHosts {
        WeakHosts(Arc::downgrade(&self.0))
    }

    /// Starts a pool of its own, with a socket of its own, for who needs no [`Broker`](super::Broker). Returns when its
    /// first host is ready. Must be called within a tokio runtime.
    pub async fn start(options: HostsOptions) -> Result<Self, StartError> {
        Self::open("engines", options, Arc::new(HostRuntime::new(None)?)).await
    }

    pub(super) async fn open(pool: &str, options: HostsOptions, runtime: Arc<HostRuntime>) -> Result<Self, StartError> {
        let (events, _) = broadcast::channel(EVENTS);
        let pool = Arc::from(pool);
        let (mut pool_task, messages) = PoolTask::new(Arc::clone(&pool), options, runtime, events.clone());
        pool_task.validate().await?;
        let availability = pool_task.availability();
        tokio::spawn(pool_task.run());
        Ok(Self(Arc::new(Shared { pool, messages, events, availability })))
    }

    /// The pool's type.
    pub fn pool(&self) -> &str {
        &self.0.pool
    }

    /// What happens from now on. Who falls behind misses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.0.events.subscribe()
    }

    /// A look at the pool; none when it was shut down.
    pub async fn status(&self) -> Option<PoolStatus> {
        self.ask(PoolMessage::Status).await
    }

    /// Borrows a host, to make calls of it; waits until there is one. Dropping the future gives up the place in the
    /// queue.
    pub async fn lend(&self) -> Result<LentHost, ReserveError> {
        self.ask(|sender| PoolMessage::Borrow(Borrower { wanted: None, sender })).await.unwrap_or_else(|| Err(gone()))
    }

    /// As [`lend`](Self::lend), and a host that has loaded what is `wanted` if there is one.
    pub async fn lend_for(&self, wanted: Prepare) -> Result<LentHost, ReserveError> {
        let borrow = |sender| PoolMessage::Borrow(Borrower { wanted: Some(wanted), sender });
        self.ask(borrow).await.unwrap_or_else(|| Err(gone()))
    }

    /// Somebody is likely to borrow a host for this: one is to load it, if there is room.
    pub fn expect(&self, wanted: Prepare) {
        // Fails when the pool was shut down.
        let _ = self.0.messages.send(PoolMessage::Expect(wanted));
    }

    /// Asks any host something that those who wrote it have given a meaning. Waits for a host as [`lend`](Self::lend) does,
    /// and then this long for the answer. A host that does not answer in time is killed.
    pub async fn request<T: DeserializeOwned>(
        &self,
        question: &(impl Serialize + ?Sized + Sync),
        deadline: Duration,
    ) -> Result<T, RequestError> {
        Ok(self.lend().await?.request(question, deadline).await?)
    }

    /// Tells all hosts that are ready or at work something that those who wrote them have given a meaning.
    pub fn notify_all(&self, notice: &(impl Serialize + ?Sized)) -> Result<(), InvalidJson> {
        // Fails when the pool was shut down.
        let _ = self.0.messages.send(PoolMessage::NotifyAll(Json::encode(&notice)?));
        Ok(())
    }

    /// Replaces all hosts: new ones get ready first, and those at work finish what they are at. Returns when all that
    /// were there are gone.
    pub async fn recycle(&self) -> Result<(), ManageError> {
        self.order(Order::Recycle).await
    }

    /// Lets all hosts go, those at work when they are done, and starts none; who wants one waits. Returns when none is
    /// left.
    pub async fn drain(&self) -> Result<(), ManageError> {
        self.order(Order::Drain).await
    }

    /// Ends [`drain`](Self::drain). Returns when there are as many hosts as there are to be.
    pub async fn resume(&self) -> Result<(), ManageError> {
        self.order(Order::Resume).await
    }

    /// Keeps so many hosts from now on: warm ones, or, where hosts are shared, so many at most. Returns when that is
    /// so: new ones are ready, and those that were too many are gone.
    pub async fn resize(&self, target: usize) -> Result<(), ManageError> {
        self.order(Order::Resize(target)).await
    }

    /// Goes by these options from now on. Hosts are replaced, as by [`recycle`](Self::recycle), only if the options
    /// make them other hosts. If nothing but their environment is another, they are told, and only those that need a new
    /// process for it are replaced. Returns when all is as the options say.
    pub async fn reconfigure(&self, options: HostsOptions) -> Result<(), ManageError> {
        self.order(Order::Reconfigure(Box::new(options))).await
    }

    /// Ends a run like this; whether one of the hosts executes it.
    pub async fn cancel(&self, run_id: &str, exit: Exit) -> bool {
        self.ask(|answer| PoolMessage::Cancel(run_id.to_owned(), exit, answer)).await.unwrap_or(false)
    }

    /// Stops all hosts: those that wait at once, the others when their run has ended. What is left after `grace` is
    /// killed, its run ends lost. Returns when every process is reaped. Reservations are refused from the beginning.
    pub async fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.ask(|done| PoolMessage::Shutdown(deadline, done)).await.unwrap_or_default();
    }

    async fn order(&self, order: Order) -> Result<(), ManageError> {
        self.ask(|done| PoolMessage::Manage(order, done)).await.unwrap_or(Err(ManageError::Closed))
    }

    /// Asks the pool; none when the pool is gone.
    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> PoolMessage) -> Option<T> {
        let (asker, answer) = oneshot::channel();
        self.0.messages.send(message(asker)).ok()?;
        answer.await.ok()
    }
}

fn gone() -> ReserveError {
    ReserveError("the pool of engine hosts was shut down".to_owned())
}

impl Executor for Hosts {
    fn availability(&self) -> watch::Receiver<bool> {
        self.0.availability.clone()
    }

    async fn reserve(&self, wanted: Prepare) -> Result<Reservation, ReserveError> {
        self.ask(|caller| PoolMessage::Reserve(wanted, caller)).await.unwrap_or_else(|| Err(gone()))
    }
}
