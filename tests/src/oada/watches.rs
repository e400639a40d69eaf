//! Who watches what, and how changes get to them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use super::record::Direction;

/// A connection, as those who write to it see it.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) connection: u64,
    pub(super) messages: UnboundedSender<Value>,
}

impl Outgoing {
    /// Sends a message and records it.
    pub(super) fn send(&self, message: Value, shared: &Shared) {
        shared.record(self.connection, Direction::FromStore, &message);
        // Fails when the connection is closed.
        let _ = self.messages.send(message);
    }
}

struct Watch {
    outgoing: Outgoing,
    resource: String,
    leftover: String,
}

#[derive(Default)]
pub(super) struct Watches {
    /// By connection and request.
    set: BTreeMap<(u64, String), Watch>,
    withheld: bool,
    duplicated: bool,
    swapped: bool,
    held_back: Vec<(Outgoing, Value)>,
}

impl Watches {
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn add(&mut self, outgoing: Outgoing, request: &str, resource: &str, leftover: &str) {
        let key = (outgoing.connection, request.to_owned());
        self.set.insert(key, Watch { outgoing, resource: resource.to_owned(), leftover: leftover.to_owned() });
    }

    pub(super) fn remove(&mut self, connection: u64, request: &str) {
        self.set.remove(&(connection, request.to_owned()));
    }

    pub(super) fn clear(&mut self) {
        self.set.clear();
    }

    pub(super) fn close(&mut self, connection: u64) {
        self.set.retain(|(at, _), _| *at != connection);
    }

    pub(super) fn withhold(&mut self, withhold: bool) {
        self.withheld = withhold;
    }

    pub(super) fn duplicate(&mut self, duplicate: bool) {
        self.duplicated = duplicate;
    }

    pub(super) fn swap(&mut self, swap: bool) {
        self.swapped = swap;
    }

    /// Tells of a change: one message a connection, however many watches it has.
    pub(super) fn announce(&mut self, resource: &str, change: &Value, shared: &Shared) {
        let mut messages: BTreeMap<u64, (Outgoing, Vec<&str>, Vec<&str>)> = BTreeMap::new();
        for ((connection, request), watch) in self.set.iter().filter(|(_, watch)| watch.resource == resource) {
            let (_, requests, leftovers) =
                messages.entry(*connection).or_insert_with(|| (watch.outgoing.clone(), Vec::new(), Vec::new()));
            requests.push(request);
            leftovers.push(&watch.leftover);
        }
        let messages: Vec<(Outgoing, Value)> = messages
            .into_values()
            .map(|(outgoing, requests, leftovers)| (outgoing, message(resource, change, &requests, &leftovers)))
            .collect();
        for (outgoing, message) in messages {
            self.pass_on(outgoing, message, shared);
        }
    }

    fn pass_on(&mut self, outgoing: Outgoing, message: Value, shared: &Shared) {
        if self.withheld {
            return;
        }
        if self.swapped && self.held_back.is_empty() {
            self.held_back.push((outgoing, message));
            return;
        }
        let mut due = vec![(outgoing, message)];
        due.append(&mut self.held_back);
        for (outgoing, message) in due {
            if self.duplicated {
                outgoing.send(message.clone(), shared);
            }
            outgoing.send(message, shared);
        }
    }
}

/// A change message.
pub(super) fn message(resource: &str, change: &Value, requests: &[&str], leftovers: &[&str]) -> Value {
    json!({ "resourceId": resource, "change": change, "requestId": requests, "path_leftover": leftovers })
}
