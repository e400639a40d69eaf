//! Comparison of JSON with an expectation that may leave some of it open.
//!
//! In an expectation, `"<any>"` matches anything, `"<uuid>"` a UUID, and a string `"/…/"` is a regular expression.
//! Anything else must be equal; keys that are missing on one side are differences.

use serde_json::Value;

/// Where and how `actual` differs from `expected`; empty when it does not.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, actual, &mut found);
    found
}

fn compare(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::String(pattern), actual) if is_pattern(pattern) => {
            if !matches_pattern(pattern, actual) {
                found.push(format!("{path}: {actual} does not match {pattern}"));
            }
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(&format!("{path}[{index}]"), expected, actual, found);
            }
        }
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                match actual.get(key) {
                    Some(actual) => compare(&format!("{path}.{key}"), value, actual, found),
                    None => found.push(format!("{path}.{key}: missing, expected {value}")),
                }
            }
            for (key, value) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                found.push(format!("{path}.{key}: not expected, is {value}"));
            }
        }
        (Value::Number(expected), Value::Number(actual)) if expected.as_f64() == actual.as_f64() => {}
        _ if expected == actual => {}
        _ => found.push(format!("{path}: expected {expected}, is {actual}")),
    }
}

fn is_pattern(text: &str) -> bool {
    text == "<any>" || text == "<uuid>" || (text.len() > 2 && text.starts_with('/') && text.ends_with('/'))
}

fn matches_pattern(pattern: &str, actual: &Value) -> bool {
    match (pattern, actual.as_str()) {
        ("<any>", _) => true,
        ("<uuid>", Some(text)) => uuid::Uuid::parse_str(text).is_ok(),
        (_, Some(text)) => {
            let source = pattern[1..pattern.len() - 1].replace("\\/", "/");
            regex_lite::Regex::new(&source).expect("an expectation is a valid regular expression").is_match(text)
        }
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn open_places_match_and_differences_are_told() {
        let cases = [
            (json!({ "a": 1 }), json!({ "a": 1.0 }), 0),
            (json!({ "a": "<any>" }), json!({ "a": [1] }), 0),
            (json!({ "a": "<any>" }), json!({}), 1),
            (json!("<uuid>"), json!("6f6f5d0c-1f0a-4c0e-9a3c-0d0f4f6b7a11"), 0),
            (json!("<uuid>"), json!("x"), 1),
            (json!("/^a\\/b: /"), json!("a/b: c"), 0),
            (json!("/^b/"), json!("ab"), 1),
            (json!("/^b/"), json!(1), 1),
            (json!({ "a": 1 }), json!({ "a": 1, "b": null }), 1),
            (json!([1, 2]), json!([1]), 1),
            (json!(null), json!({}), 1),
        ];
        for (expected, actual, count) in cases {
            assert_eq!(differences(&expected, &actual).len(), count, "{expected} and {actual}");
        }
    }
}
