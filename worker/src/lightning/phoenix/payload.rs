//! The JSON payload of an outgoing frame, as a rope of texts.
//!
//! A large state is part of a payload without being copied into it: it is escaped once, straight into the frame.

use std::fmt;

use protocol::Json;
use serde::Serialize;

/// JSON text in parts. Cloning shares the large ones.
#[derive(Clone)]
pub(in crate::lightning) struct Payload {
    /// Text, and the value that follows it.
    parts: Vec<(String, Value)>,
    /// Text after the last value.
    end: String,
}

#[derive(Clone)]
enum Value {
    /// As it is.
    Plain(Json),
    /// Its text becomes one JSON string.
    Quoted(Json),
}

impl Payload {
    /// The payload `{}`.
    pub(in crate::lightning) fn empty() -> Self {
        Self::text("{}".into())
    }

    /// The encoding of `object`, which must be a struct or a map with string keys.
    pub(in crate::lightning) fn object(object: &impl Serialize) -> Self {
        let text = serde_json::to_string(object).expect("payloads are plain structs, which JSON can express");
        debug_assert!(text.starts_with('{') && text.ends_with('}'));
        Self::text(text)
    }

    /// An object that is encoded already.
    pub(in crate::lightning) fn text(text: String) -> Self {
        Self { parts: Vec::new(), end: text }
    }

    /// Adds a field to an object, its value as it is.
    pub(in crate::lightning) fn with_value(self, key: &str, value: Json) -> Self {
        self.with(key, Value::Plain(value))
    }

    /// Adds a field to an object, its value a string that holds the JSON text.
    pub(in crate::lightning) fn with_quoted(self, key: &str, value: Json) -> Self {
        self.with(key, Value::Quoted(value))
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        let mut before = self.end;
        before.pop();
        let comma = if before.ends_with('{') { "" } else { "," };
        before.push_str(&format!("{comma}\"{key}\":"));
        self.parts.push((before, value));
        Self { parts: self.parts, end: "}".into() }
    }

    /// Length of the text in bytes.
    pub(in crate::lightning) fn len(&self) -> usize {
        let part = |(before, value): &(String, Value)| {
            before.len()
                + match value {
                    Value::Plain(json) => json.len(),
                    Value::Quoted(json) => quoted_len(json.as_str()),
                }
        };
        self.parts.iter().map(part).sum::<usize>() + self.end.len()
    }

    /// Appends the text.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (before, value) in &self.parts {
            out.extend_from_slice(before.as_bytes());
            match value {
                Value::Plain(json) => out.extend_from_slice(json.as_str().as_bytes()),
                Value::Quoted(json) => write_quoted(json.as_str(), out),
            }
        }
        out.extend_from_slice(self.end.as_bytes());
    }

    /// The text.
    #[cfg(test)]
    pub(in crate::lightning) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Payload({} bytes)", self.len())
    }
}

/// Appends `text` as a JSON string.
pub(super) fn write_quoted(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// Length of `text` as a JSON string, so that the frame of a large state is allocated once.
fn quoted_len(text: &str) -> usize {
    let escapes: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
            0..0x20 => 5,
            _ => 0,
        })
        .sum();
    text.len() + escapes + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(payload: &Payload) -> String {
        let mut out = Vec::new();
        payload.write(&mut out);
        assert_eq!(out.len(), payload.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_added_to_objects() {
        let state = Json::parse(r#"{"a": "é\n\"x\""}"#).unwrap();
        let payload = Payload::empty().with_quoted("one", state.clone()).with_value("two", state.clone());
        let read: serde_json::Value = serde_json::from_str(&text(&payload)).unwrap();
        assert_eq!(read, json!({"one": state.as_str(), "two": {"a": "é\n\"x\""}}));
        let payload = Payload::object(&json!({"n": 1})).with_value("x", Json::null());
        assert_eq!(text(&payload), r#"{"n":1,"x":null}"#);
    }

    #[test]
    fn debug_shows_no_text() {
        let payload = Payload::object(&json!({"token": "secret"}));
        assert_eq!(format!("{payload:?}"), "Payload(18 bytes)");
    }

    proptest! {
        #[test]
        fn quoting_is_what_a_json_string_is(text in any::<String>()) {
            let mut out = Vec::new();
            write_quoted(&text, &mut out);
            prop_assert_eq!(out.len(), quoted_len(&text));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
