//! What workers send on `worker:queue`, checked.

use serde_json::{Value, json};

use super::fields::{Fields, Rejection};

/// Checks what a worker joins `worker:queue` with.
pub(super) fn check_queue_join(payload: &Value) -> Result<(), Rejection> {
    let invalid = |reason: &str| Rejection::Refused(json!({ "reason": reason }));
    let positive = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
    let fields = Fields::of(payload, &["capacity", "queues"])?;
    if !fields.get("capacity").is_some_and(positive) {
        return Err(invalid("capacity must be a whole number of 1 or more"));
    }
    let queues = fields.get("queues").and_then(Value::as_object).filter(|queues| !queues.is_empty());
    let queues = queues.ok_or_else(|| invalid("queues must be an object of workloop: capacity"))?;
    if !queues.iter().all(|(workloop, capacity)| workloop.split('>').all(is_queue) && positive(capacity)) {
        return Err(invalid(
            "queues must have queue names joined by > as keys and whole numbers of 1 or more as values",
        ));
    }
    Ok(())
}

fn is_queue(name: &str) -> bool {
    name == "*" || !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A claim that can be served.
pub(super) struct Claim<'a> {
    pub(super) demand: u64,
    pub(super) worker_name: Option<&'a str>,
    pub(super) queues: Vec<String>,
}

impl<'a> Claim<'a> {
    /// Lightning's handler takes a claim with all its keys; another one crashes the channel.
    pub(super) fn read(payload: &'a Value) -> Result<Self, Rejection> {
        let keys = ["demand", "worker_name", "queues"];
        if let Some(missing) = keys.iter().find(|key| payload.get(key).is_none()) {
            return Err(Rejection::Crash(format!("claim without {missing}")));
        }
        let fields = Fields::of(payload, &keys)?;
        let demand = fields.get("demand").and_then(Value::as_u64).filter(|demand| *demand > 0);
        let queues = fields.get("queues").and_then(Value::as_array).and_then(|queues| {
            let names = queues.iter().map(|queue| queue.as_str().filter(|name| is_queue(name)).map(str::to_owned));
            names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
        });
        Ok(Self {
            demand: demand.ok_or_else(|| Rejection::field("demand", "must be a whole number of 1 or more"))?,
            worker_name: fields.text("worker_name")?.filter(|name| !name.is_empty()),
            queues: queues.ok_or_else(|| Rejection::field("queues", "must be a list of queue names"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_joins() {
        let check = |payload: Value, expected: Option<&str>| match (check_queue_join(&payload), expected) {
            (Ok(()), None) => {}
            (Err(Rejection::Refused(response)), Some(part)) => {
                assert!(response.to_string().contains(part), "{response}")
            }
            (got, _) => panic!("{payload}: {got:?}"),
        };
        check(json!({"capacity": 5, "queues": {"manual>*": 5}}), None);
        check(json!({"capacity": 5, "queues": {"fast_lane": 1, "manual>*": 4}}), None);
        check(json!({"queues": {"*": 5}}), Some("capacity must be"));
        check(json!({"capacity": 0, "queues": {"*": 5}}), Some("capacity must be"));
        check(json!({"capacity": 1}), Some("queues must be an object"));
        check(json!({"capacity": 1, "queues": {}}), Some("queues must be an object"));
        check(json!({"capacity": 1, "queues": {"a b": 1}}), Some("queue names joined by >"));
        check(json!({"capacity": 1, "queues": {"a": "1"}}), Some("whole numbers"));
        check(json!({"capacity": 1, "queues": {"a": 1}, "more": 1}), Some("Unexpected keys: more"));
    }

    #[test]
    fn claims() {
        let check =
            |payload: Value, expected: Result<(u64, Option<&str>), &str>| match (Claim::read(&payload), expected) {
                (Ok(claim), Ok(expected)) => assert_eq!((claim.demand, claim.worker_name), expected),
                (Err(rejection), Err(part)) => assert!(format!("{rejection:?}").contains(part), "{rejection:?}"),
                (_, expected) => panic!("{payload} is not {expected:?}"),
            };
        check(json!({"demand": 2, "worker_name": "w", "queues": ["manual", "*"]}), Ok((2, Some("w"))));
        check(json!({"demand": 1, "worker_name": null, "queues": ["*"]}), Ok((1, None)));
        check(json!({"demand": 1, "queues": ["*"]}), Err("Crash(\"claim without worker_name\")"));
        check(json!({"demand": 0, "worker_name": null, "queues": ["*"]}), Err("demand"));
        check(json!({"demand": 1, "worker_name": null, "queues": []}), Err("queues"));
        check(json!({"demand": 1, "worker_name": 1, "queues": ["*"]}), Err("worker_name"));
    }
}
