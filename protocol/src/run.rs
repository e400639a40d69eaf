//! What a run is to a worker and a host: the workflow that goes in, the events and the outcome that come back.
//!
//! Nothing here knows where a run comes from. These types are the boundary, so both sides treat what arrives in
//! them as already checked for form (numbers are in range, JSON is JSON) but not for sense (a target may be unknown).

use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;
use strum::{EnumString, IntoStaticStr};

use crate::Json;
use crate::engine::EngineSpec;

/// Stands for the end of an error's message that was cut off.
pub const CUT: &str = " [cut: too long]";

/// A workflow to execute once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The run's id, for log lines and process titles.
    pub run_id: String,
    /// The steps, in the order of the plan. The first one starts unless `start` names another.
    pub steps: Vec<Step>,
    /// Id of the step to start with.
    pub start: Option<String>,
    /// The state that the first step gets.
    pub input: Json,
    /// Source of a module whose exports every job sees as globals.
    pub globals: Option<String>,
    /// What every job sees as its frozen global `meta`: a JSON object.
    pub meta: Json,
    /// Keys put into every step's `configuration`, below the step's own: the workflow-wide credentials.
    pub configuration: Option<Json>,
    /// The engine that executes it. The adaptors of the steps are among the engine's.
    pub engine: EngineSpec,
    /// Limits and switches.
    pub options: RunOptions,
}

impl RunSpec {
    /// Lets go of what may take megabytes: the input, credentials, default states and code.
    pub fn forget_data(&mut self) {
        self.input = Json::null();
        self.configuration = None;
        self.steps = Vec::new();
    }
}

/// A node of the workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the workflow.
    pub id: String,
    /// What its author calls it.
    pub name: Option<String>,
    /// The job's source code; none for a trigger or an empty job, which pass their input on without an event.
    pub expression: Option<String>,
    /// Adaptors whose operations the code uses, as `name@version` or `name`, in order of preference.
    pub adaptors: Vec<String>,
    /// The job's credential, already fetched: a JSON object.
    pub configuration: Option<Json>,
    /// Default state, under the step's input.
    pub state: Option<Json>,
    /// Where to go next, in order.
    pub next: Vec<Edge>,
}

/// A way from one step to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Id of the step that it leads to.
    pub target: String,
    /// When it is taken.
    pub condition: Condition,
}

/// When an edge is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    Always,
    /// Never: the edge is disabled.
    Never,
    /// When the step before it left no error.
    OnSuccess,
    /// When the step before it left an error.
    OnFailure,
    /// When this JavaScript expression over `state` and `upstreamStepId` is truthy.
    Expression(String),
}

const MB: u64 = 1024 * 1024;

/// Limits and switches of one run. Sizes are of encoded text, in bytes. The defaults are what the reference worker
/// starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, SmartDefault)]
pub struct RunOptions {
    /// Wall-clock limit in milliseconds, from the moment when a prepared engine takes the run.
    #[default(300_000)]
    pub timeout_ms: u64,
    /// Memory that the engine may use.
    #[default(500 * MB)]
    pub memory_bytes: u64,
    /// A state whose text is longer ends the run.
    #[default(Self::state_bytes_of(500 * MB))]
    pub state_bytes: u64,
    /// A dataclip whose text is longer is withheld from the worker.
    #[default(10 * MB)]
    pub payload_bytes: u64,
    /// A log line whose text is longer is replaced.
    #[default(MB)]
    pub log_payload_bytes: u64,
    /// Whether steps' results are sent at all.
    #[default(true)]
    pub output_dataclips: bool,
    /// Lowest level of `JOB` lines that are sent.
    #[default(JobLogLevel::Debug)]
    pub job_log_level: JobLogLevel,
    /// What becomes of objects and arrays in log lines.
    #[default(Sanitize::None)]
    pub sanitize: Sanitize,
    /// Keys taken out of a step's state before it is passed on.
    #[default(vec!["configuration".into(), "response".into()])]
    pub state_props_to_remove: Vec<String>,
}

impl RunOptions {
    /// The longest state, in bytes, of a run with this memory that names no limit of its own. The reference worker
    /// has no other limit by default.
    pub fn state_bytes_of(memory_bytes: u64) -> u64 {
        memory_bytes.max(50 * 1024 * 1024)
    }
}

/// The filter on a job's console: lines below it are dropped, errors always pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumString)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum JobLogLevel {
    /// Everything.
    Debug,
    /// `console.log` and `console.info`, and above.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors.
    Error,
    /// Errors, too: what the reference does.
    None,
}

/// What becomes of objects and arrays that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumString)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Sanitize {
    /// Logged as they are.
    None,
    /// Replaced by null.
    Remove,
    /// Replaced by `[object]` or `[array]`.
    Obfuscate,
    /// Replaced by a description of their size or keys.
    Summarize,
}

/// A step's place in the order of execution, from 0. A step that runs twice has two.
pub type StepIndex = u32;

