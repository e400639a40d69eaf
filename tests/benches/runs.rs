//! How many runs a second, how long each takes, and what they cost, through the double, the worker and its hosts.
//!
//! `cargo bench --workspace --bench runs -- [--runs N] [--capacity N] [--engine KIND] [--node-start WAY]`. With two ways of
//! starting Node, as in `--engine node --node-start snapshot,fork`, both are measured in turns and compared. Beside each figure stands the
//! reference worker's (1.25 on Node 24, two cores, adaptors installed), as measured on a machine of the same kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mock_lightning::{MockLightning, RunRecord, RunState};
use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::{self, LightningOptions};
use tests::measure::{self, claim_to_complete, cpu_of_tree, mb, median, number, options, until_forked};
use tests::processes;
use tests::worker::Worker;

struct Settings {
    runs: usize,
    idle_runs: usize,
    capacity: usize,
    engine: String,
    node_start: Vec<String>,
}

#[tokio::main]
async fn main() {
    let settings = settings();
    if let [one, other] = settings.node_start.as_slice() {
        return compare(&settings, [one, other]).await;
    }
    let lightning = lightning::start(LightningOptions::default()).await;
    binaries::worker();
    // Waits when the worker starts, so that its claim is the worker's first.
    let first = lightning.queue_run(trivial()).expect("the plan is valid");
    let started = Instant::now();
    let capacity = settings.capacity.to_string();
    let way = settings.node_start.first().map_or("auto", String::as_str);
    let options = ["--capacity", &capacity, "--engine", &settings.engine, "--node-start", way, "--log", "warn"];
    let worker = Worker::start(&lightning, &options).await;
    let first = lightning::end(&lightning, &worker, &first).await;
    warm_up(&lightning, &worker, settings.capacity).await;
    println!("{} engine, capacity {}, trivial runs of one step\n", settings.engine, settings.capacity);
    let claimed = first.claimed_at.expect("a finished run was claimed").saturating_sub(first.queued_at);
    row("start → first claim", format!("{:.0} ms", claimed as f64 / 1e3), "1,296 ms");
    row("start → first runs done", format!("{:.0} ms", started.elapsed().as_secs_f64() * 1e3), "");

    tokio::time::sleep(Duration::from_millis(500)).await;
    let (rss, pss, hosts) = memory(worker.pid());
    row("memory, idle: worker", mb(measure::rss(worker.pid())), "");
    row(
        &format!("memory, idle: worker and {hosts} hosts"),
        format!("{} RSS / {} PSS", mb(rss), mb(pss)),
        "220 / 151 MB",
    );

    let idle = one_at_a_time(&lightning, &worker, settings.idle_runs).await;
    row("claim → complete, idle", percentiles(idle), "p50 854 ms");

    let cpu_before = measure::cpu(worker.pid());
    let peak = Peak::watch(worker.pid());
    let began = Instant::now();
    let records = at_once(&lightning, &worker, &trivial(), settings.runs).await;
    let took = began.elapsed();
    let peak = peak.stop();
    let cpu = measure::cpu(worker.pid()).saturating_sub(cpu_before);

    let lost = records.iter().filter(|record| record.state != RunState::Success).count();
    row("runs, lost", format!("{}, {lost}", records.len()), "");
    row(
        "throughput",
        format!("{:.0} runs/s", records.len() as f64 / took.as_secs_f64()),
        "1.12 / 1.63 / 1.72 runs/s at 1 / 5 / 10",
    );
    row("claim → complete, loaded", percentiles(records.iter().map(claim_to_complete).collect()), "");
    row("CPU a run", format!("{:.1} ms", cpu.as_secs_f64() * 1e3 / records.len() as f64), "1,030–1,250 ms");
    row("memory, peak under load, RSS", mb(peak), "1,880 / 3,308 MB at 5 / 10");
    tokio::time::sleep(Duration::from_millis(500)).await;
    row("memory, after the load, RSS", mb(memory(worker.pid()).0), "1,304 / 2,771 MB at 5 / 10");

    let cpu_before = measure::cpu(worker.pid());
    let chains = at_once(&lightning, &worker, &five_steps(), settings.runs.div_ceil(4)).await;
    let cpu = measure::cpu(worker.pid()).saturating_sub(cpu_before);
    row("CPU a run of five steps", format!("{:.1} ms", cpu.as_secs_f64() * 1e3 / chains.len() as f64), "1,430 ms");
    let lost = lost + chains.iter().filter(|record| record.state != RunState::Success).count();
    worker.stop().await;

    let options = ["--capacity", "1", "--warm-memory-mb", "1", "--engine", &settings.engine, "--log", "warn"];
    let worker = Worker::start(&lightning, &options).await;
    let cold = one_at_a_time(&lightning, &worker, settings.idle_runs.min(20)).await;
    row("claim → complete, nothing warm", percentiles(cold), "");
    worker.stop().await;
    assert_eq!(lost, 0, "runs were lost");
    assert!(lightning.violations().is_empty(), "{:?}", lightning.violations());
}

/// Rounds of a comparison.
const ROUNDS: usize = 5;

/// What one way of starting Node has cost.
#[derive(Default)]
struct Side {
    runs: usize,
    lost: usize,
    took: Duration,
    cpu: Duration,
    idle: Vec<Duration>,
    pss: u64,
}

