//! What the Lightning at the other end takes, as far as its answers have shown it.
//!
//! All runs share this: what one has learned, the others need not try. A new connection may lead to another Lightning,
//! so that most of it is forgotten then.

use std::sync::Arc;

use parking_lot::Mutex;

/// Crashes on batches of log lines before a server that never took one is taken not to know them.
const BATCH_CRASHES: u32 = 2;

/// A connection that ends on a message shorter than this does not do so for its length.
const LEAST_LIMIT: usize = 64 * 1024;

/// Whether a message of so many bytes may be why a connection ended: nothing else in a message can be.
pub(super) fn may_end_links(bytes: usize) -> bool {
    bytes > LEAST_LIMIT
}

/// How a step's dataclip goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As a string that holds JSON, which every Lightning takes so far.
    String,
    /// As a JSON value, which Lightning takes from 2.19 on.
    Value,
}

impl Form {
    fn other(self) -> Self {
        match self {
            Self::String => Self::Value,
            Self::Value => Self::String,
        }
    }
}

/// What is known of the server. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Server(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// The form to try first.
    first: Form,
    /// The longest message that may be sent, in bytes.
    limit: usize,
    link: u64,
    learned: Learned,
}

/// What is forgotten with the connection.
#[derive(Debug, Default)]
struct Learned {
    refused: Option<Form>,
    takes_batches: bool,
    batch_crashes: u32,
    crashes_on_nul: bool,
}

impl Server {
    /// A server that nothing is known of. A message has at most `limit` bytes, but there is always room for what has no
    /// state in it.
    pub(super) fn new(first: Form, limit: usize) -> Self {
        let limit = limit.max(LEAST_LIMIT);
        Self(Arc::new(Mutex::new(Known { first, limit, link: 0, learned: Learned::default() })))
    }

    /// A channel is joined over the connection with this number.
    pub(super) fn reached_over(&self, link: u64) {
        let mut known = self.0.lock();
        if link > known.link {
            known.link = link;
            known.learned = Learned::default();
        }
    }

    /// The longest message that may be sent, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.0.lock().limit
    }

    /// The connection was closed because a message of so many bytes was too long. False if that cannot be why.
    pub(super) fn refused_length(&self, bytes: usize) -> bool {
        let mut known = self.0.lock();
        let is_credible = may_end_links(bytes);
        if is_credible && bytes <= known.limit {
            known.limit = bytes - 1;
            tracing::warn!(
                "Lightning rejected a message of {bytes} bytes: messages that long are no longer sent (see --max-message-mb)"
            );
        }
        is_credible
    }

    /// The forms to try, in order.
    pub(super) fn forms(&self) -> impl Iterator<Item = Form> + use<> {
        let Known { first, learned: Learned { refused, .. }, .. } = *self.0.lock();
        [first, first.other()].into_iter().filter(move |form| refused != Some(*form))
    }

    /// A dataclip was refused in `form` and taken in the other one.
    pub(super) fn refused_form(&self, form: Form) {
        self.0.lock().learned.refused = Some(form);
    }

    /// Whether log lines may go in batches.
    pub(super) fn takes_batches(&self) -> bool {
        self.0.lock().learned.batch_crashes < BATCH_CRASHES
    }

    /// Whether it has taken a batch, so that what crashes it is not that something is one.
    pub(super) fn knows_batches(&self) -> bool {
        self.0.lock().learned.takes_batches
    }

    /// It took a batch.
    pub(super) fn took_batch(&self) {
        self.0.lock().learned.takes_batches = true;
    }

    /// A channel crashed on a batch, and none was ever taken. True if no more of them are sent for that, from now on.
    pub(super) fn crashed_on_batch(&self) -> bool {
        let learned = &mut self.0.lock().learned;
        learned.batch_crashes += 1;
        learned.batch_crashes == BATCH_CRASHES
    }

    /// Whether it cannot store a NUL character.
    pub(super) fn crashes_on_nul(&self) -> bool {
        self.0.lock().learned.crashes_on_nul
    }

    /// A channel crashed on a NUL character.
    pub(super) fn crashed_on_nul(&self) {
        self.0.lock().learned.crashes_on_nul = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(server: &Server) -> Vec<Form> {
        server.forms().collect()
    }

    #[test]
    fn a_form_that_is_refused_is_not_tried_again_on_this_connection() {
        let server = Server::new(Form::Value, 1 << 20);
        server.reached_over(1);
        assert_eq!(forms(&server), [Form::Value, Form::String]);
        server.refused_form(Form::Value);
        server.reached_over(1);
        assert_eq!(forms(&server), [Form::String]);
        server.reached_over(2);
        assert_eq!(forms(&server), [Form::Value, Form::String]);
    }

    #[test]
    fn batches_end_where_they_never_worked() {
        let server = Server::new(Form::String, 1 << 20);
        server.reached_over(1);
        assert_eq!((server.crashed_on_batch(), server.takes_batches()), (false, true));
        assert_eq!((server.crashed_on_batch(), server.takes_batches()), (true, false));
        assert!(!server.crashed_on_batch(), "it is said once");
        server.reached_over(2);
        server.took_batch();
        assert!(server.knows_batches() && server.takes_batches());
    }

    #[test]
    fn lengths_are_learned_for_good() {
        let server = Server::new(Form::String, 1 << 20);
        assert!(server.refused_length(1 << 19));
        server.reached_over(1);
        assert_eq!(server.limit(), (1 << 19) - 1);
        assert!(server.refused_length(1 << 20), "it was on its way before");
        assert!(!server.refused_length(100));
        assert_eq!(server.limit(), (1 << 19) - 1);
    }
}
