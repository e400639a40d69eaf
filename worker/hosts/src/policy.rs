//! What an operator can set of a pool, and change while it lives.

use std::time::Duration;

use protocol::message::Prepare;
use smart_default::SmartDefault;

/// How many hosts there are, and when they are replaced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy {
    /// How many hosts.
    pub(super) size: PoolSize,
    /// Memory of the hosts that wait with an engine ready, in bytes.
    pub(super) warm_bytes: u64,
    /// What hosts prepare before any run has said what it wants.
    pub(super) first: Option<Prepare>,
    /// Hosts that may prepare at the same time while no run waits.
    pub(super) preparations: usize,
    /// When hosts are replaced although nothing is wrong with them.
    pub(super) recycling: Recycling,
}

/// How many hosts a pool has, and whether they come back. The default is what engine hosts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SmartDefault)]
pub enum PoolSize {
    /// Each host is for one run.
    #[default]
    OneRunEach {
        /// Hosts that wait, beyond those at work.
        #[default(2)]
        warm: usize,
    },
    /// Hosts are lent again and again.
    Shared {
        /// There are always so many.
        least: usize,
        /// There are never more, however many callers wait.
        most: usize,
        /// How long those beyond the least may have nothing to do.
        idle: Duration,
    },
}

impl PoolSize {
    /// The number that an operator sets: warm hosts, or hosts at all.
    pub fn target(self) -> usize {
        match self {
            Self::OneRunEach { warm } => warm,
            Self::Shared { most, .. } => most,
        }
    }

    /// The same with another number.
    pub(super) fn resized(self, target: usize) -> Self {
        match self {
            Self::OneRunEach { .. } => Self::OneRunEach { warm: target },
            Self::Shared { least, idle, most } => {
                // What was kept for ever stays so, as far as it fits.
                let least = if least == most { target } else { least.min(target) };
                Self::Shared { least, most: target, idle }
            }
        }
    }
}

/// When hosts are replaced although nothing is wrong with them, and how many at a time. By default nothing is replaced by
/// itself; on demand one after the other, each when its successor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SmartDefault)]
pub struct Recycling {
    /// Those that are older, less up to a fifth by chance.
    pub max_age: Option<Duration>,
    /// Those that were lent so often.
    pub max_runs: Option<u32>,
    /// Those that take more memory, in bytes.
    pub max_bytes: Option<u64>,
    /// Hosts that may be there beyond the target while others are replaced.
    #[default(1)]
    pub surge: usize,
    /// Hosts that may be missing meanwhile. With none, a host goes when its successor is ready.
    pub unavailable: usize,
}

impl Recycling {
    /// Beyond the target, at least one host more or less has to be allowed for anything to happen.
    pub(super) fn surge(self) -> usize {
        if self.unavailable == 0 { self.surge.max(1) } else { self.surge }
    }

    /// When a host that was born a moment ago is too old; `roll` in 0..1 spreads that.
    pub(super) fn lifetime(self, roll: f64) -> Option<Duration> {
        self.max_age.map(|age| age.mul_f64(1.0 - 0.2 * roll.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_size_keeps_the_kind() {
        let idle = Duration::from_secs(1);
        let table = [
            (PoolSize::OneRunEach { warm: 2 }, PoolSize::OneRunEach { warm: 5 }),
            (PoolSize::Shared { least: 2, most: 2, idle }, PoolSize::Shared { least: 5, most: 5, idle }),
            (PoolSize::Shared { least: 0, most: 2, idle }, PoolSize::Shared { least: 0, most: 5, idle }),
            (PoolSize::Shared { least: 7, most: 9, idle }, PoolSize::Shared { least: 5, most: 5, idle }),
            (PoolSize::Shared { least: 3, most: 9, idle }, PoolSize::Shared { least: 3, most: 5, idle }),
        ];
        for (before, after) in table {
            assert_eq!(before.resized(5), after);
            assert_eq!(after.target(), 5);
        }
    }

    #[test]
    fn something_may_always_be_replaced() {
        for (surge, unavailable, expected) in [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 1), (3, 0, 3), (3, 2, 3)] {
            let recycling = Recycling { surge, unavailable, ..Recycling::default() };
            assert_eq!(recycling.surge(), expected, "{surge} {unavailable}");
        }
        let expected = Recycling { max_age: None, max_runs: None, max_bytes: None, surge: 1, unavailable: 0 };
        assert_eq!((Recycling::default(), PoolSize::default()), (expected, PoolSize::OneRunEach { warm: 2 }));
    }

    #[test]
    fn ages_are_spread_over_a_fifth() {
        let recycling = Recycling { max_age: Some(Duration::from_secs(100)), ..Recycling::default() };
        for (roll, seconds) in [(0.0, 100), (0.5, 90), (1.0, 80), (7.0, 80)] {
            assert_eq!(recycling.lifetime(roll), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(Recycling::default().lifetime(0.5), None);
    }
}
