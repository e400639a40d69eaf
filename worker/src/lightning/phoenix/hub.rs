//! What the socket knows of its channels: who is joined, who waits for which answer.
//!
//! Pure: commands, messages and the link's ups and downs go in; frames to send, events for the channels' owners and
//! rejoins to schedule come out.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::channel::ChannelEvent;
use super::frame::{Body, Message, Reply, Response, Status, encode};
use super::payload::Payload;
use crate::lightning::backoff::{Backoff, jitter};

/// Names a channel for as long as the socket lives; topics may come again.
pub(super) type ChannelId = u64;

/// Pauses before a channel that crashed on a living link is joined again.
const REJOIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What owners of channels ask for.
pub(super) enum Command {
    Open { channel: ChannelId, topic: String, join: Payload, events: mpsc::UnboundedSender<(u64, ChannelEvent)> },
    Push { channel: ChannelId, epoch: u64, tag: u64, event: &'static str, payload: Payload },
    Request { channel: ChannelId, event: &'static str, payload: Payload, answer: oneshot::Sender<Reply> },
    Rejoin { channel: ChannelId, epoch: u64 },
    Leave { channel: ChannelId },
}

/// A channel to be joined again after a pause.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejoin {
    pub(super) channel: ChannelId,
    pub(super) epoch: u64,
    pub(super) pause: Duration,
}

/// All channels of a socket.
#[derive(Default)]
pub(super) struct Hub {
    channels: BTreeMap<ChannelId, Entry>,
    topics: HashMap<String, ChannelId>,
    pending: HashMap<u64, Pending>,
    linked: bool,
    last_ref: u64,
    /// Frames to send, in order.
    pub(super) outgoing: Vec<Vec<u8>>,
    /// Rejoins to schedule.
    pub(super) rejoins: Vec<Rejoin>,
}

struct Entry {
    topic: String,
    join: Payload,
    events: mpsc::UnboundedSender<(u64, ChannelEvent)>,
    state: State,
    /// Counts joins and deaths, so that a push meant for an earlier join is told from others.
    epoch: u64,
    crashes: Backoff,
    requests: BTreeMap<u64, Request>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Refused,
    Joining(u64),
    Joined(u64),
}

impl State {
    fn join_ref(self) -> Option<u64> {
        match self {
            Self::Joining(join_ref) | Self::Joined(join_ref) => Some(join_ref),
            Self::Down | Self::Refused => None,
        }
    }
}

struct Request {
    event: &'static str,
    payload: Payload,
    answer: oneshot::Sender<Reply>,
}

/// What a ref was used for.
struct Pending {
    channel: ChannelId,
    kind: PendingKind,
}

#[derive(Clone, Copy)]
enum PendingKind {
    Join,
    Push(u64),
    Request(u64),
}

impl Entry {
    fn tell(&mut self, event: ChannelEvent) {
        if matches!(event, ChannelEvent::Joined | ChannelEvent::Refused(_) | ChannelEvent::Down) {
            self.epoch += 1;
        }
        // An owner that no longer listens is about to leave.
        let _ = self.events.send((self.epoch, event));
    }
}

impl Hub {
    /// The link is up: everybody joins.
    pub(super) fn link_up(&mut self) {
        self.linked = true;
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.join(id);
        }
    }

    /// The link is down, and with it every channel.
    pub(super) fn link_down(&mut self) {
        self.linked = false;
        self.pending.clear();
        self.outgoing.clear();
        for entry in self.channels.values_mut() {
            if matches!(entry.state, State::Joined(_)) {
                entry.tell(ChannelEvent::Down);
            }
            entry.state = State::Down;
        }
    }

    /// Adds a heartbeat.
    pub(super) fn heartbeat(&mut self) {
        let reference = self.next_ref();
        self.outgoing.push(encode(None, reference, "phoenix", "heartbeat", &Payload::empty()));
    }

