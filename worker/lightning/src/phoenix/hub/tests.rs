use serde_json::{Value, json};

use super::*;
use crate::phoenix::frame::decode_text;

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
            .map(|frame| serde_json::from_slice::<Vec<Value>>(&frame.to_vec()).unwrap())
            .map(|frame| (number(&frame[0]), number(&frame[1]), frame[3].as_str().unwrap().to_owned()))
            .collect()
    }

    fn receive(&mut self, frame: Value) {
        self.hub.message(decode_text(&frame.to_string()).unwrap());
    }

    fn answer(&mut self, reference: u64, status: &str, response: Value) {
        self.receive(json!([null, reference.to_string(), "t", "phx_reply", {"status": status, "response": response}]));
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
        assert!(matches!(events.last(), Some(ChannelEvent::Joined(_))), "{events:?}");
        epoch
    }

    /// Lets the channel in that has just sent its join, and questions behind it; how many.
    fn joined_and_asked(&mut self) -> usize {
        let sent = self.sent();
        self.answer(sent[0].1, "ok", json!({}));
        sent.len() - 1
    }

    fn push(&mut self, epoch: u64, tag: u64) {
        self.hub.command(Command::Push { channel: 1, epoch, tag, event: "e", payload: Payload::empty() });
    }

    fn request(&mut self) -> oneshot::Receiver<Answer> {
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
    it.hub.link_down(LinkEnd::Broken);
    it.push(before, 1);
    it.hub.link_up();
    let after = it.joined();
    assert_ne!(before, after);
    it.push(before, 1);
    assert_eq!(it.sent(), []);
    it.push(after, 1);
    assert_eq!(it.sent().len(), 1);
}

/// Whoever is told twice waits for an end of a channel that never began.
#[test]
fn a_channel_goes_down_once_however_often_links_die_before_it_is_joined_again() {
    let mut it = fixture();
    it.joined();
    for (downs, up) in [(1, false), (0, true), (0, true)] {
        if up {
            it.hub.link_up();
        }
        it.hub.link_down(LinkEnd::Broken);
        it.hub.command(Command::Restart { channel: 1, epoch: None });
        let (events, _) = it.events();
        assert_eq!(events.len(), downs, "{events:?}");
    }
    it.hub.link_up();
    it.joined();
}

#[test]
fn the_longest_push_on_a_link_that_dies_is_known() {
    for too_long in [false, true] {
        let mut it = fixture();
        let epoch = it.joined();
        for (tag, bytes) in [(1, 10), (2, 500), (3, 20)] {
            let payload = Payload::object(&json!({ "x": "y".repeat(bytes) }));
            it.hub.command(Command::Push { channel: 1, epoch, tag, event: "e", payload });
        }
        it.hub.link_down(if too_long { LinkEnd::TooLong } else { LinkEnd::Broken });
        let longest = Loss::Longest { tag: 2, bytes: 508, too_long };
        assert_eq!(it.events().0, [ChannelEvent::Down(longest)]);
        it.hub.link_up();
        it.sent();
        it.hub.link_down(if too_long { LinkEnd::TooLong } else { LinkEnd::Broken });
        assert_eq!(it.events().0, [], "it was not joined");
    }
    let mut it = fixture();
    it.joined();
    it.hub.link_down(LinkEnd::TooLong);
    assert_eq!(it.events().0, [ChannelEvent::Down(Loss::Link)], "somebody else's");
    let mut it = fixture();
    let epoch = it.joined();
    it.push(epoch, 1);
    it.hub.link_down(LinkEnd::Silent);
    assert_eq!(it.events().0, [ChannelEvent::Down(Loss::Link)], "no message silences a link");
}

