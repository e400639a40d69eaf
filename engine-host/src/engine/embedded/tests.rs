//! The engine, driven as the walk drives it.

mod console;
mod errors;
mod isolation;
mod json_paths;
mod limits;
#[path = "../../../tests/support/lines.rs"]
mod lines;
mod locale;
mod operations;
mod results;
mod tricks;

use std::sync::Arc;
use std::time::Duration;

use protocol::Json;

use self::lines::Lines;
use super::{EmbeddedEngine, EmbeddedOptions, Interrupt};
use crate::engine::{
    ConditionCall, ConditionEnd, Engine as _, EngineLost, JobCall, JobEnd, JobResult, LogSink, Thrown,
};

/// An engine for tests.
struct Bench {
    engine: EmbeddedEngine,
    interrupt: Interrupt,
    lines: Arc<Lines>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        Self::with_memory(64 * 1024 * 1024)
    }

    fn with_memory(memory_bytes: u64) -> Self {
        let lines = Arc::new(Lines::default());
        let (engine, interrupt) = EmbeddedEngine::start(EmbeddedOptions { memory_bytes }, lines.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { engine, interrupt, lines, runtime }
    }

    /// Runs a compiled job; more than a minute is a failure.
    fn run(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        let limit = Duration::from_secs(60);
        let Self { engine, runtime, .. } = self;
        runtime.block_on(async { tokio::time::timeout(limit, engine.run_job(job)).await }).expect("it ends in time")
    }

    fn test(&mut self, expression: &str, state: &str) -> Result<ConditionEnd, EngineLost> {
        let condition = ConditionCall {
            expression: expression.to_owned(),
            state: Json::parse(state.to_owned()).unwrap(),
            upstream_step_id: "up".to_owned(),
        };
        let Self { engine, runtime, .. } = self;
        runtime.block_on(engine.test(condition))
    }

    fn lines(&self) -> Vec<String> {
        self.lines.take()
    }
}

#[test]
fn the_version_is_that_of_the_crate_in_use() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let (kind, version) = Bench::new().engine.version();
    let (name, version) = version.split_once('-').unwrap();
    assert_eq!((kind.as_str(), name), ("quickjs", "rquickjs"));
    assert!(lock.contains(&format!("name = \"rquickjs\"\nversion = \"{version}\"\n")), "{version}");
}

/// A job whose default export is `[operations]`, with all the core operations that these use.
fn job(operations: &str, state: &str) -> JobCall {
    module(&format!("{IMPORTS}export default [\n{operations}\n];"), state)
}

/// The lines of a job's module before its operations.
const HEAD_LINES: u32 = 3;

const IMPORTS: &str =
    "import { fn, each, combine, assert, log, sourceValue, dataValue } from '@openfn/language-common@3.3.4';
export * from '@openfn/language-common@3.3.4';
";

/// A job of this module.
fn module(code: &str, state: &str) -> JobCall {
    JobCall {
        step_id: "a".to_owned(),
        code: code.to_owned(),
        adaptors: vec!["@openfn/language-common@3.3.4".to_owned()],
        globals: None,
        meta: Json::empty_object(),
        state: Json::parse(state.to_owned()).unwrap(),
        state_props_to_remove: vec!["configuration".to_owned(), "response".to_owned()],
        state_bytes: u64::MAX,
    }
}

/// Compares the `results` that a job's module makes of `state` with those that cases expect.
fn check_results(cases: &[(&str, &str)], code: &str, state: &str) {
    let Ok(JobEnd::Returned(result)) = Bench::new().run(module(code, state)) else { panic!("it returns") };
    let result: serde_json::Value = result.state.unwrap().decode().unwrap();
    let differ = cases.iter().enumerate().filter_map(|(index, (expression, expected))| {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        let actual = &result["results"][index];
        (*actual != expected).then(|| format!("{expression}\n    is       {actual}\n    expected {expected}"))
    });
    let differ: Vec<String> = differ.collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The state that operations make of `state`.
fn result(operations: &str, state: &str) -> JobResult {
    match Bench::new().run(job(operations, state)) {
        Ok(JobEnd::Returned(result)) => result,
        other => panic!("{operations}: {other:?}"),
    }
}

/// What a module throws.
fn thrown(code: &str) -> Thrown {
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Threw(thrown)) => thrown,
        other => panic!("{code}: {other:?}"),
    }
}

fn text(json: Option<Json>) -> String {
    json.map_or_else(|| "undefined".to_owned(), |json| json.as_str().to_owned())
}
