//! Which jobs this service works on: several of its queues, or several links, may lead to the same one, and claims tell
//! services apart, not these.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::client::Domain;

/// A job: where its store is, and its id.
type Name = (Domain, String);

/// All jobs that are being worked on.
#[derive(Debug, Default)]
pub(super) struct InProgress(Mutex<HashSet<Name>>);

/// A job that nobody else in this service works on as long as this lives.
#[derive(Debug)]
pub(super) struct Hold {
    jobs: Arc<InProgress>,
    name: Name,
}

impl InProgress {
    /// Takes a job; none if it is being worked on.
    pub(super) fn take(self: &Arc<Self>, domain: &Domain, id: &str) -> Option<Hold> {
        let name = (domain.clone(), id.to_owned());
        self.0.lock().insert(name.clone()).then(|| Hold { jobs: Arc::clone(self), name })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.jobs.0.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_held_once() {
        let jobs = Arc::<InProgress>::default();
        let domain = |text: &str| text.parse::<Domain>().unwrap();
        let first = jobs.take(&domain("x.org"), "resources/J");
        assert!(first.is_some() && jobs.take(&domain("https://x.org"), "resources/J").is_none());
        assert!(jobs.take(&domain("y.org"), "resources/J").is_some());
        drop(first);
        assert!(jobs.take(&domain("x.org"), "resources/J").is_some());
    }
}
