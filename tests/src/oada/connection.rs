//! One websocket: requests in, answers and changes out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::faults::Action;
use super::record::Direction;
use super::requests::{self, Answer, Request};
use super::watches::{self, Outgoing};
use super::{Shared, lock};

/// What becomes of a request.
pub(super) enum Fate {
    Answered(Answer),
    Silent,
    Disconnected,
}

/// Answers a request that has nothing to do with watches, or lets it meet its fault.
pub(super) async fn answer(shared: &Shared, request: &Request) -> Fate {
    let fault = lock(&shared.faults).meet(&request.method, &request.path);
    let fate = match fault {
        None => Fate::Answered(done(shared, request)),
        Some(Action::Delay(time)) => {
            tokio::time::sleep(time).await;
            Fate::Answered(done(shared, request))
        }
        Some(Action::Answer(status, headers)) => {
            let data = Some(json!({ "message": "an injected fault" }));
            Fate::Answered(Answer { data, ..Answer::bare(status, headers) })
        }
        Some(Action::Ignore) => Fate::Silent,
        Some(Action::Swallow) => {
            announce(shared, done(shared, request));
            Fate::Silent
        }
        Some(Action::Disconnect) => Fate::Disconnected,
        Some(Action::DisconnectAfter) => {
            announce(shared, done(shared, request));
            Fate::Disconnected
        }
    };
    match fate {
        Fate::Answered(mut answer) => {
            // Those who watch hear of a change before the one who made it is answered.
            shared.announce(std::mem::take(&mut answer.changes));
            Fate::Answered(answer)
        }
        fate => fate,
    }
}

fn done(shared: &Shared, request: &Request) -> Answer {
    match request.method.as_str() {
        method if method == "watch" || method.ends_with("-watch") => {
            let plain = method.strip_suffix("-watch").unwrap_or("head").to_owned();
            requests::answer(&mut lock(&shared.store), &Request { method: plain, ..request.clone() })
        }
        "unwatch" | "ping" => Answer::bare(200, Vec::new()),
        _ => requests::answer(&mut lock(&shared.store), request),
    }
}

fn announce(shared: &Shared, answer: Answer) {
    shared.announce(answer.changes);
}

/// Serves a websocket until it is closed.
pub(super) async fn serve(shared: Arc<Shared>, upgraded: OnUpgrade) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let Ok(upgraded) = upgraded.await else { return };
    let mut disconnects = shared.disconnects.subscribe();
    disconnects.mark_unchanged();
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (messages, outgoing) = unbounded_channel();
    let (cut, mut is_cut) = unbounded_channel();
    let peer = Outgoing { connection, messages };
    let (mut sink, mut stream) = socket.split();
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Text(text) = message else { continue };
            let (shared, peer, cut) = (Arc::clone(&shared), peer.clone(), cut.clone());
            tokio::spawn(async move {
                if receive(&shared, &peer, &text).await.is_none() {
                    // Fails when the connection is closed already.
                    let _ = cut.send(());
                }
            });
        }
    };
    tokio::select! {
        () = reading => {}
        () = write(&mut sink, outgoing) => {}
        _ = is_cut.recv() => {}
        _ = disconnects.changed() => {}
    }
    lock(&shared.watches).close(connection);
    shared.changed.notify_waiters();
}

async fn write(sink: &mut (impl SinkExt<Message> + Unpin), mut outgoing: UnboundedReceiver<Value>) {
    while let Some(message) = outgoing.recv().await {
        if sink.send(Message::text(message.to_string())).await.is_err() {
            return;
        }
    }
}

/// Takes one message. None if the connection is to be closed.
async fn receive(shared: &Shared, peer: &Outgoing, text: &str) -> Option<()> {
    let message: Value = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(error) => {
            peer.send(json!({ "status": 400, "data": { "message": error.to_string() } }), shared);
            return Some(());
        }
    };
    shared.record(peer.connection, Direction::FromClient, &message);
    let Some((id, request)) = read(&message) else {
        let id = message.get("requestId").cloned().unwrap_or(json!([]));
        let told = json!({ "message": "requestId, path, method and headers.authorization are required" });
        peer.send(json!({ "requestId": id, "status": 400, "data": told }), shared);
        return Some(());
    };
    let watches = request.method == "watch" || request.method.ends_with("-watch");
    if request.method == "unwatch" {
        lock(&shared.watches).remove(peer.connection, &id);
    }
    match answer(shared, &request).await {
        Fate::Answered(answer) if watches && answer.status < 300 => watch(shared, peer, &id, &request, answer),
        Fate::Answered(answer) => peer.send(response(&id, answer), shared),
        Fate::Silent => {}
        Fate::Disconnected => return None,
    }
    Some(())
}

/// Subscribes, after sending what has happened since the revision that the client has.
fn watch(shared: &Shared, peer: &Outgoing, id: &str, request: &Request, answer: Answer) {
    let store = lock(&shared.store);
    let found = request.token().and_then(|token| store.find(token, &request.path));
    let Ok(found) = found else { return };
    let (resource, leftover) = (found.place.resource, found.place.rest.join("/"));
    let rev = request.header("x-oada-rev").and_then(|rev| rev.parse().ok()).filter(|rev| *rev > 0);
    let mut watches = lock(&shared.watches);
    if let Some(rev) = rev {
        peer.send(json!({ "requestId": id, "status": 200 }), shared);
        for change in store.changes_since(&resource, rev) {
            peer.send(watches::message(&resource, &change, &[id], &[&leftover]), shared);
        }
    }
    watches.add(peer.clone(), id, &resource, &leftover);
    peer.send(response(id, answer), shared);
}

fn read(message: &Value) -> Option<(String, Request)> {
    let text = |key: &str| message.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let headers = message.get("headers").and_then(Value::as_object)?;
    let headers: HashMap<String, String> =
        headers.iter().filter_map(|(name, value)| Some((name.to_lowercase(), value.as_str()?.to_owned()))).collect();
    if !headers.contains_key("authorization") {
        return None;
    }
    let request = Request { method: text("method")?, path: text("path")?, headers, data: message.get("data").cloned() };
    Some((text("requestId")?, request))
}

fn response(id: &str, answer: Answer) -> Value {
    let headers: Map<String, Value> =
        answer.headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    let mut message = json!({ "requestId": id, "status": answer.status, "headers": headers });
    if let (Some(data), Some(message)) = (answer.data, message.as_object_mut()) {
        message.insert("data".to_owned(), data);
    }
    message
}
