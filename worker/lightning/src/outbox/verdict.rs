//! What a reply to an event means for it.

use protocol::Json;
use serde_json::Value;

use crate::phoenix::{Reply, Response, Status, says_busy};

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server has it.
    Accepted,
    /// Not now: send it again later.
    Busy,
    /// Never as it is, with the reason.
    Rejected(String),
    /// The run is over for the server, with the reason.
    Gone(String),
}

/// Judges a reply. `resent` tells that the server may have taken the event before its reply was lost.
pub(super) fn judge(reply: &Reply, resent: bool) -> Verdict {
    let response = match (&reply.status, &reply.response) {
        (Status::Ok, _) => return Verdict::Accepted,
        (Status::Error, Response::Json(json)) => json,
        (Status::Error, Response::Binary(_)) => &Json::null(),
    };
    let reason = describe(response);
    let lower = reason.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if resent && says(&["already"]) {
        Verdict::Accepted
    } else if says(&[
        "already in completed state",
        "final state",
        "run not found",
        "run_id: does not exist",
        "token expired",
    ]) {
        Verdict::Gone(reason)
    } else if says_busy(&reason) {
        Verdict::Busy
    } else {
        Verdict::Rejected(reason)
    }
}

/// Whether a refusal only says that the server is busy.
pub(crate) fn is_busy(reply: &Reply) -> bool {
    judge(reply, false) == Verdict::Busy
}

/// Why the run is over for the server, if a refusal says so.
pub(crate) fn says_gone(reply: &Reply) -> Option<String> {
    if let Verdict::Gone(reason) = judge(reply, false) { Some(reason) } else { None }
}

/// A refusal as people read it: `field: message, message; …` where the server named fields.
pub(crate) fn describe(response: &Json) -> String {
    match response.decode::<Value>() {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(fields)) => match fields.get("errors").or_else(|| fields.get("reason")) {
            Some(Value::Object(inner)) => describe_fields(inner),
            Some(Value::String(text)) => text.clone(),
            _ => describe_fields(&fields),
        },
        Ok(Value::Null) | Err(_) => "no reason given".into(),
        Ok(other) => other.to_string(),
    }
}

fn describe_fields(fields: &serde_json::Map<String, Value>) -> String {
    let describe_one = |(field, messages): (&String, &Value)| {
        let messages: Vec<_> = match messages {
            Value::Array(messages) => messages.iter().map(text).collect(),
            other => vec![text(other)],
        };
        format!("{field}: {}", messages.join(", "))
    };
    fields.iter().map(describe_one).collect::<Vec<_>>().join("; ")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(response: &Value) -> Reply {
        Reply { status: Status::Error, response: Response::Json(Json::encode(response).unwrap()) }
    }

    fn check(response: Value, resent: bool, expected: Verdict) {
        assert_eq!(judge(&refusal(&response), resent), expected, "{response}");
    }

    #[test]
    fn table() {
        let rejected = |reason: &str| Verdict::Rejected(reason.into());
        let gone = |reason: &str| Verdict::Gone(reason.into());
        check(json!({"id": ["has already been taken"]}), true, Verdict::Accepted);
        check(json!({"id": ["has already been taken"]}), false, rejected("id: has already been taken"));
        check(json!({"state": ["already in completed state"]}), true, Verdict::Accepted);
        let over = "state: already in completed state";
        check(json!({"state": ["already in completed state"]}), false, gone(over));
        check(json!({"errors": {"state": ["already in completed state"]}}), false, gone(over));
        check(json!({"run_id": ["does not exist"]}), false, gone("run_id: does not exist"));
        check(json!({"job_id": ["does not exist"]}), false, rejected("job_id: does not exist"));
        check(json!({"step_id": ["not found"]}), false, rejected("step_id: not found"));
        check(json!({"step_id": ["not found"]}), true, rejected("step_id: not found"));
        check(json!({"errors": {"a": ["b", "c"], "d": "e"}}), false, rejected("a: b, c; d: e"));
        check(json!({"errors": "Something went wrong"}), false, rejected("Something went wrong"));
        check(json!("Unexpected keys: x"), false, rejected("Unexpected keys: x"));
        check(json!({"reason": "server busy"}), false, Verdict::Busy);
        check(json!(null), false, rejected("no reason given"));
        check(json!([1]), false, rejected("[1]"));
    }

    #[test]
    fn each_way_to_say_that_a_run_is_over() {
        let answers = [
            json!({"state": ["already in completed state"]}),
            json!({"errors": {"state": ["is in a final state"]}}),
            json!({"reason": "Run not found"}),
            json!({"run_id": ["does not exist"]}),
            json!("Token expired"),
        ];
        for answer in answers {
            let reply = refusal(&answer);
            assert_eq!(says_gone(&reply), Some(describe(&Json::encode(&answer).unwrap())), "{answer}");
            assert!(!is_busy(&reply), "{answer}");
        }
        for answer in [json!("not found"), json!({"step": ["does not exist"]}), json!("server busy"), json!(null)] {
            let reply = refusal(&answer);
            assert_eq!(says_gone(&reply), None, "{answer}");
            assert_eq!(is_busy(&reply), answer == "server busy", "{answer}");
        }
    }

    #[test]
    fn each_way_to_say_that_the_server_is_busy() {
        let answers = ["Busy", "overloaded", "please try again", "temporarily down", "timeout", "timed out"];
        for answer in answers.into_iter().chain(["Too many requests"]) {
            for response in [json!(answer), json!({ "reason": answer }), json!({ "errors": { "base": [answer] } })] {
                let reply = refusal(&response);
                assert!(is_busy(&reply) && says_gone(&reply).is_none(), "{response}");
                assert_eq!(judge(&reply, true), Verdict::Busy, "{response}");
            }
        }
    }

    #[test]
    fn a_refusal_is_told_as_the_server_put_it() {
        for (response, expected) in [
            (json!({"errors": {"a": ["b"]}, "reason": "r"}), "a: b"),
            (json!({"reason": {"a": [1, null, "x"]}}), "a: 1, null, x"),
            (json!({"errors": ["a"]}), "errors: a"),
            (json!({"errors": null, "b": {"c": 1}}), "errors: null; b: {\"c\":1}"),
            (json!({}), ""),
            (json!(true), "true"),
        ] {
            assert_eq!(describe(&Json::encode(&response).unwrap()), expected, "{response}");
        }
        let binary = Reply { status: Status::Error, response: Response::Binary(Default::default()) };
        assert_eq!(judge(&binary, true), Verdict::Rejected("no reason given".into()));
    }

    #[test]
    fn anything_with_ok_is_accepted() {
        for response in [Response::Json(Json::null()), Response::Binary(Default::default())] {
            assert_eq!(judge(&Reply { status: Status::Ok, response }, false), Verdict::Accepted);
        }
    }
}
