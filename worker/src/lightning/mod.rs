//! The connection to OpenFn Lightning.

mod backoff;
mod claims;
mod outbox;
pub mod phoenix;
mod plan;
mod token;
mod workloop;

use std::time::{SystemTime, UNIX_EPOCH};

pub use outbox::BatchOptions;
pub use plan::Collections;
pub use token::{InvalidPublicKey, RunTokenKey};
pub use workloop::{InvalidWorkloops, Workloop, Workloops, parse_workloops};

/// Now, in microseconds since the epoch.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
