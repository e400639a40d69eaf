//! A handler's right to speak for its job. It ends with the run: what comes later is refused and counted.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use smart_default::SmartDefault;
use tokio::sync::{RwLock, watch};

use base::metrics::metrics;

/// The run is over: what its handler still wanted to do was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this run of the job is over: nothing is taken from it any more")]
pub struct RunOver;

/// The right to speak for one run of a job.
#[derive(Debug, SmartDefault)]
pub struct Lease {
    #[default(watch::channel(State::Open).0)]
    state: watch::Sender<State>,
    /// Held for reading by whatever is being done, so that the end can wait for it.
    busy: RwLock<()>,
    refused: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing new is begun.
    Closed,
    /// What is under way is given up, too.
    Cancelled,
}

impl Lease {
    /// Does something in the name of the run, or refuses because the run is over.
    pub async fn while_open<T>(&self, what: impl Future<Output = T>) -> Result<T, RunOver> {
        if *self.state.borrow() != State::Open {
            return Err(self.refuse());
        }
        let _busy = self.busy.read().await;
        tokio::select! {
            biased;
            () = self.cancelled() => Err(self.refuse()),
            done = what => Ok(done),
        }
    }

    /// Returns when the run was cancelled; never if it ends by itself.
    pub async fn cancelled(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| *state == State::Cancelled).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when the run has ended, in whatever way: nothing new is taken any more.
    pub(super) async fn over(&self) {
        let mut state = self.state.subscribe();
        // Whoever asks has it, so it is not dropped meanwhile.
        let _ = state.wait_for(|state| *state != State::Open).await;
    }

    /// Whether the run was cancelled.
    pub fn is_cancelled(&self) -> bool {
        *self.state.borrow() == State::Cancelled
    }

    /// How much was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The handler has ended: takes nothing new, and waits for what is under way.
    pub(super) async fn close(&self) {
        self.state.send_if_modified(|state| {
            let open = *state == State::Open;
            if open {
                *state = State::Closed;
            }
            open
        });
        drop(self.busy.write().await);
    }

    /// The run is to end at once.
    pub(super) fn cancel(&self) {
        self.state.send_replace(State::Cancelled);
    }

    fn refuse(&self) -> RunOver {
        self.refused.fetch_add(1, Ordering::Relaxed);
        metrics().oada_late_updates.inc();
        RunOver
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_what_was_begun_and_takes_nothing_new() {
        let lease = Arc::new(Lease::default());
        let (go, wait) = oneshot::channel::<u8>();
        let begun = tokio::spawn({
            let lease = Arc::clone(&lease);
            async move { lease.while_open(wait).await }
        });
        tokio::task::yield_now().await;
        let close = lease.close();
        tokio::pin!(close);
        assert!(close.as_mut().now_or_never().is_none());
        assert_eq!(lease.while_open(async {}).await, Err(RunOver));
        go.send(7).unwrap();
        close.await;
        assert_eq!(begun.await.unwrap(), Ok(Ok(7)));
        assert_eq!((lease.refused(), lease.is_cancelled()), (1, false));
    }

    #[tokio::test]
    async fn a_cancelled_run_gives_up_what_is_under_way() {
        let lease = Arc::new(Lease::default());
        let stuck = tokio::spawn({
            let lease = Arc::clone(&lease);
            async move { lease.while_open(std::future::pending::<()>()).await }
        });
        tokio::task::yield_now().await;
        lease.cancel();
        lease.cancelled().await;
        assert_eq!(stuck.await.unwrap(), Err(RunOver));
        lease.close().await;
        assert!(lease.is_cancelled());
    }
}
