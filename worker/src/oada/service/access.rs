//! Whether a queue's store takes the queue's token.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::metrics;
use crate::oada::client::ClientError;

/// What the store has said of the token last. It is told when that changes, not with each request.
#[derive(Debug)]
pub(super) struct Access {
    service: String,
    queue: String,
    is_refused: AtomicBool,
}

impl Access {
    pub(super) fn new(service: &str, queue: &str) -> Self {
        Self { service: service.to_owned(), queue: queue.to_owned(), is_refused: AtomicBool::new(false) }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// Something of the service's own was asked, with this outcome.
    pub(super) fn heard<T>(&self, outcome: &Result<T, ClientError>) {
        let refused = match outcome {
            Ok(_) => None,
            Err(error) if error.is_unauthorized() => Some(error),
            // Says nothing about the token.
            Err(_) => return,
        };
        if self.is_refused.swap(refused.is_some(), Ordering::Relaxed) == refused.is_some() {
            return;
        }
        let gauge = metrics().oada_queues_refused(&self.service);
        match refused {
            Some(error) => {
                gauge.inc();
                tracing::error!(
                    queue = self.queue,
                    "the store refuses the queue's token: {error}; its jobs wait until it is taken again"
                );
            }
            None => {
                gauge.dec();
                tracing::info!(queue = self.queue, "the store takes the queue's token again");
            }
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.is_refused() {
            metrics().oada_queues_refused(&self.service).dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: &'static str, status: u16) -> Result<(), ClientError> {
        let (path, message, answer) = ("/resources/J".to_owned(), String::new(), Box::default());
        Err(ClientError::Status { method, path, status, message, answer })
    }

    #[test]
    fn a_token_is_refused_until_something_is_done_with_it() {
        let access = Access::new("service of a test", "q");
        let gauge = || metrics().oada_queues_refused("service of a test").get();
        // What is not there is answered like what must not be read.
        for (outcome, refused) in [
            (Ok(()), false),
            (answered("get", 403), false),
            (answered("put", 403), true),
            (answered("get", 404), true),
            (answered("put", 500), true),
            (Err(ClientError::Closed), true),
            (Ok(()), false),
            (answered("get", 401), true),
        ] {
            access.heard(&outcome);
            assert_eq!((access.is_refused(), gauge()), (refused, i64::from(refused)), "{outcome:?}");
        }
        drop(access);
        assert_eq!(gauge(), 0);
    }
}
