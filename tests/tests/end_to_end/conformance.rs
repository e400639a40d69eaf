//! Every workflow does here what it did on the reference worker.
//!
//! `data/conformance.json` holds workflows and what the reference did with them, recorded through its own mock of
//! Lightning. All of them go through the real worker, its hosts and the double, on each engine. Where we differ,
//! [`EMBEDDED`] and [`NODE`] say so; each departure there is a row of the table in `docs/switching.md`, which says why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use mock_lightning::RunRecord;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tests::lightning::{self, DEADLINE, LightningOptions};
use tests::matching::differences;
use tests::served::serve;
use tests::worker::Worker;

/// How a case may differ from the reference.
enum Departure {
    /// It cannot run: the end of the run must be this error type, and the message must contain this text.
    Refused(&'static str, &'static str),
    /// These places (a path's end) are not compared: the words or columns are those of another JavaScript engine.
    Open(&'static [&'static str]),
    /// These places (a path's end) have these values instead.
    Values(&'static [(&'static str, &'static str)]),
}

/// Departures by case, each with what the page's table calls it.
type Departures = [(&'static str, Departure, &'static str)];

/// What the table calls an error in a function that the job has given a name.
const NAMED_FUNCTION: &str = "An error in a function of the job's own that has a name";
const OTHER_ADAPTORS: &str = "A job of another adaptor";
const COLUMNS: &str = "The column of an error";
const INTL: &str = "`Intl`";

/// What is wrong there on the reference.
const NO_ADAPTORS_FAULT: Departure = Departure::Values(&[(".error_type", "JobError"), (".run.error_type", "JobError")]);

/// Every departure of Node.
const NODE: &Departures = &[("error-named-function", NO_ADAPTORS_FAULT, NAMED_FUNCTION)];

