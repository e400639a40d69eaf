//! The recorder: every message of every websocket, in order. Tokens are left out.

use std::fmt;

use serde_json::Value;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    FromClient,
    /// The store.
    FromStore,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number of the connection, from 1; 0 for plain HTTP.
    pub connection: u64,
    /// Who said it.
    pub direction: Direction,
    /// What was said, without the token.
    pub message: Value,
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.direction == Direction::FromClient { 'C' } else { 'S' };
        write!(out, "{}{who}> {}", self.connection, self.message)
    }
}

#[derive(Default)]
pub(super) struct Recorder(Vec<Entry>);

impl Recorder {
    pub(super) fn add(&mut self, connection: u64, direction: Direction, message: &Value) {
        let mut message = message.clone();
        if let Some(headers) = message.get_mut("headers").and_then(Value::as_object_mut) {
            headers.remove("authorization");
        }
        self.0.push(Entry { connection, direction, message });
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.0.clone()
    }
}
