//! Growing, jittered pauses.

use std::time::Duration;

/// Pauses that grow from a minimum to a maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    factor: f64,
    next: Duration,
}

impl Backoff {
    /// Pauses from `min` to `max`, each `factor` times as long as the one before.
    pub fn new((min, max): (Duration, Duration), factor: f64) -> Self {
        let max = max.max(min);
        Self { min, max, factor, next: min }
    }

    /// The next pause, between minimum and maximum. `jitter` is in 0..1 and lengthens it by up to a quarter.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let pause = self.next.mul_f64(1.0 + jitter / 4.0).clamp(self.min, self.max);
        self.next = self.next.mul_f64(self.factor).min(self.max);
        pause
    }

    /// The next pause as [`Self::next`] has it, but at least `least` as far as the maximum allows.
    pub fn next_at_least(&mut self, least: Duration, jitter: f64) -> Duration {
        self.next(jitter).max(least.min(self.max))
    }

    /// Starts again from the minimum.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
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
    fn jitter_stays_within_the_bounds() {
        let mut backoff = Backoff::new((SECOND, 2 * SECOND), 1.15);
        for step in 0..50 {
            let pause = backoff.next(f64::from(step % 10) / 10.0);
            assert!((SECOND..=2 * SECOND).contains(&pause), "{pause:?}");
        }
        assert!((0.0..1.0).contains(&jitter()));
    }

    #[test]
    fn a_maximum_below_the_minimum_counts_as_the_minimum() {
        assert_eq!(Backoff::new((2 * SECOND, SECOND), 2.0).next(0.9), 2 * SECOND);
    }
}
