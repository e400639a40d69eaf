//! Whatever secrets and texts there are: no secret is left where a search finds it, JSON stays JSON, and nothing but masks
//! is new.

#![no_main]

use base::redact::Redactor;
use libfuzzer_sys::fuzz_target;
use protocol::Json;
use serde_json::{Value, json};

fuzz_target!(|input: (&str, &str, &str, u8)| {
    let (secret, before, after, how) = input;
    // Shorter ones are not looked for, and a mask cannot be told from what is like one.
    if secret.chars().count() < 6 || [secret, before, after].iter().any(|text| text.contains('*')) {
        return;
    }
    let redactor = Redactor::new([], [secret]);
    let text = format!("{before}{}{after}", written(secret, how));
    let redacted = redactor.text(&text);
    assert!(!redacted.contains(secret), "{redacted:?} of {text:?}");
    assert!(is_masked(&text, &redacted), "{redacted:?} of {text:?}");
    let cut = redactor.cut_text(&text);
    assert!(!cut.contains(secret), "{cut:?} of {text:?}");

    let message = json!([text, {text.as_str(): 1, "b": [secret]}]);
    let read: Value = redactor.json(Json::encode(&message).unwrap()).decode().expect("it is still JSON");
    assert!(!holds(&read, secret), "{read} of {message}");
});

/// Whether nothing but masks is new in a text.
fn is_masked(text: &str, redacted: &str) -> bool {
    let mut rest = text;
    redacted.split("***").all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// The ways in which programs write a text.
fn written(text: &str, how: u8) -> String {
    match how % 6 {
        0 => text.to_owned(),
        1 => Value::from(text).to_string().trim_matches('"').to_owned(),
        2 => text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        3 => text.chars().map(|it| format!("&#{};", it as u32)).collect(),
        4 => text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
        _ => String::new(),
    }
}

fn holds(value: &Value, secret: &str) -> bool {
    match value {
        Value::String(text) => text.contains(secret),
        Value::Array(values) => values.iter().any(|value| holds(value, secret)),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains(secret) || holds(value, secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
