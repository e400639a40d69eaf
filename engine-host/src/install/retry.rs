//! When something that failed because of the registry is tried again.

use std::time::Duration;

use protocol::backoff::{Growth, spread};

/// A first pause that grows fourfold with every failure, up to a number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    first: Duration,
    repeats: u32,
}

impl Schedule {
    /// For an installation: after 0.5, 2 and 8 seconds.
    pub(super) fn installation() -> Self {
        Self { first: Duration::from_millis(500), repeats: 3 }
    }

    /// For a look-up, which has an answer to fall back on: once, after half a second.
    pub(super) fn lookup() -> Self {
        Self { first: Duration::from_millis(500), repeats: 1 }
    }

    /// The pauses. `jitter` is in 0..1 and says how much of the upper half of each is used.
    pub(super) fn pauses(self, mut jitter: impl FnMut() -> f64) -> impl Iterator<Item = Duration> {
        let growth = Growth { first: self.first, factor: 4.0, longest: Duration::MAX };
        (0..self.repeats).map(move |repeat| spread(growth.pause(repeat), jitter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_vary_by_half() {
        let ms = |jitter: f64| -> Vec<u128> {
            Schedule::installation().pauses(|| jitter).map(|pause| pause.as_millis()).collect()
        };
        assert_eq!(ms(1.0), [500, 2000, 8000]);
        assert_eq!(ms(0.0), [250, 1000, 4000]);
        assert_eq!(Schedule::lookup().pauses(|| 1.0).count(), 1);
    }
}
