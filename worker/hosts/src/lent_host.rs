//! A host that is lent to somebody who makes calls of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::execution::ReserveError;
use protocol::link::{Call, CallError, Link, Responder, WorkerSide};
use protocol::message::{Custom, HostNotice, Prepare, WorkerNotice, WorkerRequest};
use protocol::{InvalidJson, Json, queue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::death::Death;
use super::pool::HostNumber;
use super::pool_task::{PoolMessage, Returned};
use super::supervisor::HostCommand;

/// How long the death of a host whose link has ended is waited for.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// Who waits for a host to borrow.
#[derive(Debug)]
pub(super) struct Borrower {
    /// What it is to have loaded, so that it need not do that first.
    pub(super) wanted: Option<Prepare>,
    pub(super) sender: oneshot::Sender<Result<LentHost, ReserveError>>,
}

impl Borrower {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Fails when nobody waits.
    pub(super) fn send(self, lent: Result<LentHost, ReserveError>) -> Result<(), Result<LentHost, ReserveError>> {
        self.sender.send(lent)
    }
}

/// A host in the hands of one caller, who may make any number of calls of it at the same time. Dropping it gives the
/// host back; after a call that got no answer in time the host is killed instead, because nobody knows what it does.
#[derive(Debug)]
pub struct LentHost {
    host_id: String,
    link: Link<WorkerSide>,
    notices: Option<queue::Receiver<WorkerNotice>>,
    requests: Option<queue::Receiver<Asked>>,
    death: watch::Receiver<Option<Death>>,
    is_spent: AtomicBool,
    claim: Claim,
}

/// Why a call of a borrowed host has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LentHostError {
    /// The host was refusing, silent, or not to be understood.
    #[error(transparent)]
    Call(CallError),
    /// The host ended before it had answered.
    #[error("the host {0}")]
    Died(Death),
    /// What was to be asked, or the answer, is not of the right form.
    #[error(transparent)]
    Json(Arc<InvalidJson>),
}

/// Why a request that any host may answer has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no host to be had.
    #[error(transparent)]
    NoHost(#[from] ReserveError),
    /// The host that was asked did not answer.
    #[error(transparent)]
    Host(#[from] LentHostError),
}

/// Something that a lent host asks, and the way to answer.
pub type Asked = (WorkerRequest, Responder<WorkerSide>);

/// Where what a lent host says arrives.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) notices: queue::Receiver<WorkerNotice>,
    pub(super) requests: queue::Receiver<Asked>,
}

/// A host that was taken, and the way back.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) host: HostNumber,
    pub(super) commands: mpsc::UnboundedSender<HostCommand>,
    pub(super) pool: mpsc::UnboundedSender<PoolMessage>,
}

impl Claim {
    /// Tells the host something.
    pub(super) fn command(&self, command: HostCommand) {
        // Fails when the host is dead.
        let _ = self.commands.send(command);
    }

    /// Tells the pool that the host comes back.
    pub(super) fn give_back(&self, returned: Returned) {
        // Fails when the pool is gone, and the host with it.
        let _ = self.pool.send(PoolMessage::GiveBack(self.host, returned));
    }
}

impl LentHost {
    pub(super) fn new(
        host_id: String,
        link: Link<WorkerSide>,
        Told { notices, requests }: Told,
        death: watch::Receiver<Option<Death>>,
        claim: Claim,
    ) -> Self {
        let (notices, requests) = (Some(notices), Some(requests));
        Self { host_id, link, notices, requests, death, is_spent: AtomicBool::new(false), claim }
    }

    /// Name of the host, for log lines.
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// Asks the host, and waits this long for the answer.
    pub async fn call<C: Call<WorkerSide>>(&self, call: C, deadline: Duration) -> Result<C::Answer, LentHostError> {
        let failure = match self.link.call_within(call, deadline).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        match &failure {
            CallError::Ended(_) => {
                let mut death = self.death.clone();
                if let Ok(Ok(death)) = timeout(REAP_TIMEOUT, death.wait_for(Option::is_some)).await
                    && let Some(death) = death.clone()
                {
                    return Err(LentHostError::Died(death));
                }
            }
            CallError::Timeout { .. } => self.is_spent.store(true, Ordering::Relaxed),
            _ => {}
        }
        Err(LentHostError::Call(failure))
    }

    /// Asks the host something that those who wrote it have given a meaning, and waits this long for the answer.
    pub async fn request<T: DeserializeOwned>(
        &self,
        question: &(impl Serialize + ?Sized + Sync),
        deadline: Duration,
    ) -> Result<T, LentHostError> {
        let question = Json::encode(&question).map_err(|error| LentHostError::Json(Arc::new(error)))?;
        let answer = self.call(Custom(question), deadline).await?;
        answer.decode().map_err(|error| LentHostError::Json(Arc::new(error)))
    }

    /// Tells the host something that those who wrote it have given a meaning. No answer says that it was heard.
    pub async fn notify(&self, notice: &(impl Serialize + ?Sized + Sync)) -> Result<(), LentHostError> {
        let notice = Json::encode(&notice).map_err(|error| LentHostError::Json(Arc::new(error)))?;
        let told = self.link.notify(HostNotice::Custom(notice)).await;
        told.map_err(|end| LentHostError::Call(CallError::Ended(end)))
    }

    /// Waits until the host has ended, though nobody gave it back.
    pub async fn died(&self) -> Option<Death> {
        // Fails when the pool is gone, and the host with it.
        self.death.clone().wait_for(Option::is_some).await.ok().and_then(|death| death.clone())
    }

    /// What the host tells while it is lent, the first time. Who does not take it in time misses some.
    pub fn take_notices(&mut self) -> Option<queue::Receiver<WorkerNotice>> {
        self.notices.take()
    }

    /// What the host asks while it is lent, the first time. What nobody takes is refused.
    pub fn take_requests(&mut self) -> Option<queue::Receiver<Asked>> {
        self.requests.take()
    }

    /// Has the host killed instead of given back, because nobody knows what it does now.
    pub fn discard(self) {
        drop(self.killed_when_dropped());
    }

    /// The same host, which is of no use to others and will be killed instead of given back.
    pub(super) fn killed_when_dropped(self) -> Self {
        self.is_spent.store(true, Ordering::Relaxed);
        self
    }
}

impl Drop for LentHost {
    fn drop(&mut self) {
        let is_spent = self.is_spent.load(Ordering::Relaxed);
        let (command, returned) =
            if is_spent { (HostCommand::Discard, Returned::Spent) } else { (HostCommand::TakeBack, Returned::Used) };
        self.claim.command(command);
        self.claim.give_back(returned);
    }
}
