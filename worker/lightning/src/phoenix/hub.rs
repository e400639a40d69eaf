//! What the socket knows of its channels: who is joined, who waits for which answer.
//!
//! Pure: commands, messages and the link's ups and downs go in; frames to send, events for the channels' owners and
//! rejoins to schedule come out.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use protocol::backoff::{Backoff, jitter};
use tokio::sync::{mpsc, oneshot};

use super::channel::{ChannelEvent, Loss};
use super::frame::{Body, Frame, Message, Reply, Response, Status, says_busy};
use super::payload::Payload;

/// Names a channel for as long as the socket lives; topics may come again.
pub(super) type ChannelId = u64;

/// Pauses before a channel that crashed on a living link is joined again.
const REJOIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Heartbeats that a join waits for its answer.
const JOIN_BEATS: u8 = 1;

/// What owners of channels ask for.
pub(super) enum Command {
    Open {
        channel: ChannelId,
        topic: String,
        join: Payload,
        events: mpsc::UnboundedSender<(u64, ChannelEvent)>,
    },
    Push {
        channel: ChannelId,
        epoch: u64,
        tag: u64,
        event: &'static str,
        payload: Payload,
    },
    Request {
        channel: ChannelId,
        event: &'static str,
        payload: Payload,
        answer: oneshot::Sender<Answer>,
    },
    Rejoin {
        channel: ChannelId,
        epoch: u64,
    },
    /// Join anew; only if no join has happened since that epoch, where one is given.
    Restart {
        channel: ChannelId,
        epoch: Option<u64>,
    },
    Leave {
        channel: ChannelId,
    },
}

/// A channel to be joined again after a pause.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejoin {
    pub(super) channel: ChannelId,
    pub(super) epoch: u64,
    pub(super) pause: Duration,
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEnd {
    /// The server said that a message was too long.
    TooLong,
    /// It broke, which a message may be the cause of.
    Broken,
    /// Nothing came through it, which no message is the cause of.
    Silent,
}

/// All channels of a socket.
#[derive(Default)]
pub(super) struct Hub {
    channels: BTreeMap<ChannelId, Entry>,
    topics: HashMap<String, ChannelId>,
    pending: HashMap<u64, Pending>,
    linked: bool,
    /// Number of the link, counted from 1.
    link: u64,
    last_ref: u64,
    /// Frames to send, in order.
    pub(super) outgoing: Vec<Frame>,
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
    /// Asked to join with this ref, so many heartbeats ago.
    Joining(u64, u8),
    Joined(u64),
}

impl State {
    fn join_ref(self) -> Option<u64> {
        match self {
            Self::Joining(join_ref, _) | Self::Joined(join_ref) => Some(join_ref),
            Self::Down | Self::Refused => None,
        }
    }
}

struct Request {
    event: &'static str,
    payload: Payload,
    answer: oneshot::Sender<Answer>,
    /// How often it was sent.
    sent: u32,
}

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Whether the server was asked more than once, so that an earlier answer may have been lost.
    pub(crate) was_repeated: bool,
}

/// What a ref was used for.
struct Pending {
    channel: ChannelId,
    kind: PendingKind,
}

#[derive(Clone, Copy)]
enum PendingKind {
    Join,
    /// A push with its tag and the length of its message.
    Push(u64, usize),
    /// A question, and the join with which it was sent.
    Request(u64, u64),
}

impl Entry {
    fn tell(&mut self, event: ChannelEvent) {
        if matches!(event, ChannelEvent::Joined(_) | ChannelEvent::Refused(_) | ChannelEvent::Down(_)) {
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
        self.link += 1;
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            self.join(id);
        }
    }

    /// The link is down, and with it every channel.
    pub(super) fn link_down(&mut self, end: LinkEnd) {
        self.linked = false;
        let pushes = self.pending.drain().filter_map(|(_, Pending { channel, kind })| match kind {
            PendingKind::Push(tag, bytes) => Some((bytes, channel, tag)),
            PendingKind::Join | PendingKind::Request(..) => None,
        });
        let longest = pushes.max();
        self.outgoing.clear();
        for (&id, entry) in &mut self.channels {
            if matches!(entry.state, State::Joined(_)) {
                let loss = match longest {
                    Some((bytes, channel, tag)) if channel == id && end != LinkEnd::Silent => {
                        Loss::Longest { tag, bytes, too_long: end == LinkEnd::TooLong }
                    }
                    _ => Loss::Link,
                };
                entry.tell(ChannelEvent::Down(loss));
            }
            entry.state = State::Down;
        }
    }

    /// Adds a heartbeat, and asks again to join what the server has not answered to for long.
    pub(super) fn heartbeat(&mut self) {
        let mut unanswered = Vec::new();
        for (&id, entry) in &mut self.channels {
            if let State::Joining(_, beats) = &mut entry.state {
                *beats += 1;
                if *beats > JOIN_BEATS {
                    unanswered.push(id);
                }
            }
        }
        for id in unanswered {
            self.forget_pushes(id);
            self.join(id);
        }
        let reference = self.next_ref();
        self.outgoing.push(Frame::new(None, reference, "phoenix", "heartbeat", &Payload::empty()));
    }

