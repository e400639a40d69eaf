//! The fields of a payload, checked one by one, and the replies to what fails, in the shapes that Lightning uses.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::record::RunState;

/// Why a message was not accepted.
#[derive(Debug, PartialEq)]
pub(super) enum Rejection {
    /// Refused with this response: the worker's fault.
    Refused(Value),
    /// Refused with this response, and no fault of the worker's.
    Blameless(Value),
    /// Nothing in Lightning handles such a message: the channel's process crashes.
    Crash(String),
}

impl Rejection {
    /// `{<field>: [<message>]}`, a changeset's errors.
    pub(super) fn field(name: &str, message: &str) -> Self {
        Self::Refused(json!({ name: [message] }))
    }

    /// `{"errors": {<field>: [<message>]}}`.
    pub(super) fn errors(name: &str, message: &str) -> Self {
        Self::Refused(json!({ "errors": { name: [message] } }))
    }
}

/// Whether this is a UUID as Lightning reads one: 36 characters with hyphens.
pub(super) fn is_uuid(id: &str) -> bool {
    id.len() == 36 && Uuid::try_parse(id).is_ok()
}

/// A payload's fields. A null field is an absent one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The fields of a payload that may have the `allowed` ones.
    pub(super) fn of(payload: &'a Value, allowed: &[&str]) -> Result<Self, Rejection> {
        let Some(map) = payload.as_object() else {
            return Err(Rejection::Refused(json!("The payload must be an object")));
        };
        let unknown: Vec<&str> = map.keys().map(String::as_str).filter(|key| !allowed.contains(key)).collect();
        if !unknown.is_empty() {
            return Err(Rejection::Refused(json!(format!("Unexpected keys: {}", unknown.join(",")))));
        }
        Ok(Self(map))
    }

    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string, if it is there.
    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>, Rejection> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| Rejection::field(name, "is invalid"))).transpose()
    }

    /// A string that must be there.
    pub(super) fn required_text(self, name: &str) -> Result<&'a str, Rejection> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| Rejection::field(name, "can't be blank"))
    }

    /// An id, if it is there; a UUID where ids are strict.
    pub(super) fn id(self, name: &str, strict: bool) -> Result<Option<&'a str>, Rejection> {
        match self.text(name)? {
            Some(id) if id.is_empty() || strict && !is_uuid(id) => Err(Rejection::field(name, "is invalid")),
            id => Ok(id),
        }
    }

    /// A UUID that must be there.
    pub(super) fn required_uuid(self, name: &str) -> Result<&'a str, Rejection> {
        self.id(name, true)?.ok_or_else(|| Rejection::field(name, "can't be blank"))
    }

    /// The field `timestamp`: milli- or microseconds since the epoch as a decimal string. Lightning's `UnixDateTime` tells
    /// the two by their number of digits.
    pub(super) fn check_timestamp(self) -> Result<(), Rejection> {
        let text = self.required_text("timestamp")?;
        let decimal = matches!(text.len(), 13 | 16) && text.bytes().all(|byte| byte.is_ascii_digit());
        if decimal { Ok(()) } else { Err(Rejection::field("timestamp", "is invalid")) }
    }

    /// `reason`, `error_type` and `error_message`. The field that a bad reason is reported in is `reported_as`.
    pub(super) fn exit(self, reported_as: &str) -> Result<Exit<'a>, Rejection> {
        let Some(reason) = self.text("reason")?.filter(|reason| !reason.is_empty()) else {
            return Err(Rejection::field(reported_as, "can't be blank"));
        };
        if RunState::from_reason(reason).is_none() {
            return Err(Rejection::field(reported_as, "is invalid"));
        }
        let exit = Exit { reason, error_type: self.text("error_type")?, error_message: self.text("error_message")? };
        if reason == "success" && (exit.error_type.is_some() || exit.error_message.is_some()) {
            let text = "Inconsistent reason (success and error type or message)";
            return Err(Rejection::Refused(json!(text)));
        }
        Ok(exit)
    }
}

/// How a step or a run ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit<'a> {
    pub(super) reason: &'a str,
    pub(super) error_type: Option<&'a str>,
    pub(super) error_message: Option<&'a str>,
}

/// Whether this text is JSON.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_strings_of_13_or_16_digits() {
        let check = |timestamp: Value, good: bool| {
            let payload = json!({ "timestamp": timestamp });
            let result = Fields::of(&payload, &["timestamp"]).unwrap().check_timestamp();
            assert_eq!(result.is_ok(), good, "{timestamp}");
        };
        check(json!("1700000000000000"), true);
        check(json!("1700000000000"), true);
        for bad in [
            json!("1700000000"),
            json!("17000000000000000"),
            json!("-700000000000000"),
            json!(1700000000000000_u64),
            json!("1.5"),
            json!("+1"),
            json!(""),
            json!(null),
            json!("1e9"),
            json!("99999999999999999999"),
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn uuids_have_36_characters() {
        assert!(is_uuid("f3a6b2a4-6f0e-4c8e-8d0a-0a1b2c3d4e5f"));
        for bad in ["", "a", "f3a6b2a46f0e4c8e8d0a0a1b2c3d4e5f", "{f3a6b2a4-6f0e-4c8e-8d0a-0a1b2c3d4e5f}"] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }

    #[test]
    fn exits_are_consistent() {
        let check = |payload: Value, expected: Option<Value>| {
            let fields = Fields::of(&payload, &["reason", "error_type", "error_message"]).unwrap();
            match (fields.exit("state"), expected) {
                (Ok(_), None) => {}
                (Err(Rejection::Refused(response)), Some(expected)) => assert_eq!(response, expected),
                (got, _) => panic!("{payload}: {got:?}"),
            }
        };
        for reason in ["success", "fail", "crash", "cancel", "kill", "exception"] {
            check(json!({"reason": reason, "error_type": null}), None);
        }
        check(json!({"reason": "fail", "error_type": "JobError", "error_message": "no"}), None);
        check(json!({}), Some(json!({"state": ["can't be blank"]})));
        check(json!({"reason": "done"}), Some(json!({"state": ["is invalid"]})));
        check(json!({"reason": "fail", "error_type": 1}), Some(json!({"error_type": ["is invalid"]})));
        check(
            json!({"reason": "success", "error_message": "no"}),
            Some(json!("Inconsistent reason (success and error type or message)")),
        );
    }

    #[test]
    fn unknown_fields_are_named() {
        assert_eq!(
            Fields::of(&json!({"a": 1, "b": 2, "c": 3}), &["b"]).unwrap_err(),
            Rejection::Refused(json!("Unexpected keys: a,c"))
        );
    }
}
