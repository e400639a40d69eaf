//! What Lightning takes for an answer to the webhook that started a run. Pure.

use std::collections::HashMap;

use protocol::Json;
use serde_json::value::RawValue;

/// What is wrong with a job's `webhookResponse`, in Lightning's eyes: it must be an object whose `status`, if there is
/// one, is a number of HTTP, and whose `body`, if there is one, an object.
pub(crate) fn fault(response: &Json) -> Option<String> {
    let Some(fields) = response.is_object().then(|| response.decode::<HashMap<String, Box<RawValue>>>().ok()).flatten()
    else {
        return Some(format!("it is {}, and must be an object", kind(response.as_str())));
    };
    let given = |name: &str| fields.get(name).map(|value| value.get()).filter(|text| *text != "null");
    if let Some(status) = given("status").filter(|text| !is_status(text)) {
        let shown = if status.len() <= 20 { status.to_owned() } else { kind(status).to_owned() };
        return Some(format!("its status is {shown}, and must be a number from 100 to 599"));
    }
    let body = given("body").filter(|text| !text.starts_with('{'))?;
    Some(format!("its body is {}, and must be an object", kind(body)))
}

fn is_status(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|status| status.fract() == 0.0 && (100.0..=599.0).contains(&status))
}

/// What a JSON text is.
fn kind(text: &str) -> &'static str {
    match text.bytes().next() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (response, expected) in [
            (r#"{"status":201,"body":{"ok":true}}"#, None),
            ("{}", None),
            (r#"{"status":null,"body":null,"headers":1}"#, None),
            (r#"{"status":2e2}"#, None),
            ("5", Some("it is a number, and must be an object")),
            (r#""text""#, Some("it is a string, and must be an object")),
            ("[1]", Some("it is an array, and must be an object")),
            (r#"{"status":"201"}"#, Some("its status is \"201\", and must be a number from 100 to 599")),
            (r#"{"status":7}"#, Some("its status is 7, and must be a number from 100 to 599")),
            (r#"{"status":200.5}"#, Some("its status is 200.5, and must be a number from 100 to 599")),
            (
                r#"{"status":"a long text instead of a number"}"#,
                Some("its status is a string, and must be a number from 100 to 599"),
            ),
            (r#"{"body":"<html>"}"#, Some("its body is a string, and must be an object")),
            (r#"{"body":[1]}"#, Some("its body is an array, and must be an object")),
            (r#"{"body":true}"#, Some("its body is a boolean, and must be an object")),
        ] {
            assert_eq!(fault(&Json::parse(response.to_owned()).unwrap()).as_deref(), expected, "{response}");
        }
    }
}
