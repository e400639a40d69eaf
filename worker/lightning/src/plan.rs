//! Lightning's plan of a run: what it says, and the [`RunSpec`] that it becomes.
//!
//! Pure. Takes any plan that Lightning or its mock sends: unknown keys are ignored, missing lists are empty, null
//! equals absent. Whether the workflow makes sense is for the host to judge.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use jiff::Timestamp;
use protocol::engine::EngineSpec;
use protocol::run::{Condition, Edge, RunOptions, RunSpec, Step};
use protocol::{InvalidJson, Json};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

/// The adaptor that gives jobs access to collections.
const COLLECTIONS: &str = "@openfn/language-collections";

/// Where collections are, and which version of their adaptor is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collections {
    /// The service.
    pub url: String,
    /// Version of the adaptor.
    pub version: String,
}

/// A plan that cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[error("Lightning's plan cannot be read: {0}")]
pub(super) struct InvalidPlan(#[from] InvalidJson);

/// A plan that was read, less what must still be fetched.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) spec: RunSpec,
    /// The dataclip that the run starts with.
    pub(super) dataclip_id: Option<String>,
    /// Steps whose credential must be fetched, by their place.
    credentials: Vec<(usize, String)>,
    /// What is odd in the plan, for the run's log.
    pub(super) warnings: Vec<String>,
}

/// What a plan does not say of its run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) run_id: &'a str,
    /// The run's token, which the collections get.
    pub(super) token: &'a SecretString,
    /// When the run starts.
    pub(super) now: Timestamp,
    pub(super) defaults: &'a RunOptions,
    /// The longest state that the operator wants, in bytes, if that is not to follow from the run's memory.
    pub(super) state_bytes: Option<u64>,
    pub(super) collections: Option<&'a Collections>,
}

impl Plan {
    /// Reads Lightning's plan of a run.
    pub(super) fn read(plan: &Json, around: Surroundings<'_>) -> Result<Self, InvalidPlan> {
        let Surroundings { run_id, token, now, defaults, state_bytes, collections } = around;
        let wire: WirePlan = plan.decode()?;
        let mut warnings = Vec::new();
        let options = run_options(wire.options.unwrap_or_default(), defaults, state_bytes, &mut warnings);
        let meta = meta(run_id, now, wire.meta.as_deref(), wire.project_id.as_deref());
        let mut credentials = Vec::new();
        let mut steps: Vec<_> = wire.triggers.unwrap_or_default().into_iter().map(trigger).collect();
        for job in wire.jobs.unwrap_or_default() {
            if let Some(id) = credential_id(&job) {
                credentials.push((steps.len(), id));
            }
            steps.push(step(job));
        }
        for edge in wire.edges.unwrap_or_default() {
            connect(&mut steps, edge);
        }
        let configuration = collections.filter(|it| add_collections(&mut steps, it)).map(|it| {
            let project = wire.project_id.map(|id| ("project_id", id));
            let keys = [("collections_token", token.expose_secret().into()), ("collections_endpoint", it.url.clone())];
            let object: Map<String, Value> =
                keys.into_iter().chain(project).map(|(key, value)| (key.to_owned(), value.into())).collect();
            Json::encode(&object)
        });
        let spec = RunSpec {
            run_id: run_id.into(),
            steps,
            start: wire.starting_node_id,
            input: Json::empty_object(),
            globals: wire.globals.filter(|source| !source.is_empty()),
            meta: Json::encode(&meta)?,
            configuration: configuration.transpose()?,
            engine: EngineSpec::default(),
            options,
        };
        Ok(Self { spec, dataclip_id: wire.dataclip_id, credentials, warnings })
    }

    /// Ids of the credentials to fetch, each once.
    pub(super) fn credential_ids(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.credentials.iter().map(|(_, id)| id.clone()).filter(|id| seen.insert(id.clone())).collect()
    }

