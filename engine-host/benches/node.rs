//! How long Node takes to get ready with some adaptors, and what it then takes and does: from a snapshot, from bundles,
//! and as installed.
//!
//! `cargo bench -p engine-host --bench node -- PROGRAM FOLDER[=BUNDLE]…`, with a folder for each adaptor and its bundle,
//! where it has one. Each way is tried [`ROUNDS`] times; the medians are printed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine_host::engine::node::{self, NodeEngine, NodeOptions};
use engine_host::engine::{Engine as _, JobCall, LogSink};
use protocol::Json;
use protocol::engine::{Adaptor, ForkOrigin, Needs, NodeSpec};
use protocol::run::{LogLevel, LogSource};

const ROUNDS: usize = 15;
const MEMORY_BYTES: u64 = 500 * 1024 * 1024;

/// One process, from its start to the end of its first job.
struct Round {
    ready: Duration,
    job: Duration,
    resident_mb: f64,
    proportional_mb: f64,
    processor: Duration,
}

struct Silence;

impl LogSink for Silence {
    fn wants(&self, _source: LogSource, _level: LogLevel) -> bool {
        true
    }

    fn write(&self, _source: LogSource, _level: LogLevel, _message: String) {}
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [program, adaptors @ ..] = arguments.as_slice() else {
        println!("give a Node program and the folders of adaptors to measure, as FOLDER or FOLDER=BUNDLE");
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(measure(Path::new(program), adaptors));
    ExitCode::SUCCESS
}

async fn measure(program: &Path, adaptors: &[String]) {
    let told = Command::new(program).arg("--version").output().expect("the program can be started");
    let version = String::from_utf8_lossy(&told.stdout).trim().trim_start_matches('v').to_owned();
    let adaptors: Vec<Adaptor> = adaptors.iter().map(|text| adaptor(text)).collect();
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let spec = NodeSpec {
        program: program.to_owned(),
        version: version.clone(),
        adaptors,
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    println!("Node {version}, medians of {ROUNDS}: ready after, first job, RSS / PSS when ready, processor time");

    let installed: Vec<Adaptor> =
        spec.adaptors.iter().map(|adaptor| Adaptor { bundle: None, ..adaptor.clone() }).collect();
    show("as installed", &NodeSpec { adaptors: installed, ..spec.clone() }, folder.path()).await;
    if spec.adaptors.iter().any(|adaptor| adaptor.bundle.is_none()) {
        return;
    }
    show("bundled", &spec, folder.path()).await;
    for adaptor in &spec.adaptors {
        node::loads(program, adaptor, folder.path()).await.expect("the adaptor loads");
    }
    show("bundled, with V8's code", &spec, folder.path()).await;
    let blob = folder.path().join("blob");
    let began = Instant::now();
    match node::snapshot::build(program, &spec.adaptors, &[], &blob).await {
        Ok(()) => {
            let size = blob.metadata().map_or(0, |it| it.len()) as f64 / 1e6;
            println!("{:26} built in {:.0?}, {size:.1} MB", "", began.elapsed());
            show("snapshot", &NodeSpec { snapshot: Some(blob), ..spec }, folder.path()).await;
        }
        Err(error) => println!("no snapshot: {error}"),
    }
}

fn adaptor(text: &str) -> Adaptor {
    let (folder, bundle) = text.split_once('=').map_or((text, None), |(folder, bundle)| (folder, Some(bundle)));
    let path = |text: &str| PathBuf::from(text).canonicalize().expect("the path exists");
    let folder = path(folder);
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Adaptor {
        name: format!("@openfn/{name}"),
        version: "local".to_owned(),
        folder,
        bundle: bundle.map(path),
        exports: None,
        needs: Needs::default(),
    }
}

async fn show(way: &str, spec: &NodeSpec, folder: &Path) {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(spec, folder).await);
    }
    let median = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{way:26} {:6.1} ms  {:5.2} ms  {:5.1} / {:5.1} MB  {:6.1} ms",
        median(|it| it.ready.as_secs_f64() * 1e3),
        median(|it| it.job.as_secs_f64() * 1e3),
        median(|it| it.resident_mb),
        median(|it| it.proportional_mb),
        median(|it| it.processor.as_secs_f64() * 1e3),
    );
}

async fn round(spec: &NodeSpec, folder: &Path) -> Round {
    let options = NodeOptions {
        spec: spec.clone(),
        memory_bytes: MEMORY_BYTES,
        folder: folder.to_owned(),
        scratch_bytes: None,
        forks: None,
    };
    let began = Instant::now();
    let mut engine = NodeEngine::start(options, Arc::new(Silence)).await.expect("Node starts");
    let ready = began.elapsed();
    // As a warm engine waits for its run.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let process = engine.process_id();
    let resident_mb = memory(process, "Rss:");
    let proportional_mb = memory(process, "Pss:");
    let job = JobCall {
        step_id: "a".to_owned(),
        code: "export default [(state) => ({ ...state, data: { n: 1 } })];".to_owned(),
        adaptors: spec.adaptors.iter().map(Adaptor::specifier).collect(),
        globals: None,
        meta: Json::empty_object(),
        state: Json::empty_object(),
        state_props_to_remove: vec!["configuration".to_owned()],
        state_bytes: u64::MAX,
    };
    let began = Instant::now();
    engine.run_job(job).await.expect("the job runs");
    let took = began.elapsed();
    Round { ready, job: took, resident_mb, proportional_mb, processor: processor_time(process) }
}

/// A line of what the kernel says of a process's memory, in MB.
fn memory(process: u32, key: &str) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// What a process has used of processors, in hundredths of a second.
fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
