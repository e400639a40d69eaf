//! The double of Lightning, as tests start it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mock_lightning::{self, Hooks, MockLightning, MockOptions, RunRecord};
use serde_json::{Value, json};

use crate::worker::Worker;

/// The secret that the double expects of workers.
pub const SECRET: &str = "a secret that only tests know";

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// What a test may want of the double.
#[derive(Default)]
pub struct LightningOptions {
    /// Faults; none unless set.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// Takes messages of any length, as no Lightning does.
    pub any_length: bool,
}

/// Starts the double on a free port. It takes ids that are no UUIDs for jobs.
pub async fn start(options: LightningOptions) -> MockLightning {
    let mut mock = MockOptions { secret: Some(SECRET.into()), ..MockOptions::default() };
    if options.any_length {
        mock.max_message_bytes = None;
    }
    if let Some(hooks) = options.hooks {
        mock.hooks = hooks;
    }
    mock_lightning::start(mock).await.expect("a free port can be had")
}

/// A plan of one job.
pub fn one_job(body: &str) -> Value {
    chain(&[("a", body)])
}

/// A plan of jobs one after the other.
pub fn chain(jobs: &[(&str, &str)]) -> Value {
    let edges: Vec<Value> = jobs
        .windows(2)
        .map(|pair| json!({ "id": format!("{}-{}", pair[0].0, pair[1].0), "source_job_id": pair[0].0, "target_job_id": pair[1].0 }))
        .collect();
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|(id, body)| json!({ "id": id, "name": id, "adaptor": "@openfn/language-common@3.3.4", "body": body }))
        .collect();
    json!({ "jobs": jobs, "edges": edges, "triggers": [] })
}

/// Queues a run and wakes the workers.
pub fn queue(lightning: &MockLightning, plan: Value) -> String {
    let id = lightning.queue_run(plan).expect("the plan is valid");
    lightning.wake();
    id
}

/// Waits for the end of a run, and fails with what the worker printed.
pub async fn end(lightning: &MockLightning, worker: &Worker, id: &str) -> RunRecord {
    match lightning.wait_for_end(id, DEADLINE).await {
        Ok(record) => record,
        Err(error) => panic!("{error}\n{}", worker.output()),
    }
}

/// Waits until a run looks like this.
pub async fn until(
    lightning: &MockLightning,
    worker: &Worker,
    id: &str,
    wanted: impl Fn(&RunRecord) -> bool,
) -> RunRecord {
    let end = Instant::now() + DEADLINE;
    loop {
        let record = lightning.run(id).expect("the run was queued");
        if wanted(&record) {
            return record;
        }
        assert!(Instant::now() < end, "the run did not get there: {record:?}\n{}", worker.output());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a job has logged this text.
pub fn logged(record: &RunRecord, text: &str) -> bool {
    messages(record, "JOB").iter().any(|message| message == text)
}

/// What one source logged, a line each, values joined by spaces. A line that came again counts once.
pub fn messages(record: &RunRecord, source: &str) -> Vec<String> {
    let lines = record.logs.iter().filter(|log| log.line["source"] == source);
    lines
        .map(|log| {
            let values = log.line["message"].as_array().into_iter().flatten();
            let texts = values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join(" ")
        })
        .collect()
}
