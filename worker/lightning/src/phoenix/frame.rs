//! The V2 serializer of Phoenix channels: frames to text, and text and binary frames to messages.
//!
//! Pure. Whatever a server sends becomes a [`Message`] or an [`InvalidFrame`].

use std::borrow::Cow;

use base::writer::LongText;
use bytes::Bytes;
use protocol::{InvalidJson, Json};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::{Payload, Reader, Text, escape};

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The join that it belongs to, if the server says so.
    pub(super) join_ref: Option<String>,
    /// The channel's topic.
    pub(super) topic: String,
    /// What it says.
    pub(super) body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// The answer to the push with this ref.
    Reply { reference: String, reply: Reply },
    /// The channel's process died.
    Error,
    /// The server closed the channel.
    Close,
    /// Something that nobody asked for.
    Push { event: String },
}

/// The definitive answer to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Whether the server did what was asked.
    pub(crate) status: Status,
    /// What it says about it.
    pub(crate) response: Response,
}

/// Whether the server did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It did.
    Ok,
    /// It did not.
    Error,
}

/// Whether a refusal in these words means: not now.
pub(crate) fn says_busy(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["busy", "overloaded", "try again", "temporarily", "timeout", "timed out", "too many requests"]
        .iter()
        .any(|part| reason.contains(part))
}

/// What a reply carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Response {
    /// JSON, from a text frame; null where there was nothing.
    Json(Json),
    /// Whatever was in a binary frame.
    Binary(Bytes),
}

impl Response {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// The JSON; null where there is none.
    pub(crate) fn into_json(self) -> Json {
        match self {
            Self::Json(json) => json,
            Self::Binary(bytes) => Json::parse(bytes).unwrap_or_else(|_| Json::null()),
        }
    }
}

/// A frame that breaks the rules of the serializer.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidFrame {
    /// Text that is not `[join_ref, ref, topic, event, payload]`.
    #[error("text frame is not a Phoenix message: {0}")]
    Text(#[from] serde_json::Error),
    /// A payload that is not JSON.
    #[error("payload of a text frame: {0}")]
    Payload(#[from] InvalidJson),
    /// A binary frame of a kind that does not exist.
    #[error("binary frame of unknown kind {0}; push is 0, reply 1, broadcast 2")]
    Kind(u8),
    /// A binary frame that ends within its header.
    #[error("binary frame of {0} bytes ends within its header")]
    Truncated(usize),
    /// A header field of a binary frame that is not text.
    #[error("header of a binary frame is not UTF-8")]
    Header,
}

/// A text frame to the server, whose text comes into being as it is read.
pub(super) struct Frame {
    /// What stands before the payload.
    head: String,
    payload: Payload,
}

impl Frame {
    pub(super) fn new(join_ref: Option<u64>, reference: u64, topic: &str, event: &str, payload: &Payload) -> Self {
        let join_ref = join_ref.map_or("null".into(), |join_ref| format!("\"{join_ref}\""));
        let mut head = format!("[{join_ref},\"{reference}\",\"").into_bytes();
        escape(topic, &mut head);
        head.extend_from_slice(b"\",\"");
        escape(event, &mut head);
        head.extend_from_slice(b"\",");
        let head = String::from_utf8(head).expect("escaping keeps text text");
        Self { head, payload: payload.clone() }
    }

    /// The text.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        use base::writer::Pieces;

        let mut out = Vec::new();
        self.reader().read(&mut out, usize::MAX);
        out
    }
}

impl LongText for Frame {
    type Reader<'a> = Reader<'a>;

    fn reader(&self) -> Reader<'_> {
        Reader::new([Text::Plain(&self.head)].into_iter().chain(self.payload.texts()).chain([Text::Plain("]")]))
    }
}

type Parts<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>, Cow<'a, str>, Cow<'a, str>, &'a RawValue);

/// Reads a text frame.
pub(super) fn decode_text(text: &str) -> Result<Message, InvalidFrame> {
    decode(text, |part| Bytes::copy_from_slice(part.as_bytes()))
}

/// The same for a long text, of which the answer stays a part.
pub(super) fn decode_long(text: &Bytes) -> Result<Message, InvalidFrame> {
    decode(std::str::from_utf8(text).map_err(|_| InvalidFrame::Header)?, |part| text.slice_ref(part.as_bytes()))
}

