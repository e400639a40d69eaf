//! How much of a start is the host's own time: pure.
//!
//! A host that gets ready is given a time. What passes while nothing could get on does not count: the host waited for a
//! processor, or the whole machine, or the worker, stood still. The clock is looked at now and then; between two looks at
//! most as much counts as was meant to lie between them.

use std::time::{Duration, Instant};

/// So many looks are taken at a start that takes all of its time.
const LOOKS: u32 = 20;
/// Shortest time between two looks.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// However little of it counts, a start takes no more than so many times its time.
const AT_MOST: u32 = 10;

/// The clock of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnTime {
    limit: Duration,
    begun: Instant,
    looked: Instant,
    /// How long the host had waited for a processor then, if that is known.
    waited: Option<Duration>,
    spent: Duration,
}

impl OwnTime {
    /// A start that begins now and may take `limit` of the host's own time.
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, begun: now, looked: now, waited: None, spent: Duration::ZERO }
    }

    /// When to look at the clock again.
    pub(super) fn next_look(&self) -> Instant {
        self.looked + self.pause()
    }

    fn pause(&self) -> Duration {
        let left = self.limit.saturating_sub(self.spent);
        (self.limit / LOOKS).max(LEAST_PAUSE).min(left.max(Duration::from_millis(1)))
    }

    /// Looks at the clock: by now the host has waited so long for a processor since it was started. Whether its time is
    /// up.
    pub(super) fn look(&mut self, now: Instant, waited: Option<Duration>) -> bool {
        let passed = now.saturating_duration_since(self.looked).min(self.pause());
        let waiting = match (waited, self.waited) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            (Some(now), None) => now,
            (None, _) => Duration::ZERO,
        };
        self.spent += passed.saturating_sub(waiting);
        (self.looked, self.waited) = (now, waited.or(self.waited));
        self.spent >= self.limit || now.saturating_duration_since(self.begun) >= self.limit * AT_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Looks whenever it is time, each time late by `late`, and with this share of the time spent in wait. How long that
    /// took.
    fn lasts(late: Duration, waiting: f64) -> Duration {
        let start = Instant::now();
        let mut clock = OwnTime::new(LIMIT, start);
        let mut waited = Duration::ZERO;
        loop {
            let now = clock.next_look() + late;
            waited += clock.pause().mul_f64(waiting);
            if clock.look(now, Some(waited)) {
                return now - start;
            }
        }
    }

    #[test]
    fn what_passes_while_nothing_gets_on_does_not_count() {
        let second = Duration::from_secs(1);
        let cases = [
            ("all counts", Duration::ZERO, 0.0, 20),
            ("the machine stands still as long as it goes", second, 0.0, 40),
            ("the host waits half of the time", Duration::ZERO, 0.5, 40),
            ("the host never gets a processor", Duration::ZERO, 1.0, 200),
        ];
        for (what, late, waiting, seconds) in cases {
            let lasted = lasts(late, waiting);
            assert!(lasted.abs_diff(Duration::from_secs(seconds)) <= second, "{what}: {lasted:?}");
        }
    }

    #[test]
    fn a_machine_that_slept_for_an_hour_costs_a_moment() {
        let start = Instant::now();
        let mut clock = OwnTime::new(LIMIT, start);
        assert!(!clock.look(start + Duration::from_secs(199), None));
        assert_eq!(clock.spent, Duration::from_secs(1));
        let mut exact = OwnTime::new(LIMIT, start);
        assert!(exact.look(start + LIMIT * AT_MOST, None), "at the end itself, too");
        assert!(clock.look(start + Duration::from_secs(3600), None), "there is an end to it");
        let mut short = OwnTime::new(Duration::from_millis(5), start);
        assert!(short.look(start + Duration::from_millis(5), None), "short times, too");
    }
}