    /// Puts in what was fetched. `null` as input counts as none.
    pub(super) fn complete(self, input: Option<Json>, credentials: &HashMap<String, Json>) -> RunSpec {
        let mut spec = self.spec;
        spec.input = input.filter(|input| !input.is_null()).unwrap_or_else(Json::empty_object);
        for (at, id) in self.credentials {
            if let Some(step) = spec.steps.get_mut(at) {
                step.configuration = credentials.get(&id).cloned();
            }
        }
        spec
    }
}

#[derive(Deserialize)]
struct WirePlan {
    project_id: Option<String>,
    dataclip_id: Option<String>,
    starting_node_id: Option<String>,
    triggers: Option<Vec<WireTrigger>>,
    jobs: Option<Vec<WireJob>>,
    edges: Option<Vec<WireEdge>>,
    options: Option<WireOptions>,
    globals: Option<String>,
    meta: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireTrigger {
    id: Option<String>,
}

#[derive(Deserialize)]
struct WireJob {
    id: Option<String>,
    name: Option<String>,
    body: Option<String>,
    adaptor: Option<String>,
    credential_id: Option<String>,
    credential: Option<Box<RawValue>>,
    state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireEdge {
    source_trigger_id: Option<String>,
    source_job_id: Option<String>,
    target_job_id: Option<String>,
    condition: Option<String>,
    enabled: Option<bool>,
}

#[derive(Default, Deserialize)]
struct WireOptions {
    run_timeout_ms: Option<f64>,
    run_memory_limit_mb: Option<f64>,
    state_limit_mb: Option<f64>,
    payload_limit_mb: Option<f64>,
    log_payload_limit_mb: Option<f64>,
    sanitize: Option<String>,
    output_dataclips: Option<bool>,
    job_log_level: Option<String>,
}

fn trigger(trigger: WireTrigger) -> Step {
    Step { id: trigger.id.unwrap_or_else(fresh_id), ..Step::default() }
}

fn step(job: WireJob) -> Step {
    let inline = job.credential.map(raw).filter(Json::is_object);
    Step {
        id: job.id.unwrap_or_else(fresh_id),
        name: job.name.filter(|name| !name.is_empty()),
        expression: job.body.filter(|body| !body.is_empty()),
        adaptors: job.adaptor.filter(|adaptor| !adaptor.is_empty()).into_iter().collect(),
        configuration: inline,
        state: job.state.map(raw),
        next: Vec::new(),
    }
}

/// The id of a credential that is not in the plan itself. Where a credential stands, a string is its id.
fn credential_id(job: &WireJob) -> Option<String> {
    let named = job.credential.as_ref().and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    job.credential_id.clone().or(named).filter(|id| !id.is_empty())
}

fn fresh_id() -> String {
    Uuid::new_v4().to_string()
}

fn raw(value: Box<RawValue>) -> Json {
    let text: Box<str> = value.into();
    Json::parse(String::from(text)).expect("a raw value is valid JSON")
}

/// Adds an edge to the step that it starts from. One whose source does not exist can never be reached.
fn connect(steps: &mut [Step], edge: WireEdge) {
    let disabled = edge.enabled == Some(false);
    let (source, from_trigger) = match (edge.source_trigger_id, edge.source_job_id) {
        (Some(trigger), _) => (trigger, true),
        (None, Some(job)) => (job, false),
        (None, None) => return,
    };
    let Some(target) = edge.target_job_id else { return };
    if from_trigger && disabled {
        return;
    }
    let condition = if disabled { Condition::Never } else { condition(edge.condition) };
    if let Some(step) = steps.iter_mut().find(|step| step.id == source) {
        step.next.push(Edge { target, condition });
    }
}

fn condition(text: Option<String>) -> Condition {
    let Some(text) = text else { return Condition::Always };
    match text.trim() {
        "" | "always" => Condition::Always,
        "never" => Condition::Never,
        "on_job_success" | "on_upstream_success" => Condition::OnSuccess,
        "on_job_failure" | "on_upstream_fail" => Condition::OnFailure,
        _ => Condition::Expression(text),
    }
}

/// Gives the collections adaptor to every job whose code uses collections; whether there was one.
fn add_collections(steps: &mut [Step], collections: &Collections) -> bool {
    let mut used = false;
    for step in steps {
        if step.expression.as_ref().is_some_and(|code| code.contains("collections.")) {
            used = true;
            if !step.adaptors.iter().any(|adaptor| adaptor.starts_with(COLLECTIONS)) {
                step.adaptors.push(format!("{COLLECTIONS}@{}", collections.version));
            }
        }
    }
    used
}

/// What jobs see as `meta`; its `startTime` is in milliseconds, as `Date.now()` gives. Nothing in the plan's own `meta` can make the plan invalid.
fn meta(run_id: &str, now: Timestamp, wire: Option<&RawValue>, project_id: Option<&str>) -> Map<String, Value> {
    let wire: Map<String, Value> = wire.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let of_plan = |name: &str| wire.get(name).filter(|value| !value.is_null()).cloned();
    let fields = [
        ("runId", Some(run_id.into())),
        ("startTime", Some(now.as_millisecond().into())),
        ("workOrderId", of_plan("work_order_id")),
        ("workflowId", of_plan("workflow_id")),
        ("projectId", of_plan("project_id").or_else(|| project_id.map(Value::from))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn run_options(
    wire: WireOptions,
    defaults: &RunOptions,
    state_bytes: Option<u64>,
    warnings: &mut Vec<String>,
) -> RunOptions {
    let mut limit = |name: &str, value: Option<f64>, unit: f64, may_be_none: bool| {
        let value = value?;
        let whole = (value * unit) as u64;
        // What is less than one is not meant to be none.
        if whole > 0 || (may_be_none && value == 0.0) {
            return Some(whole);
        }
        warnings.push(format!("the run's option {name} is {value}, which is no limit: the worker's own holds"));
        None
    };
    const MB: f64 = 1024.0 * 1024.0;
    let timeout = limit("run_timeout_ms", wire.run_timeout_ms, 1.0, false);
    let memory = limit("run_memory_limit_mb", wire.run_memory_limit_mb, MB, false);
    let state = limit("state_limit_mb", wire.state_limit_mb, MB, false);
    let payload = limit("payload_limit_mb", wire.payload_limit_mb, MB, true);
    let memory_bytes = memory.unwrap_or(defaults.memory_bytes);
    let log_payload = limit("log_payload_limit_mb", wire.log_payload_limit_mb, MB, true);
    RunOptions {
        timeout_ms: timeout.unwrap_or(defaults.timeout_ms),
        memory_bytes,
        state_bytes: state.or(state_bytes).unwrap_or_else(|| RunOptions::state_bytes_of(memory_bytes)),
        payload_bytes: payload.unwrap_or(defaults.payload_bytes),
        log_payload_bytes: log_payload.unwrap_or(defaults.log_payload_bytes),
        output_dataclips: wire.output_dataclips.unwrap_or(defaults.output_dataclips),
        job_log_level: word("job_log_level", wire.job_log_level, warnings).unwrap_or(defaults.job_log_level),
        sanitize: word("sanitize", wire.sanitize, warnings).unwrap_or(defaults.sanitize),
        state_props_to_remove: defaults.state_props_to_remove.clone(),
    }
}

fn word<T: FromStr>(name: &str, text: Option<String>, warnings: &mut Vec<String>) -> Option<T> {
    let text = text?;
    let value = text.parse().ok();
    if value.is_none() {
        warnings.push(format!("the run's option {name} is `{text}`, which is unknown: the worker's own holds"));
    }
    value
}

#[cfg(fuzzing)]
pub(super) mod fuzzing;
#[cfg(test)]
mod tests;