/// `own` makes a part of `text` the reply's.
fn decode(text: &str, own: impl FnOnce(&str) -> Bytes) -> Result<Message, InvalidFrame> {
    let (join_ref, reference, topic, event, payload): Parts<'_> = serde_json::from_str(text)?;
    let body = match &*event {
        "phx_error" => Body::Error,
        "phx_close" => Body::Close,
        "phx_reply" => {
            Body::Reply { reference: reference.unwrap_or_default().into(), reply: decode_reply(payload, own)? }
        }
        event => match event.strip_prefix("chan_reply_") {
            Some(reference) => Body::Reply { reference: reference.into(), reply: decode_reply(payload, own)? },
            None => Body::Push { event: event.into() },
        },
    };
    // The development mock sends an empty ref where the protocol has null.
    let join_ref = join_ref.filter(|join_ref| !join_ref.is_empty()).map(Cow::into_owned);
    Ok(Message { join_ref, topic: topic.into(), body })
}

#[derive(Deserialize)]
struct ReplyPayload<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

fn decode_reply(payload: &RawValue, own: impl FnOnce(&str) -> Bytes) -> Result<Reply, InvalidFrame> {
    // The development mock sends some payloads as a string that holds their JSON.
    if payload.get().starts_with('"') {
        let unquoted: String = serde_json::from_str(payload.get())?;
        return read_reply(&unquoted, |part| Bytes::copy_from_slice(part.as_bytes()));
    }
    read_reply(payload.get(), own)
}

fn read_reply(payload: &str, own: impl FnOnce(&str) -> Bytes) -> Result<Reply, InvalidFrame> {
    let ReplyPayload { status, response } = serde_json::from_str(payload)?;
    let response = response.map_or_else(|| Ok(Json::null()), |raw| Json::parse(own(raw.get())))?;
    Ok(Reply { status: read_status(&status), response: Response::Json(response) })
}

fn read_status(status: &str) -> Status {
    if status == "ok" { Status::Ok } else { Status::Error }
}

/// Reads a binary frame. Its payload shares the frame's bytes.
pub(super) fn decode_binary(frame: &Bytes) -> Result<Message, InvalidFrame> {
    match frame.first() {
        None => Err(InvalidFrame::Truncated(0)),
        Some(0) => {
            let ([join_ref, topic, event], _) = split(frame)?;
            Ok(Message { join_ref: Some(join_ref), topic, body: Body::Push { event } })
        }
        Some(1) => {
            let ([join_ref, reference, topic, status], payload) = split(frame)?;
            let reply = Reply { status: read_status(&status), response: Response::Binary(payload) };
            Ok(Message { join_ref: Some(join_ref), topic, body: Body::Reply { reference, reply } })
        }
        Some(2) => {
            let ([topic, event], _) = split(frame)?;
            Ok(Message { join_ref: None, topic, body: Body::Push { event } })
        }
        Some(&kind) => Err(InvalidFrame::Kind(kind)),
    }
}

