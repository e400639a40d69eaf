//! The time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, since the epoch; zero on a machine that is before it.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, in whole seconds since the epoch.
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Now, in microseconds since the epoch.
pub fn now_us() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}
