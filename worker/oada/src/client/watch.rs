//! A watch, as its owner sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::conversation::{Command, RawEvent, WatchId};
use super::progress::{Arrival, Progress};
use crate::wire::{ChangeSet, Response};

/// What happens at a resource that is watched.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// It changed. Each change is told once, in order.
    Changed(ChangeSet),
    /// It changed, and what is not known: read it again, and say so by [`Watch::caught_up`].
    Missed,
    /// The store does not let it be watched any more, for this reason. Nothing comes after it.
    Refused(Response),
}

/// A watch of a resource. It is set again after each loss of the connection, from the last revision whose change its
/// owner has dealt with: a change counts as dealt with when the next one is asked for. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    pub(super) id: WatchId,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) events: mpsc::UnboundedReceiver<RawEvent>,
    pub(super) processed: Arc<AtomicU64>,
    pub(super) progress: Progress,
}

impl Watch {
    /// The next event; none when the client is closed.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.processed.store(self.progress.rev(), Ordering::Release);
        loop {
            match self.events.recv().await? {
                RawEvent::Change(change) => match self.progress.change(change.rev()) {
                    Arrival::Next => return Some(WatchEvent::Changed(change)),
                    Arrival::AfterGap => return Some(WatchEvent::Missed),
                    Arrival::Replay => {}
                },
                RawEvent::Set { resource, rev } => {
                    if self.progress.set(resource.as_deref(), rev) {
                        return Some(WatchEvent::Missed);
                    }
                    self.processed.store(self.progress.rev(), Ordering::Release);
                }
                RawEvent::Refused(response) => return Some(WatchEvent::Refused(response)),
            }
        }
    }

    /// The resource was read at this revision; changes up to there are not told any more.
    pub fn caught_up(&mut self, rev: u64) {
        self.progress.caught_up(rev);
    }

    /// The resource that is watched, once the store has said which one the path leads to.
    pub fn resource(&self) -> Option<&str> {
        self.progress.resource()
    }

    /// The last revision that was told.
    pub fn rev(&self) -> u64 {
        self.progress.rev()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails when the client is closed.
        let _ = self.commands.send(Command::Unwatch { watch: self.id });
    }
}
