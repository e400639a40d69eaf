//! What the walk over a workflow asks of a JavaScript engine.
//!
//! An engine runs jobs and conditions, and nothing else: the order of steps, the state between them, what an error
//! means, and what is sent, is decided outside of it, once for all engines. All engines run the same prelude, the
//! script in `prelude/` that chains operations and describes what was thrown.

pub mod embedded;
pub mod node;
mod withheld;

use std::future::Future;

use protocol::Json;
use protocol::run::{LogLevel, LogSource};
use serde::Deserialize;

use crate::compile::Places;

/// A JavaScript engine that belongs to one run.
pub trait Engine: Send {
    /// Kind and version, such as `("quickjs", "rquickjs-0.14.0")`.
    fn version(&self) -> (String, String);

    /// Names that `adaptor` (as a step names it, with or without a version) exports, when it can be used here.
    fn exports(&self, adaptor: &str) -> Exports;

    /// Of what in its code it knows the place.
    fn places(&self) -> Places {
        Places::All
    }

    /// Whether the engine is known to be of no use any more, such as after its process ended while it waited for a run.
    fn is_lost(&mut self) -> bool {
        false
    }

    /// The most memory that the values of the last job took, in bytes, where the engine can tell.
    fn peak_heap_bytes(&self) -> Option<u64> {
        None
    }

    /// The most resident memory that the engine's own process had since the last call of this, in bytes; 0 for an engine
    /// without one.
    fn take_peak_resident_bytes(&mut self) -> u64 {
        0
    }

    /// Evaluates a job's module with fresh globals and runs its operations. Log lines go to the sink that the engine
    /// was made with, in order, before this returns.
    fn run_job(&mut self, job: JobCall) -> impl Future<Output = Result<JobEnd, EngineLost>> + Send;

    /// Evaluates a condition over `state` and `upstreamStepId` in a bare context.
    fn test(&mut self, condition: ConditionCall) -> impl Future<Output = Result<ConditionEnd, EngineLost>> + Send;
}

/// What an adaptor offers to the compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exports {
    /// These names.
    Known(Vec<String>),
    /// It can be loaded, but what it exports is not known before.
    Unknown,
    /// This engine cannot use the adaptor: why, and what would.
    Refused(String),
}

/// One job to run.
#[derive(Debug, Clone)]
pub struct JobCall {
    /// Id of the step.
    pub step_id: String,
    /// The compiled module.
    pub code: String,
    /// The adaptors that the module may import, in order.
    pub adaptors: Vec<String>,
    /// Source of the module whose exports are globals of the job.
    pub globals: Option<String>,
    /// The job's frozen global `meta`: an object.
    pub meta: Json,
    /// The state that the first operation gets: an object.
    pub state: Json,
    /// Keys taken out of the result.
    pub state_props_to_remove: Vec<String>,
    /// A longer state, in bytes of JSON, is of no use: an engine may say that it is, in place of it.
    pub state_bytes: u64,
}

/// One condition to evaluate.
#[derive(Debug, Clone)]
pub struct ConditionCall {
    /// The JavaScript expression, from its first token on: what follows `return` in a function.
    pub expression: String,
    /// The upstream step's state.
    pub state: Json,
    /// The upstream step's id.
    pub upstream_step_id: String,
}

/// How a job ended, as far as the engine can tell.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// Its last operation returned.
    Returned(JobResult),
    /// The same, but the state is beyond the limit.
    TooLarge,
    /// It threw.
    Threw(Thrown),
}

/// What a job returned.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// The state as JSON text, less the keys that are taken out; none for `undefined`.
    pub state: Option<Json>,
    /// `webhookResponse` of the state, which is taken out too.
    pub webhook_response: Option<Json>,
}

/// How a condition ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ConditionEnd {
    /// Whether it was truthy.
    Value(bool),
    /// It threw.
    Threw(Thrown),
}

/// Something that was thrown, as the prelude describes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Thrown {
    /// Where it comes from.
    pub origin: Origin,
    /// The error's `name`; empty for values that are no errors.
    pub name: String,
    /// Its message, or the value itself as text.
    pub message: String,
    /// Line (from 1) and column (from 1) of the job's innermost frame, in the compiled module.
    pub position: Option<(u32, u32)>,
    /// Its own enumerable properties and message as JSON text, for errors of adaptors.
    pub details: Option<String>,
    /// Index of the operation that was under way, from 0.
    pub operation: Option<usize>,
    /// The stack, for the log.
    pub stack: Option<String>,
    /// The state that the job started with as JSON text, as it is now, since operations may change it in place. As in
    /// [`JobResult`] less the keys that are taken out.
    pub state: Option<String>,
    /// Whether that state is beyond the limit, and therefore not told.
    pub is_too_large: bool,
}

/// Where something that was thrown comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The job's own code.
    #[default]
    Job,
    /// An adaptor: the first frame that is neither the engine's nor the job's.
    Adaptor,
    /// A module that may not be imported, or that is not there.
    Import,
    /// Code generated from a string.
    Evaluation,
    /// The module's default export is not an array (`InvalidExportsError`).
    Exports,
    /// An element of it is not a function (`InvalidOperationError`).
    Operation,
    /// Thrown after the job had gone on without it: an exception in a timer, a rejection nobody handled.
    Uncaught,
}

/// The engine cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineLost {
    /// It used more memory than the run may.
    #[error("the engine exceeded its memory limit")]
    OutOfMemory,
    /// It wrote more to disk than the run may.
    #[error("the engine wrote more than {limit_bytes} bytes to its folder")]
    WroteTooMuch {
        /// What it may write, in bytes.
        limit_bytes: u64,
    },
    /// The job, an adaptor or the engine ended the engine's process.
    #[error("the engine exited with code {0}")]
    Exited(i32),
    /// The engine's process was killed.
    #[error("the engine was killed by signal {0}")]
    Signalled(String),
    /// The engine did something that it must not.
    #[error("the engine failed: {0}")]
    Failed(String),
}

/// Takes log lines as the engine produces them. Blocks while the run's log is full, which holds the job.
pub trait LogSink: Send + Sync + 'static {
    /// Whether lines of this kind are wanted at all, so that their values need not be made.
    fn wants(&self, source: LogSource, level: LogLevel) -> bool;

    /// One line: `message` is the JSON text of an array.
    fn write(&self, source: LogSource, level: LogLevel, message: String);
}

/// The source and level of a line by the words that the prelude has for them.
fn line_kind(source: &str, level: &str) -> Option<(LogSource, LogLevel)> {
    Some((source.parse().ok()?, level.parse().ok()?))
}
