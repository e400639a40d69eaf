//! What the fuzz target drives: the client's half of a connection, without the connection.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::frame::{decode_binary, decode_text};
use super::hub::{Command, Hub};
use super::payload::Payload;

/// Feeds frames of a server, text where they are UTF-8 and binary otherwise, to a client with two channels, a push and a
/// question under way. Nothing that a server says may make it panic or remember more than what was asked.
pub fn feed_frames<'a>(frames: impl IntoIterator<Item = &'a [u8]>) {
    let mut hub = Hub::default();
    let mut events = Vec::new();
    for (channel, topic) in [(1, "worker:queue"), (2, "run:a")] {
        let (sender, receiver) = mpsc::unbounded_channel();
        hub.command(Command::Open { channel, topic: topic.into(), join: Payload::empty(), events: sender });
        events.push(receiver);
    }
    hub.link_up();
    let (answer, _answered) = oneshot::channel();
    hub.command(Command::Request { channel: 2, event: "fetch:plan", payload: Payload::empty(), answer });
    for (tag, frame) in (0..).zip(frames) {
        let message = match std::str::from_utf8(frame) {
            Ok(text) => decode_text(text),
            Err(_) => decode_binary(&Bytes::copy_from_slice(frame)),
        };
        if let Ok(message) = message {
            hub.message(message);
        }
        let epoch = events.iter_mut().filter_map(|events| events.try_recv().ok()).map(|(epoch, _)| epoch).max();
        let push = Payload::empty();
        hub.command(Command::Push { channel: 1, epoch: epoch.unwrap_or(1), tag, event: "claim", payload: push });
        assert!(hub.waits_for() <= 4 + tag as usize, "answers are awaited for more than was asked");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn giant_and_hostile_frames() {
        let deep = format!(r#"[null,"1","run:a","phx_reply",{}1{}]"#, "[".repeat(100_000), "]".repeat(100_000));
        let long = format!(r#"["1","1","{}","phx_reply",{{"status":"ok"}}]"#, "x".repeat(10_000_000));
        let frames: [&[u8]; 12] = [
            b"",
            b"null",
            b"[]",
            br#"[null,null,null,null,null]"#,
            br#"[1,2,3,4,5]"#,
            br#"["1","1","worker:queue","phx_reply",{"status":1,"response":{}}]"#,
            br#"["1","1","worker:queue","phx_reply",null]"#,
            br#"["1","1","worker:queue","phx_reply","{\"status\":\"ok\",\"response\":"]"#,
            br#"[null,null,"run:a","phx_error",{}]"#,
            &[1, 255, 255, 255, 255, 0],
            deep.as_bytes(),
            long.as_bytes(),
        ];
        feed_frames(frames);
    }

    proptest! {
        #[test]
        fn any_frames(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            feed_frames(frames.iter().map(Vec::as_slice));
        }

        #[test]
        fn any_answers(
            frames in proptest::collection::vec((0u8..12, 0u8..3, 0u8..4, any::<bool>()), 0..60),
        ) {
            let text = |&(reference, topic, event, ok): &(u8, u8, u8, bool)| {
                let topic = ["worker:queue", "run:a", "other"][usize::from(topic)];
                let event = ["phx_reply", "phx_error", "phx_close", "work-available"][usize::from(event)];
                let status = if ok { "ok" } else { "error" };
                let payload = serde_json::json!({"status": status, "response": {"reason": "unmatched topic"}});
                serde_json::json!([null, reference.to_string(), topic, event, payload]).to_string()
            };
            let frames: Vec<_> = frames.iter().map(text).collect();
            feed_frames(frames.iter().map(String::as_bytes));
        }
    }
}
