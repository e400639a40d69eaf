//! Traces of runs, as OTLP over HTTP in its JSON form: a span a run, below it one for each phase and each step.
//!
//! The format is opentelemetry-proto's `ExportTraceServiceRequest`. The trace's id is the run's, so that a run can be
//! found by it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use lightning::timeline::{Phase, RunView, StepView};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use uuid::Uuid;

use super::export::{Destination, Exporter};

/// Runs that are sent at once.
const BATCH: usize = 64;
/// How long runs gather.
const GATHER: Duration = Duration::from_secs(1);

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// Headers for a collector, such as `authorization=Bearer x,x-tenant=y`: they may hold secrets.
#[derive(Debug, Clone)]
pub struct Headers(Vec<(HeaderName, SecretString)>);

/// A text that is no list of headers. It may hold a secret, so it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected headers such as `name=value,other=value`")]
pub struct InvalidHeaders;

impl std::str::FromStr for Headers {
    type Err = InvalidHeaders;

    fn from_str(text: &str) -> Result<Self, InvalidHeaders> {
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            HeaderValue::from_str(value.trim()).ok()?;
            Some((HeaderName::try_from(name.trim()).ok()?, SecretString::from(value.trim())))
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        Ok(Self(pairs.map(|pair| read(pair).ok_or(InvalidHeaders)).collect::<Result<_, _>>()?))
    }
}

impl Headers {
    fn with_type(headers: Option<&Self>) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().flat_map(|headers| &headers.0) {
            if let Ok(mut value) = HeaderValue::from_str(value.expose_secret()) {
                value.set_sensitive(true);
                map.insert(name.clone(), value);
            }
        }
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        map
    }
}

/// Sends the runs that end from now on to the collector at `destination`, until `stop` becomes true.
pub async fn export_traces(
    source: Source,
    destination: Destination,
    headers: Option<Headers>,
    sampling: Sampling,
    mut runs: broadcast::Receiver<Arc<RunView>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut exporter = Exporter::new("traces", destination, "/v1/traces", Headers::with_type(headers.as_ref()));
    let mut goes_on = true;
    while goes_on {
        let mut ended = Vec::new();
        // Without a sender there is nobody left to say stop, nor anything to export.
        goes_on = tokio::select! {
            biased;
            () = gather(&mut runs, sampling, &mut ended, &exporter) => true,
            () = sleep(GATHER) => true,
            _ = stop.wait_for(|stop| *stop) => false,
        };
        if !ended.is_empty() {
            exporter.send(request(&source, &ended).to_string(), ended.len()).await;
        }
    }
}

/// Gathers a batch.
async fn gather(
    runs: &mut broadcast::Receiver<Arc<RunView>>,
    sampling: Sampling,
    ended: &mut Vec<Arc<RunView>>,
    exporter: &Exporter,
) {
    while ended.len() < BATCH {
        match runs.recv().await {
            Ok(run) if run.phase == Phase::Ended && sampling.takes(&run.run) => ended.push(run),
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => exporter.missed(missed),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// What traces say of where they come from.
#[derive(Debug, Clone)]
pub struct Source(Vec<(String, String)>);

impl Source {
    /// This process, whose claims have this name: what the operator says of it beats what it says of itself.
    pub fn new(name: Option<String>, service: Option<String>, attributes: Option<Attributes>) -> Self {
        let own = [
            ("service.name", Some("openfn-worker".to_owned())),
            ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
            ("service.instance.id", Some(Uuid::new_v4().to_string())),
            ("openfn.worker.name", name),
        ];
        let own = own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let service = service.map(|service| ("service.name".to_owned(), service));
        let mut all: Vec<(String, String)> = Vec::new();
        for (key, value) in own.chain(attributes.into_iter().flat_map(|attributes| attributes.0)).chain(service) {
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => all.push((key, value)),
            }
        }
        Self(all)
    }
}

/// Attributes of a resource, as `OTEL_RESOURCE_ATTRIBUTES` has them: `key=value,other=value`, with `%XX` in values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

/// A text that is no list of attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected attributes such as `deployment.environment=production,team=data`")]
pub struct InvalidAttributes;

impl std::str::FromStr for Attributes {
    type Err = InvalidAttributes;

    fn from_str(text: &str) -> Result<Self, InvalidAttributes> {
        let read = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
            Some((key.trim().to_owned(), value)).filter(|(key, _)| !key.is_empty())
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        Ok(Self(pairs.map(|pair| read(pair).ok_or(InvalidAttributes)).collect::<Result<_, _>>()?))
    }
}

/// Which runs are sent. A run has no parent, so that what asks the parent first decides by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Sampler {
    /// All.
    #[value(alias = "parentbased_always_on")]
    AlwaysOn,
    /// None.
    #[value(alias = "parentbased_always_off")]
    AlwaysOff,
    /// The part that the argument says.
    #[value(name = "traceidratio", alias = "parentbased_traceidratio")]
    TraceIdRatio,
}

/// Which part of the runs is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// How that is decided.
    pub sampler: Sampler,
    /// The part, from 0 to 1, of [`Sampler::TraceIdRatio`].
    pub ratio: f64,
}