/// Every departure of the embedded engine.
const EMBEDDED: &Departures = &[
    ("error-named-function", NO_ADAPTORS_FAULT, NAMED_FUNCTION),
    ("error-http-404", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("error-http-refused", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("compile-lazy-template", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("http-get", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("http-basic-auth", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("http-post-then", Departure::Refused("ImportError", "@openfn/language-http"), OTHER_ADAPTORS),
    ("error-install", Departure::Refused("ImportError", "does-not-exist"), OTHER_ADAPTORS),
    ("error-range", Departure::Open(&[".pos.column"]), COLUMNS),
    ("error-type", Departure::Open(&[".pos.column"]), COLUMNS),
    ("graph-errors-carry-on", Departure::Open(&[".pos.column"]), COLUMNS),
    ("compile-globals", Departure::Values(&[(".data.intl", "undefined")]), INTL),
];

/// Rows of the page's table by engine and name, each with the cases that show it.
fn documented() -> BTreeMap<(&'static str, &'static str), BTreeSet<&'static str>> {
    let page = include_str!("../../../docs/switching.md");
    let (_, table) = page.split_once("| what | engine |").expect("the page has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, engines, _, _, cases] = cells[..] else { panic!("a row has five cells: {row}") };
        let cases: BTreeSet<&str> =
            cases.split(", ").map(|case| case.trim_matches('`')).filter(|it| *it != "–").collect();
        for engine in engines.split(", ") {
            assert!(["node", "embedded"].contains(&engine), "{row}");
            assert!(documented.insert((engine, what), cases.clone()).is_none(), "{what} stands twice for {engine}");
        }
    }
    documented
}

#[test]
fn the_page_for_those_who_switch_has_every_departure_and_no_other() {
    let documented = documented();
    let mut found: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (engine, departures) in [("node", NODE), ("embedded", EMBEDDED)] {
        for (case, _, what) in departures {
            found.entry((engine, what)).or_default().insert(case);
        }
    }
    let shown = documented.into_iter().filter(|(_, cases)| !cases.is_empty()).collect();
    assert_eq!(found, shown);
}

#[derive(Deserialize)]
struct Case {
    plan: Map<String, Value>,
    #[serde(default)]
    dataclips: Map<String, Value>,
    #[serde(default)]
    credentials: Map<String, Value>,
    expect: Value,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workflow_ends_as_on_the_reference_on_the_embedded_engine() {
    conform(EMBEDDED, &["--engine", "embedded"]).await;
}

/// With adaptors from the real registry.
#[tokio::test(flavor = "multi_thread")]
async fn every_workflow_ends_as_on_the_reference_on_node() {
    let repo = tempfile::tempdir().expect("there is room for a folder");
    conform(NODE, &["--engine", "node", "--repo-dir", &repo.path().display().to_string()]).await;
}

async fn conform(departures: &Departures, options: &[&str]) {
    let web = web_service().await;
    let cases = include_str!("../../data/conformance.json").replace("127.0.0.1:18089", &web.to_string());
    let cases: BTreeMap<String, Case> = serde_json::from_str(&cases).expect("the cases are JSON");
    for (name, _, _) in departures {
        assert!(cases.contains_key(*name), "a departure of an unknown case: {name}");
    }

    let lightning = lightning::start(LightningOptions::default()).await;
    let mut runs = Vec::new();
    for (name, case) in &cases {
        let id = lightning.queue_run(submission(name, case)).unwrap_or_else(|error| panic!("{name}: {error}"));
        runs.push((name, case, id));
    }
    let worker = Worker::start(&lightning, &[options, &["--capacity", "4"]].concat()).await;

    let mut failures = Vec::new();
    for (name, case, id) in runs {
        let record = match lightning.wait_for_end(&id, DEADLINE).await {
            Ok(record) => record,
            Err(error) => panic!("{name} did not end: {error}\n{}", worker.output()),
        };
        let departure = departures.iter().find(|(case, _, _)| case == name).map(|(_, departure, _)| departure);
        let found = check(departure, case, &observed(&record));
        if !found.is_empty() {
            failures.push(format!("{name}\n    {}", found.join("\n    ")));
        }
    }
    worker.stop().await;
    assert!(failures.is_empty(), "{} of {} cases differ\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert_eq!(lightning.violations(), [], "Lightning refused something");
    lightning.stop().await;
}

/// The web service that some cases call.
async fn web_service() -> SocketAddr {
    async fn auth(headers: HeaderMap) -> Response {
        // Basic `u:p`.
        match headers.get("authorization").map(|value| value.as_bytes()) {
            Some(b"Basic dTpw") => answer(StatusCode::OK, json!({ "auth": "ok" })),
            _ => answer(StatusCode::UNAUTHORIZED, json!({ "auth": "no" })),
        }
    }
    async fn status(Path(status): Path<u16>) -> Response {
        answer(StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND), json!({ "error": "as asked" }))
    }
    async fn echo(method: Method, Query(query): Query<BTreeMap<String, String>>, body: String) -> Response {
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        answer(StatusCode::OK, json!({ "method": method.as_str(), "query": query, "body": body }))
    }
    let router = Router::new()
        .route("/json", get(async || answer(StatusCode::OK, json!({ "hello": "world" }))))
        .route("/status/{status}", any(status))
        .route("/auth", get(auth))
        .route("/echo", any(echo));
    serve(router).await
}

/// JSON in chunks and with the headers that Node's own servers send, since adaptors show them.
fn answer(status: StatusCode, value: Value) -> Response {
    let body = futures_util::stream::iter([Ok::<_, Infallible>(value.to_string())]);
    let headers = [("content-type", "application/json"), ("connection", "keep-alive"), ("keep-alive", "timeout=5")];
    (status, headers, Body::from_stream(body)).into_response()
}

/// The plan with ids of its own for what it fetches, since all cases share one server.
fn submission(name: &str, case: &Case) -> Value {
    let own = |id: &str| format!("{name}/{id}");
    let mut plan = case.plan.clone();
    plan.remove("id");
    let known = |map: &Map<String, Value>, id: &Value| id.as_str().is_some_and(|id| map.contains_key(id));
    if let Some(id) = plan.get_mut("dataclip_id").filter(|id| known(&case.dataclips, id)) {
        *id = json!(own(id.as_str().expect("a known id is a string")));
    }
    for job in plan.get_mut("jobs").and_then(Value::as_array_mut).into_iter().flatten() {
        for key in ["credential", "credential_id"] {
            if let Some(id) = job.get_mut(key).filter(|id| known(&case.credentials, id)) {
                *id = json!(own(id.as_str().expect("a known id is a string")));
            }
        }
    }
    let renamed = |map: &Map<String, Value>| map.iter().map(|(id, value)| (own(id), value.clone())).collect();
    plan.insert("dataclips".into(), Value::Object(renamed(&case.dataclips)));
    plan.insert("credentials".into(), Value::Object(renamed(&case.credentials)));
    Value::Object(plan)
}

fn check(departure: Option<&Departure>, case: &Case, actual: &Value) -> Vec<String> {
    let mut expected = case.expect.clone();
    expected.as_object_mut().expect("an expectation is an object").remove("reference_differs");
    let mut found = differences(&expected, actual);
    match departure {
        None => {}
        Some(Departure::Refused(kind, text)) => {
            let run = &actual["run"];
            let message = run["error_message"].as_str().unwrap_or_default();
            found = if run["error_type"] == *kind && message.contains(text) && run["reason"] == "crash" {
                Vec::new()
            } else {
                vec![format!("expected a {kind} that names {text}, is {run}")]
            };
        }
        Some(Departure::Open(paths)) => {
            found.retain(|difference| !paths.iter().any(|path| place(difference).ends_with(path)));
        }
        Some(Departure::Values(places)) => {
            for (path, value) in *places {
                let is_meant = |it: &String| place(it).ends_with(path) && it.ends_with(&format!("is {}", json!(value)));
                if !found.iter().any(is_meant) {
                    found.push(format!("the departure at {path} is gone"));
                }
            }
            let is_meant = |it: &String| {
                places
                    .iter()
                    .any(|(path, value)| place(it).ends_with(path) && it.ends_with(&format!("is {}", json!(value))))
            };
            found.retain(|difference| !is_meant(difference));
        }
    }
    found
}

fn place(difference: &str) -> &str {
    difference.split_once(": ").map_or(difference, |(place, _)| place)
}

/// What the double recorded, in the form of an expectation.
fn observed(record: &RunRecord) -> Value {
    let mut order = Vec::new();
    let mut steps = Vec::new();
    let mut logs = Vec::new();
    let mut run = Value::Null;
    let mut jobs: HashMap<String, String> = HashMap::new();
    for event in &record.events {
        let payload = &*event.payload;
        let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
        match event.event.as_str() {
            "run:start" => order.push("start run".to_owned()),
            "step:start" => {
                jobs.insert(text("step_id"), text("job_id"));
                let input = if payload["input_dataclip_id"].is_null() { " (no input id)" } else { "" };
                order.push(format!("start {}{input}", text("job_id")));
            }
            "step:complete" => {
                order.push(format!("complete {}", text("job_id")));
                steps.push(observed_step(payload));
            }
            "run:log" if ["JOB", "ADA"].contains(&text("source").as_str()) => {
                let step = jobs.get(&text("step_id")).cloned();
                logs.push(json!([payload["source"], payload["level"], payload["message"], step]));
            }
            "run:complete" => {
                order.push("complete run".to_owned());
                run = observed_end(payload);
            }
            _ => {}
        }
    }
    json!({ "order": order, "steps": steps, "run": run, "logs": logs })
}

fn observed_step(payload: &Value) -> Value {
    let mut step = json!({
        "job": payload["job_id"],
        "reason": payload["reason"],
        "error_type": payload["error_type"],
        "error_message": payload["error_message"],
    });
    if let Some(output) = payload["output_dataclip"].as_str() {
        step["output"] = serde_json::from_str(output).expect("a dataclip is JSON");
    }
    for (key, name) in [("output_dataclip_error", "output_error"), ("webhook_response", "webhook_response")] {
        if !payload[key].is_null() {
            step[name] = payload[key].clone();
        }
    }
    step
}

fn observed_end(payload: &Value) -> Value {
    let mut end = json!({
        "reason": payload["reason"],
        "error_type": payload["error_type"],
        "error_message": payload["error_message"],
        "final_dataclip": !payload["final_dataclip_id"].is_null(),
    });
    if let Some(state) = payload.get("final_state") {
        end["final_state"] = state.clone();
    }
    end
}
