//! A scripted engine, and workflows to try it with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use protocol::Json;
use protocol::run::{Condition, Edge, RunOptions, RunSpec, Step};
use tokio::sync::Notify;

use crate::engine::{
    ConditionCall, ConditionEnd, Engine, EngineLost, Exports, JobCall, JobEnd, JobResult, Origin, Thrown,
};

/// What a job does when it is run.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Return(&'static str),
    ReturnWithResponse(&'static str, &'static str),
    ReturnNothing,
    Throw(Thrown),
    Lose(EngineLost),
    Hang,
}

/// Plays what its script says, and writes down what it is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeEngine {
    script: HashMap<&'static str, Act>,
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    /// The jobs that were run.
    pub(crate) jobs: Arc<Mutex<Vec<JobCall>>>,
    /// What it says that a job's values took.
    pub(crate) heap_bytes: Option<u64>,
    /// What it says that its process had, the next time that it is asked.
    pub(crate) resident_bytes: u64,
    /// Told when the engine begins to hang.
    pub(crate) hanging: Arc<Notify>,
}

impl FakeEngine {
    /// An engine whose jobs act by step id; those without an act return their state.
    pub(crate) fn new(script: impl IntoIterator<Item = (&'static str, Act)>) -> Self {
        Self { script: script.into_iter().collect(), ..Self::default() }
    }

    async fn hang<T>(&self) -> T {
        self.hanging.notify_one();
        std::future::pending().await
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Engine for FakeEngine {
    fn version(&self) -> (String, String) {
        ("fake".into(), "1".into())
    }

    fn exports(&self, adaptor: &str) -> Exports {
        match adaptor.strip_prefix("refused-") {
            Some(name) => Exports::Refused(format!("{name} needs another engine")),
            None => Exports::Known(vec!["fn".into()]),
        }
    }

    fn peak_heap_bytes(&self) -> Option<u64> {
        self.heap_bytes
    }

    fn take_peak_resident_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.resident_bytes)
    }

    async fn run_job(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        self.note(format!("{} {}", job.step_id, job.state.as_str()));
        self.jobs.lock().unwrap().push(job.clone());
        let json = |text: &str| Some(Json::parse(text.to_owned()).unwrap());
        let result = match self.script.get(job.step_id.as_str()) {
            None => JobResult { state: json(r#"{"data":{}}"#), webhook_response: None },
            Some(Act::Return(state)) => JobResult { state: json(state), webhook_response: None },
            Some(Act::ReturnWithResponse(state, response)) => {
                JobResult { state: json(state), webhook_response: json(response) }
            }
            Some(Act::ReturnNothing) => JobResult { state: None, webhook_response: None },
            Some(Act::Throw(thrown)) => return Ok(JobEnd::Threw(thrown.clone())),
            Some(Act::Lose(lost)) => return Err(lost.clone()),
            Some(Act::Hang) => self.hang().await,
        };
        Ok(JobEnd::Returned(result))
    }

    async fn test(&mut self, condition: ConditionCall) -> Result<ConditionEnd, EngineLost> {
        self.note(format!("{}? {} {}", condition.upstream_step_id, condition.expression, condition.state.as_str()));
        match condition.expression.as_str() {
            "hang" => self.hang().await,
            "lose" => Err(EngineLost::OutOfMemory),
            "no.x" => Ok(ConditionEnd::Threw(thrown(Origin::Job, "ReferenceError", "no is not defined"))),
            expression => Ok(ConditionEnd::Value(expression == "true")),
        }
    }
}

pub(crate) fn thrown(origin: Origin, name: &str, message: &str) -> Thrown {
    Thrown { origin, name: name.into(), message: message.into(), ..Thrown::default() }
}

/// An error as jobs throw it most.
pub(crate) fn error(message: &str) -> Act {
    Act::Throw(thrown(Origin::Job, "Error", message))
}

/// A workflow from lines such as `a -> b, success c, failure d, never e, (x > 1) f`: a step and its edges. A step in
/// brackets, `[a]`, has no code.
pub(crate) fn workflow(text: &str) -> RunSpec {
    let steps = text.lines().map(|line| step(line.trim())).collect();
    RunSpec {
        run_id: "r".into(),
        steps,
        start: None,
        input: Json::empty_object(),
        globals: None,
        meta: Json::empty_object(),
        configuration: None,
        engine: protocol::engine::EngineSpec::Embedded,
        options: RunOptions::default(),
    }
}

fn step(line: &str) -> Step {
    let (id, edges) = line.split_once("->").unwrap_or((line, ""));
    let id = id.trim();
    let bare = id.trim_matches(['[', ']']);
    Step {
        id: bare.into(),
        name: None,
        expression: (bare == id).then(|| "fn(s => s)".into()),
        adaptors: vec!["common@1".into()],
        configuration: None,
        state: None,
        next: edges.split(',').map(str::trim).filter(|edge| !edge.is_empty()).map(edge).collect(),
    }
}

fn edge(text: &str) -> Edge {
    let (condition, target) = text.rsplit_once(' ').unwrap_or(("", text));
    let condition = match condition {
        "" => Condition::Always,
        "never" => Condition::Never,
        "success" => Condition::OnSuccess,
        "failure" => Condition::OnFailure,
        expression => Condition::Expression(expression.trim_matches(['(', ')']).into()),
    };
    Edge { target: target.into(), condition }
}