impl Sampling {
    fn takes(self, run: &str) -> bool {
        match self.sampler {
            Sampler::AlwaysOn => true,
            Sampler::AlwaysOff => false,
            Sampler::TraceIdRatio => {
                // The last 56 bits of a trace's id are random, also where it is a UUID.
                let random = trace_id(run).as_u128() & ((1 << 56) - 1);
                (random as f64) < self.ratio * (1_u64 << 56) as f64
            }
        }
    }
}

/// The trace's id is the run's.
fn trace_id(run: &str) -> Uuid {
    Uuid::parse_str(run).unwrap_or_else(|_| Uuid::new_v4())
}

fn request(source: &Source, runs: &[Arc<RunView>]) -> Value {
    let resource: Vec<Value> = source.0.iter().map(|(key, value)| text(key, value)).collect();
    let spans: Vec<Value> = runs.iter().flat_map(|run| spans(run)).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "worker" }, "spans": spans }],
    }] })
}

fn spans(run: &RunView) -> Vec<Value> {
    let (Some((_, began)), Some((_, ended))) = (run.phases.first(), run.phases.last()) else { return Vec::new() };
    let trace = trace_id(&run.run).simple().to_string();
    let root = span_id();
    let mut attributes = vec![text("openfn.run.id", &run.run), text("openfn.workloop", &run.workloop)];
    attributes.extend(run.workflow.as_deref().map(|workflow| text("openfn.workflow.id", workflow)));
    attributes.extend(run.host.as_deref().map(|host| text("openfn.host", host)));
    attributes.extend(outcome(run.reason, run.error_type));
    attributes.push(json!({ "key": "openfn.run.delivered", "value": { "boolValue": run.delivered } }));
    let frame = Frame { trace: &trace, parent: None };
    let mut spans = vec![frame.span(&root, "run", (*began, *ended), attributes, run.reason)];
    let below = Frame { trace: &trace, parent: Some(&root) };
    let mut execute = None;
    for pair in run.phases.windows(2) {
        let ((phase, from), (_, to)) = (pair[0], pair[1]);
        let id = span_id();
        spans.push(below.span(&id, phase.as_str(), (from, to), Vec::new(), None));
        if phase == Phase::Execute {
            execute = Some(id);
        }
    }
    let inside = Frame { trace: &trace, parent: execute.as_ref().or(Some(&root)) };
    spans.extend(run.steps.iter().map(|step| inside.step(step, *ended)));
    spans
}

/// Where spans belong.
struct Frame<'a> {
    trace: &'a str,
    parent: Option<&'a String>,
}

impl Frame<'_> {
    fn step(&self, step: &StepView, run_ended: u64) -> Value {
        let mut attributes = vec![text("openfn.step.id", &step.step)];
        attributes.extend(step.name.as_deref().map(|name| text("openfn.step.name", name)));
        attributes.extend(outcome(step.reason, step.error_type));
        if let Some(memory) = step.memory {
            attributes.push(json!({ "key": "openfn.step.memory", "value": { "intValue": memory.to_string() } }));
        }
        let times = (step.started_us, step.ended_us.unwrap_or(run_ended));
        self.span(&span_id(), "step", times, attributes, step.reason)
    }

    fn span(
        &self,
        id: &str,
        name: &str,
        (began, ended): (u64, u64),
        attributes: Vec<Value>,
        reason: Option<&str>,
    ) -> Value {
        let nanoseconds = |us: u64| us.saturating_mul(1000).to_string();
        let mut span = json!({
            "traceId": self.trace,
            "spanId": id,
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": nanoseconds(began),
            "endTimeUnixNano": nanoseconds(ended.max(began)),
            "attributes": attributes,
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = json!(parent);
        }
        if let Some(reason) = reason {
            span["status"] = json!({ "code": if reason == "success" { OK } else { ERROR } });
        }
        span
    }
}

