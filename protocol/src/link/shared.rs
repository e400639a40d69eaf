//! What the handles and the tasks of a link have in common: the calls under way, the end, the counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::tasks::RequestId;
use super::{LinkEnd, LinkOptions, LinkStats, Side};
use crate::message::Refusal;
use crate::queue::Budget;

/// An answer from the other side.
type Answer<S> = Result<<<S as Side>::Peer as Side>::Reply, Refusal>;

pub(super) struct Shared<S: Side> {
    pub(super) options: LinkOptions,
    pub(super) outgoing: Budget,
    calls: Mutex<Calls<S>>,
    /// None while the link is open. Set while `calls` is locked, so that the two agree.
    end: watch::Sender<Option<LinkEnd>>,
    late_replies: AtomicU64,
    unknown_replies: AtomicU64,
    unserved: AtomicU64,
    heard: AtomicU64,
}

struct Calls<S: Side> {
    /// None when the link has ended.
    waiting: Option<HashMap<RequestId, oneshot::Sender<Answer<S>>>>,
    /// The id of the next request. All lower ones were given out.
    next: RequestId,
}

impl<S: Side> Shared<S> {
    pub(super) fn new(options: LinkOptions) -> Self {
        Self {
            outgoing: Budget::new(options.outgoing_bytes),
            options,
            calls: Mutex::new(Calls { waiting: Some(HashMap::new()), next: 0 }),
            end: watch::Sender::new(None),
            late_replies: AtomicU64::new(0),
            unknown_replies: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }

    /// Takes a request's id and waits for its answer from now on.
    pub(super) fn register(&self) -> Result<Pending<'_, S>, LinkEnd> {
        let mut calls = self.calls();
        let id = calls.next;
        let Some(waiting) = &mut calls.waiting else {
            drop(calls);
            return Err(self.cause());
        };
        let (sender, answer) = oneshot::channel();
        waiting.insert(id, sender);
        calls.next += 1;
        Ok(Pending { shared: self, id, answer })
    }

    /// Hands an answer to who waits for it.
    pub(super) fn resolve(&self, id: RequestId, answer: Answer<S>) {
        let mut calls = self.calls();
        let known = id < calls.next;
        let waiting = calls.waiting.as_mut().and_then(|waiting| waiting.remove(&id));
        drop(calls);
        let delivered = waiting.is_some_and(|waiting| waiting.send(answer).is_ok());
        if !delivered {
            let counter = if known { &self.late_replies } else { &self.unknown_replies };
            counter.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(id, known, "dropped an answer that nobody waits for");
        }
    }

    /// Ends the link, unless it has ended. All who wait on it are told.
    pub(super) fn finish(&self, cause: LinkEnd) {
        let mut calls = self.calls();
        let Some(waiting) = calls.waiting.take() else { return };
        self.end.send_replace(Some(cause));
        drop(calls);
        drop(waiting);
        self.outgoing.close();
    }

    pub(super) async fn ended(&self) -> LinkEnd {
        let mut end = self.end.subscribe();
        // The sender is `self.end`, which outlives this.
        end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()).unwrap_or(LinkEnd::ClosedHere)
    }

    /// Why the link ended. To be called when it has.
    pub(super) fn cause(&self) -> LinkEnd {
        self.end.borrow().clone().unwrap_or(LinkEnd::ClosedHere)
    }

    pub(super) fn count_unserved(&self) {
        self.unserved.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> LinkStats {
        LinkStats {
            late_replies: self.late_replies.load(Ordering::Relaxed),
            unknown_replies: self.unknown_replies.load(Ordering::Relaxed),
            unserved: self.unserved.load(Ordering::Relaxed),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls<S>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its answer. Dropping it forgets the request.
pub(super) struct Pending<'a, S: Side> {
    shared: &'a Shared<S>,
    id: RequestId,
    answer: oneshot::Receiver<Answer<S>>,
}

impl<S: Side> Pending<'_, S> {
    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    pub(super) async fn answer(&mut self) -> Result<Answer<S>, LinkEnd> {
        (&mut self.answer).await.map_err(|_| self.shared.cause())
    }
}

impl<S: Side> Drop for Pending<'_, S> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut self.shared.calls().waiting {
            waiting.remove(&self.id);
        }
    }
}
