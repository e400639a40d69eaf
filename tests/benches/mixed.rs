//! Workflows with five different sets of adaptors for a while: what they cost, and that nothing stays.
//!
//! `cargo bench --workspace --bench mixed -- [--minutes N] [--capacity N]`. Adaptors come from the real registry, into
//! `WORKER_REPO_DIR` if it is set; `WORKER_NODE` names the Node. It fails if a run is lost or ends otherwise than it
//! should, if a process or a file is left, or if the worker or what waits in the end takes more memory than at first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mock_lightning::{MockLightning, RunRecord, RunState};
use serde_json::Value;
use tests::leftovers;
use tests::lightning::{self, LightningOptions, chain, end};
use tests::measure::{self, mb, number, options, rss};
use tests::random::Random;
use tests::worker::Worker;

/// How much more memory the worker may take in the end than after the warm-up: what allocators keep, not what leaks.
const WORKER_MAY_GROW: u64 = 16 * 1024 * 1024;

/// Each set: the adaptors of its jobs, one after the other.
const SETS: [&[&str]; 5] = [
    &["@openfn/language-common@3.3.4"],
    &["@openfn/language-http@7.2.10"],
    &["@openfn/language-fhir@5.0.15"],
    &["@openfn/language-common@3.3.4", "@openfn/language-http@7.2.10"],
    &["@openfn/language-http@7.2.10", "@openfn/language-fhir@5.0.15", "@openfn/language-common@3.3.4"],
];

/// What jobs do, and how their run is to end.
const KINDS: [(&str, RunState); 5] = [
    ("fn((state) => ({ data: { n: (state.data.n ?? 0) + 1 } }))", RunState::Success),
    ("fn(async (state) => { await new Promise((done) => setTimeout(done, 20)); return state; })", RunState::Success),
    (
        "fn((state) => { const list = Array.from({ length: 1e5 }, (_, at) => ({ at })); return { data: { n: list.length } }; })",
        RunState::Success,
    ),
    ("fn((state) => { for (let at = 0; at < 50; at += 1) console.log('line', at); return state; })", RunState::Success),
    ("fn((state) => { throw new Error('on purpose'); })", RunState::Failed),
];

struct Settings {
    minutes: f64,
    capacity: usize,
}

/// What the worker and its hosts are, and have, at one moment.
struct Sample {
    worker: u64,
    hosts: u64,
    count: usize,
}

#[tokio::main]
async fn main() {
    let settings = settings();
    let runtime = tempfile::tempdir().expect("there is room for a folder");
    let folder = runtime.path().join("runtime");
    std::fs::create_dir(&folder).expect("there is room for a folder");
    let repo = std::env::var("WORKER_REPO_DIR").unwrap_or_else(|_| runtime.path().join("repo").display().to_string());
    let lightning = lightning::start(LightningOptions::default()).await;
    let capacity = settings.capacity.to_string();
    let options = ["--engine", "node", "--repo-dir", &repo, "--capacity", &capacity, "--log", "info"];
    let place = folder.display().to_string();
    // Whatever the worker and its hosts leave, they leave there.
    let environment = [("XDG_RUNTIME_DIR", place.as_str()), ("TMPDIR", place.as_str())];
    let worker = Worker::start_with(&lightning, &options, &environment).await;
    println!("capacity {}, {} sets of adaptors, {} minutes\n", settings.capacity, SETS.len(), settings.minutes);

    warm_up(&lightning, &worker, &settings).await;
    let first = sample(&worker).await;
    print_sample("memory after the warm-up", &first);
    let cpu = measure::cpu(worker.pid());
    let began = Instant::now();
    let (runs, pids, peak) = work(&lightning, &worker, &settings).await;
    let took = began.elapsed();
    let cpu = measure::cpu(worker.pid()).saturating_sub(cpu);
    let last = sample(&worker).await;
    print_sample("memory at the end", &last);
    println!("memory, peak under load            {}", mb(peak));
    print_runs(&runs, took, cpu);

    let output = worker.output();
    worker.stop().await;
    let left = leftovers::gone(&folder, Duration::from_secs(10)).await;
    // Not by their ids, which the system gives out again in so long a time.
    let processes = leftovers::processes(&folder);
    println!("processes seen, left               {}, {}", pids.len(), processes.len());
    println!("files and sockets left             {}", left.len());

    let wrong: Vec<_> = runs.iter().filter(|(record, expected)| record.state != *expected).collect();
    assert!(wrong.is_empty(), "{} runs ended otherwise: {:?}\n{output}", wrong.len(), wrong.first());
    assert_eq!((processes, left), (Vec::new(), Vec::new()));
    assert!(
        last.worker < first.worker + WORKER_MAY_GROW,
        "the worker grew from {} to {}",
        mb(first.worker),
        mb(last.worker)
    );
    assert!(last.count <= first.count.max(settings.capacity * 2), "{} processes wait, {} did", last.count, first.count);
    assert!(lightning.violations().is_empty(), "{:?}", lightning.violations());
}

