//! Plans as people and tests submit them: read, checked, and kept as the text that workers fetch.

use std::collections::{BTreeMap, HashSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::fields::is_uuid;

/// Queue of a run whose submission names none.
const DEFAULT_QUEUE: &str = "default";
/// Timeout of a run whose plan names none, for its token.
const DEFAULT_TIMEOUT_MS: u64 = 300_000;

/// A plan that cannot be queued. Says what was wrong and where.
#[derive(Debug, thiserror::Error)]
#[error("invalid plan: {0}")]
pub struct InvalidPlan(pub(super) String);

type Object = BTreeMap<String, Box<RawValue>>;

/// A checked submission: a plan with what goes beside it.
#[derive(Debug, Default)]
pub(super) struct Submission {
    pub(super) id: String,
    pub(super) queue: String,
    /// The plan's JSON text, with its id and without what is not Lightning's. Order of keys inside is as it came.
    pub(super) plan: Box<RawValue>,
    pub(super) jobs: Jobs,
    /// The plan's option of that name.
    pub(super) output_dataclips: bool,
    pub(super) dataclip_id: Option<String>,
    pub(super) timeout_seconds: u64,
    pub(super) dataclips: Object,
    pub(super) credentials: Object,
}

/// The jobs of a plan.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    ids: HashSet<String>,
    /// Some job has no id, so that the worker makes one.
    some_without_id: bool,
}

impl Jobs {
    pub(super) fn contain(&self, id: &str) -> bool {
        self.ids.contains(id) || self.some_without_id && is_uuid(id)
    }
}

impl Submission {
    /// Reads a plan, or `{"plan": …}`, with optional `dataclips`, `credentials` (by id) and `queue` in either object.
    pub(super) fn parse(text: &str, strict_ids: bool) -> Result<Self, InvalidPlan> {
        let mut beside: Object =
            serde_json::from_str(text).map_err(|error| InvalidPlan(format!("must be a JSON object: {error}")))?;
        let mut plan = match beside.remove("plan") {
            Some(inner) => read::<Object>("plan", &inner, "an object")?,
            None => std::mem::take(&mut beside),
        };
        let mut extra = |key| plan.remove(key).or_else(|| beside.remove(key)).filter(|value| value.get() != "null");
        let dataclips = optional(extra("dataclips"), "dataclips", "an object of id: JSON")?.unwrap_or_default();
        let credentials = optional::<Object>(extra("credentials"), "credentials", "an object of id: JSON object")?
            .unwrap_or_default();
        for (id, credential) in &credentials {
            read::<Object>(&format!("credentials.{id}"), credential, "an object")?;
        }
        let queue = optional(extra("queue"), "queue", "a string")?.unwrap_or_else(|| DEFAULT_QUEUE.to_owned());

        let id = plan.get("id").map(|id| read::<Option<String>>("id", id, "a string")).transpose()?.flatten();
        let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
        if id.is_empty() || strict_ids && !is_uuid(&id) {
            return Err(InvalidPlan(format!("id: must be a UUID, it is {id:?}")));
        }
        plan.insert("id".to_owned(), raw(&id));

        let jobs = check_jobs(&plan, strict_ids)?;
        for key in ["triggers", "edges"] {
            list(&plan, key)?;
        }
        for key in ["starting_node_id", "name", "project_id"] {
            optional_in::<String>(&plan, key, "a string")?;
        }
        let dataclip_id = optional_in::<String>(&plan, "dataclip_id", "a string")?;
        let options = optional_in::<Object>(&plan, "options", "an object")?.unwrap_or_default();
        let option = |key| options.get(key).filter(|value| value.get() != "null");
        let output_dataclips = option("output_dataclips")
            .map_or(Ok(true), |value| read("options.output_dataclips", value, "true or false"))?;
        check_options(option)?;
        let timeout_ms = option("run_timeout_ms").and_then(|value| value.get().parse().ok());
        let timeout_ms: f64 = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS as f64);
        Ok(Self {
            id,
            queue,
            plan: raw(&plan),
            jobs,
            output_dataclips,
            dataclip_id,
            timeout_seconds: (timeout_ms / 1000.0).ceil() as u64,
            dataclips,
            credentials,
        })
    }
}