    /// Does what an owner asks for.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Open { channel, topic, join, events } => {
                self.topics.insert(topic.clone(), channel);
                let crashes = Backoff::new(REJOIN, 2.0);
                let requests = BTreeMap::new();
                let entry = Entry { topic, join, events, state: State::Down, epoch: 0, crashes, requests };
                self.channels.insert(channel, entry);
                self.join(channel);
            }
            Command::Push { channel, epoch, tag, event, payload } => {
                let entry = self.channels.get(&channel).filter(|entry| entry.epoch == epoch);
                if let Some(State::Joined(join_ref)) = entry.map(|entry| entry.state) {
                    self.send(channel, join_ref, event, &payload, PendingKind::Push(tag));
                }
            }
            Command::Request { channel, event, payload, answer } => {
                let id = self.next_ref();
                let Some(entry) = self.channels.get_mut(&channel) else { return };
                entry.requests.insert(id, Request { event, payload: payload.clone(), answer });
                if let Some(join_ref) = entry.state.join_ref() {
                    self.send(channel, join_ref, event, &payload, PendingKind::Request(id));
                }
            }
            Command::Rejoin { channel, epoch } => {
                let entry = self.channels.get(&channel).filter(|entry| entry.epoch == epoch);
                if entry.is_some_and(|entry| matches!(entry.state, State::Down | State::Refused)) {
                    self.join(channel);
                }
            }
            Command::Leave { channel } => self.leave(channel),
        }
    }

    /// Takes a message from the server.
    pub(super) fn message(&mut self, message: Message) {
        let Message { join_ref, topic, body } = message;
        if let Body::Reply { reference, reply } = body {
            return self.reply(&reference, reply);
        }
        let Some(&id) = self.topics.get(&topic) else { return };
        let Some(entry) = self.channels.get_mut(&id) else { return };
        let current = entry.state.join_ref();
        if join_ref.is_some_and(|join_ref| Some(join_ref) != current.map(|it| it.to_string())) {
            return; // It speaks of an earlier join.
        }
        match body {
            Body::Push { event } => entry.tell(ChannelEvent::Pushed(event)),
            Body::Error | Body::Close if current.is_some() => self.crashed(id),
            Body::Error | Body::Close | Body::Reply { .. } => {}
        }
    }

    fn reply(&mut self, reference: &str, reply: Reply) {
        let Some(Pending { channel, kind }) = reference.parse().ok().and_then(|it: u64| self.pending.remove(&it))
        else {
            tracing::debug!(reference, "an answer to nothing that was asked");
            return;
        };
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        match kind {
            PendingKind::Join => {
                let State::Joining(join_ref) = entry.state else { return };
                let joined = reply.status == Status::Ok;
                entry.state = if joined { State::Joined(join_ref) } else { State::Refused };
                entry.tell(if joined { ChannelEvent::Joined } else { ChannelEvent::Refused(reply) });
            }
            PendingKind::Push(_) | PendingKind::Request(_) if is_unjoined(&reply) => {
                if matches!(entry.state, State::Joined(_)) {
                    self.crashed(channel);
                }
            }
            PendingKind::Push(tag) => {
                entry.crashes.reset();
                entry.tell(ChannelEvent::Replied(tag, reply));
            }
            PendingKind::Request(id) => {
                if let Some(request) = entry.requests.remove(&id) {
                    let _ = request.answer.send(reply);
                }
            }
        }
    }

    /// The channel's process died while the link lives.
    fn crashed(&mut self, channel: ChannelId) {
        self.pending.retain(|_, pending| pending.channel != channel);
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        entry.state = State::Down;
        entry.tell(ChannelEvent::Down);
        let pause = entry.crashes.next(jitter());
        self.rejoins.push(Rejoin { channel, epoch: entry.epoch, pause });
    }

    fn join(&mut self, channel: ChannelId) {
        if !self.linked {
            return;
        }
        let reference = self.next_ref();
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        entry.state = State::Joining(reference);
        self.outgoing.push(encode(Some(reference), reference, &entry.topic, "phx_join", &entry.join));
        self.pending.insert(reference, Pending { channel, kind: PendingKind::Join });
        entry.requests.retain(|_, request| !request.answer.is_closed());
        let requests: Vec<_> =
            entry.requests.iter().map(|(&id, request)| (id, request.event, request.payload.clone())).collect();
        for (id, event, payload) in requests {
            self.send(channel, reference, event, &payload, PendingKind::Request(id));
        }
    }

    fn leave(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.remove(&channel) else { return };
        if self.topics.get(&entry.topic) == Some(&channel) {
            self.topics.remove(&entry.topic);
        }
        self.pending.retain(|_, pending| pending.channel != channel);
        if let (true, Some(join_ref)) = (self.linked, entry.state.join_ref()) {
            // Nobody waits for the answer: the development mock refuses to let go.
            let reference = self.next_ref();
            self.outgoing.push(encode(Some(join_ref), reference, &entry.topic, "phx_leave", &Payload::empty()));
        }
    }

    fn send(&mut self, channel: ChannelId, join_ref: u64, event: &str, payload: &Payload, kind: PendingKind) {
        let reference = self.next_ref();
        let Some(entry) = self.channels.get(&channel) else { return };
        self.outgoing.push(encode(Some(join_ref), reference, &entry.topic, event, payload));
        self.pending.insert(reference, Pending { channel, kind });
    }

    fn next_ref(&mut self) -> u64 {
        self.last_ref += 1;
        self.last_ref
    }
}

