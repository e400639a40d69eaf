//! What is told of the worker and its runs while they go on, for whoever watches. Never users' data.
//!
//! [`lines`] keeps the worker's own log. It goes to who subscribes, as do the timelines of runs: the dashboard, and the
//! exporters, which send them to collectors.

mod export;
mod lines;
mod otlp;
mod profile;
mod sentry;

pub use export::{Destination, InvalidDestination};
pub use lines::{Line, collector, lines};
pub use otlp::{Attributes, Headers, InvalidAttributes, InvalidHeaders, Sampler, Sampling, Source, export_traces};
pub use profile::profile_steps;
pub use sentry::{Dsn, InvalidDsn, report_errors};