/// Has two workers execute the same runs in turns, each with a way of its own to start Node.
async fn compare(settings: &Settings, ways: [&String; 2]) {
    binaries::worker();
    let mut sides = Vec::new();
    for way in ways {
        let lightning = lightning::start(LightningOptions::default()).await;
        let capacity = settings.capacity.to_string();
        let options = ["--capacity", &capacity, "--engine", "node", "--node-start", way, "--log", "info"];
        let worker = Worker::start(&lightning, &options).await;
        warm_up(&lightning, &worker, settings.capacity).await;
        if way == "fork" {
            until_forked(&worker, 1).await;
            // Those that were there before are used up.
            warm_up(&lightning, &worker, settings.capacity).await;
        }
        sides.push((lightning, worker, Side::default()));
    }
    for _ in 0..ROUNDS {
        for (lightning, worker, side) in &mut sides {
            side.idle.extend(one_at_a_time(lightning, worker, settings.idle_runs.div_ceil(ROUNDS)).await);
            side.pss = side.pss.max(memory(worker.pid()).1);
            let (before, began) = (cpu_of_tree(worker.pid()), Instant::now());
            let records = at_once(lightning, worker, &trivial(), settings.runs.div_ceil(ROUNDS)).await;
            side.took += began.elapsed();
            side.cpu += cpu_of_tree(worker.pid()).saturating_sub(before);
            side.runs += records.len();
            side.lost += records.iter().filter(|record| record.state != RunState::Success).count();
        }
    }
    println!("node engine, capacity {}, trivial runs of one step, {ROUNDS} rounds in turns\n", settings.capacity);
    println!("{:<34} {:<28} {:<28} ratio", "", ways[0], ways[1]);
    let line = |name: &str, value: &dyn Fn(&Side) -> f64, unit: &str| {
        let [one, other] = [0, 1].map(|side: usize| value(&sides[side].2));
        println!(
            "{name:<34} {:<28} {:<28} {:.2}",
            format!("{one:.1} {unit}"),
            format!("{other:.1} {unit}"),
            other / one
        );
    };
    line("throughput", &|side| side.runs as f64 / side.took.as_secs_f64(), "runs/s");
    line("CPU a run, all processes", &|side| side.cpu.as_secs_f64() * 1e3 / side.runs as f64, "ms");
    line("claim → complete, idle, p50", &|side| median(&side.idle), "ms");
    line("memory, waiting, PSS", &|side| side.pss as f64 / 1024.0 / 1024.0, "MB");
    let lost: usize = sides.iter().map(|(_, _, side)| side.lost).sum();
    for (lightning, worker, _) in sides {
        worker.stop().await;
        assert!(lightning.violations().is_empty(), "{:?}", lightning.violations());
    }
    assert_eq!(lost, 0, "runs were lost");
}

fn settings() -> Settings {
    let mut settings =
        Settings { runs: 200, idle_runs: 50, capacity: 5, engine: "embedded".into(), node_start: Vec::new() };
    for (name, value) in options() {
        match name.as_str() {
            "--runs" => settings.runs = number(&name, &value),
            "--idle-runs" => settings.idle_runs = number(&name, &value),
            "--capacity" => settings.capacity = number(&name, &value),
            "--engine" => settings.engine = value,
            "--node-start" => settings.node_start = value.split(',').map(str::to_owned).collect(),
            _ => panic!("unknown option {name}; known are --runs, --idle-runs, --capacity, --engine, --node-start"),
        }
    }
    settings
}

fn trivial() -> Value {
    let body = "fn(state => ({ ...state, data: { answer: 42 } }))";
    json!({ "jobs": [{ "id": "a", "adaptor": "@openfn/language-common@3.3.4", "body": body }], "edges": [], "triggers": [] })
}

fn five_steps() -> Value {
    let body = "fn(state => ({ ...state, data: { answer: 42 } }))";
    lightning::chain(&["a", "b", "c", "d", "e"].map(|id| (id, body)))
}

async fn warm_up(lightning: &MockLightning, worker: &Worker, capacity: usize) {
    at_once(lightning, worker, &trivial(), capacity * 4).await;
}

async fn one_at_a_time(lightning: &MockLightning, worker: &Worker, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        // An idle worker has its hosts back by then.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let id = lightning.queue_run(trivial()).expect("the plan is valid");
        lightning.wake();
        times.push(claim_to_complete(&lightning::end(lightning, worker, &id).await));
    }
    times
}

async fn at_once(lightning: &MockLightning, worker: &Worker, plan: &Value, count: usize) -> Vec<RunRecord> {
    let ids: Vec<_> = (0..count).map(|_| lightning.queue_run(plan.clone()).expect("the plan is valid")).collect();
    lightning.wake();
    let mut records = Vec::new();
    for id in ids {
        records.push(lightning::end(lightning, worker, &id).await);
    }
    records
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p95 {:.1} ms", at(0.5), at(0.95))
}

fn memory(worker: u32) -> (u64, u64, usize) {
    let hosts = processes::descendants(worker);
    let pids = hosts.iter().map(|process| process.pid).chain([worker]);
    let pss = pids.map(processes::proportional_memory).sum();
    (measure::rss(worker) + hosts.iter().map(|process| process.rss).sum::<u64>(), pss, hosts.len())
}

struct Peak {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch(worker: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak = Arc::new(AtomicU64::new(0));
        let (stopped, highest) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let hosts: u64 = processes::descendants(worker).iter().map(|process| process.rss).sum();
                highest.fetch_max(measure::rss(worker) + hosts, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, peak, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("watching memory does not panic");
        self.peak.load(Ordering::Relaxed)
    }
}

fn row(name: &str, ours: String, reference: &str) {
    let reference = if reference.is_empty() { String::new() } else { format!("reference: {reference}") };
    println!("{name:<34} {ours:<32} {reference}");
}
