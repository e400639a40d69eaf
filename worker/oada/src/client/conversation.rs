//! Everything that is open between a client and its store: requests that wait for answers, watches that wait for
//! changes, and what of it goes out again on a new connection. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::ksuid::Ksuid;
use crate::wire::{ChangeSet, Incoming, Method, Request, Response};

/// A request that was on its way when the connection was lost, and that must not be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interrupted;

/// Where the answer to a request goes.
pub(super) type Answer = oneshot::Sender<Result<Response, Interrupted>>;

/// Tells watches of one client apart.
pub(super) type WatchId = u64;

/// What a client wants of its connection.
pub(super) enum Command {
    /// Send this and pass the answer on.
    Request { id: String, request: Request, answer: Answer },
    /// Nobody waits for that answer any more.
    Withdraw { id: String },
    /// Set a watch, and set it again after each reconnect.
    Watch { watch: WatchId, entry: WatchEntry, answer: Answer },
    /// End it.
    Unwatch { watch: WatchId },
}

/// A watch.
pub(super) struct WatchEntry {
    pub(super) path: String,
    /// The last revision that its owner has dealt with; 0 if there is none.
    pub(super) processed: Arc<AtomicU64>,
    pub(super) events: mpsc::UnboundedSender<RawEvent>,
}

/// What happens to a watch, not yet checked against what was heard before.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawEvent {
    /// A change.
    Change(ChangeSet),
    /// The store has told everything up to this revision of this resource.
    Set { resource: Option<String>, rev: Option<u64> },
    /// There is nothing to watch any more: this was the answer.
    Refused(Response),
}

struct Open {
    request: Request,
    answer: Answer,
    sent: bool,
}

struct Watching {
    entry: WatchEntry,
    /// Its request on this connection.
    request: String,
    /// Waits for the first answer.
    answer: Option<Answer>,
    /// Whether it was set from a revision.
    resumed: bool,
}

/// All that is open.
#[derive(Default)]
pub(super) struct Conversation {
    connected: bool,
    open: HashMap<String, Open>,
    watches: HashMap<WatchId, Watching>,
    /// Requests to send, in order.
    pub(super) outgoing: Vec<(String, Request)>,
}

