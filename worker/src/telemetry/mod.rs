//! What is told of the worker and its runs while they go on, for whoever watches. Never users' data.
//!
//! [`timeline`] follows runs, [`history`] keeps what they did, and [`lines`] the worker's own log; both go to who subscribes: the dashboard, and the
//! exporters, which send them to collectors.

mod export;
mod history;
mod lines;
mod otlp;
mod profile;
mod sentry;
mod timeline;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use export::{Destination, InvalidDestination};
pub use history::{History, history};
pub use lines::{Line, collector, lines};
pub use otlp::{Headers, InvalidHeaders, Source, export_traces};
pub use profile::profile_steps;
pub use sentry::{Dsn, InvalidDsn, report_errors};
pub use timeline::{Delivery, Phase, RunView, StepView, Timeline, hide_names, subscribe};

/// Now, in microseconds since the epoch.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
