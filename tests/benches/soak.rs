//! Many runs of all kinds on forked engines: none may hang, be lost or end otherwise than it should, and templates must
//! stay as they were.
//!
//! `cargo bench --workspace --bench soak -- [--runs N] [--capacity N] [--node-start WAY]`. `WORKER_NODE` names the Node,
//! `SEED` the order; `@openfn/language-http` comes from the real registry, into `WORKER_REPO_DIR` if that is set.

use std::time::{Duration, Instant};

use tests::leftovers;
use tests::lightning::{self, LightningOptions};
use tests::measure::{mb, number, options, rss};
use tests::soak::{MAY_GROW, Outcome, Soak};
use tests::worker::Worker;

struct Settings {
    runs: usize,
    capacity: usize,
    node_start: String,
}

#[tokio::main]
async fn main() {
    let Settings { runs, capacity, node_start } = settings();
    let runtime = tempfile::tempdir().expect("there is room for a folder");
    let [folder, packages, repo] = ["runtime", "packages", "repo"].map(|name| runtime.path().join(name));
    std::fs::create_dir(&folder).expect("there is room for a folder");
    let soak = Soak::prepare(&packages, Some("@openfn/language-http@7.2.10")).await;
    let repo = std::env::var("WORKER_REPO_DIR").unwrap_or_else(|_| repo.display().to_string());
    let lightning = lightning::start(LightningOptions::default()).await;
    let size = capacity.to_string();
    let options = [
        "--engine",
        "node",
        "--node-start",
        &node_start,
        "--repo-dir",
        &repo,
        "--capacity",
        &size,
        "--run-memory",
        "128",
    ];
    let options: Vec<&str> = options.into_iter().chain(soak.options.iter().map(String::as_str)).collect();
    let place = folder.display().to_string();
    // Whatever the worker and its hosts leave, they leave there.
    let environment = [("XDG_RUNTIME_DIR", place.as_str()), ("TMPDIR", place.as_str())];
    let worker = Worker::start_with(&lightning, &options, &environment).await;

    let began = Instant::now();
    let mut first = None;
    let outcome = soak
        .execute(&lightning, &worker, (runs, capacity * 2), |outcome| {
            let memory = rss(worker.pid());
            first.get_or_insert(memory);
            print_progress(outcome, began.elapsed(), memory);
        })
        .await;
    let last = rss(worker.pid());
    let metrics = worker.http("GET", "/metrics").await.1;
    for line in
        metrics.lines().filter(|line| line.contains("fork") && !line.starts_with('#') && !line.contains("bucket"))
    {
        println!("{line}");
    }
    let output = worker.output();
    worker.stop().await;
    let left = leftovers::gone(&folder, Duration::from_secs(10)).await;

    println!("runs                               {:?}", outcome.runs);
    println!("took                               {:.0} s", began.elapsed().as_secs_f64());
    println!("hung, wrong                        {}, {}", outcome.hung.len(), outcome.wrong.len());
    println!("files and processes left           {}", left.len());
    for fault in outcome.hung.iter().chain(&outcome.wrong).take(20) {
        println!("{fault}");
    }
    assert!(outcome.hung.is_empty() && outcome.wrong.is_empty(), "{output}");
    assert_eq!(left, [""; 0]);
    assert!(last < first.unwrap_or(last) + MAY_GROW, "the worker grew to {}", mb(last));
    assert_eq!(outcome.grown_template(), None, "a template grew");
    assert!(lightning.violations().is_empty(), "{:?}", lightning.violations());
}

fn settings() -> Settings {
    let mut settings = Settings { runs: 100_000, capacity: 5, node_start: "fork".to_owned() };
    for (name, value) in options() {
        match name.as_str() {
            "--runs" => settings.runs = number(&name, &value),
            "--capacity" => settings.capacity = number(&name, &value),
            "--node-start" => settings.node_start = value,
            _ => panic!("unknown option {name}; known are --runs, --capacity, --node-start"),
        }
    }
    settings
}

fn print_progress(outcome: &Outcome, took: Duration, worker: u64) {
    let runs: usize = outcome.runs.values().sum();
    let templates: Vec<String> = outcome
        .templates
        .iter()
        .rev()
        .take(2)
        .map(|it| format!("{}: {}, {} descriptors, {} maps", it.pid, mb(it.anonymous), it.descriptors, it.maps))
        .collect();
    println!(
        "{runs:>7} runs, {:.1} a second, {} hung, {} wrong; worker {}; templates {}",
        runs as f64 / took.as_secs_f64(),
        outcome.hung.len(),
        outcome.wrong.len(),
        mb(worker),
        templates.join("; ")
    );
}