impl Conversation {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Request { id, request, answer } => {
                if self.connected {
                    self.outgoing.push((id.clone(), request.clone()));
                }
                self.open.insert(id, Open { request, answer, sent: self.connected });
            }
            Command::Withdraw { id } => {
                self.open.remove(&id);
            }
            Command::Watch { watch, entry, answer } => {
                let watching = Watching { entry, request: String::new(), answer: Some(answer), resumed: false };
                self.watches.insert(watch, watching);
                self.set(watch, true);
            }
            Command::Unwatch { watch } => {
                if let Some(watching) = self.watches.remove(&watch)
                    && self.connected
                {
                    self.outgoing.push((watching.request, Request::new(Method::Unwatch, "")));
                }
            }
        }
    }

    /// There is a connection: what is open goes out, watches from where their owners are.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        for (id, open) in &mut self.open {
            open.sent = true;
            self.outgoing.push((id.clone(), open.request.clone()));
        }
        let watches: Vec<WatchId> = self.watches.keys().copied().collect();
        for watch in watches {
            self.set(watch, true);
        }
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.outgoing.clear();
        let lost: Vec<String> = self
            .open
            .iter()
            .filter(|(_, open)| open.sent && !open.request.method.is_idempotent())
            .map(|(id, _)| id.clone())
            .collect();
        for open in lost.iter().filter_map(|id| self.open.remove(id)) {
            // Fails when nobody waits.
            let _ = open.answer.send(Err(Interrupted));
        }
    }

    pub(super) fn incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Response(ids, response) => {
                for id in ids {
                    self.response(&id, &response);
                }
            }
            Incoming::Change(ids, change) => {
                let watches = self.watches.values().filter(|watching| ids.contains(&watching.request));
                for watching in watches {
                    // Fails when the owner is gone, which is about to say so.
                    let _ = watching.entry.events.send(RawEvent::Change(change.clone()));
                }
            }
        }
    }

    /// Copies the response only where somebody waits for it: a store may name very many ids.
    fn response(&mut self, id: &str, response: &Response) {
        if let Some(open) = self.open.remove(id) {
            // Fails when nobody waits.
            let _ = open.answer.send(Ok(response.clone()));
            return;
        }
        let found = self.watches.iter_mut().find(|(_, watching)| watching.request == id);
        let Some((&watch, watching)) = found else { return };
        if response.is_ok() {
            if response.rev().is_some() {
                let set = RawEvent::Set { resource: response.resource_id(), rev: response.rev() };
                let _ = watching.entry.events.send(set);
            }
            if let Some(answer) = watching.answer.take() {
                let _ = answer.send(Ok(response.clone()));
            }
        } else if let Some(answer) = watching.answer.take() {
            self.watches.remove(&watch);
            let _ = answer.send(Ok(response.clone()));
        } else if watching.resumed {
            // History may not go back that far. Without a revision the answer tells where the resource is now.
            self.set(watch, false);
        } else {
            let _ = watching.entry.events.send(RawEvent::Refused(response.clone()));
            self.watches.remove(&watch);
        }
    }

    /// Sends the request for a watch, under an id of its own.
    fn set(&mut self, watch: WatchId, resume: bool) {
        let Some(watching) = self.watches.get_mut(&watch) else { return };
        if !self.connected {
            return;
        }
        watching.request = Ksuid::generate().to_string();
        let mut request = Request::new(Method::Watch, watching.entry.path.clone());
        let rev = watching.entry.processed.load(Ordering::Acquire);
        watching.resumed = resume && rev > 0;
        if watching.resumed {
            request = request.header("x-oada-rev", rev.to_string());
        }
        self.outgoing.push((watching.request.clone(), request));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(conversation: &mut Conversation, method: Method) -> oneshot::Receiver<Result<Response, Interrupted>> {
        let (answer, answered) = oneshot::channel();
        let request = Request::new(method, "/x");
        conversation.command(Command::Request { id: format!("{}-1", method.name()), request, answer });
        answered
    }

    fn response(status: u16, rev: Option<u64>) -> Response {
        let headers = rev.map(|rev| ("x-oada-rev".to_owned(), rev.to_string())).into_iter().collect();
        Response { status, headers, data: None }
    }

    fn sent(conversation: &mut Conversation) -> Vec<(String, Request)> {
        conversation.outgoing.drain(..).collect()
    }

    #[test]
    fn requests_wait_for_a_connection_and_only_idempotent_ones_are_sent_again() {
        let mut conversation = Conversation::default();
        let mut get = ask(&mut conversation, Method::Get);
        let mut post = ask(&mut conversation, Method::Post);
        assert_eq!(sent(&mut conversation).len(), 0);
        conversation.connected();
        assert_eq!(sent(&mut conversation).len(), 2);
        conversation.disconnected();
        assert_eq!(post.try_recv().unwrap(), Err(Interrupted));
        let mut late = ask(&mut conversation, Method::Delete);
        conversation.connected();
        let methods: Vec<Method> = sent(&mut conversation).into_iter().map(|(_, request)| request.method).collect();
        assert!(methods.len() == 2 && methods.contains(&Method::Get) && methods.contains(&Method::Delete));
        let ids = vec!["get-1".to_owned(), "delete-1".to_owned(), "unknown".to_owned()];
        conversation.incoming(Incoming::Response(ids, response(200, None)));
        assert!(get.try_recv().unwrap().is_ok() && late.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_watch_goes_on_from_what_its_owner_has_dealt_with() {
        let mut conversation = Conversation::default();
        conversation.connected();
        let (events, mut heard) = mpsc::unbounded_channel();
        let processed = Arc::new(AtomicU64::new(4));
        let entry = WatchEntry { path: "/list".to_owned(), processed: Arc::clone(&processed), events };
        let (answer, mut answered) = oneshot::channel();
        conversation.command(Command::Watch { watch: 1, entry, answer });
        let (first, request) = sent(&mut conversation).remove(0);
        assert_eq!(request.headers["x-oada-rev"], "4");
        conversation.incoming(Incoming::Response(vec![first.clone()], response(200, None)));
        assert!(answered.try_recv().unwrap().unwrap().is_ok());
        conversation.incoming(Incoming::Response(vec![first.clone()], response(200, Some(6))));
        assert_eq!(heard.try_recv(), Ok(RawEvent::Set { resource: None, rev: Some(6) }));

        processed.store(7, Ordering::Release);
        conversation.disconnected();
        conversation.connected();
        let (second, request) = sent(&mut conversation).remove(0);
        assert_eq!(request.headers["x-oada-rev"], "7");
        assert_ne!(first, second);
        // The store has no history that far back.
        conversation.incoming(Incoming::Response(vec![second], response(400, None)));
        let (third, request) = sent(&mut conversation).remove(0);
        assert!(request.headers.is_empty());
        let change = ChangeSet { resource_id: "resources/P".to_owned(), changes: Vec::new() };
        conversation.incoming(Incoming::Change(vec![third.clone()], change.clone()));
        conversation.incoming(Incoming::Change(vec![first], change.clone()));
        assert_eq!(heard.try_recv(), Ok(RawEvent::Change(change)));
        assert!(heard.try_recv().is_err(), "what belongs to an old connection is not heard");
        conversation.command(Command::Unwatch { watch: 1 });
        assert_eq!(sent(&mut conversation), [(third, Request::new(Method::Unwatch, ""))]);
    }

    #[test]
    fn a_request_goes_out_at_once_or_as_soon_as_there_is_a_connection_and_again_if_that_does_no_harm() {
        let mut conversation = Conversation::default();
        let mut asked = ask(&mut conversation, Method::Post);
        assert_eq!(sent(&mut conversation), []);
        conversation.connected();
        let request = |method: Method| (format!("{}-1", method.name()), Request::new(method, "/x"));
        assert_eq!(sent(&mut conversation), [request(Method::Post)]);
        let mut idempotent = ask(&mut conversation, Method::Put);
        assert_eq!(sent(&mut conversation), [request(Method::Put)]);
        let mut withdrawn = ask(&mut conversation, Method::Get);
        conversation.command(Command::Withdraw { id: "get-1".to_owned() });
        conversation.disconnected();
        assert_eq!(sent(&mut conversation), [], "what was not sent yet is not sent twice");
        assert_eq!(asked.try_recv(), Ok(Err(Interrupted)));
        let mut unsent = ask(&mut conversation, Method::Post);
        conversation.disconnected();
        conversation.connected();
        let mut again = sent(&mut conversation);
        again.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(again, [request(Method::Post), request(Method::Put)]);
        for id in ["post-1", "put-1", "get-1", "get-1"] {
            conversation.incoming(Incoming::Response(vec![id.to_owned()], response(200, None)));
        }
        assert!(unsent.try_recv().is_ok_and(|it| it.is_ok()) && idempotent.try_recv().is_ok_and(|it| it.is_ok()));
        assert!(withdrawn.try_recv().is_err());
    }

    #[test]
    fn an_answer_to_very_many_requests_costs_no_more_than_what_waits_for_it() {
        let mut conversation = Conversation::default();
        conversation.connected();
        let mut asked = ask(&mut conversation, Method::Get);
        let large = Response { data: Some(json!(vec![0; 20_000])), ..response(200, None) };
        let mut ids: Vec<_> = (0..200_000).map(|id| id.to_string()).collect();
        ids.push("get-1".to_owned());
        conversation.incoming(Incoming::Response(ids, large.clone()));
        assert_eq!(asked.try_recv(), Ok(Ok(large)));
    }

    #[test]
    fn a_watch_that_cannot_be_set_again_ends() {
        let mut conversation = Conversation::default();
        conversation.connected();
        let (events, mut heard) = mpsc::unbounded_channel();
        let entry = WatchEntry { path: "/list".to_owned(), processed: Arc::default(), events };
        conversation.command(Command::Watch { watch: 1, entry, answer: oneshot::channel().0 });
        let (first, _) = sent(&mut conversation).remove(0);
        conversation.incoming(Incoming::Response(vec![first], response(200, Some(1))));
        conversation.disconnected();
        conversation.connected();
        let (second, _) = sent(&mut conversation).remove(0);
        let refusal = Response { data: Some(json!({})), ..response(404, None) };
        conversation.incoming(Incoming::Response(vec![second], refusal.clone()));
        assert!(matches!(heard.try_recv(), Ok(RawEvent::Set { .. })));
        assert_eq!(heard.try_recv(), Ok(RawEvent::Refused(refusal)));
        assert!(heard.try_recv().is_err());
    }
}
