//! Jobs and their updates: what is one, and how the end of one is written. Pure.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use strum::{EnumString, IntoStaticStr};

/// A job that is to be posted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The service that is to do it.
    pub service: String,
    /// Its type.
    pub kind: String,
    /// What the type's handler needs to know.
    pub config: Map<String, Value>,
}

impl NewJob {
    /// The resource's body.
    pub fn body(&self) -> Value {
        json!({ "service": self.service, "type": self.kind, "config": self.config })
    }
}

/// A job as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// `resources/<id>`.
    pub id: String,
    /// Its key in the list that it was found in.
    pub key: String,
    /// The service that is to do it.
    pub service: String,
    /// Its type.
    pub kind: String,
    /// What the type's handler needs to know.
    pub config: Map<String, Value>,
    /// `success` or `failure` when it is finished; others may write other words.
    pub status: Option<String>,
    /// What its handler returned or how it failed.
    pub result: Option<Value>,
    /// What happened, by time.
    pub updates: Vec<Update>,
    /// Revision of the resource.
    pub rev: u64,
    /// Everything that was read.
    pub body: Value,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// A word.
    pub status: String,
    /// When, in ISO 8601.
    pub time: String,
    /// Anything about it.
    pub meta: Option<Value>,
}

/// A resource that is not a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} is not a job: {why}; a job has strings `service` and `type`, and may have an object `config`")]
pub struct InvalidJob {
    id: String,
    why: String,
}

/// How a job ended that is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Status {
    /// Well.
    Success,
    /// Not well.
    Failure,
}

impl Status {
    /// The word for it in a job.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Job {
    /// Reads a job that was found under `key`.
    pub fn parse(key: &str, id: &str, body: Value) -> Result<Self, InvalidJob> {
        let invalid = |why: String| InvalidJob { id: id.to_owned(), why };
        let Some(object) = body.as_object() else { return Err(invalid("it is not an object".to_owned())) };
        let text = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            None => Ok(None),
            Some(_) => Err(invalid(format!("its `{name}` is not a string"))),
        };
        let required = |name: &str| text(name)?.ok_or_else(|| invalid(format!("it has no `{name}`")));
        let objects = |name: &str| match object.get(name) {
            Some(Value::Object(object)) => Ok(object.clone()),
            None => Ok(Map::new()),
            Some(_) => Err(invalid(format!("its `{name}` is not an object"))),
        };
        Ok(Self {
            id: id.to_owned(),
            key: key.to_owned(),
            service: required("service")?,
            kind: required("type")?,
            config: objects("config")?,
            status: text("status")?,
            result: object.get("result").cloned(),
            updates: updates(&objects("updates")?),
            rev: object.get("_rev").and_then(Value::as_u64).unwrap_or(0),
            body,
        })
    }

    /// How it ended, if it did.
    pub fn finished(&self) -> Option<Status> {
        self.status.as_deref()?.parse().ok()
    }

    /// When the update was made that says how it ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        let status = self.finished()?.as_str();
        self.updates.iter().rev().find(|update| update.status == status)?.time.parse().ok()
    }

    /// The type of its failure, if it has one.
    pub fn failure_type(&self) -> Option<&str> {
        failure_type(self.result.as_ref()?)
    }
}

/// The type of failure that a result tells of. That of jobs that took too long is not written down.
fn failure_type(result: &Value) -> Option<&str> {
    let text = |key: &str| result.get(key).and_then(Value::as_str);
    let is_timeout = || text("name") == Some(TIMEOUT_NAME) && text("message").is_some_and(|it| it.starts_with(OVERDUE));
    text("JobError").or_else(|| is_timeout().then_some(TIMEOUT_TYPE))
}

/// What jobs that took too long fail with, as `@oada/jobs` writes it: name, beginning of the message, and the type under
/// which they are filed.
const TIMEOUT_NAME: &str = "TimeoutError";
const OVERDUE: &str = "Job exceeded the allowed ";
const TIMEOUT_TYPE: &str = "timeout";

/// The failure of a job that took longer than this.
pub(super) fn overdue(timeout: Duration) -> JobError {
    let message = format!("{OVERDUE}{} ms running limit", timeout.as_millis());
    let stack = Some(format!("{TIMEOUT_NAME}: {message}"));
    JobError { stack, ..JobError::typed(message, TIMEOUT_TYPE).named(TIMEOUT_NAME) }
}

