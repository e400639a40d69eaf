//! Growing, jittered pauses.

use std::time::Duration;

/// Pauses of which each is so many times as long as the one before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Growth {
    /// The first one.
    pub first: Duration,
    /// How much they grow.
    pub factor: f64,
    /// The longest one.
    pub longest: Duration,
}

impl Growth {
    /// Pauses that double.
    pub fn doubling(first: Duration, longest: Duration) -> Self {
        Self { first, factor: 2.0, longest }
    }

    /// The pause after so many others.
    pub fn pause(self, others: u32) -> Duration {
        // Beyond that no pause is shorter than the longest.
        let factor = self.factor.powi(others.min(500) as i32);
        Duration::try_from_secs_f64(self.first.as_secs_f64() * factor).unwrap_or(self.longest).min(self.longest)
    }
}

/// Pauses that grow from a minimum to a maximum, until something works.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    growth: Growth,
    pauses: u32,
}

impl Backoff {
    /// Pauses from `min` to `max`, each `factor` times as long as the one before.
    pub fn new((min, max): (Duration, Duration), factor: f64) -> Self {
        Self { growth: Growth { first: min, factor, longest: max.max(min) }, pauses: 0 }
    }

    /// The next pause, between minimum and maximum. `jitter` is in 0..1 and lengthens it by up to a quarter.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let pause = self.growth.pause(self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        pause.mul_f64(1.0 + jitter / 4.0).clamp(self.growth.first, self.growth.longest)
    }

    /// The next pause as [`Self::next`] has it, but at least `least` as far as the maximum allows.
    pub fn next_at_least(&mut self, least: Duration, jitter: f64) -> Duration {
        self.next(jitter).max(least.min(self.growth.longest))
    }

    /// Starts again from the minimum.
    pub fn reset(&mut self) {
        self.pauses = 0;
    }
}

/// The upper half of a pause by chance, `jitter` in 0..1, so that many do not come back at once.
pub fn spread(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A random number in 0..1, so that many workers do not act in step.
pub fn jitter() -> f64 {
    // Without randomness there is no jitter, which is no reason to stop.
    getrandom::u32().map_or(0.0, |random| f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn grows_to_its_maximum_and_starts_again() {
        let mut backoff = Backoff::new((SECOND, 8 * SECOND), 2.0);
        let pauses: Vec<_> = (0..5).map(|_| backoff.next(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 8]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), SECOND);
    }

    #[test]
    fn pauses_end_where_durations_do() {
        let endless = Growth::doubling(SECOND, Duration::MAX);
        assert_eq!(endless.pause(10), 1024 * SECOND);
        assert_eq!(endless.pause(u32::MAX), Duration::MAX);
        assert_eq!(Growth::doubling(Duration::ZERO, SECOND).pause(u32::MAX), Duration::ZERO);
        assert_eq!((spread(SECOND, 0.0), spread(SECOND, 1.0)), (SECOND / 2, SECOND));
    }

    #[test]
    fn jitter_stays_within_the_bounds() {
        let mut backoff = Backoff::new((SECOND, 2 * SECOND), 1.15);
        for step in 0..50 {
            let pause = backoff.next(f64::from(step % 10) / 10.0);
            assert!((SECOND..=2 * SECOND).contains(&pause), "{pause:?}");
        }
        assert!((0.0..1.0).contains(&jitter()));
    }

    #[test]
    fn jitter_lengthens_a_pause_by_up_to_a_quarter_and_not_those_after_it() {
        let mut backoff = Backoff::new((SECOND, 8 * SECOND), 2.0);
        let pauses: Vec<_> = [1.0, 0.5, 0.0, 1.0].map(|jitter| backoff.next(jitter).as_millis()).into();
        assert_eq!(pauses, [1250, 2250, 4000, 8000]);
        let many: std::collections::BTreeSet<_> = (0..20).map(|_| jitter().to_bits()).collect();
        assert!(many.len() > 1, "it differs");
    }

    #[test]
    fn a_pause_may_be_asked_to_be_longer_but_not_beyond_the_maximum() {
        for (least, expected) in [(0, [1, 2, 4, 8, 8]), (3, [3, 3, 4, 8, 8]), (9, [8; 5])] {
            let mut backoff = Backoff::new((SECOND, 8 * SECOND), 2.0);
            let pauses: Vec<_> = (0..5).map(|_| backoff.next_at_least(least * SECOND, 0.0).as_secs()).collect();
            assert_eq!(pauses, expected, "{least}");
        }
    }

    #[test]
    fn a_maximum_below_the_minimum_counts_as_the_minimum() {
        assert_eq!(Backoff::new((2 * SECOND, SECOND), 2.0).next(0.9), 2 * SECOND);
    }
}
