//! What a service counts.

use base::metrics::metrics;
use strum::IntoStaticStr;

/// The label of types that have no handler: others could make up any number of them.
pub(super) const UNKNOWN_TYPE: &str = "unknown";

/// The label of jobs that wait and have not been read.
const UNREAD_TYPE: &str = "unread";

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub(super) enum State {
    /// Known and not finished.
    Queued,
    /// In its handler.
    Running,
}

/// How many jobs of a queue wait to be read. They count as queued, under no type yet.
pub(super) struct Backlog {
    service: String,
    count: usize,
}

impl Backlog {
    pub(super) fn new(service: &str) -> Self {
        Self { service: service.to_owned(), count: 0 }
    }

    /// So many wait now.
    pub(super) fn set(&mut self, count: usize) {
        let gauge = metrics().oada_jobs(&self.service, UNREAD_TYPE, State::Queued.into_str());
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(signed(count) - signed(self.count));
        self.count = count;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A job in a state, for as long as this lives.
pub(super) struct Counted {
    service: String,
    kind: String,
    state: State,
}

impl Counted {
    pub(super) fn new(service: &str, kind: &str, state: State) -> Self {
        metrics().oada_jobs(service, kind, state.into_str()).inc();
        Self { service: service.to_owned(), kind: kind.to_owned(), state }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics().oada_jobs(&self.service, &self.kind, self.state.into_str()).dec();
    }
}
