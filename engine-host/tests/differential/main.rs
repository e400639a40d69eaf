//! Small jobs, made by chance, end on the embedded engine as they do on Node.
//!
//! `DIFFERENTIAL_JOBS` is how many, `DIFFERENTIAL_SEED` the seed of the first one, 1 unless set; each has the seed after the one before
//! it. Uses npm, for the published adaptor, and the Node that `OPENFN_TEST_NODE` names, else the one in the `PATH`.
#![allow(clippy::unwrap_used)]

mod departures;
mod grammar;
#[path = "../support/lines.rs"]
mod lines;
mod random;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine_host::engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use engine_host::engine::node::{NodeEngine, NodeOptions};
use engine_host::engine::{Engine, Exports, LogSink};
use engine_host::report::{self, Report};
use engine_host::walk::walk;
use protocol::Json;
use protocol::engine::{Adaptor, EngineSpec, ForkOrigin, JOB_ENVIRONMENT_VARIABLE, Needs, NodeSpec};
use protocol::run::{Exit, RunOptions, RunSpec, Step};

use self::departures::{DEPARTURES, Departures, documented};
use self::grammar::Grammar;
use self::lines::Lines;
use self::random::Random;

const COMMON: &str = "@openfn/language-common";
const VERSION: &str = "3.3.4";

/// Jobs that one process compares: engines leave memory to the end of theirs.
const JOBS_A_PROCESS: usize = 500;

/// A job that takes longer has failed.
const SOON: Duration = Duration::from_secs(60);

/// What all jobs begin with.
const PRELUDE: &str = include_str!("prelude.js");

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// Set for the processes that do the work: where the adaptor is.
const ADAPTORS: &str = "DIFFERENTIAL_ADAPTORS";

#[test]
fn jobs_end_on_the_embedded_engine_as_on_node() {
    let seed = number("DIFFERENTIAL_SEED", 1);
    let count = number("DIFFERENTIAL_JOBS", 300);
    if let Some(adaptors) = std::env::var_os(ADAPTORS) {
        return block_on(compare(seed, count, Path::new(&adaptors)));
    }
    println!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_JOBS={count}");
    let repo = tempfile::tempdir().unwrap();
    install(repo.path());
    let mut failed = 0;
    for from in (seed..seed + count).step_by(JOBS_A_PROCESS) {
        let share = (seed + count - from).min(JOBS_A_PROCESS as u64);
        // Its local time is UTC, as that of jobs.
        let mut process = again("jobs_end_on_the_embedded_engine_as_on_node", repo.path());
        process.env("TZ", "UTC");
        process.env("DIFFERENTIAL_SEED", from.to_string()).env("DIFFERENTIAL_JOBS", share.to_string());
        failed += u32::from(!passes(process));
    }
    assert_eq!(failed, 0, "processes of {JOBS_A_PROCESS} jobs with differences: see above");
}

#[test]
fn each_departure_on_the_page_is_one() {
    if let Some(adaptors) = std::env::var_os(ADAPTORS) {
        return block_on(depart(Path::new(&adaptors)));
    }
    let rows: Vec<_> = DEPARTURES.iter().map(|it| it.what).collect();
    assert_eq!(documented(), rows, "docs/embedded.md has the table's rows");
    let repo = tempfile::tempdir().unwrap();
    install(repo.path());
    let mut process = again("each_departure_on_the_page_is_one", repo.path());
    process.env("TZ", "Europe/Berlin").env(JOB_ENVIRONMENT_VARIABLE, "TZ");
    assert!(passes(process), "see above");
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
}

/// This test in a process of its own, as engines are made to end with theirs.
fn again(test: &str, repo: &Path) -> Command {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", test, "--nocapture"]).env(ADAPTORS, repo.join("node_modules"));
    process
}