/// Something that happened in a run, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEvent {
    /// The engine took the run; compilation comes next.
    Started(Versions),
    /// A step with code begins.
    StepStarted(StepStarted),
    /// A line for the run's log.
    Log(LogLine),
    /// The run is over, and this is what it took.
    Used(Usage),
}

/// What a host and its engine have used since they were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// The most resident memory of the larger of the two, in bytes.
    pub peak_bytes: u64,
}

/// What the run is executed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Kind and version of the JavaScript engine, such as `("node", "24.4.0")` or `("quickjs", "0.14.0")`.
    pub engine: (String, String),
    /// Adaptors by name, each with the versions that the workflow uses.
    pub adaptors: Vec<(String, Vec<String>)>,
}

/// A step with code begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Its place in the order of execution.
    pub index: StepIndex,
    /// Id of the step in the workflow.
    pub step_id: String,
    /// Whose result is its input.
    pub input: StepInput,
    /// When, in microseconds since the epoch.
    pub timestamp_us: u64,
}

/// Where a step's input came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepInput {
    /// The run's input.
    Run,
    /// The result of an earlier step.
    Step(StepIndex),
}

/// A step ended. Sent as a request: the host goes on when the worker has taken it, so that a run cannot produce
/// states faster than they are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// As in [`StepStarted`].
    pub index: StepIndex,
    /// As in [`StepStarted`].
    pub step_id: String,
    /// How it ended.
    pub exit: Exit,
    /// Its result.
    pub output: StepOutput,
    /// What the workflow answers to the webhook that started it, if the step said so.
    pub webhook_response: Option<Json>,
    /// Wall-clock time in milliseconds.
    pub duration_ms: u64,
    /// Peak memory of the engine during the step, and of the whole engine process, in bytes, where known.
    pub memory: StepMemory,
    /// When, in microseconds since the epoch: after the step's last log line.
    pub timestamp_us: u64,
}

/// Memory that a step used, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMemory {
    /// JavaScript heap.
    pub job: u64,
    /// The most resident memory of the engine's process.
    pub system: u64,
}

/// A step's result as far as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepOutput {
    /// The state: always a JSON object.
    State(Json),
    /// The workflow's options say that results are not sent.
    Unwanted,
    /// Larger than the payload limit: the length of its text in bytes.
    TooLarge(u64),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// The run's own reason.
    pub exit: Exit,
    /// The state of the only leaf, or an object of several leaves' states by step id; none where there is no result.
    /// Always a JSON object.
    pub final_state: Option<Json>,
    /// The one leaf whose result `final_state` is.
    pub final_step: Option<StepIndex>,
}

/// How a step or a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The reason.
    pub reason: ExitReason,
    /// The error behind it; none for a success.
    pub error: Option<ExitError>,
}

impl Exit {
    /// A success.
    pub fn success() -> Self {
        Self { reason: ExitReason::Success, error: None }
    }

    /// Any other end.
    pub fn error(reason: ExitReason, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, error: Some(ExitError { kind: kind.into(), message: message.into() }) }
    }
}

/// The error that a step or a run reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitError {
    /// Lightning's `error_type`.
    pub kind: String,
    /// Lightning's `error_message`; a host cuts it at [`RunOptions::log_payload_bytes`].
    pub message: String,
}

/// Why a step or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum ExitReason {
    /// It did what it should.
    Success,
    /// An error of the job or of an adaptor; the workflow goes on along its failure edges.
    Fail,
    /// Code that cannot run.
    Crash,
    /// Stopped for exceeding a limit or a rule.
    Kill,
    /// Stopped on request.
    Cancel,
    /// A fault of the platform.
    Exception,
}

impl ExitReason {
    /// The word that Lightning and the log use.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Who speaks.
    pub source: LogSource,
    /// How loud.
    pub level: LogLevel,
    /// The values logged: a JSON array.
    pub message: Json,
    /// When, in microseconds since the epoch.
    pub timestamp_us: u64,
}

/// Who wrote a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumString, IntoStaticStr)]
pub enum LogSource {
    /// The runtime that executes the workflow.
    #[serde(rename = "R/T")]
    #[strum(serialize = "R/T")]
    Runtime,
    /// The job's console.
    #[serde(rename = "JOB")]
    #[strum(serialize = "JOB")]
    Job,
    /// An adaptor's console.
    #[serde(rename = "ADA")]
    #[strum(serialize = "ADA")]
    Adaptor,
    /// The compiler.
    #[serde(rename = "CMP")]
    #[strum(serialize = "CMP")]
    Compiler,
    /// The engine.
    #[serde(rename = "RTE")]
    #[strum(serialize = "RTE")]
    Engine,
    /// The list of versions.
    #[serde(rename = "VER")]
    #[strum(serialize = "VER")]
    Versions,
}

impl LogSource {
    /// The word that Lightning uses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum LogLevel {
    /// For who looks closely.
    Debug,
    /// What `console.log` and `console.info` write.
    Info,
    /// Something went well.
    Success,
    /// Shown unless the filter lets only errors pass.
    Always,
    /// Something looks wrong.
    Warn,
    /// Something is wrong.
    Error,
}

impl LogLevel {
    /// The word that Lightning uses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
