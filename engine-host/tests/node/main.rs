//! The Node engine, driven as the walk drives it, with adaptors that are made here. Uses the Node that
//! `OPENFN_TEST_NODE` names, else the one in the `PATH`.
#![allow(clippy::unwrap_used)]

mod adaptors;
mod console;
mod ends;
mod errors;
mod forks;
mod isolation;
mod jobs;
mod limits;
#[path = "../support/lines.rs"]
mod lines;
mod places;
mod snapshots;
mod undeclared;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engine_host::engine::node::{NodeEngine, NodeOptions};
use engine_host::engine::{
    ConditionCall, ConditionEnd, Engine as _, EngineLost, JobCall, JobEnd, JobResult, LogSink, Origin, Thrown,
};
use protocol::Json;
use protocol::engine::{Adaptor, ForkOrigin, Needs, NodeSpec};

use self::lines::Lines;

/// Everything that is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(90);

const MB: u64 = 1024 * 1024;

/// The Node program under test.
fn program() -> PathBuf {
    let named = std::env::var_os("OPENFN_TEST_NODE").map(PathBuf::from);
    let found = named.or_else(|| {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join("node")).find(|file| file.is_file())
    });
    found.expect("there is a Node in the PATH, or OPENFN_TEST_NODE names one").canonicalize().unwrap()
}

/// Its version.
fn version() -> String {
    let told = Command::new(program()).arg("--version").output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().trim_start_matches('v').to_owned()
}

/// Whether it makes snapshots.
fn has_snapshots() -> bool {
    version().split('.').next().unwrap().parse::<u32>().unwrap() >= 22
}

/// A folder with adaptors in it.
struct Repo(tempfile::TempDir);

impl Repo {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a package of these files, and a `package.json` of this text.
    fn add(&self, name: &str, version: &str, package: &str, files: &[(&str, &str)]) -> Adaptor {
        let folder = self.path().join("node_modules").join(format!("{name}_{version}"));
        for (file, text) in files.iter().chain(&[("package.json", package)]) {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Adaptor {
            name: name.to_owned(),
            version: version.to_owned(),
            folder,
            bundle: None,
            exports: None,
            needs: Needs::default(),
        }
    }

    /// A CommonJS adaptor of one file.
    fn common_js(&self, name: &str, source: &str) -> Adaptor {
        self.add(name, "1.0.0", r#"{"main":"index.js"}"#, &[("index.js", source)])
    }

    /// One with a bundle, which is the file itself.
    fn bundled(&self, name: &str, source: &str) -> Adaptor {
        let adaptor = self.common_js(name, source);
        let bundle = self.path().join(format!("{}.cjs", name.replace('/', "+")));
        std::fs::write(&bundle, source).unwrap();
        Adaptor { bundle: Some(bundle), ..adaptor }
    }
}

/// Whether that is what a refused access to files gives: of Node's permissions, or of the kernel where those are the
/// template's.
fn is_denial(code: &serde_json::Value) -> bool {
    code == "ERR_ACCESS_DENIED" || code == "EACCES"
}

/// An engine for tests.
struct Bench {
    engine: NodeEngine,
    lines: Arc<Lines>,
    folder: tempfile::TempDir,
    /// What it was forked from, which lives as long as its thread.
    _nursery: Option<forks::Nursery>,
}

impl Bench {
    async fn start(adaptors: &[&Adaptor]) -> Self {
        Self::with_memory(adaptors, 500 * MB).await
    }

    async fn with_memory(adaptors: &[&Adaptor], memory_bytes: u64) -> Self {
        Self::with_spec(spec(adaptors), memory_bytes).await
    }

    /// From a template, where `OPENFN_TEST_NODE_START` is `fork`, and the engine may come from one.
    async fn with_spec(spec: NodeSpec, memory_bytes: u64) -> Self {
        let is_forked = std::env::var_os("OPENFN_TEST_NODE_START").is_some_and(|way| way == "fork");
        let is_forkable = spec.snapshot.is_none() && !spec.adaptors.iter().any(|it| it.needs.child_processes);
        if is_forked && is_forkable && forks::can_be() {
            // What does not let itself be forked is started, as ever.
            match forks::Nursery::open(spec.clone(), memory_bytes).await {
                Ok(nursery) => return nursery.bench().await,
                Err(why) => eprintln!("not forked: {why}"),
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let options =
            NodeOptions { spec, memory_bytes, folder: folder.path().to_owned(), scratch_bytes: None, forks: None };
        Self::with_options(options, folder, None).await
    }

    async fn with_options(options: NodeOptions, folder: tempfile::TempDir, nursery: Option<forks::Nursery>) -> Self {
        let lines = Arc::new(Lines::default());
        let engine = within(NodeEngine::start(options, lines.clone())).await.unwrap();
        Self { engine, lines, folder, _nursery: nursery }
    }

    async fn run(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        within(self.engine.run_job(job)).await
    }

    /// The state that a job's module makes of `{}`.
    async fn result(&mut self, code: &str) -> String {
        match self.run(job(code)).await {
            Ok(JobEnd::Returned(JobResult { state, .. })) => text(state),
            other => panic!("{code}: {other:?}"),
        }
    }

    /// What a job's module throws.
    async fn thrown(&mut self, code: &str) -> Thrown {
        match self.run(job(code)).await {
            Ok(JobEnd::Threw(thrown)) => thrown,
            other => panic!("{code}: {other:?}"),
        }
    }

    async fn test(&mut self, expression: &str, state: &str) -> Result<ConditionEnd, EngineLost> {
        let condition = ConditionCall {
            expression: expression.to_owned(),
            state: Json::parse(state.to_owned()).unwrap(),
            upstream_step_id: "up".to_owned(),
        };
        within(self.engine.test(condition)).await
    }

    fn lines(&self) -> Vec<String> {
        self.lines.take()
    }
}

fn spec(adaptors: &[&Adaptor]) -> NodeSpec {
    let adaptors = adaptors.iter().map(|adaptor| (*adaptor).clone()).collect();
    NodeSpec { program: program(), version: version(), adaptors, snapshot: None, origin: ForkOrigin::default() }
}

/// A job of this module, with all adaptors of its engine that it names at hand.
fn job(code: &str) -> JobCall {
    job_with(code, &[], "{}")
}

fn job_with(code: &str, adaptors: &[&Adaptor], state: &str) -> JobCall {
    JobCall {
        step_id: "a".to_owned(),
        code: code.to_owned(),
        adaptors: adaptors.iter().map(|adaptor| adaptor.specifier()).collect(),
        globals: None,
        meta: Json::empty_object(),
        state: Json::parse(state.to_owned()).unwrap(),
        state_props_to_remove: vec!["configuration".to_owned(), "response".to_owned()],
        state_bytes: u64::MAX,
    }
}

fn text(json: Option<Json>) -> String {
    json.map_or_else(|| "undefined".to_owned(), |json| json.as_str().to_owned())
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it comes in time")
}
