//! What large states, many log lines and requests of language-http cost: how much more processor time and time a run takes
//! than a trivial one does, through the double, the worker and its hosts.
//!
//! `cargo bench --workspace --bench payloads -- [--engine KIND] [--node-start WAY] [--runs N] [--state-bytes N,N]
//! [--lines N,N]`. Each run has the worker to itself; the kinds take turns, so that what else the machine does is the same
//! for all. Processor time is that of the worker and its hosts, without the double.

use std::collections::BTreeSet;
use std::time::Duration;

use mock_lightning::{MockLightning, RunRecord, RunState};
use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::{self, LightningOptions};
use tests::measure::{claim_to_complete, cpu_of_tree, median, number, options, until_forked};
use tests::soak;
use tests::worker::Worker;

/// Rounds in which the kinds take turns.
const ROUNDS: usize = 5;

struct Settings {
    engine: String,
    node_start: String,
    runs: usize,
    state_bytes: Vec<usize>,
    lines: Vec<usize>,
}

/// Runs of one kind, and what they have cost.
struct Kind {
    name: String,
    plan: Value,
    cpu: Duration,
    times: Vec<Duration>,
}

#[tokio::main]
async fn main() {
    let settings = settings();
    let lightning = lightning::start(LightningOptions { any_length: true, ..LightningOptions::default() }).await;
    binaries::worker();
    let Settings { engine, node_start, .. } = &settings;
    // A state of 10 MB is longer than a message may be unless the limits are raised.
    let limits = ["--payload-memory", "100", "--max-message-mb", "200", "--log", "info"];
    let options = [&["--capacity", "1", "--engine", engine, "--node-start", node_start][..], &limits].concat();
    let worker = Worker::start(&lightning, &options).await;
    let url = (engine == "node").then_some(soak::answering().await);
    let mut kinds = kinds(&settings, url.as_deref());
    warm_up(&lightning, &worker, &kinds, node_start).await;

    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let before = cpu_of_tree(worker.pid());
            for _ in 0..settings.runs.div_ceil(ROUNDS) {
                kind.times.push(claim_to_complete(&run(&lightning, &worker, &kind.plan).await));
            }
            // What takes the place of a host that was used up is a part of what the run costs.
            tokio::time::sleep(Duration::from_millis(200)).await;
            kind.cpu += cpu_of_tree(worker.pid()).saturating_sub(before);
        }
    }
    worker.stop().await;
    assert!(lightning.violations().is_empty(), "{:?}", lightning.violations());

    println!("{engine} engine, {ROUNDS} rounds of {} runs in turns\n", settings.runs.div_ceil(ROUNDS));
    println!("{:<24} {:>12} {:>12} {:>12} {:>12}", "", "CPU a run", "more", "p50", "more");
    let (cpu, p50) = (kinds[0].cpu_a_run(), median(&kinds[0].times));
    for kind in &kinds {
        let columns = [kind.cpu_a_run(), kind.cpu_a_run() - cpu, median(&kind.times), median(&kind.times) - p50];
        let [cpu, more_cpu, p50, more] = columns.map(|value| format!("{value:.1} ms"));
        println!("{:<24} {cpu:>12} {more_cpu:>12} {p50:>12} {more:>12}", kind.name);
    }
}

impl Kind {
    fn cpu_a_run(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.times.len() as f64
    }
}

/// A trivial run, those with so large a state or so many lines, and one that asks a server, if there is one.
fn kinds(settings: &Settings, url: Option<&str>) -> Vec<Kind> {
    let kind = |name: String, plan| Kind { name, plan, cpu: Duration::ZERO, times: Vec::new() };
    let of = |body: &str| json!({ "id": "a", "adaptor": "@openfn/language-common@3.3.4", "body": body });
    let job = of("fn(state => ({ ...state, answer: 42 }))");
    let trivial = json!({ "jobs": [&job], "edges": [], "triggers": [] });
    let states = settings.state_bytes.iter().map(|bytes| {
        let clips = json!({ "large": { "data": rows(*bytes) } });
        let plan = json!({ "jobs": [&job], "edges": [], "triggers": [], "dataclip_id": "large", "dataclips": clips });
        kind(format!("a state of {bytes} bytes"), plan)
    });
    let lines = settings.lines.iter().map(|lines| {
        let body = format!(
            "fn(state => {{ for (let n = 0; n < {lines}; n += 1) console.log('row', n, 'is stored'); return state; }})"
        );
        kind(format!("{lines} lines"), json!({ "jobs": [of(&body)], "edges": [], "triggers": [] }))
    });
    let asks = url.map(|url| {
        let body = format!("get('{url}'); post('{url}', {{ body: {{ a: 1 }} }});");
        let job = json!({ "id": "a", "adaptor": "@openfn/language-http@7.2.10", "body": body });
        kind("GET + POST".to_owned(), json!({ "jobs": [job], "edges": [], "triggers": [] }))
    });
    [kind("trivial".to_owned(), trivial)].into_iter().chain(states).chain(lines).chain(asks).collect()
}

/// Rows as a database has them, of so many bytes of JSON.
fn rows(bytes: usize) -> Value {
    let mut rows = Vec::new();
    let mut length = 0;
    while length < bytes {
        let number = rows.len();
        let row = json!({
            "id": format!("patient-{number:07}"),
            "name": "Amina Diallo",
            "village": "Kijiji \u{e9}cole \"B\"",
            "age": number % 90,
            "weight": 51.5 + number as f64,
            "visits": [{ "on": "2026-01-05T08:30:00Z", "by": "nurse 7", "due": true }, { "on": null }],
        });
        length += row.to_string().len() + 1;
        rows.push(row);
    }
    Value::Array(rows)
}

/// Has the engines of all kinds of runs ready, and those that were there before templates used up.
async fn warm_up(lightning: &MockLightning, worker: &Worker, kinds: &[Kind], node_start: &str) {
    let adaptors: BTreeSet<String> = kinds.iter().map(|kind| kind.plan["jobs"][0]["adaptor"].to_string()).collect();
    for round in 0..2 {
        for kind in kinds {
            for _ in 0..4 {
                run(lightning, worker, &kind.plan).await;
            }
        }
        if round == 0 && node_start == "fork" {
            until_forked(worker, adaptors.len()).await;
        }
    }
}

async fn run(lightning: &MockLightning, worker: &Worker, plan: &Value) -> RunRecord {
    let id = lightning::queue(lightning, plan.clone());
    let record = lightning::end(lightning, worker, &id).await;
    assert_eq!(record.state, RunState::Success, "{}", worker.output());
    // A host takes the place of the one that was used up.
    tokio::time::sleep(Duration::from_millis(60)).await;
    record
}

fn settings() -> Settings {
    let mut settings = Settings {
        engine: "embedded".to_owned(),
        node_start: "auto".to_owned(),
        runs: 50,
        state_bytes: vec![1_000_000],
        lines: vec![1_000],
    };
    for (name, value) in options() {
        let numbers = || value.split(',').filter(|text| !text.is_empty()).map(|text| number(&name, text)).collect();
        match name.as_str() {
            "--engine" => settings.engine = value,
            "--node-start" => settings.node_start = value,
            "--runs" => settings.runs = number(&name, &value),
            "--state-bytes" => settings.state_bytes = numbers(),
            "--lines" => settings.lines = numbers(),
            _ => panic!("unknown option {name}; known are --engine, --node-start, --runs, --state-bytes, --lines"),
        }
    }
    settings
}
