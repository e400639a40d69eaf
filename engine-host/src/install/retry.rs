//! When something that failed because of the registry is tried again.

use std::time::Duration;

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

    /// The pauses. `jitter` gives a fraction, 0 to 1, that says how much of the upper half of each is used, so that many
    /// workers do not come back at once.
    pub(super) fn pauses(self, mut jitter: impl FnMut() -> f64) -> impl Iterator<Item = Duration> {
        const GROWTH: u32 = 4;
        (0..self.repeats).map(move |repeat| {
            let longest = self.first * GROWTH.pow(repeat);
            longest.mul_f64(0.5 + jitter().clamp(0.0, 1.0) / 2.0)
        })
    }
}

/// A fraction from 0 to 1 that differs between processes and moments.
pub(super) fn jitter() -> f64 {
    let hasher = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new());
    let random = std::hash::Hasher::finish(&hasher) >> 11;
    random as f64 / (1u64 << 53) as f64
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
        for _ in 0..100 {
            assert!((0.0..1.0).contains(&jitter()));
        }
    }
}
