//! The JSON payload of an outgoing frame, as a rope of texts.
//!
//! A large state is part of a payload without being copied into it: it is escaped once, straight into the frame.

use std::fmt;

use protocol::Json;
use serde::Serialize;

/// JSON text in parts. Cloning shares the large ones.
#[derive(Clone)]
pub(in crate::lightning) struct Payload {
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    /// A piece of JSON text.
    Text(String),
    /// A whole value, as it is.
    Value(Json),
    /// A whole value whose text becomes one JSON string.
    Quoted(Json),
}

impl Payload {
    /// The payload `{}`.
    pub(in crate::lightning) fn empty() -> Self {
        Self { parts: vec![Part::Text("{}".into())] }
    }

    /// The encoding of `object`, which must be a struct or a map with string keys.
    pub(in crate::lightning) fn object(object: &impl Serialize) -> Self {
        let text = serde_json::to_string(object).expect("payloads are plain structs, which JSON can express");
        debug_assert!(text.starts_with('{') && text.ends_with('}'));
        Self { parts: vec![Part::Text(text)] }
    }

    /// JSON text that is already encoded.
    pub(in crate::lightning) fn text(text: String) -> Self {
        Self { parts: vec![Part::Text(text)] }
    }

    /// Adds a field to an object, its value as it is.
    pub(in crate::lightning) fn with_value(self, key: &str, value: Json) -> Self {
        self.with(key, Part::Value(value))
    }

    /// Adds a field to an object, its value a string that holds the JSON text.
    pub(in crate::lightning) fn with_quoted(self, key: &str, value: Json) -> Self {
        self.with(key, Part::Quoted(value))
    }

    fn with(mut self, key: &str, part: Part) -> Self {
        let Some(Part::Text(last)) = self.parts.last_mut() else { return self };
        last.pop();
        let comma = if last.ends_with('{') { "" } else { "," };
        last.push_str(&format!("{comma}\"{key}\":"));
        self.parts.push(part);
        self.parts.push(Part::Text("}".into()));
        self
    }

    /// Length of the text in bytes.
    pub(in crate::lightning) fn len(&self) -> usize {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.len(),
                Part::Value(json) => json.len(),
                Part::Quoted(json) => quoted_len(json.as_str()),
            })
            .sum()
    }

    /// Appends the text.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value(json) => out.extend_from_slice(json.as_str().as_bytes()),
                Part::Quoted(json) => write_quoted(json.as_str(), out),
            }
        }
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
    use serde_json::{Value, json};

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
        let read: Value = serde_json::from_str(&text(&payload)).unwrap();
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