/// Checks what a worker would otherwise take for something else, or for nothing.
fn check_options<'a>(option: impl Fn(&'static str) -> Option<&'a Box<RawValue>>) -> Result<(), InvalidPlan> {
    let limits =
        ["run_timeout_ms", "run_memory_limit_mb", "state_limit_mb", "payload_limit_mb", "log_payload_limit_mb"];
    for key in limits {
        let Some(value) = option(key) else { continue };
        let number: f64 = read(&format!("options.{key}"), value, "a number")?;
        if number <= 0.0 {
            return Err(InvalidPlan(format!("options.{key}: must be a number above zero, it is {number}")));
        }
    }
    let words: [(&str, &[&str]); 2] = [
        ("sanitize", &["none", "remove", "obfuscate", "summarize"]),
        ("job_log_level", &["debug", "info", "warn", "error", "none"]),
    ];
    for (key, words) in words {
        let Some(value) = option(key) else { continue };
        let expected = format!("one of {}", words.join(", "));
        let word: String = read(&format!("options.{key}"), value, &expected)?;
        if !words.contains(&word.as_str()) {
            return Err(InvalidPlan(format!("options.{key}: must be {expected}, it is {word:?}")));
        }
    }
    Ok(())
}

fn check_jobs(plan: &Object, strict_ids: bool) -> Result<Jobs, InvalidPlan> {
    let mut jobs = Jobs::default();
    for (index, job) in list(plan, "jobs")?.iter().enumerate() {
        for key in ["body", "adaptor", "name"] {
            if job.get(key).is_some_and(|value| !value.is_string() && !value.is_null()) {
                return Err(InvalidPlan(format!("jobs[{index}].{key}: must be a string")));
            }
        }
        match job.get("id") {
            None | Some(Value::Null) => jobs.some_without_id = true,
            Some(Value::String(id)) if strict_ids && !is_uuid(id) => {
                return Err(InvalidPlan(format!("jobs[{index}].id: must be a UUID, it is {id:?}")));
            }
            Some(Value::String(id)) => {
                if !jobs.ids.insert(id.clone()) {
                    return Err(InvalidPlan(format!("jobs[{index}].id: {id:?} is another job's id already")));
                }
            }
            Some(_) => return Err(InvalidPlan(format!("jobs[{index}].id: must be a string"))),
        }
    }
    Ok(jobs)
}

/// A list of objects; missing and null are empty.
fn list(plan: &Object, key: &str) -> Result<Vec<Value>, InvalidPlan> {
    let items: Vec<Value> = optional_in(plan, key, "a list")?.unwrap_or_default();
    match items.iter().position(|item| !item.is_object()) {
        Some(index) => Err(InvalidPlan(format!("{key}[{index}]: must be an object"))),
        None => Ok(items),
    }
}

fn optional_in<T: DeserializeOwned>(plan: &Object, key: &str, expected: &str) -> Result<Option<T>, InvalidPlan> {
    plan.get(key).map_or(Ok(None), |value| read(key, value, expected))
}