#[test]
fn questions_follow_the_join_and_are_asked_again_after_a_rejoin() {
    let mut it = fixture();
    let mut answered = it.request();
    let events: Vec<_> = it.sent().into_iter().map(|sent| sent.2).collect();
    assert_eq!(events, ["phx_join", "q"], "behind the open join");
    it.hub.link_down(LinkEnd::Broken);
    it.hub.link_up();
    let sent = it.sent();
    it.answer(sent[0].1, "ok", json!({}));
    it.answer(sent[1].1, "ok", json!({"a": 1}));
    let Response::Json(json) = answered.try_recv().unwrap().reply.response else { panic!("binary") };
    assert_eq!(json.as_str(), r#"{"a":1}"#);
    drop(it.request());
    it.sent();
    it.hub.link_down(LinkEnd::Broken);
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
    assert_eq!(events, [ChannelEvent::Down(Loss::Channel)]);
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
    assert_eq!(it.events().0, [ChannelEvent::Down(Loss::Channel)]);
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

#[test]
fn a_join_that_crashes_is_tried_again() {
    let mut it = fixture();
    let mut answered = it.request();
    let reference = it.sent()[0].1;
    it.answer(reference, "error", json!({"reason": "join crashed"}));
    let (events, epoch) = it.events();
    assert_eq!(events, [ChannelEvent::Down(Loss::Channel)]);
    it.hub.command(Command::Rejoin { channel: 1, epoch });
    let sent = it.sent();
    it.answer(sent[0].1, "ok", json!({}));
    it.answer(sent[1].1, "ok", json!(1));
    assert!(answered.try_recv().is_ok());
}

#[test]
fn a_join_that_is_refused_as_busy_is_tried_again() {
    let mut it = fixture();
    let reference = it.sent()[0].1;
    it.answer(reference, "error", json!({"reason": "server busy"}));
    assert_eq!(it.events().0, [ChannelEvent::Down(Loss::Channel)]);
    assert_eq!(it.hub.rejoins.len(), 1);
}

#[test]
fn a_join_that_is_never_answered_is_repeated_with_the_second_heartbeat() {
    let mut it = fixture();
    let first = it.sent()[0].1;
    it.hub.heartbeat();
    assert_eq!(it.sent().len(), 1, "the heartbeat alone");
    it.hub.heartbeat();
    let sent = it.sent();
    assert_eq!(sent[0].2, "phx_join");
    it.answer(first, "ok", json!({}));
    assert_eq!(it.events().0, [], "that was the first join");
    it.answer(sent[0].1, "ok", json!({}));
    assert_eq!(it.events().0, [ChannelEvent::Joined(1)]);
    it.hub.heartbeat();
    it.hub.heartbeat();
    assert!(it.sent().iter().all(|sent| sent.2 == "heartbeat"));
}

#[test]
fn a_channel_is_joined_anew_on_request() {
    let mut it = fixture();
    let epoch = it.joined();
    it.push(epoch, 1);
    let mut answered = it.request();
    let sent = it.sent();
    it.hub.command(Command::Restart { channel: 1, epoch: Some(epoch) });
    it.hub.command(Command::Restart { channel: 1, epoch: Some(epoch) });
    let again = it.sent();
    assert_eq!(again.iter().map(|sent| sent.2.as_str()).collect::<Vec<_>>(), ["phx_join", "q"], "once");
    it.answer(sent[0].1, "ok", json!({}));
    it.answer(again[0].1, "ok", json!({}));
    it.answer(again[1].1, "ok", json!({}));
    assert_eq!(it.events().0, [ChannelEvent::Down(Loss::Restart), ChannelEvent::Joined(1)]);
    assert!(answered.try_recv().is_ok());
}

#[test]
fn a_late_answer_to_a_question_is_taken_after_a_restart() {
    let mut it = fixture();
    it.joined();
    let mut late = it.request();
    let mut refused = it.request();
    let first = it.sent();
    for _ in 0..3 {
        it.hub.command(Command::Restart { channel: 1, epoch: None });
        it.joined_and_asked();
    }
    it.answer(first[0].1, "ok", json!({"a": 1}));
    assert!(late.try_recv().is_ok());
    for reason in ["unmatched topic", "server busy"] {
        it.answer(first[1].1, "error", json!({ "reason": reason }));
    }
    assert!(refused.try_recv().is_err(), "the join in force has not answered");
    assert!(it.hub.rejoins.is_empty());
    drop(refused);
    it.hub.command(Command::Restart { channel: 1, epoch: None });
    assert_eq!(it.joined_and_asked(), 0);
    assert!(it.hub.pending.is_empty(), "what is answered or withdrawn is forgotten, however often it was asked");
}

#[test]
fn an_answer_for_another_topic_is_none() {
    let mut it = fixture();
    let epoch = it.joined();
    it.push(epoch, 1);
    let reference = it.sent()[0].1.to_string();
    for topic in ["nobody", "", "phoenix"] {
        it.receive(json!([null, reference, topic, "phx_reply", {"status": "ok", "response": {}}]));
    }
    for reference in ["", "-1", "99999999999999999999999", "1e3"] {
        it.receive(json!([null, reference, "t", "phx_reply", {"status": "ok", "response": {}}]));
    }
    assert_eq!(it.events().0, []);
    it.receive(json!([null, reference, "t", "phx_reply", {"status": "ok", "response": {}}]));
    assert_eq!(it.events().0.len(), 1);
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    let mut it = fixture();
    for _ in 0..1000 {
        let epoch = it.joined();
        (0..5).for_each(|tag| it.push(epoch, tag));
        drop(it.request());
        it.hub.heartbeat();
        it.hub.link_down(LinkEnd::Broken);
        assert!(it.hub.pending.is_empty() && it.hub.outgoing.is_empty() && it.hub.rejoins.is_empty());
        it.events();
        it.hub.link_up();
    }
    assert_eq!((it.hub.channels.len(), it.hub.topics.len()), (1, 1));
    assert!(it.hub.channels[&1].requests.is_empty(), "questions that nobody waits for");
}
