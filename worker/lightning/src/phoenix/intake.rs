//! Bounds what long messages take before somebody has dealt with them.
//!
//! Many runs may be given megabytes at once, such as credentials, faster than they are handed to hosts. Reading pauses
//! then, so that the rest waits with the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes of messages that are read without a pause.
const ROOM: usize = 4 * 1024 * 1024;

/// Longest pause: what keeps its memory for longer than that must not keep other messages waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Room for long messages.
pub(super) struct Intake {
    room: Arc<Semaphore>,
    /// When a pause ends at the latest.
    patient_until: Instant,
}

/// A message that takes its room for as long as any part of it is kept.
struct Admitted {
    message: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Admitted {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM)), patient_until: Instant::now() }
    }
}

impl Intake {
    /// Waits until there is some room, or none can be had.
    pub(super) async fn room(&self) {
        let _ = timeout_at(self.patient_until, self.room.acquire()).await;
    }

    /// The message, which takes as much room as it needs and there is.
    pub(super) fn admit(&mut self, message: Bytes) -> Bytes {
        let taken = message.len().min(self.room.available_permits());
        self.patient_until = Instant::now() + PATIENCE;
        match Arc::clone(&self.room).try_acquire_many_owned(taken as u32) {
            Ok(room) => Bytes::from_owner(Admitted { message, _room: room }),
            Err(_) => message,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn message(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[tokio::test(start_paused = true)]
    async fn reading_pauses_as_long_as_a_part_of_what_fills_the_room_is_kept() {
        let mut intake = Intake::default();
        let first = intake.admit(message(ROOM - 1));
        assert!(intake.room().now_or_never().is_some(), "there is some");
        let second = intake.admit(message(3 * ROOM));
        assert_eq!(second, message(3 * ROOM));
        let part = first.slice(3..5);
        drop(first);
        assert!(intake.room().now_or_never().is_none());
        drop(part);
        assert!(intake.room().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_an_end_whatever_interrupts_it() {
        let mut intake = Intake::default();
        let _first = intake.admit(message(ROOM));
        let begun = Instant::now();
        while tokio::time::timeout(PATIENCE / 3, intake.room()).await.is_err() {}
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