fn optional<T: DeserializeOwned>(
    value: Option<Box<RawValue>>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, InvalidPlan> {
    value.map(|value| read(key, &value, expected)).transpose()
}

fn read<T: DeserializeOwned>(path: &str, value: &RawValue, expected: &str) -> Result<T, InvalidPlan> {
    serde_json::from_str(value.get()).map_err(|error| InvalidPlan(format!("{path}: must be {expected} ({error})")))
}

fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("strings and JSON text always encode as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "f3a6b2a4-6f0e-4c8e-8d0a-0a1b2c3d4e5f";

    #[test]
    fn keeps_the_plan_and_takes_out_what_goes_beside_it() {
        for text in [
            r#"{"id":"r","jobs":[{"id":"a","state":{"z":1,"b":2}}],"dataclips":{"d":{"z":1,"a":2}},"credentials":{"c":{}},"queue":"fast"}"#,
            r#"{"plan":{"id":"r","jobs":[{"id":"a","state":{"z":1,"b":2}}]},"dataclips":{"d":{"z":1,"a":2}},"credentials":{"c":{}},"queue":"fast","more":1}"#,
        ] {
            let submission = Submission::parse(text, false).unwrap();
            assert_eq!(submission.plan.get(), r#"{"id":"r","jobs":[{"id":"a","state":{"z":1,"b":2}}]}"#);
            assert_eq!(submission.dataclips["d"].get(), r#"{"z":1,"a":2}"#);
            assert_eq!(submission.credentials["c"].get(), "{}");
            assert_eq!(submission.queue, "fast");
            assert!(submission.jobs.contain("a") && !submission.jobs.contain(JOB));
        }
    }

    #[test]
    fn fills_in_what_is_missing() {
        let submission = Submission::parse(r#"{"jobs":[{}],"edges":null}"#, true).unwrap();
        assert!(is_uuid(&submission.id));
        assert!(submission.plan.get().contains(&submission.id));
        assert_eq!((submission.queue.as_str(), submission.output_dataclips), ("default", true));
        assert_eq!(submission.timeout_seconds, 300);
        assert!(submission.jobs.contain(JOB) && !submission.jobs.contain("a"));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let check = |text: &str, strict, expected: &str| {
            let error = Submission::parse(text, strict).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", false, "must be a JSON object: EOF");
        check("[]", false, "must be a JSON object");
        check(r#"{"plan":1}"#, false, "plan: must be an object");
        check(r#"{"id":7}"#, false, "id: must be a string");
        check(r#"{"id":"r"}"#, true, "id: must be a UUID, it is \"r\"");
        check(r#"{"jobs":{}}"#, false, "jobs: must be a list");
        check(r#"{"jobs":[1]}"#, false, "jobs[0]: must be an object");
        check(r#"{"jobs":[{"id":"a"},{"id":"a"}]}"#, false, "jobs[1].id: \"a\" is another job's id already");
        check(r#"{"jobs":[{"id":"a"}]}"#, true, "jobs[0].id: must be a UUID");
        check(r#"{"jobs":[{"id":"a","body":{}}]}"#, false, "jobs[0].body: must be a string");
        check(r#"{"edges":["a"]}"#, false, "edges[0]: must be an object");
        check(r#"{"dataclip_id":{}}"#, false, "dataclip_id: must be a string");
        check(r#"{"options":{"output_dataclips":"no"}}"#, false, "options.output_dataclips: must be true or false");
        check(
            r#"{"options":{"run_timeout_ms":-1}}"#,
            false,
            "options.run_timeout_ms: must be a number above zero, it is -1",
        );
        check(r#"{"options":{"run_timeout_ms":"5"}}"#, false, "options.run_timeout_ms: must be a number");
        check(r#"{"options":{"run_memory_limit_mb":0}}"#, false, "options.run_memory_limit_mb: must be a number above");
        check(r#"{"options":{"payload_limit_mb":-0.5}}"#, false, "options.payload_limit_mb: must be a number above");
        check(r#"{"options":{"sanitize":"all"}}"#, false, "must be one of none, remove, obfuscate, summarize, it is");
        check(r#"{"options":{"job_log_level":3}}"#, false, "options.job_log_level: must be one of debug, info");
        check(r#"{"dataclips":[]}"#, false, "dataclips: must be an object of id: JSON");
        check(r#"{"credentials":{"c":"x"}}"#, false, "credentials.c: must be an object");
    }
}