    /// How many answers are awaited.
    #[cfg(any(fuzzing, test))]
    pub(super) fn waits_for(&self) -> usize {
        self.pending.len()
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
                    self.send(channel, join_ref, event, &payload, PendingKind::Push(tag, payload.len()));
                }
            }
            Command::Request { channel, event, payload, answer } => {
                let id = self.next_ref();
                let Some(entry) = self.channels.get_mut(&channel) else { return };
                entry.requests.insert(id, Request { event, payload: payload.clone(), answer, sent: 0 });
                if let Some(join_ref) = entry.state.join_ref() {
                    self.send(channel, join_ref, event, &payload, PendingKind::Request(id, join_ref));
                }
            }
            Command::Rejoin { channel, epoch } => {
                let entry = self.channels.get(&channel).filter(|entry| entry.epoch == epoch);
                if entry.is_some_and(|entry| matches!(entry.state, State::Down | State::Refused)) {
                    self.join(channel);
                }
            }
            Command::Restart { channel, epoch } => {
                let entry =
                    self.channels.get_mut(&channel).filter(|entry| epoch.is_none_or(|epoch| entry.epoch == epoch));
                if let Some(entry) = entry.filter(|entry| matches!(entry.state, State::Joined(_))) {
                    // The server ends its process of the earlier join before it lets us in again.
                    entry.tell(ChannelEvent::Down(Loss::Restart));
                    self.forget_pushes(channel);
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
            return self.reply(&topic, &reference, reply);
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

    fn reply(&mut self, topic: &str, reference: &str, reply: Reply) {
        let reference = reference.parse().unwrap_or_default();
        let channel = self.pending.get(&reference).map(|pending| pending.channel);
        let entry = channel.and_then(|channel| self.channels.get_mut(&channel)).filter(|entry| entry.topic == topic);
        let Some(entry) = entry else {
            return tracing::trace!(reference, "an answer to nothing that was asked");
        };
        let Some(Pending { channel, kind }) = self.pending.remove(&reference) else { return };
        match kind {
            PendingKind::Join if refusal(&reply).is_some_and(|it| it == "join crashed" || says_busy(it)) => {
                self.crashed(channel);
            }
            PendingKind::Join => {
                let State::Joining(join_ref, _) = entry.state else { return };
                let joined = reply.status == Status::Ok;
                entry.state = if joined { State::Joined(join_ref) } else { State::Refused };
                entry.tell(if joined { ChannelEvent::Joined(self.link) } else { ChannelEvent::Refused(reply) });
            }
            // What an earlier join was asked is asked again with the one in force: only an answer is of use.
            PendingKind::Request(_, join_ref)
                if Some(join_ref) != entry.state.join_ref() && reply.status == Status::Error => {}
            PendingKind::Push(..) | PendingKind::Request(..) if refusal(&reply) == Some("unmatched topic") => {
                if matches!(entry.state, State::Joined(_)) {
                    self.crashed(channel);
                }
            }
            PendingKind::Push(tag, _) => {
                entry.crashes.reset();
                entry.tell(ChannelEvent::Replied(tag, reply));
            }
            PendingKind::Request(id, _) => {
                if let Some(request) = entry.requests.remove(&id) {
                    let _ = request.answer.send(Answer { reply, was_repeated: request.sent > 1 });
                }
                self.forget_closed_requests(channel);
            }
        }
    }

    /// The channel's process died while the link lives.
    fn crashed(&mut self, channel: ChannelId) {
        self.forget_pushes(channel);
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        entry.state = State::Down;
        entry.tell(ChannelEvent::Down(Loss::Channel));
        let pause = entry.crashes.next(jitter());
        self.rejoins.push(Rejoin { channel, epoch: entry.epoch, pause });
    }

    fn join(&mut self, channel: ChannelId) {
        if !self.linked {
            return;
        }
        let reference = self.next_ref();
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        entry.state = State::Joining(reference, 0);
        self.outgoing.push(Frame::new(Some(reference), reference, &entry.topic, "phx_join", &entry.join));
        self.pending.insert(reference, Pending { channel, kind: PendingKind::Join });
        entry.requests.retain(|_, request| !request.answer.is_closed());
        let requests: Vec<_> =
            entry.requests.iter().map(|(&id, request)| (id, request.event, request.payload.clone())).collect();
        self.forget_closed_requests(channel);
        for (id, event, payload) in requests {
            self.send(channel, reference, event, &payload, PendingKind::Request(id, reference));
        }
    }

    /// A new join answers for joins and pushes. Late answers to questions, which anybody may give, are still taken.
    fn forget_pushes(&mut self, channel: ChannelId) {
        self.pending.retain(|_, it| it.channel != channel || matches!(it.kind, PendingKind::Request(..)));
    }

    /// Questions that are answered or withdrawn, however often they were asked.
    fn forget_closed_requests(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.get(&channel) else { return };
        let is_open =
            |kind| if let PendingKind::Request(id, _) = kind { entry.requests.contains_key(&id) } else { true };
        self.pending.retain(|_, it| it.channel != channel || is_open(it.kind));
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
            self.outgoing.push(Frame::new(Some(join_ref), reference, &entry.topic, "phx_leave", &Payload::empty()));
        }
    }

    fn send(&mut self, channel: ChannelId, join_ref: u64, event: &str, payload: &Payload, kind: PendingKind) {
        let reference = self.next_ref();
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        if let PendingKind::Request(id, _) = kind
            && let Some(request) = entry.requests.get_mut(&id)
        {
            request.sent += 1;
        }
        self.outgoing.push(Frame::new(Some(join_ref), reference, &entry.topic, event, payload));
        self.pending.insert(reference, Pending { channel, kind });
    }

    fn next_ref(&mut self) -> u64 {
        self.last_ref += 1;
        self.last_ref
    }
}

/// The reason that Phoenix itself gives for refusing something: `unmatched topic` where it knows no such channel, as
/// after a crash that it has not told us of, and `join crashed` where the channel could not come up.
fn refusal(reply: &Reply) -> Option<&str> {
    #[derive(serde::Deserialize)]
    struct Refusal<'a> {
        reason: &'a str,
    }
    let Response::Json(json) = &reply.response else { return None };
    if reply.status == Status::Ok { None } else { json.decode::<Refusal<'_>>().ok().map(|it| it.reason) }
}

#[cfg(test)]
mod tests;
