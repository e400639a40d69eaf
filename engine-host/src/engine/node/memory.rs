//! Watches the memory of a Node process from outside: V8's own limit counts its heap alone, and Buffers are not in it.

use std::time::Duration;

use rustix::process::Pid;

use super::process::Family;
use crate::sys;

/// What Node may have on top of a run's memory: its program, V8's tables, code, the young generation.
const OVERHEAD_BYTES: u64 = 64 * 1024 * 1024;

/// How often it is looked at while a job is under way. Memory that is new is filled with at most a few MB a millisecond.
const INTERVAL: Duration = Duration::from_millis(10);

/// As [`INTERVAL`], where other processes are looked for.
const INTERVAL_OF_MANY: Duration = Duration::from_millis(50);

/// What is watched.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// The process.
    pub(super) process: Pid,
    /// Who counts, too.
    pub(super) family: Family,
    /// What a run may have, in bytes.
    pub(super) memory_bytes: u64,
    /// The most that there was.
    pub(super) peak_bytes: u64,
}

impl Watch {
    /// Waits until there is too much in memory; for ever when the process has ended.
    pub(super) async fn exceeded(&mut self) {
        let period = if self.family == Family::None { INTERVAL } else { INTERVAL_OF_MANY };
        let limit = self.memory_bytes.saturating_add(OVERHEAD_BYTES);
        loop {
            tokio::time::sleep(period).await;
            self.peak_bytes = self.peak_bytes.max(self.resident_bytes());
            if self.peak_bytes > limit {
                return;
            }
        }
    }

    /// Whether there was so much that V8 may have had no more.
    pub(super) fn was_full(&self) -> bool {
        self.peak_bytes >= self.memory_bytes
    }

    fn resident_bytes(&self) -> u64 {
        if self.family == Family::All {
            // They would be in the way until the host ends.
            sys::reap_adopted(self.process);
        }
        self.family.members(self.process).into_iter().map(hosting::process::resident_bytes_of).sum()
    }
}