fn outcome(reason: Option<&str>, error_type: Option<&str>) -> impl Iterator<Item = Value> {
    let reason = reason.map(|reason| text("openfn.reason", reason));
    reason.into_iter().chain(error_type.map(|it| text("error.type", it)))
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Eight random bytes in hexadecimal.
fn span_id() -> String {
    Uuid::new_v4().simple().to_string()[16..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> RunView {
        RunView {
            run: "6f6f5d0c-1f0a-4c0e-9a3c-0d0f4f6b7a11".into(),
            workloop: "manual>*".into(),
            workflow: Some("wf".into()),
            host: Some("h1".into()),
            phase: Phase::Ended,
            phases: vec![
                (Phase::Prepare, 1),
                (Phase::Start, 3),
                (Phase::Execute, 4),
                (Phase::Deliver, 9),
                (Phase::Ended, 10),
            ],
            steps: vec![StepView {
                index: 0,
                step: "a".into(),
                name: Some("Fetch".into()),
                started_us: 5,
                ended_us: Some(7),
                reason: Some("fail"),
                error_type: Some("JobError"),
                memory: Some(9000),
            }],
            steps_left_out: 0,
            reason: Some("fail"),
            error_type: Some("JobError"),
            usage: None,
            delivery: lightning::timeline::Delivery::default(),
            delivered: true,
        }
    }

    #[test]
    fn a_run_is_a_span_with_its_phases_and_steps_below() {
        let attributes = "team=data%20team, service.name=mine".parse().unwrap();
        let source = Source::new(Some("worker-1".into()), None, Some(attributes));
        let request = request(&source, &[Arc::new(view())]);
        let resource = request["resourceSpans"][0]["resource"].to_string();
        for part in ["service.instance.id", "openfn.worker.name", "worker-1", "data team", "mine"] {
            assert!(resource.contains(part), "{part} is missing in {resource}");
        }
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["run", "prepare", "start", "execute", "deliver", "step"]);
        assert!(spans.iter().all(|span| span["traceId"] == "6f6f5d0c1f0a4c0e9a3c0d0f4f6b7a11"));
        assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
        assert_eq!(spans[5]["parentSpanId"], spans[3]["spanId"], "steps are part of the execution");
        assert_eq!((&spans[0]["startTimeUnixNano"], &spans[0]["endTimeUnixNano"]), (&"1000".into(), &"10000".into()));
        assert_eq!(spans[0]["status"]["code"], ERROR);
        assert_eq!(spans[0]["spanId"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn what_the_operator_says_of_the_resource_counts() {
        let attributes: Attributes = "service.name=a,service.version=9,x=".parse().unwrap();
        let Source(all) = Source::new(None, Some("b".into()), Some(attributes));
        let value =
            |wanted: &str| all.iter().filter(|(key, _)| key == wanted).map(|(_, it)| it.as_str()).collect::<Vec<_>>();
        assert_eq!((value("service.name"), value("service.version"), value("x")), (vec!["b"], vec!["9"], vec![""]));
        for bad in ["team", "=x", "a=%ff"] {
            assert!(bad.parse::<Attributes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_of_the_runs_is_sampled() {
        let runs: Vec<String> = (0..2000).map(|_| Uuid::new_v4().to_string()).collect();
        let taken = |sampler, ratio| runs.iter().filter(|run| Sampling { sampler, ratio }.takes(run)).count();
        assert_eq!((taken(Sampler::AlwaysOn, 0.0), taken(Sampler::AlwaysOff, 1.0)), (2000, 0));
        assert_eq!((taken(Sampler::TraceIdRatio, 1.0), taken(Sampler::TraceIdRatio, 0.0)), (2000, 0));
        let quarter = taken(Sampler::TraceIdRatio, 0.25);
        assert!((300..700).contains(&quarter), "{quarter}");
    }

    #[test]
    fn headers_are_read_and_their_values_are_not_shown() {
        let headers: Headers = "authorization=Bearer very-private, x-tenant=a=b".parse().unwrap();
        let map = Headers::with_type(Some(&headers));
        assert_eq!(map["authorization"], "Bearer very-private");
        assert_eq!(map["x-tenant"], "a=b");
        assert!(!format!("{headers:?} {map:?}").contains("very-private"));
        for bad in ["authorization", "a b=c", "a=\n"] {
            assert!(bad.parse::<Headers>().is_err() || bad == "a=\n", "{bad}");
        }
    }
}
