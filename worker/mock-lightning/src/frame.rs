//! Frames of the Phoenix channel protocol, V2 serializer, as a server reads and writes them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Dialect, deep};

/// A message from the client.
#[derive(Debug, PartialEq)]
pub(super) struct ClientMessage {
    pub(super) join_ref: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) topic: String,
    pub(super) event: String,
    pub(super) payload: Arc<Value>,
}

impl ClientMessage {
    /// Reads a text frame, `[join_ref, ref, topic, event, payload]`.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let (join_ref, reference, topic, event, payload) = serde_json::from_str::<(_, _, _, _, &RawValue)>(text)?;
        Ok(Self { join_ref, reference, topic, event, payload: deep::value(payload.get())?.into() })
    }
}

/// What an accepted message is answered with.
#[derive(Debug)]
pub(super) enum Response {
    /// A JSON value.
    Json(Value),
    /// JSON text that is passed on as it is.
    Text(Box<RawValue>),
    /// JSON text that goes as bytes in a binary frame.
    Binary(Box<RawValue>),
    /// JSON text that goes as an array of byte values.
    ByteArray(Box<RawValue>),
}

impl Response {
    /// What Lightning answers when there is nothing to say.
    pub(super) fn nothing() -> Self {
        Self::Json(Value::Null)
    }
}

/// Encodes the reply to a message that was accepted (`Ok`) or refused (`Err`).
pub(super) fn reply(
    dialect: Dialect,
    join_ref: Option<&str>,
    message: &ClientMessage,
    outcome: Result<&Response, &Value>,
) -> Message {
    let reference = message.reference.as_deref();
    let status = if outcome.is_ok() { "ok" } else { "error" };
    if let Ok(Response::Binary(text)) = outcome {
        return binary_reply(join_ref, reference, &message.topic, status, text.get().as_bytes());
    }
    let event = match dialect {
        Dialect::Lightning => "phx_reply".to_owned(),
        Dialect::ReferenceMock => format!("chan_reply_{}", reference.unwrap_or_default()),
    };
    let response = match outcome {
        Err(response) | Ok(Response::Json(response)) => Content::Json(response),
        Ok(Response::Text(response)) => Content::Text(response),
        Ok(Response::ByteArray(text) | Response::Binary(text)) => Content::Bytes(text.get().as_bytes()),
    };
    let frame = (join_ref, reference, &message.topic, event, Payload { status, response });
    Message::text(serde_json::to_string(&frame).expect("strings and JSON always encode as JSON"))
}

/// The payload of a reply.
#[derive(Serialize)]
struct Payload<'a> {
    status: &'a str,
    response: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Json(&'a Value),
    Text(&'a RawValue),
    Bytes(&'a [u8]),
}

/// Encodes a push. `reference` is the one that Phoenix itself sets: the join's own in `phx_error` and `phx_close`.
pub(super) fn push(
    dialect: Dialect,
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
) -> Message {
    Message::text(match dialect {
        Dialect::Lightning => json!([join_ref, reference, topic, event, {}]).to_string(),
        Dialect::ReferenceMock => json!([null, "", topic, event, "{}"]).to_string(),
    })
}

/// Kind 1, the lengths of the header's fields in one byte each, the fields, the payload.
fn binary_reply(join_ref: Option<&str>, reference: Option<&str>, topic: &str, status: &str, payload: &[u8]) -> Message {
    let fields = [join_ref.unwrap_or_default(), reference.unwrap_or_default(), topic, status];
    let mut frame = Vec::with_capacity(5 + fields.iter().map(|field| field.len()).sum::<usize>() + payload.len());
    frame.push(1);
    // Fields came from the client; one that does not fit is cut, so that the frame stays readable.
    let fields = fields.map(|field| &field.as_bytes()[..field.len().min(usize::from(u8::MAX))]);
    frame.extend(fields.iter().map(|field| field.len() as u8));
    fields.iter().for_each(|field| frame.extend_from_slice(field));
    frame.extend_from_slice(payload);
    Message::binary(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn message() -> ClientMessage {
        ClientMessage::parse(r#"["3","7","run:a","fetch:dataclip",{"id":"x"}]"#).unwrap()
    }

    #[test]
    fn reads_what_a_client_sends() {
        assert_eq!(
            ClientMessage::parse(r#"[null,"1","phoenix","heartbeat",{}]"#).unwrap(),
            ClientMessage {
                join_ref: None,
                reference: Some("1".into()),
                topic: "phoenix".into(),
                event: "heartbeat".into(),
                payload: json!({}).into()
            }
        );
        for bad in ["", "{}", "[]", r#"["1","1","t","e"]"#, r#"[1,"1","t","e",{}]"#, r#"["1","1",null,"e",{}]"#] {
            assert!(ClientMessage::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replies_in_each_form() {
        let check = |dialect, outcome: Result<Response, Value>, expected: &str| {
            let frame = reply(dialect, Some("3"), &message(), outcome.as_ref());
            assert_eq!(frame.into_text().unwrap().as_str(), expected);
        };
        check(
            Dialect::Lightning,
            Ok(Response::nothing()),
            r#"["3","7","run:a","phx_reply",{"status":"ok","response":null}]"#,
        );
        check(
            Dialect::Lightning,
            Ok(Response::Text(raw(r#"{ "b":1,"a":2 }"#))),
            r#"["3","7","run:a","phx_reply",{"status":"ok","response":{ "b":1,"a":2 }}]"#,
        );
        check(
            Dialect::ReferenceMock,
            Ok(Response::ByteArray(raw("{}"))),
            r#"["3","7","run:a","chan_reply_7",{"status":"ok","response":[123,125]}]"#,
        );
        check(
            Dialect::Lightning,
            Err(json!({"id": ["is invalid"]})),
            r#"["3","7","run:a","phx_reply",{"status":"error","response":{"id":["is invalid"]}}]"#,
        );
    }

    #[test]
    fn a_dataclip_goes_in_a_binary_frame() {
        let frame = reply(Dialect::Lightning, Some("3"), &message(), Ok(&Response::Binary(raw("{}"))));
        assert_eq!(frame.into_data().as_ref(), b"\x01\x01\x01\x05\x0237run:aok{}");
    }

    #[test]
    fn pushes_differ_by_dialect() {
        let check = |dialect, expected: &str| {
            let frame = push(dialect, Some("3"), None, "worker:queue", "work-available");
            assert_eq!(frame.into_text().unwrap().as_str(), expected);
        };
        check(Dialect::Lightning, r#"["3",null,"worker:queue","work-available",{}]"#);
        check(Dialect::ReferenceMock, r#"[null,"","worker:queue","work-available","{}"]"#);
    }
}
