//! What the fuzz target drives: all that is open on a connection to a store, without the connection.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{mpsc, oneshot};

use super::conversation::{Command, Conversation, WatchEntry};
use crate::wire::{Incoming, Method, Request};

/// Feeds frames of a store to a client with a request `R` and a watch `W` under way; an empty one loses the connection.
/// Nothing that a store says may make it panic, answer twice or send more than what was asked.
pub fn feed_frames<'a>(frames: impl IntoIterator<Item = &'a str>) {
    let mut conversation = Conversation::default();
    let (answer, _answered) = oneshot::channel();
    conversation.command(Command::Request { id: "R".into(), request: Request::new(Method::Get, "/x"), answer });
    let (events, mut heard) = mpsc::unbounded_channel();
    let entry = WatchEntry { path: "/list".into(), processed: Arc::new(AtomicU64::new(3)), events };
    conversation.command(Command::Watch { watch: 1, entry, answer: oneshot::channel().0 });
    conversation.connected();
    let mut watch = String::new();
    for frame in frames {
        let sent = std::mem::take(&mut conversation.outgoing);
        assert!(sent.len() <= 2, "{} requests are sent for two", sent.len());
        for (id, request) in sent {
            if request.method == Method::Watch {
                watch = id;
            }
        }
        if frame.is_empty() {
            conversation.disconnected();
            conversation.connected();
        } else if let Ok(incoming) = Incoming::parse(&frame.replace("\"W\"", &format!("\"{watch}\""))) {
            let ids = match &incoming {
                Incoming::Response(ids, response) => {
                    let _ = (response.rev(), response.etag(), response.resource_id(), response.message());
                    ids.len()
                }
                Incoming::Change(_, change) => {
                    let _ = change.rev();
                    1
                }
            };
            conversation.incoming(incoming);
            let told = iter::from_fn(|| heard.try_recv().ok()).count();
            assert!(told <= ids, "the watch is told {told} things by a message with {ids} ids");
        }
    }
}
