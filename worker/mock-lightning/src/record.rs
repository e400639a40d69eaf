//! What the double remembers, as tests, `demo` and the HTTP API read it.
//!
//! Times are microseconds since the epoch, by the double's clock.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// State of a run, by Lightning's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RunState {
    #[default]
    Available,
    Claimed,
    Started,
    Success,
    Failed,
    Crashed,
    Cancelled,
    Killed,
    Exception,
    Lost,
}

impl RunState {
    /// The final state that an exit reason leads to; none if there is no such reason.
    pub(super) fn from_reason(reason: &str) -> Option<Self> {
        Some(match reason {
            "success" => Self::Success,
            "fail" => Self::Failed,
            "crash" => Self::Crashed,
            "cancel" => Self::Cancelled,
            "kill" => Self::Killed,
            "exception" => Self::Exception,
            _ => return None,
        })
    }

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Available | Self::Claimed | Self::Started)
    }
}

/// An event of a run that was accepted.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedEvent {
    /// The run.
    pub run_id: Arc<str>,
    /// Name, such as `step:start`.
    pub event: String,
    /// Payload as it came.
    pub payload: Arc<Value>,
    /// When it arrived.
    pub at: u64,
}

/// A message that was refused, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Violation {
    /// The run whose channel it came on.
    pub run_id: Option<String>,
    /// The channel's topic; empty for the socket itself.
    pub topic: String,
    /// The event; empty if the frame could not be read.
    pub event: String,
    /// Payload as it came; null for what may hold a token.
    pub payload: Arc<Value>,
    /// What was wrong.
    pub reason: String,
    /// When it arrived.
    pub at: u64,
}

/// A line of a run's log.
#[derive(Debug, Clone, Serialize)]
pub struct LogRecord {
    /// The line as it came.
    #[serde(flatten)]
    pub line: Arc<Value>,
    /// When it arrived.
    pub at: u64,
}

/// A step of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StepRecord {
    /// Id that the worker gave it.
    pub step_id: String,
    /// The job.
    pub job_id: String,
    /// Its input, where the worker named one.
    pub input_dataclip_id: Option<String>,
    /// When `step:start` arrived.
    pub started_at: u64,
    /// When `step:complete` arrived.
    pub finished_at: Option<u64>,
    /// Exit reason.
    pub reason: Option<String>,
    /// Error type, unless it succeeded.
    pub error_type: Option<String>,
    /// Error message, unless it succeeded.
    pub error_message: Option<String>,
    /// Its output.
    pub output_dataclip_id: Option<String>,
    /// Why the output was withheld.
    pub output_dataclip_error: Option<String>,
}

/// All that is known of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunRecord {
    /// Id.
    pub id: Arc<str>,
    /// State.
    pub state: RunState,
    /// Name of the queue that it waits in.
    pub queue: String,
    /// Name of the worker that claimed it, where it gave one.
    pub worker_name: Option<String>,
    /// When it was queued.
    pub queued_at: u64,
    /// When it was last claimed.
    pub claimed_at: Option<u64>,
    /// When `run:start` arrived first.
    pub started_at: Option<u64>,
    /// When it reached its final state.
    pub finished_at: Option<u64>,
    /// Exit reason.
    pub reason: Option<String>,
    /// Error type, unless it succeeded.
    pub error_type: Option<String>,
    /// Error message, unless it succeeded.
    pub error_message: Option<String>,
    /// Final state of the workflow, where the worker sent one.
    #[serde(rename = "result")]
    pub final_state: Option<Value>,
    /// Dataclip that is the final state.
    pub final_dataclip_id: Option<String>,
    /// Versions from `run:start`.
    pub versions: Option<Value>,
    /// Steps, in the order that they started in.
    pub steps: Vec<StepRecord>,
    /// Log lines, in the order that they arrived in; a line whose id is there already is not repeated.
    pub logs: Vec<LogRecord>,
    /// Refused messages.
    pub violations: Vec<Violation>,
    /// Accepted events, in the order that they arrived in.
    #[serde(skip)]
    pub events: Vec<RecordedEvent>,
}

/// A connection, from its acceptance on.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionRecord {
    /// Number, counted from 1.
    pub number: u64,
    /// Id from the worker token; none when tokens are not checked.
    pub worker_id: Option<String>,
    /// `api_version` as the worker gave it.
    pub api_version: Option<String>,
    /// `worker_version` as the worker gave it.
    pub worker_version: Option<String>,
    /// When it was accepted.
    pub opened_at: u64,
    /// When it ended.
    pub closed_at: Option<u64>,
}

/// An accepted claim.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimRecord {
    /// Runs asked for.
    pub demand: u64,
    /// Name of the worker.
    pub worker_name: Option<String>,
    /// Queues in order of preference.
    pub queues: Vec<String>,
    /// Ids of the runs handed out.
    pub runs: Vec<String>,
    /// When it arrived.
    pub at: u64,
}

/// What workers did apart from runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Activity {
    /// Connections, in order.
    pub connections: Vec<ConnectionRecord>,
    /// Claims, in order.
    pub claims: Vec<ClaimRecord>,
    /// Payloads of accepted joins of `worker:queue`, in order.
    pub queue_joins: Vec<Value>,
    /// Number of heartbeats.
    pub heartbeats: u64,
    /// Number of websocket pings.
    pub pings: u64,
}