/// Takes `N` header fields off a binary frame: after the kind come their lengths, one byte each, then they themselves.
fn split<const N: usize>(frame: &Bytes) -> Result<([String; N], Bytes), InvalidFrame> {
    let truncated = || InvalidFrame::Truncated(frame.len());
    let lengths = frame.get(1..=N).ok_or_else(truncated)?;
    let mut fields = [const { String::new() }; N];
    let mut at = 1 + N;
    for (field, &length) in fields.iter_mut().zip(lengths) {
        let end = at + usize::from(length);
        let bytes = frame.get(at..end).ok_or_else(truncated)?;
        *field = std::str::from_utf8(bytes).map_err(|_| InvalidFrame::Header)?.to_owned();
        at = end;
    }
    Ok((fields, frame.slice(at..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn reply(status: Status, text: &str) -> Reply {
        Reply { status, response: Response::Json(Json::parse(text.to_owned()).unwrap()) }
    }

    fn message(join_ref: Option<&str>, topic: &str, body: Body) -> Message {
        Message { join_ref: join_ref.map(Into::into), topic: topic.into(), body }
    }

    #[test]
    fn text_frames() {
        let cases = [
            (
                r#"["1","2","run:a","phx_reply",{"status":"ok","response":{"x": [1]}}]"#,
                message(
                    Some("1"),
                    "run:a",
                    Body::Reply { reference: "2".into(), reply: reply(Status::Ok, r#"{"x": [1]}"#) },
                ),
            ),
            (
                r#"[null,null,"run:a","chan_reply_7",{"status":"error","response":"no"}]"#,
                message(None, "run:a", Body::Reply { reference: "7".into(), reply: reply(Status::Error, "\"no\"") }),
            ),
            (
                r#"["",null,"t","chan_reply_7","{\"status\":\"ok\"}"]"#,
                message(None, "t", Body::Reply { reference: "7".into(), reply: reply(Status::Ok, "null") }),
            ),
            (
                r#"[null,"","worker:queue","work-available","{}"]"#,
                message(None, "worker:queue", Body::Push { event: "work-available".into() }),
            ),
            (r#"["4","4","run:\u00e9","phx_error",{}]"#, message(Some("4"), "run:é", Body::Error)),
            (r#"["4",null,"run:a","phx_close",{}]"#, message(Some("4"), "run:a", Body::Close)),
        ];
        for (text, expected) in cases {
            assert_eq!(decode_text(text).unwrap(), expected, "{text}");
            assert_eq!(decode_long(&Bytes::copy_from_slice(text.as_bytes())).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn bad_text_frames_are_errors() {
        let deep = format!(r#"[null,null,"t","phx_reply",{}{}]"#, "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "[]",
            "{}",
            r#"[1,2,"t","e",{}]"#,
            r#"[null,null,"t","e"]"#,
            r#"[null,null,"t","e",{},1]"#,
            r#"["1","2","t","phx_reply",7]"#,
            &deep,
        ] {
            assert!(decode_text(text).is_err(), "{}", &text[..text.len().min(60)]);
            assert!(decode_long(&Bytes::copy_from_slice(text.as_bytes())).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }

    fn binary(kind: u8, fields: &[&str], payload: &[u8]) -> Bytes {
        let mut out = vec![kind];
        out.extend(fields.iter().map(|field| field.len() as u8));
        out.extend(fields.iter().flat_map(|field| field.bytes()));
        out.extend(payload);
        out.into()
    }

    #[test]
    fn binary_frames() {
        let answer = decode_binary(&binary(1, &["1", "9", "run:a", "ok"], b"{\"a\":1}")).unwrap();
        let reply = Reply { status: Status::Ok, response: Response::Binary(Bytes::from_static(b"{\"a\":1}")) };
        assert_eq!(answer, message(Some("1"), "run:a", Body::Reply { reference: "9".into(), reply }));
        let push = decode_binary(&binary(0, &["1", "t", "e"], b"")).unwrap();
        assert_eq!(push, message(Some("1"), "t", Body::Push { event: "e".into() }));
        let broadcast = decode_binary(&binary(2, &["t", "e"], b"x")).unwrap();
        assert_eq!(broadcast, message(None, "t", Body::Push { event: "e".into() }));
    }

    #[test]
    fn bad_binary_frames_are_errors() {
        assert!(matches!(decode_binary(&Bytes::from_static(&[3, 0])), Err(InvalidFrame::Kind(3))));
        assert!(matches!(decode_binary(&Bytes::from_static(&[1, 255, 0, 0, 0])), Err(InvalidFrame::Truncated(5))));
        assert!(matches!(decode_binary(&Bytes::from_static(&[2, 1, 0, 0xff])), Err(InvalidFrame::Header)));
    }

    #[test]
    fn frames_are_arrays_of_five() {
        let text = Frame::new(Some(3), 4, "run:\"a\"", "claim", &Payload::object(&json!({"demand": 1}))).to_vec();
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, json!(["3", "4", "run:\"a\"", "claim", {"demand": 1}]));
        let text = Frame::new(None, 5, "phoenix", "heartbeat", &Payload::empty()).to_vec();
        assert_eq!(text, br#"[null,"5","phoenix","heartbeat",{}]"#);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0u8..4) {
            let _ = decode_binary(&bytes.clone().into());
            let mut with_kind = vec![kind];
            with_kind.extend(bytes);
            let _ = decode_binary(&with_kind.into());
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:a-z0-9\\\\ ]{0,60}") {
            let _ = decode_text(&text);
        }

        #[test]
        fn what_is_encoded_is_read(topic in any::<String>(), event in "[a-z:]{1,10}", join_ref in any::<u64>()) {
            let text = Frame::new(Some(join_ref), 1, &topic, &event, &Payload::empty()).to_vec();
            let read = decode_text(std::str::from_utf8(&text).unwrap()).unwrap();
            prop_assert_eq!(read, message(Some(&join_ref.to_string()), &topic, Body::Push { event }));
        }
    }
}