fn settings() -> Settings {
    let mut settings = Settings { minutes: 10.0, capacity: 5 };
    for (name, value) in options() {
        match name.as_str() {
            "--minutes" => settings.minutes = number(&name, &value),
            "--capacity" => settings.capacity = number(&name, &value),
            _ => panic!("unknown option {name}; known are --minutes, --capacity"),
        }
    }
    settings
}

fn plan(adaptors: &[&str], body: &str) -> Value {
    let names: Vec<String> = (0..adaptors.len()).map(|at| format!("job-{at}")).collect();
    let mut plan = chain(&names.iter().map(|name| (name.as_str(), body)).collect::<Vec<_>>());
    for (at, adaptor) in adaptors.iter().enumerate() {
        plan["jobs"][at]["adaptor"] = (*adaptor).into();
    }
    plan
}

/// Has everything installed and prepared, and the worker at its usual size.
async fn warm_up(lightning: &MockLightning, worker: &Worker, settings: &Settings) {
    for adaptors in SETS {
        let id = lightning::queue(lightning, plan(adaptors, KINDS[0].0));
        end(lightning, worker, &id).await;
    }
    for round in 0..settings.capacity * 4 {
        let ids: Vec<_> = SETS.iter().map(|set| lightning::queue(lightning, plan(set, KINDS[round % 4].0))).collect();
        for id in ids {
            end(lightning, worker, &id).await;
        }
    }
}

/// Keeps twice the capacity queued until the time is over; every run with how it was to end, every process that was
/// seen, and the most memory that they had together.
async fn work(
    lightning: &MockLightning,
    worker: &Worker,
    settings: &Settings,
) -> (Vec<(RunRecord, RunState)>, BTreeSet<u32>, u64) {
    let mut random = Random::seeded();
    let until = Instant::now() + Duration::from_secs_f64(settings.minutes * 60.0);
    let (mut runs, mut pids, mut peak) = (Vec::new(), BTreeSet::new(), 0);
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.len() < settings.capacity * 2 && Instant::now() < until {
            let (body, expected) = *random.one_of(&KINDS);
            waiting.push_back((lightning::queue(lightning, plan(SETS[random.below(SETS.len())], body)), expected));
        }
        let Some((id, expected)) = waiting.pop_front() else { break };
        runs.push((end(lightning, worker, &id).await, expected));
        let hosts = worker.hosts();
        pids.extend(hosts.iter().map(|host| host.pid));
        peak = peak.max(rss(worker.pid()) + hosts.iter().map(|host| host.rss).sum::<u64>());
    }
    (runs, pids, peak)
}

/// When it has had time to settle.
async fn sample(worker: &Worker) -> Sample {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let hosts = worker.hosts();
    Sample { worker: rss(worker.pid()), hosts: hosts.iter().map(|host| host.rss).sum(), count: hosts.len() }
}

fn print_sample(name: &str, sample: &Sample) {
    println!("{name:<34} worker {}, {} processes that wait {}", mb(sample.worker), sample.count, mb(sample.hosts));
}

fn print_runs(runs: &[(RunRecord, RunState)], took: Duration, cpu: Duration) {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (record, _) in runs {
        *ends.entry(format!("{:?}", record.state)).or_default() += 1;
    }
    let mut times: Vec<u64> =
        runs.iter().filter_map(|(record, _)| Some(record.finished_at? - record.claimed_at?)).collect();
    times.sort_unstable();
    let at =
        |part: f64| times.get(((times.len().max(1) - 1) as f64 * part) as usize).map_or(0.0, |time| *time as f64 / 1e3);
    println!("runs                               {}: {ends:?}", runs.len());
    println!("throughput                         {:.1} runs/s", runs.len() as f64 / took.as_secs_f64());
    println!(
        "claim → complete                   p50 {:.1} ms, p95 {:.1} ms, p100 {:.1} ms",
        at(0.5),
        at(0.95),
        at(1.0)
    );
    println!("CPU a run                          {:.1} ms", cpu.as_secs_f64() * 1e3 / runs.len().max(1) as f64);
}
