//! What a service does where there is a choice.

use std::sync::Arc;
use std::time::Duration;

use protocol::backoff::Growth;
use serde_json::{Map, Value};
use smart_default::SmartDefault;

use super::reporters::FinishReporter;
use crate::client::ClientOptions;
use crate::job::Job;
use crate::paths::Layout;

/// How a service behaves.
#[derive(Debug, Clone, SmartDefault)]
pub struct ServiceOptions {
    /// Jobs that run at once, over all queues.
    #[default(1)]
    pub concurrency: usize,
    /// The generation of the paths.
    pub layout: Layout,
    /// How the connections to the stores behave.
    pub client: ClientOptions,
    /// Whether jobs that are there already at the start are left alone.
    pub skip_queue_on_startup: bool,
    /// What becomes of jobs of a type that has no handler.
    pub unknown_type: UnknownType,
    /// What becomes of jobs that another process has begun and not finished.
    pub half_run: HalfRun,
    /// How long a job stays claimed when nothing is heard of the service that claimed it; none: jobs are not claimed,
    /// and two services on one queue run every job twice.
    #[default(Some(Duration::from_secs(30)))]
    pub claim_lease: Option<Duration>,
    /// The name under which jobs are claimed; one of its own for each process unless set.
    pub instance: Option<String>,
    /// Who is told of finished jobs.
    pub finish_reporters: Vec<FinishReporter>,
    /// Time between looks at lists whose changes may have been missed.
    #[default(Duration::from_secs(60))]
    pub verify_interval: Duration,
}

/// What becomes of jobs of a type that has no handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UnknownType {
    /// They fail.
    #[default]
    Fail,
    /// They stay where they are, for another service.
    Leave,
    /// They stay where they are and are looked at again now and then, for a handler that comes later.
    Requeue,
}

/// What becomes of jobs that were begun and not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HalfRun {
    /// They are run again, from their beginning.
    #[default]
    Resume,
    /// They fail, as `interrupted`.
    Fail,
}

/// How jobs of one type are run.
#[derive(derive_more::Debug, Clone)]
#[debug("TypeOptions {{ timeout: {timeout:?}, retry: {retry:?}, checked: {}, links: {links:?} }}", check.is_some())]
pub struct TypeOptions {
    /// How long one may run.
    pub timeout: Duration,
    /// What becomes of those that fail.
    pub retry: Retry,
    /// Judges a job's `config`; an error is why it is refused.
    pub check: Option<Check>,
    /// JSON pointers into the job, such as `/config/document` or `/result/file`: what they lead to names resources
    /// that are to link to the job when it is finished.
    pub links: Vec<String>,
}

/// Judges a job's `config`; an error is why it is refused.
pub type Check = Arc<dyn Fn(&Map<String, Value>) -> Result<(), String> + Send + Sync>;

impl TypeOptions {
    /// One attempt of at most this long.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, retry: Retry::default(), check: None, links: Vec::new() }
    }
}

/// How often a job is run that fails.
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault)]
pub struct Retry {
    /// Attempts in all, those included in which the service itself was lost; at least one. A job that has used up
    /// more than one is filed as a dead letter, too.
    #[default(1)]
    pub attempts: u32,
    /// The pause before the second; each is twice as long as the one before.
    #[default(Duration::from_secs(10))]
    pub pause: Duration,
}

impl Retry {
    /// The pause after the `attempt`-th attempt, from 1, failed; none if it was the last.
    pub(super) fn pause_after(&self, attempt: u32) -> Option<Duration> {
        let pauses = Growth::doubling(self.pause, self.pause.saturating_mul(1 << 16));
        (attempt < self.attempts).then(|| pauses.pause(attempt.saturating_sub(1)))
    }
}

/// The resources that a finished job names: strings, links, or lists of these, where `pointers` lead. As absolute
/// paths.
pub(super) fn named_resources(job: &Job, result: Option<&Value>, pointers: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for pointer in pointers {
        let value = match pointer.strip_prefix("/result") {
            Some(rest) => result.and_then(|result| result.pointer(rest)),
            None => job.body.pointer(pointer),
        };
        collect(value, &mut found);
    }
    found
}

fn collect(value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        Some(Value::String(text)) if text.starts_with("resources/") => found.push(format!("/{text}")),
        Some(Value::String(text)) if text.starts_with('/') => found.push(text.trim_end_matches('/').to_owned()),
        Some(Value::Object(link)) => collect(link.get("_id"), found),
        Some(Value::Array(items)) => items.iter().for_each(|item| collect(Some(item), found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attempts_and_pauses() {
        let retry = Retry { attempts: 3, pause: Duration::from_secs(2) };
        let pauses = [1, 2, 3, 4].map(|attempt| retry.pause_after(attempt).map(|pause| pause.as_secs()));
        assert_eq!(pauses, [Some(2), Some(4), None, None]);
        assert_eq!(Retry::default().pause_after(1), None);
    }

    #[test]
    fn resources_that_a_job_names() {
        let config = json!({ "doc": { "_id": "resources/D", "_rev": 0 }, "list": ["resources/A", "/bookmarks/b/", 7] });
        let job = json!({ "service": "s", "type": "t", "config": config });
        let job = Job::parse("k", "resources/k", job).unwrap();
        let pointers = ["/config/doc", "/config/list", "/config/none", "/result/file"].map(ToOwned::to_owned);
        let found = named_resources(&job, Some(&json!({ "file": "resources/F" })), &pointers);
        assert_eq!(found, ["/resources/D", "/resources/A", "/bookmarks/b", "/resources/F"]);
    }
}
