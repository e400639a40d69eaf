//! The JSON payload of an outgoing frame, as a rope of texts.
//!
//! A large state is part of a payload without being copied into it: it is escaped piece by piece as it is written.

use std::collections::VecDeque;

use protocol::Json;
use serde::Serialize;

use base::writer::Pieces;

/// An escaped text is up to six times as long, so that less of it is taken at once.
const ESCAPED_AT_ONCE: usize = 4096;

/// JSON text in parts. Cloning shares the large ones.
#[derive(derive_more::Debug, Clone)]
#[debug("Payload({} bytes)", self.len())]
pub(crate) struct Payload {
    /// Text, and the value that follows it.
    parts: Vec<(String, Value)>,
    /// Text after the last value.
    end: String,
}

#[derive(Clone)]
enum Value {
    /// As it is.
    Plain(Json),
    /// Its text becomes one JSON string of this length, less the quotes.
    Quoted(Json, usize),
}

impl Payload {
    /// The payload `{}`.
    pub(crate) fn empty() -> Self {
        Self::text("{}".into())
    }

    /// The encoding of `object`, which must be a struct or a map with string keys.
    pub(crate) fn object(object: &impl Serialize) -> Self {
        let text = serde_json::to_string(object).expect("payloads are plain structs, which JSON can express");
        debug_assert!(text.starts_with('{') && text.ends_with('}'));
        Self::text(text)
    }

    /// An object that is encoded already.
    pub(crate) fn text(text: String) -> Self {
        Self { parts: Vec::new(), end: text }
    }

    /// Adds a field to an object, its value as it is.
    pub(crate) fn with_value(self, key: &str, value: Json) -> Self {
        self.with(key, Value::Plain(value))
    }

    /// Adds a field to an object, its value a string that holds the JSON text.
    pub(crate) fn with_quoted(self, key: &str, value: Json) -> Self {
        let length = escaped_len(value.as_str());
        self.with(key, Value::Quoted(value, length))
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        let mut before = self.end;
        before.pop();
        let comma = if before.ends_with('{') { "" } else { "," };
        before.push_str(&format!("{comma}\"{key}\":"));
        self.parts.push((before, value));
        Self { parts: self.parts, end: "}".into() }
    }

    /// Length of the text in bytes, as it goes over the wire.
    pub(crate) fn len(&self) -> usize {
        let parts = self.parts.iter().map(|(before, value)| {
            let value = match value {
                Value::Plain(json) => json.len(),
                Value::Quoted(_, length) => length + "\"\"".len(),
            };
            before.len() + value
        });
        parts.sum::<usize>() + self.end.len()
    }

    /// The texts that it consists of.
    pub(super) fn texts(&self) -> impl Iterator<Item = Text<'_>> {
        let parts = self.parts.iter().flat_map(|(before, value)| {
            let (quote, text) = match value {
                Value::Plain(json) => ("", Text::Plain(json.as_str())),
                Value::Quoted(json, _) => ("\"", Text::Escaped(json.as_str())),
            };
            [Text::Plain(before), Text::Plain(quote), text, Text::Plain(quote)]
        });
        parts.chain([Text::Plain(&self.end)])
    }

    /// The text.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Reader::new(self.texts()).read(&mut out, usize::MAX);
        out
    }
}

/// A part of a longer text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text<'a> {
    /// As it is.
    Plain(&'a str),
    /// To be escaped, within a JSON string.
    Escaped(&'a str),
}

impl<'a> Text<'a> {
    fn rest(self) -> &'a str {
        let (Self::Plain(text) | Self::Escaped(text)) = self;
        text
    }
}

/// Takes a text in pieces.
pub(super) struct Reader<'a> {
    /// What is not taken yet, none of it empty.
    texts: VecDeque<Text<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(texts: impl Iterator<Item = Text<'a>>) -> Self {
        Self { texts: texts.filter(|text| !text.rest().is_empty()).collect() }
    }
}

impl Pieces for Reader<'_> {
    fn read(&mut self, out: &mut Vec<u8>, enough: usize) {
        while let Some(text) = self.texts.front_mut().filter(|_| out.len() < enough) {
            let room = enough - out.len();
            let rest = text.rest();
            let rest = match text {
                Text::Plain(_) => {
                    let (piece, rest) = rest.split_at(rest.ceil_char_boundary(room));
                    out.extend_from_slice(piece.as_bytes());
                    *text = Text::Plain(rest);
                    rest
                }
                Text::Escaped(_) => {
                    let (piece, rest) = rest.split_at(rest.ceil_char_boundary(room.min(ESCAPED_AT_ONCE)));
                    escape(piece, out);
                    *text = Text::Escaped(rest);
                    rest
                }
            };
            if rest.is_empty() {
                self.texts.pop_front();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// How long `text` is in a JSON string, as [`escape`] writes it.
fn escaped_len(text: &str) -> usize {
    // So many bytes cannot overflow a sum of one byte, which the compiler adds up in vectors.
    const PIECE: usize = 32;
    let added = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1u8,
        0..0x20 => 5,
        _ => 0,
    };
    let (pieces, rest) = text.as_bytes().as_chunks::<PIECE>();
    let sums = pieces.iter().map(|piece| usize::from(piece.iter().map(added).sum::<u8>()));
    text.len() + sums.sum::<usize>() + usize::from(rest.iter().map(added).sum::<u8>())
}

/// Appends `text` as it stands in a JSON string.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(format!("{byte:04x}").as_bytes());
        }
        plain = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(payload: &Payload) -> String {
        String::from_utf8(payload.to_vec()).unwrap()
    }

    #[test]
    fn fields_are_added_to_objects() {
        let state = Json::parse(r#"{"a": "é\n\"x\""}"#).unwrap();
        let payload = Payload::empty().with_quoted("one", state.clone()).with_value("two", state.clone());
        let read: serde_json::Value = serde_json::from_str(&text(&payload)).unwrap();
        assert_eq!(read, json!({"one": state.as_str(), "two": {"a": "é\n\"x\""}}));
        assert_eq!(payload.len(), text(&payload).len());
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
        fn escaping_is_what_a_json_string_is(text in any::<String>()) {
            let mut out = vec![b'"'];
            escape(&text, &mut out);
            out.push(b'"');
            prop_assert_eq!(out.len(), escaped_len(&text) + 2);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn pieces_are_the_text(text in ".{0,200}", repeat in 1usize..60, enough in 1usize..9000) {
            let state = Json::encode(&vec![text; repeat]).unwrap();
            let payload = Payload::empty().with_quoted("one", state.clone()).with_value("two", state.clone());
            let mut reader = Reader::new(payload.texts());
            let mut whole = Vec::new();
            while !reader.is_empty() {
                let mut piece = Vec::new();
                reader.read(&mut piece, enough);
                prop_assert!((1..enough + 6 * ESCAPED_AT_ONCE).contains(&piece.len()));
                prop_assert!(piece.len() >= enough || reader.is_empty());
                whole.extend(piece);
            }
            prop_assert_eq!(payload.len(), whole.len());
            let read: serde_json::Value = serde_json::from_slice(&whole).unwrap();
            prop_assert_eq!(read["one"].as_str(), Some(state.as_str()));
            prop_assert_eq!(&read["two"], &state.decode::<serde_json::Value>().unwrap());
        }
    }
}