/// When an update was made: ISO 8601, or seconds or milliseconds since 1970, as older services wrote them.
fn time(value: &Value) -> Option<(Option<Timestamp>, String)> {
    let numeric = |number: f64| {
        let millis = if number.abs() < 1e11 { number * 1e3 } else { number };
        let at = millis.is_finite().then(|| Timestamp::from_millisecond(millis.round() as i64))?.ok()?;
        Some((Some(at), format!("{at:.3}")))
    };
    match value {
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => numeric(number),
            Err(_) => Some((text.parse().ok(), text.clone())),
        },
        Value::Number(number) => numeric(number.as_f64()?),
        _ => None,
    }
}

/// The updates that are of the right form, by time. Keys that a store made are random within a second; those that this
/// program made tell which of a millisecond came first.
fn updates(object: &Map<String, Value>) -> Vec<Update> {
    let mut updates: Vec<(Option<Timestamp>, &str, Update)> = object
        .iter()
        .filter_map(|(key, update)| {
            let status = update.get("status")?.as_str()?.to_owned();
            let (at, time) = time(update.get("time")?)?;
            Some((at, key.as_str(), Update { status, time, meta: update.get("meta").cloned() }))
        })
        .collect();
    updates.sort_by_key(|(time, key, _)| (*time, *key));
    updates.into_iter().map(|(_, _, update)| update).collect()
}

/// The body of an update.
pub(super) fn update(status: &str, meta: Option<Value>, now: Timestamp) -> Value {
    let mut update = json!({ "status": status, "time": format!("{now:.3}") });
    if let (Some(meta), Some(object)) = (meta, update.as_object_mut()) {
        object.insert("meta".to_owned(), meta);
    }
    update
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// An error.
    #[error("{0}")]
    Error(Box<JobError>),
    /// Something else that was thrown: it is stored as it is.
    #[error("{0}")]
    Value(Value),
}

/// An error that ends a job.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct JobError {
    /// The error's name.
    pub name: String,
    /// What it says.
    pub message: String,
    /// The way of failing, under which the job is filed as well.
    pub kind: Option<String>,
    /// Where it was thrown.
    pub stack: Option<String>,
    /// What caused it.
    pub cause: Option<Value>,
    /// More that belongs to it.
    pub fields: Map<String, Value>,
}

impl JobError {
    /// An error called `Error`.
    pub fn new(message: impl Into<String>) -> Self {
        let (name, message) = ("Error".to_owned(), message.into());
        Self { name, message, kind: None, stack: None, cause: None, fields: Map::new() }
    }

    /// An error of a type.
    pub fn typed(message: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { kind: Some(kind.into()), ..Self::new(message) }
    }

    /// With another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// An error of Rust, with what caused it.
    pub fn of(error: &dyn Error) -> Self {
        Self { cause: error.source().map(|cause| Self::of(cause).result()), ..Self::new(error.to_string()) }
    }

