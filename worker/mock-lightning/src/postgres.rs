//! What Lightning's database and its JSON parser cannot take: NUL characters, and escaped halves of a surrogate pair.

use serde_json::Value;

/// Whether a value has a NUL character anywhere. Postgres raises on it in `jsonb` and `text` alike.
pub(super) fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether JSON text has a NUL character in a string.
pub(super) fn text_holds_nul(text: &str) -> bool {
    escapes(text).any(|unit| unit == Some(0))
}

/// Whether JSON text escapes half of a surrogate pair without the other, on which `Jason.decode!` raises.
pub(super) fn holds_lone_surrogate(text: &str) -> bool {
    let mut high = false;
    for unit in escapes(text) {
        let is_low = matches!(unit, Some(0xdc00..=0xdfff));
        if high != is_low {
            return true;
        }
        high = matches!(unit, Some(0xd800..=0xdbff));
    }
    high
}

/// The code units that are written `\uXXXX`; none where something else follows such a one.
fn escapes(text: &str) -> impl Iterator<Item = Option<u16>> {
    let mut rest = text.as_bytes();
    let mut adjoins = false;
    std::iter::from_fn(move || {
        loop {
            if std::mem::take(&mut adjoins) && !rest.starts_with(b"\\u") {
                return Some(None);
            }
            let escape = &rest[rest.iter().position(|&byte| byte == b'\\')?..];
            let is_unit = escape.get(1) == Some(&b'u');
            rest = escape.get(if is_unit { 6 } else { 2 }..).unwrap_or_default();
            if is_unit {
                adjoins = true;
                let digits = escape.get(2..6).and_then(|digits| std::str::from_utf8(digits).ok());
                return Some(digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_found_in_values_and_text() {
        for (text, expected) in [
            (r#"{"a": "b"}"#, false),
            (r#"{"a": ["x\u0000y"]}"#, true),
            (r#"{"a\u0000": 1}"#, true),
            (r#"{"a": "\\u0000"}"#, false),
            (r#"{"a": "\\\u0000"}"#, true),
            (r#""\u00e9\u0001""#, false),
        ] {
            assert_eq!(text_holds_nul(text), expected, "{text}");
            assert_eq!(holds_nul(&serde_json::from_str(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_found() {
        for (text, expected) in [
            (r#""\ud83d\ude00""#, false),
            (r#""\ud83d""#, true),
            (r#""\ude00""#, true),
            (r#""\ud83dx\ude00""#, true),
            (r#""\ud83d\n""#, true),
            (r#""\ud83d\n\ude00""#, true),
            (r#""\\ud83d""#, false),
            (r#""\u00e9\ud83d\ude00\u00e9""#, false),
            (r#""\ud83d\ud83d\ude00""#, true),
        ] {
            assert_eq!(holds_lone_surrogate(text), expected, "{text}");
        }
    }
}
