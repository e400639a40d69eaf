//! What a service counts.

use crate::metrics::metrics;

/// The label of types that have no handler: others could make up any number of them.
pub(super) const UNKNOWN_TYPE: &str = "unknown";

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Known and not finished.
    Queued,
    /// In its handler.
    Running,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
        }
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
        metrics().oada_jobs(service, kind, state.as_str()).inc();
        Self { service: service.to_owned(), kind: kind.to_owned(), state }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics().oada_jobs(&self.service, &self.kind, self.state.as_str()).dec();
    }
}
