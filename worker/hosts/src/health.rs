//! Whether hosts can be had, judged by those that failed: policy without I/O.
//!
//! Hosts that fail before they get a run slow their pool down: the first one is replaced at once, later ones after a
//! delay that doubles. After [`CIRCUIT_LIMIT`] in a row the circuit opens, and nobody is kept waiting for hosts that do
//! not come; one at a time is still started to see if it is better now.

use std::time::{Duration, Instant};

use protocol::backoff::{Growth, spread};

/// Delay before the third start when two in a row have failed.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest delay between two starts.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How long a host has to have been ready for its death to be a matter of its own.
pub(super) const STABLE: Duration = Duration::from_secs(10);
/// This many failures in a row open the circuit.
pub(super) const CIRCUIT_LIMIT: u32 = 8;

/// The record of a pool's hosts.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures since the last run that was executed.
    failures: u32,
    /// When the next host may be started.
    not_before: Option<Instant>,
    is_open: bool,
}

impl Health {
    /// When the next host may be started, if not now.
    pub(super) fn delayed_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|time| *time > now)
    }

    /// Whether one host at a time is enough to see if it is better now.
    pub(super) fn is_doubtful(&self) -> bool {
        self.failures > 1
    }

    /// Whether hosts die so often that waiting for one is of no use.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// A host is ready, which closes the circuit.
    pub(super) fn ready(&mut self) {
        self.is_open = false;
    }

    /// A host has done what it is for: hosts work.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// A host has failed, one that had been ready for longer than [`STABLE`] if it `was_stable`. `roll` in 0..1
    /// spreads delays. Returns whether that opens the circuit.
    pub(super) fn failed(&mut self, was_stable: bool, now: Instant, roll: f64) -> bool {
        // Several that die at once are one failure.
        if self.delayed_until(now).is_some() {
            return false;
        }
        self.failures = if was_stable { 1 } else { self.failures.saturating_add(1) };
        self.not_before = Some(now + delay(self.failures, roll));
        let opens = self.failures >= CIRCUIT_LIMIT && !self.is_open;
        self.is_open |= opens;
        opens
    }
}

/// Time between the last of `failures` in a row and the next start: half of it fixed, half by chance.
fn delay(failures: u32, roll: f64) -> Duration {
    let full = failures.checked_sub(2).map(|others| Growth::doubling(FIRST_DELAY, LONGEST_DELAY).pause(others));
    spread(full.unwrap_or_default(), roll)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_are_spread() {
        let table = [(0, 0), (1, 0), (2, 100), (3, 200), (8, 6_400), (9, 10_000), (500, 10_000)];
        for (failures, ms) in table {
            assert_eq!(delay(failures, 1.0), Duration::from_millis(ms), "{failures}");
            assert_eq!(delay(failures, 0.0), Duration::from_millis(ms) / 2, "{failures}");
        }
    }

    #[test]
    fn a_stable_host_that_dies_starts_a_new_record() {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..5 {
            health.failed(false, now, 1.0);
        }
        assert!(health.is_doubtful() && health.delayed_until(now).is_some());
        let later = now + LONGEST_DELAY;
        health.failed(true, later, 1.0);
        assert!(!health.is_doubtful() && health.delayed_until(later).is_none());
    }

    #[test]
    fn hosts_that_die_at_once_are_one_failure() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.failed(false, now, 1.0) && !health.is_doubtful(), "the first is replaced at once");
        assert!(!health.failed(false, now, 1.0) && health.is_doubtful());
        let until = health.delayed_until(now).unwrap();
        assert_eq!(until, now + FIRST_DELAY);
        for _ in 0..2 * CIRCUIT_LIMIT {
            assert!(!health.failed(false, now, 1.0));
        }
        assert_eq!((health.delayed_until(now), health.is_open()), (Some(until), false));
        assert_eq!(health.delayed_until(until), None);
        health.failed(false, until, 1.0);
        assert_eq!(health.delayed_until(until), Some(until + 2 * FIRST_DELAY));
    }

    #[test]
    fn only_work_that_was_done_ends_a_record() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.failed(false, now, 1.0) && !health.failed(false, now, 1.0));
        health.ready();
        assert!(health.is_doubtful() && health.delayed_until(now).is_some());
        health.worked();
        assert!(!health.is_doubtful() && health.delayed_until(now).is_none());
        health.failed(false, now, 1.0);
        assert!(!health.is_doubtful() && health.delayed_until(now).is_none(), "it begins with the first");
    }

    #[test]
    fn the_circuit_opens_once_and_closes_by_a_host_that_gets_ready() {
        let (mut health, start) = (Health::default(), Instant::now());
        let fail = |health: &mut Health, number: u32| health.failed(false, start + LONGEST_DELAY * number, 1.0);
        let opened: Vec<bool> = (0..12).map(|number| fail(&mut health, number)).collect();
        assert_eq!(opened.iter().position(|opens| *opens), Some(CIRCUIT_LIMIT as usize - 1));
        assert_eq!(opened.iter().filter(|opens| **opens).count(), 1);
        assert!(health.is_open());
        health.ready();
        assert!(!health.is_open());
        assert!(fail(&mut health, 13), "one more failure opens it again");
        health.worked();
        assert!(!health.is_open() && !health.is_doubtful());
    }
}