/// Whether a process succeeds. What it prints otherwise is shown.
fn passes(mut process: Command) -> bool {
    let output = process.output().unwrap();
    if !output.status.success() {
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// Runs the example of each departure.
async fn depart(adaptors: &Path) {
    let adaptor = adaptor(adaptors);
    let mut node = Bench::node(&adaptor).await;
    let major: u32 = node.version.split('.').next().unwrap().parse().unwrap();
    for departure in DEPARTURES {
        let Some(code) = departure.example else { continue };
        let mut embedded = Bench::embedded();
        let (expected, actual) = tokio::join!(node.run(code, "{}"), embedded.run(code, "{}"));
        let departs = departure.newest_node.is_none_or(|newest| major <= newest);
        assert_eq!(expected != actual, departs, "{}: {expected:?} {actual:?}", departure.what);
    }
}

/// Compares jobs one by one, and prints what differs.
async fn compare(seed: u64, count: u64, adaptors: &Path) {
    let grammar = Grammar::read(include_str!("grammar.txt"));
    let adaptor = adaptor(adaptors);
    let began = Instant::now();
    let mut departures = Departures::default();
    let (mut found, mut refused) = (Vec::new(), 0);
    let mut node = Bench::node(&adaptor).await;
    for seed in seed..seed + count {
        let mut random = Random::new(seed);
        let code = format!("{PRELUDE}{}", grammar.make("job", 6 + random.below(6), &mut random).replace('⏎', "\n"));
        let state = grammar.make("state", 0, &mut random);
        let mut embedded = Bench::embedded();
        let (expected, actual) = tokio::join!(node.run(&code, &state), embedded.run(&code, &state));
        refused += u64::from(expected.exit.error.as_ref().is_some_and(|error| error.kind == "CompileError"));
        let differences = departures.unexplained(&code, &expected, &actual);
        if !differences.is_empty() {
            found.push((seed, code, state, differences));
        }
    }
    for (seed, code, state, differences) in &found {
        println!("\nseed {seed}, state {state}\n{}\n  {}", &code[PRELUDE.len()..], differences.join("\n  "));
    }
    println!("{count} jobs in {:?}; departures:{}", began.elapsed(), departures.told());
    // A twelfth does not, give or take.
    assert!(refused * 6 <= count, "{refused} of {count} jobs do not compile, and compare nothing");
    let seeds: Vec<_> = found.iter().map(|(seed, ..)| seed.to_string()).collect();
    assert!(found.is_empty(), "{} of {count} jobs differ: {}", found.len(), seeds.join(" "));
}

/// The published adaptor, by npm.
fn install(folder: &Path) {
    std::fs::write(folder.join("package.json"), r#"{ "private": true }"#).unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]).arg(format!("{COMMON}@{VERSION}"));
    let output = npm.current_dir(folder).output().expect("npm is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn adaptor(folder: &Path) -> Adaptor {
    let Exports::Known(names) = Bench::embedded().engine.exports(COMMON) else { panic!("it has the core operations") };
    Adaptor {
        name: COMMON.to_owned(),
        version: VERSION.to_owned(),
        folder: folder.join(COMMON).canonicalize().unwrap(),
        bundle: None,
        exports: Some(names),
        needs: Needs::default(),
    }
}

/// How a job ended.
#[derive(Debug, PartialEq)]
pub(crate) struct End {
    /// Reason, type and message.
    exit: Exit,
    state: String,
    /// What the job and the adaptor logged, as `SOURCE level text`.
    logs: Vec<String>,
}

/// An engine under test, and the version of what it runs in.
struct Bench<E> {
    engine: E,
    version: String,
    lines: Arc<Lines>,
    folder: Option<tempfile::TempDir>,
}

const MEMORY_BYTES: u64 = 500 * 1024 * 1024;

impl Bench<EmbeddedEngine> {
    fn embedded() -> Self {
        let lines = Arc::new(Lines::default());
        let (engine, _) = EmbeddedEngine::start(EmbeddedOptions { memory_bytes: MEMORY_BYTES }, lines.clone()).unwrap();
        Self { engine, version: String::new(), lines, folder: None }
    }
}

impl Bench<NodeEngine> {
    async fn node(adaptor: &Adaptor) -> Self {
        let named = std::env::var_os("OPENFN_TEST_NODE").map(PathBuf::from);
        let found = named.or_else(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file())
        });
        let program = found.expect("there is a Node").canonicalize().unwrap();
        let told = Command::new(&program).arg("--version").output().unwrap();
        let version = String::from_utf8(told.stdout).unwrap().trim().trim_start_matches('v').to_owned();
        let folder = tempfile::tempdir().unwrap();
        let spec = NodeSpec {
            program,
            version: version.clone(),
            adaptors: vec![adaptor.clone()],
            snapshot: None,
            origin: ForkOrigin::default(),
        };
        let lines = Arc::new(Lines::default());
        let options = NodeOptions {
            spec,
            memory_bytes: MEMORY_BYTES,
            folder: folder.path().to_owned(),
            scratch_bytes: None,
            forks: None,
        };
        let engine = NodeEngine::start(options, lines.clone()).await.unwrap();
        Self { engine, version, lines, folder: Some(folder) }
    }
}

impl<E: Engine> Bench<E> {
    /// Runs a workflow of one step.
    async fn run(&mut self, code: &str, state: &str) -> End {
        debug_assert!(self.folder.as_ref().is_none_or(|folder| folder.path().exists()));
        let options = RunOptions::default();
        let spec = RunSpec {
            run_id: "r".to_owned(),
            steps: vec![Step {
                id: "a".to_owned(),
                name: None,
                expression: Some(code.to_owned()),
                adaptors: vec![format!("{COMMON}@{VERSION}")],
                configuration: None,
                state: None,
                next: Vec::new(),
            }],
            start: None,
            input: Json::parse(state.to_owned()).unwrap(),
            globals: None,
            meta: Json::empty_object(),
            configuration: None,
            engine: EngineSpec::Embedded,
            options: options.clone(),
        };
        let (reporter, mut reports) = report::stream(&options);
        let taken = tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Report::Completed(_, taken) = report {
                    let _ = taken.send(());
                }
            }
        });
        let walked = walk(spec, &mut self.engine, &reporter, std::future::pending());
        let outcome = tokio::time::timeout(SOON, walked).await.unwrap_or_else(|_| panic!("it takes too long:\n{code}"));
        drop(reporter);
        taken.await.unwrap();
        let state = outcome.final_state.map_or_else(|| "none".to_owned(), |state| state.as_str().to_owned());
        let logs = self.lines.take();
        End { exit: outcome.exit, state, logs }
    }
}
