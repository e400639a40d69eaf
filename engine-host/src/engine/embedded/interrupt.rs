//! Stops a running engine from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Stops an engine, whatever its job does: it ends within milliseconds, and the engine cannot be used again.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    // Guards nothing but the moment between a look at `stopped` and going to sleep.
    lock: Mutex<()>,
    wake: Condvar,
    stop: Notify,
}

impl Interrupt {
    /// Stops the engine. Returns at once.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        let _guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.wake.notify_all();
        self.0.stop.notify_waiters();
    }

    /// Waits until the engine has to stop.
    pub(super) async fn stopped(&self) {
        let stop = self.0.stop.notified();
        if !self.is_stopped() {
            stop.await;
        }
    }

    /// Whether the engine has to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// Waits for as long as `time` (for ever without), but no longer than until the engine is stopped.
    pub(super) fn sleep(&self, time: Option<Duration>) {
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        let mut guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_stopped() {
            guard = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.0.wake.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => self.0.wake.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}