    /// What is stored as the job's `result`.
    pub fn result(&self) -> Value {
        let mut result = Map::new();
        let mut put = |key: &str, value: Value| result.insert(key.to_owned(), value);
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != TIMEOUT_TYPE || self.name != TIMEOUT_NAME) {
            put("JobError", Value::from(kind));
        }
        put("name", Value::from(self.name.as_str()));
        put("message", Value::from(self.message.as_str()));
        if let Some(stack) = &self.stack {
            put("stack", Value::from(stack.as_str()));
        }
        if let Some(cause) = &self.cause {
            put("cause", cause.clone());
        }
        for (key, value) in &self.fields {
            result.entry(key.as_str()).or_insert_with(|| value.clone());
        }
        Value::Object(result)
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl Failure {
    /// An error that says only this.
    pub fn new(message: impl Into<String>) -> Self {
        JobError::new(message).into()
    }

    /// The way of failing.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Error(error) => error.kind.as_deref(),
            Self::Value(_) => None,
        }
    }

    /// What is stored as the job's `result`.
    pub fn result(&self) -> Value {
        match self {
            Self::Error(error) => error.result(),
            Self::Value(value) => value.clone(),
        }
    }

    /// The failure that a job's `result` tells of.
    pub fn read(result: Option<&Value>) -> Self {
        let Some(Value::Object(object)) = result else {
            return Self::Value(result.cloned().unwrap_or(Value::Null));
        };
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let Some(message) = text("message") else { return Self::Value(Value::Object(object.clone())) };
        let known = ["JobError", "name", "message", "stack", "cause"];
        let fields = object.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        Self::Error(Box::new(JobError {
            name: text("name").unwrap_or_else(|| "Error".to_owned()),
            message,
            kind: failure_type(&Value::Object(object.clone())).map(ToOwned::to_owned),
            stack: text("stack"),
            cause: object.get("cause").cloned(),
            fields: fields.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_job() {
        let valid = [
            json!({ "service": "s", "type": "t" }),
            json!({ "service": "s", "type": "t", "config": {}, "status": "x", "updates": {}, "_rev": 3, "more": 1 }),
            json!({ "service": "s", "type": "t", "result": "a string, which others store, too" }),
        ];
        for body in valid {
            assert!(Job::parse("k", "resources/k", body.clone()).is_ok(), "{body}");
        }
        let invalid = [
            (json!({}), "no `service`"),
            (json!({ "service": "s" }), "no `type`"),
            (json!({ "service": 1, "type": "t" }), "`service` is not a string"),
            (json!({ "service": "s", "type": "t", "config": [] }), "`config` is not an object"),
            (json!({ "service": "s", "type": "t", "status": 1 }), "`status` is not a string"),
            (json!({ "service": "s", "type": "t", "updates": 1 }), "`updates` is not an object"),
            (json!("text"), "not an object"),
        ];
        for (body, why) in invalid {
            let error = Job::parse("k", "resources/k", body.clone()).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("resources/k"), "{body}: {error}");
        }
    }

    #[test]
    fn updates_are_sorted_by_time_not_by_key() {
        let body = json!({ "service": "s", "type": "t", "status": "success", "updates": {
            "c": { "status": "started", "time": "2018-11-14T10:00:00.001Z" },
            "a": { "status": "success", "time": "2018-11-14T10:00:00.003Z", "meta": { "x": 1 } },
            "b": { "status": "working", "time": "2018-11-14T10:00:00.002Z" },
            "d": { "status": 7 },
        } });
        let job = Job::parse("k", "resources/k", body).unwrap();
        let words: Vec<&str> = job.updates.iter().map(|update| update.status.as_str()).collect();
        assert_eq!(words, ["started", "working", "success"]);
        assert_eq!(job.finished(), Some(Status::Success));
        assert_eq!(job.finished_at().map(|time| time.to_string()).as_deref(), Some("2018-11-14T10:00:00.003Z"));
    }

    #[test]
    fn times_may_be_numbers() {
        let times = [json!(1_542_189_600), json!("1542189600"), json!(1_542_189_600_003_i64), json!(1_542_189_600.003)];
        let expected = ["10:00:00.000Z", "10:00:00.000Z", "10:00:00.003Z", "10:00:00.003Z"];
        for (time, expected) in times.into_iter().zip(expected) {
            let update = json!({ "status": "success", "time": time });
            let body = json!({ "service": "s", "type": "t", "status": "success", "updates": { "A": update } });
            let job = Job::parse("k", "resources/k", body).unwrap();
            let at = format!("2018-11-14T{expected}");
            assert_eq!((job.finished_at(), job.updates[0].time.as_str()), (at.parse().ok(), at.as_str()), "{time}");
        }
        for odd in [json!("inf"), json!(1e300), json!(null), json!("soon")] {
            let updates = json!({ "A": { "status": "success", "time": odd } });
            let body = json!({ "service": "s", "type": "t", "status": "success", "updates": updates });
            assert_eq!(Job::parse("k", "resources/k", body).unwrap().finished_at(), None, "{odd}");
        }
    }

    #[test]
    fn a_timeout_is_written_as_others_write_it_and_known_again() {
        let error = overdue(Duration::from_millis(50));
        let message = "Job exceeded the allowed 50 ms running limit";
        let stack = format!("TimeoutError: {message}");
        let expected = json!({ "name": "TimeoutError", "message": message, "stack": stack });
        assert_eq!(error.result(), expected);
        assert_eq!(Failure::read(Some(&expected)).kind(), Some("timeout"));
        let own = json!({ "name": "TimeoutError", "message": "the fax did not answer" });
        assert_eq!(Failure::read(Some(&own)).kind(), None);
    }

    #[test]
    fn failures_are_written_and_read() {
        let error = JobError {
            stack: Some("at x".to_owned()),
            cause: Some(json!({ "name": "Error", "message": "why" })),
            fields: Map::from_iter([("code".to_owned(), json!(7)), ("name".to_owned(), json!("not mine"))]),
            ..JobError::typed("bad input", "bad-input")
        };
        let result = error.result();
        let expected = json!({ "JobError": "bad-input", "name": "Error", "message": "bad input", "stack": "at x",
            "cause": { "name": "Error", "message": "why" }, "code": 7 });
        assert_eq!(result, expected);
        assert_eq!(Failure::read(Some(&result)).result(), expected);
        assert_eq!(Failure::read(Some(&result)).kind(), Some("bad-input"));
        for thrown in [json!("just text"), json!({ "a": 1 }), json!(null)] {
            assert_eq!(Failure::read(Some(&thrown)).result(), thrown);
        }
        let nested = JobError::of(&std::io::Error::other(JobError::new("inner")));
        assert_eq!(nested.message, "Error: inner");
    }

    #[test]
    fn updates_have_milliseconds() {
        let now: Timestamp = "2026-11-21T22:13:04.4795Z".parse().unwrap();
        assert_eq!(update("started", None, now)["time"], "2026-11-21T22:13:04.479Z");
        assert_eq!(update("x", Some(json!(1)), now)["meta"], 1);
    }

    #[test]
    fn how_a_job_stands_by_its_status_and_its_updates() {
        let job = |body: Value| {
            let mut whole = json!({ "service": "s", "type": "t" });
            whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
            Job::parse("k", "resources/k", whole).unwrap()
        };
        let at = |second: u8| format!("2018-11-14T10:00:0{second}.000Z");
        for (status, finished) in [
            (json!("success"), Some(Status::Success)),
            (json!("failure"), Some(Status::Failure)),
            (json!("Success"), None),
            (json!("pending"), None),
        ] {
            let job = job(json!({ "status": status, "_rev": 3, "result": 1 }));
            assert_eq!((job.finished(), job.finished_at(), job.rev), (finished, None, 3), "{status}");
            assert_eq!(job.result.as_ref(), Some(&json!(1)));
        }
        let updates = json!({
            "1": { "status": "failure", "time": at(1) }, "2": { "status": "started", "time": at(2) },
            "3": { "status": "failure", "time": at(3) }, "4": { "status": "success", "time": at(4) },
        });
        let failed = job(json!({ "status": "failure", "updates": updates }));
        assert_eq!(failed.finished_at().map(|time| format!("{time:.3}")), Some(at(3)), "the last of its kind");
        assert_eq!(failed.failure_type(), None);
        for (status, name) in [(Status::Success, "success"), (Status::Failure, "failure")] {
            assert_eq!((status.as_str(), status.to_string().as_str()), (name, name));
        }
    }

    #[test]
    fn updates_of_the_same_time_are_in_the_order_of_their_keys() {
        let time = "2018-11-14T10:00:00Z";
        let updates = json!({ "b": { "status": "2", "time": time }, "a": { "status": "1", "time": time },
            "c": { "status": "0", "time": "no time" } });
        let body = json!({ "service": "s", "type": "t", "updates": updates });
        let updates = Job::parse("k", "resources/k", body).unwrap().updates;
        assert_eq!(updates.iter().map(|it| it.status.as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!(updates[0].time, "no time");
    }

    #[test]
    fn a_failure_of_the_type_of_timeouts_is_told_unless_it_is_one() {
        let result = JobError::typed("m", TIMEOUT_TYPE).result();
        assert_eq!(result["JobError"], TIMEOUT_TYPE, "it has another name");
        let other = JobError::typed("m", "bad").named(TIMEOUT_NAME).result();
        assert_eq!((&other["JobError"], &other["name"]), (&json!("bad"), &json!(TIMEOUT_NAME)));
        assert_eq!(Failure::new("m").kind(), None);
        assert_eq!(Failure::Value(json!("v")).kind(), None);
        assert_eq!(
            (Failure::new("m").to_string(), Failure::Value(json!("v")).to_string()),
            ("Error: m".into(), "\"v\"".into())
        );
    }
}
