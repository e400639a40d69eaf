//! Takes keys out of JSON text: whatever a job does to the language, no text that has them leaves the engine.

use protocol::{InvalidJson, Json};

use crate::state::{Object, mentions};

/// `json` less these keys, if it is an object; all else stays as it is, and in its order.
pub(super) fn without(json: Json, keys: &[String]) -> Result<Json, InvalidJson> {
    // The prelude has taken them out of nearly every state, and a large one need not be read for nothing.
    if !json.is_object() || !keys.iter().any(|key| mentions(&json, key)) {
        return Ok(json);
    }
    let mut object: Object<'_> = json.decode()?;
    object.remove(keys);
    Json::encode(&object)
}

/// A job's result less these keys, and less what is for the webhook.
pub(super) fn of_result(json: Json, keys: &[String]) -> Result<Json, InvalidJson> {
    without(without(json, keys)?, &["webhookResponse".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_of_the_outermost_object_are_taken_out() {
        for (text, expected) in [
            (r#"{"b":1e+21,"secret":{"x":1},"a":[ 1 ]}"#, r#"{"b":1e+21,"a":[ 1 ]}"#),
            (r#"{"\u0073ecret":1,"secret":2}"#, "{}"),
            (r#"{"a":{"secret":1}}"#, r#"{"a":{"secret":1}}"#),
            (r#"{"a":"secret"}"#, r#"{"a":"secret"}"#),
            (r#"{"odd \"key\"":1}"#, "{}"),
            (r#"[{"secret":1}]"#, r#"[{"secret":1}]"#),
            (r#""secret""#, r#""secret""#),
        ] {
            let keys = ["secret".to_owned(), "odd \"key\"".to_owned()];
            let json = Json::parse(text).expect("it is valid");
            assert_eq!(without(json, &keys).expect("it can be read").as_str(), expected, "{text}");
        }
    }
}