/// Whether the server says that it knows no such channel, as after a crash that it has not told us of.
fn is_unjoined(reply: &Reply) -> bool {
    #[derive(serde::Deserialize)]
    struct Reason<'a> {
        reason: &'a str,
    }
    let Response::Json(json) = &reply.response else { return false };
    reply.status == Status::Error && json.decode::<Reason<'_>>().is_ok_and(|it| it.reason == "unmatched topic")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::lightning::phoenix::frame::decode_text;

    struct Fixture {
        hub: Hub,
        events: mpsc::UnboundedReceiver<(u64, ChannelEvent)>,
    }

    /// A hub with channel 1, topic `t`, on a link that is up.
    fn fixture() -> Fixture {
        let mut hub = Hub::default();
        let (sender, events) = mpsc::unbounded_channel();
        let join = Payload::object(&json!({"token": "x"}));
        hub.command(Command::Open { channel: 1, topic: "t".into(), join, events: sender });
        hub.link_up();
        Fixture { hub, events }
    }

    impl Fixture {
        /// The frames sent since the last call, as `(join_ref, ref, event)`.
        fn sent(&mut self) -> Vec<(u64, u64, String)> {
            let frames = std::mem::take(&mut self.hub.outgoing);
            let number = |value: &Value| value.as_str().unwrap_or("0").parse().unwrap();
            frames
                .iter()
                .map(|frame| serde_json::from_slice::<Vec<Value>>(frame).unwrap())
                .map(|frame| (number(&frame[0]), number(&frame[1]), frame[3].as_str().unwrap().to_owned()))
                .collect()
        }

        fn receive(&mut self, frame: Value) {
            self.hub.message(decode_text(&frame.to_string()).unwrap());
        }

        fn answer(&mut self, reference: u64, status: &str, response: Value) {
            self.receive(
                json!([null, reference.to_string(), "t", "phx_reply", {"status": status, "response": response}]),
            );
        }

        /// The events since the last call, with the epoch of the last one.
        fn events(&mut self) -> (Vec<ChannelEvent>, u64) {
            let mut events = Vec::new();
            let mut epoch = 0;
            while let Ok((at, event)) = self.events.try_recv() {
                events.push(event);
                epoch = at;
            }
            (events, epoch)
        }

        fn joined(&mut self) -> u64 {
            let (_, reference, event) = self.sent().pop().unwrap();
            assert_eq!(event, "phx_join");
            self.answer(reference, "ok", json!({}));
            let (events, epoch) = self.events();
            assert_eq!(events.last(), Some(&ChannelEvent::Joined));
            epoch
        }

        fn push(&mut self, epoch: u64, tag: u64) {
            self.hub.command(Command::Push { channel: 1, epoch, tag, event: "e", payload: Payload::empty() });
        }

        fn request(&mut self) -> oneshot::Receiver<Reply> {
            let (answer, answered) = oneshot::channel();
            self.hub.command(Command::Request { channel: 1, event: "q", payload: Payload::empty(), answer });
            answered
        }
    }

    #[test]
    fn pushes_are_answered_by_ref() {
        let mut it = fixture();
        let epoch = it.joined();
        it.push(epoch, 7);
        it.push(epoch, 8);
        let sent = it.sent();
        it.answer(sent[1].1, "error", json!("no"));
        it.receive(json!([null, null, "t", format!("chan_reply_{}", sent[0].1), {"status": "ok"}]));
        it.answer(999, "ok", json!({}));
        let (events, _) = it.events();
        let tags: Vec<_> = events
            .iter()
            .map(|event| match event {
                ChannelEvent::Replied(tag, reply) => (*tag, reply.status),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(tags, [(8, Status::Error), (7, Status::Ok)]);
    }

    #[test]
    fn a_push_from_before_a_rejoin_is_not_sent() {
        let mut it = fixture();
        let before = it.joined();
        it.hub.link_down();
        it.push(before, 1);
        it.hub.link_up();
        let after = it.joined();
        assert_ne!(before, after);
        it.push(before, 1);
        assert_eq!(it.sent(), []);
        it.push(after, 1);
        assert_eq!(it.sent().len(), 1);
    }

    #[test]
    fn questions_follow_the_join_and_are_asked_again_after_a_rejoin() {
        let mut it = fixture();
        let mut answered = it.request();
        let events: Vec<_> = it.sent().into_iter().map(|sent| sent.2).collect();
        assert_eq!(events, ["phx_join", "q"], "behind the open join");
        it.hub.link_down();
        it.hub.link_up();
        let sent = it.sent();
        it.answer(sent[0].1, "ok", json!({}));
        it.answer(sent[1].1, "ok", json!({"a": 1}));
        let Response::Json(json) = answered.try_recv().unwrap().response else { panic!("binary") };
        assert_eq!(json.as_str(), r#"{"a":1}"#);
        drop(it.request());
        it.sent();
        it.hub.link_down();
        it.hub.link_up();
        assert_eq!(it.sent().len(), 1, "a question that nobody waits for is withdrawn");
    }

    #[test]
    fn a_crashed_channel_is_joined_again_after_a_pause() {
        let mut it = fixture();
        let epoch = it.joined();
        it.push(epoch, 1);
        let join_ref = it.sent()[0].0.to_string();
        it.receive(json!(["999", null, "t", "phx_error", {}]));
        assert_eq!(it.events().0, [], "that was an earlier join");
        it.receive(json!([join_ref, null, "t", "phx_error", {}]));
        let (events, epoch) = it.events();
        assert_eq!(events, [ChannelEvent::Down]);
        let rejoin = it.hub.rejoins.pop().unwrap();
        assert_eq!((rejoin.channel, rejoin.epoch), (1, epoch));
        it.hub.command(Command::Rejoin { channel: 1, epoch });
        it.joined();
    }

    #[test]
    fn an_unmatched_topic_is_a_crash_and_no_answer() {
        let mut it = fixture();
        let epoch = it.joined();
        it.push(epoch, 1);
        let mut answered = it.request();
        for (_, reference, _) in it.sent() {
            it.answer(reference, "error", json!({"reason": "unmatched topic"}));
        }
        assert_eq!(it.events().0, [ChannelEvent::Down]);
        assert!(answered.try_recv().is_err());
        assert_eq!(it.hub.rejoins.len(), 1);
    }

    #[test]
    fn a_refused_join_is_told_and_asked_again_only_on_request_or_reconnect() {
        let mut it = fixture();
        let reference = it.sent()[0].1;
        it.answer(reference, "error", json!({"reason": "unauthorized"}));
        let (events, epoch) = it.events();
        assert!(matches!(&events[..], [ChannelEvent::Refused(_)]));
        assert_eq!(it.sent(), []);
        it.hub.command(Command::Rejoin { channel: 1, epoch });
        assert_eq!(it.sent().len(), 1);
    }

    #[test]
    fn leaving_forgets_everything() {
        let mut it = fixture();
        let epoch = it.joined();
        it.push(epoch, 1);
        let sent = it.sent();
        it.hub.command(Command::Leave { channel: 1 });
        assert_eq!(it.sent()[0].2, "phx_leave");
        it.answer(sent[0].1, "ok", json!({}));
        it.receive(json!([sent[0].0.to_string(), null, "t", "phx_close", {}]));
        assert_eq!(it.events().0, []);
        assert!(it.hub.pending.is_empty() && it.hub.topics.is_empty() && it.hub.channels.is_empty());
    }

    #[test]
    fn server_pushes_arrive() {
        let mut it = fixture();
        it.joined();
        it.receive(json!(["", null, "t", "work-available", "{}"]));
        it.receive(json!([null, null, "nobody", "work-available", {}]));
        assert_eq!(it.events().0, [ChannelEvent::Pushed("work-available".into())]);
    }
}
