//! Lightning's plan of a run: what it says, and the [`RunSpec`] that it becomes.
//!
//! Pure. Takes any plan that Lightning or its mock sends: unknown keys are ignored, missing lists are empty, null
//! equals absent. Whether the workflow makes sense is for the host to judge.

use std::collections::{HashMap, HashSet};

use protocol::run::{Condition, Edge, JobLogLevel, RunOptions, RunSpec, Sanitize, Step};
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
    spec: RunSpec,
    /// The dataclip that the run starts with.
    pub(super) dataclip_id: Option<String>,
    /// Steps whose credential must be fetched, by their place.
    credentials: Vec<(usize, String)>,
    /// What is odd in the plan, for the run's log.
    pub(super) warnings: Vec<String>,
}

impl Plan {
    /// Reads Lightning's plan for the run `run_id`, whose token the collections get.
    pub(super) fn read(
        plan: &Json,
        run_id: &str,
        token: &SecretString,
        defaults: &RunOptions,
        collections: Option<&Collections>,
    ) -> Result<Self, InvalidPlan> {
        let wire: WirePlan = plan.decode()?;
        let mut warnings = Vec::new();
        let options = run_options(wire.options.unwrap_or_default(), defaults, &mut warnings);
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
            configuration: configuration.transpose()?,
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
    payload_limit_mb: Option<f64>,
    log_payload_limit_mb: Option<f64>,
    sanitize: Option<String>,
    output_dataclips: Option<bool>,
    job_log_level: Option<String>,
}

fn trigger(trigger: WireTrigger) -> Step {
    Step {
        id: trigger.id.unwrap_or_else(fresh_id),
        name: None,
        expression: None,
        adaptors: Vec::new(),
        configuration: None,
        state: None,
        next: Vec::new(),
    }
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

fn run_options(wire: WireOptions, defaults: &RunOptions, warnings: &mut Vec<String>) -> RunOptions {
    let mut limit = |name: &str, value: Option<f64>| {
        let value = value?;
        if value > 0.0 {
            return Some(value);
        }
        warnings.push(format!("the run's option {name} is {value}, which is no limit: the worker's own holds"));
        None
    };
    const MB: f64 = 1024.0 * 1024.0;
    let bytes = |mb: f64| (mb * MB) as u64;
    let timeout = limit("run_timeout_ms", wire.run_timeout_ms);
    let memory = limit("run_memory_limit_mb", wire.run_memory_limit_mb).map(bytes);
    let payload = limit("payload_limit_mb", wire.payload_limit_mb).map(bytes);
    let log_payload = limit("log_payload_limit_mb", wire.log_payload_limit_mb).map(bytes);
    RunOptions {
        timeout_ms: timeout.map_or(defaults.timeout_ms, |ms| ms as u64),
        memory_bytes: memory.unwrap_or(defaults.memory_bytes),
        state_bytes: memory.map_or(defaults.state_bytes, |bytes| bytes / 4),
        payload_bytes: payload.unwrap_or(defaults.payload_bytes),
        log_payload_bytes: log_payload.unwrap_or(defaults.log_payload_bytes),
        output_dataclips: wire.output_dataclips.unwrap_or(defaults.output_dataclips),
        job_log_level: word("job_log_level", wire.job_log_level, warnings, |word| match word {
            "debug" => Some(JobLogLevel::Debug),
            "info" => Some(JobLogLevel::Info),
            "warn" => Some(JobLogLevel::Warn),
            "error" => Some(JobLogLevel::Error),
            "none" => Some(JobLogLevel::None),
            _ => None,
        })
        .unwrap_or(defaults.job_log_level),
        sanitize: word("sanitize", wire.sanitize, warnings, |word| match word {
            "none" => Some(Sanitize::None),
            "remove" => Some(Sanitize::Remove),
            "obfuscate" => Some(Sanitize::Obfuscate),
            "summarize" => Some(Sanitize::Summarize),
            _ => None,
        })
        .unwrap_or(defaults.sanitize),
        state_props_to_remove: defaults.state_props_to_remove.clone(),
    }
}

fn word<T>(
    name: &str,
    text: Option<String>,
    warnings: &mut Vec<String>,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = text?;
    let value = read(&text);
    if value.is_none() {
        warnings.push(format!("the run's option {name} is `{text}`, which is unknown: the worker's own holds"));
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUN: &str = "a-run";

    fn read(plan: Value) -> Plan {
        let collections = Collections { url: "http://c".into(), version: "1.2.3".into() };
        let plan = Json::encode(&plan).unwrap();
        Plan::read(&plan, RUN, &"token".into(), &RunOptions::default(), Some(&collections)).unwrap()
    }

    fn edges(plan: Value) -> Vec<(String, String, Condition)> {
        let steps = read(plan).spec.steps.into_iter();
        steps.flat_map(|step| step.next.into_iter().map(move |it| (step.id.clone(), it.target, it.condition))).collect()
    }

    #[test]
    fn a_whole_plan() {
        let plan = read(json!({
            "id": RUN, "name": "flow", "project_id": "p", "dataclip_id": "d", "starting_node_id": "t",
            "triggers": [{"id": "t", "type": "webhook"}],
            "jobs": [{
                "id": "a", "name": "A", "body": "fn(s => s)", "adaptor": "@openfn/language-http@7.2.0",
                "credential_id": "c", "state": {"data": {"x": 1}}, "unknown": [],
            }],
            "edges": [{"id": "e", "source_trigger_id": "t", "target_job_id": "a", "condition": "always", "enabled": true}],
            "options": {"output_dataclips": false},
            "globals": "export const x = 1",
        }));
        assert_eq!(plan.credential_ids(), ["c"]);
        assert_eq!(plan.dataclip_id.as_deref(), Some("d"));
        let fetched = HashMap::from([("c".to_owned(), Json::parse("{\"token\":1}").unwrap())]);
        let spec = plan.complete(Some(Json::parse("{\"data\":2}").unwrap()), &fetched);
        let step = Step {
            id: "a".into(),
            name: Some("A".into()),
            expression: Some("fn(s => s)".into()),
            adaptors: vec!["@openfn/language-http@7.2.0".into()],
            configuration: fetched.get("c").cloned(),
            state: Some(Json::parse("{\"data\":{\"x\":1}}").unwrap()),
            next: Vec::new(),
        };
        let trigger = Step {
            id: "t".into(),
            name: None,
            expression: None,
            adaptors: Vec::new(),
            configuration: None,
            state: None,
            next: vec![Edge { target: "a".into(), condition: Condition::Always }],
        };
        let expected = RunSpec {
            run_id: RUN.into(),
            steps: vec![trigger, step],
            start: Some("t".into()),
            input: Json::parse("{\"data\":2}").unwrap(),
            globals: Some("export const x = 1".into()),
            configuration: None,
            options: RunOptions { output_dataclips: false, ..RunOptions::default() },
        };
        assert_eq!(spec, expected);
    }

    #[test]
    fn null_equals_absent() {
        let keys = [
            "name",
            "project_id",
            "dataclip_id",
            "starting_node_id",
            "triggers",
            "jobs",
            "edges",
            "options",
            "globals",
        ];
        let nulls: Map<String, Value> = keys.iter().map(|key| ((*key).into(), Value::Null)).collect();
        for plan in [json!({}), Value::Object(nulls)] {
            let plan = read(plan);
            assert_eq!(plan.credential_ids(), Vec::<String>::new());
            let spec = plan.complete(None, &HashMap::new());
            assert_eq!((spec.steps, spec.start, spec.input), (Vec::new(), None, Json::empty_object()));
        }
        let job = json!({"id": null, "name": null, "body": null, "adaptor": null, "credential_id": null, "credential": null, "state": null});
        let steps = read(json!({"jobs": [job, {}]})).spec.steps;
        for step in steps {
            assert!(Uuid::parse_str(&step.id).is_ok(), "{}", step.id);
            assert_eq!((step.expression, step.configuration, step.state), (None, None, None));
            assert_eq!(step.adaptors, Vec::<String>::new());
        }
    }

    #[test]
    fn unusable_plans_are_errors() {
        for plan in [json!(null), json!([]), json!("plan"), json!({"jobs": 7}), json!({"jobs": [{"body": 1}]})] {
            let plan = Json::encode(&plan).unwrap();
            let error = Plan::read(&plan, RUN, &"t".into(), &RunOptions::default(), None).unwrap_err();
            assert!(error.to_string().starts_with("Lightning's plan cannot be read: "), "{error}");
        }
    }

    #[test]
    fn conditions_of_edges() {
        let cases = [
            (json!({}), Condition::Always),
            (json!({"condition": null, "enabled": true}), Condition::Always),
            (json!({"condition": "always"}), Condition::Always),
            (json!({"condition": "on_job_success"}), Condition::OnSuccess),
            (json!({"condition": "on_upstream_success"}), Condition::OnSuccess),
            (json!({"condition": "on_job_failure"}), Condition::OnFailure),
            (json!({"condition": "on_upstream_fail"}), Condition::OnFailure),
            (json!({"condition": "state.data.n > 3"}), Condition::Expression("state.data.n > 3".into())),
            (json!({"enabled": false}), Condition::Never),
            (json!({"condition": "on_job_success", "enabled": false}), Condition::Never),
        ];
        for (edge, expected) in cases {
            let mut from_job = edge.clone();
            from_job["source_job_id"] = "a".into();
            from_job["target_job_id"] = "b".into();
            let plan = json!({"jobs": [{"id": "a"}, {"id": "b"}], "edges": [from_job]});
            assert_eq!(edges(plan), [("a".into(), "b".into(), expected.clone())], "{edge}");
            let mut from_trigger = edge.clone();
            from_trigger["source_trigger_id"] = "t".into();
            from_trigger["target_job_id"] = "b".into();
            let plan = json!({"triggers": [{"id": "t"}], "jobs": [{"id": "b"}], "edges": [from_trigger]});
            let expected = (expected != Condition::Never).then(|| ("t".into(), "b".into(), expected));
            assert_eq!(edges(plan), expected.into_iter().collect::<Vec<_>>(), "{edge}");
        }
    }

    #[test]
    fn edges_keep_their_order_and_unknown_targets() {
        let edge = |source: &str, target: &str| json!({"source_job_id": source, "target_job_id": target});
        let plan = json!({
            "jobs": [{"id": "a"}],
            "edges": [edge("a", "nope"), edge("ghost", "a"), edge("a", "a"), {"target_job_id": "a"}],
        });
        let targets: Vec<_> = edges(plan).into_iter().map(|it| it.1).collect();
        assert_eq!(targets, ["nope", "a"]);
    }

    #[test]
    fn credentials_by_id_and_inline() {
        let plan = read(json!({"triggers": [{"id": "t"}], "jobs": [
            {"id": "a", "credential_id": "one"},
            {"id": "b", "credential": "two"},
            {"id": "c", "credential": {"user": "inline"}},
            {"id": "d", "credential": "one"},
        ]}));
        assert_eq!(plan.credential_ids(), ["one", "two"]);
        let body = |n: u8| Json::parse(format!("{{\"n\":{n}}}")).unwrap();
        let fetched = HashMap::from([("one".to_owned(), body(1)), ("two".to_owned(), body(2))]);
        let steps = plan.complete(None, &fetched).steps;
        let configurations: Vec<_> = steps.into_iter().map(|step| step.configuration).collect();
        let inline = Json::parse("{\"user\":\"inline\"}").unwrap();
        assert_eq!(configurations, [None, Some(body(1)), Some(body(2)), Some(inline), Some(body(1))]);
    }

    #[test]
    fn options_override_the_workers() {
        const MB: u64 = 1024 * 1024;
        let plan = read(json!({"options": {
            "run_timeout_ms": 1500, "run_memory_limit_mb": 100, "payload_limit_mb": 0.5, "log_payload_limit_mb": 2,
            "sanitize": "summarize", "job_log_level": "warn", "output_dataclips": null,
        }}));
        let expected = RunOptions {
            timeout_ms: 1500,
            memory_bytes: 100 * MB,
            state_bytes: 25 * MB,
            payload_bytes: MB / 2,
            log_payload_bytes: 2 * MB,
            job_log_level: JobLogLevel::Warn,
            sanitize: Sanitize::Summarize,
            ..RunOptions::default()
        };
        assert_eq!(plan.spec.options, expected);
        assert_eq!(plan.warnings, Vec::<String>::new());
        let odd = read(json!({"options": {"run_timeout_ms": 0, "sanitize": "bleach"}}));
        assert_eq!(odd.spec.options, RunOptions::default());
        assert_eq!(odd.warnings.len(), 2);
    }

    #[test]
    fn collections() {
        let code = "collections.get('x')";
        let plan = read(json!({"project_id": "p", "jobs": [
            {"id": "a", "body": code, "adaptor": "@openfn/language-http@1.0.0"},
            {"id": "b", "body": code, "adaptor": "@openfn/language-collections@local"},
            {"id": "c", "body": "fn(s => s)", "adaptor": "@openfn/language-common@local"},
        ]}));
        let adaptors: Vec<_> = plan.spec.steps.iter().map(|step| step.adaptors.join(" ")).collect();
        assert_eq!(
            adaptors,
            [
                "@openfn/language-http@1.0.0 @openfn/language-collections@1.2.3",
                "@openfn/language-collections@local",
                "@openfn/language-common@local",
            ]
        );
        let configuration: Value = plan.spec.configuration.unwrap().decode().unwrap();
        let expected = json!({"collections_token": "token", "collections_endpoint": "http://c", "project_id": "p"});
        assert_eq!(configuration, expected);
        assert_eq!(read(json!({"jobs": [{"body": "fn(s => s)"}]})).spec.configuration, None);
    }
}
