//! What is said over the admin socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is asked of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How it is.
    Status,
    /// Its hosts.
    Hosts,
    /// The runs that are executed.
    Runs,
    /// Replace the hosts of one type, or of all.
    Recycle {
        /// The type.
        pool: Option<String>,
    },
    /// Claim nothing, let runs end, have no hosts.
    Drain,
    /// Work again.
    Resume,
    /// End a run.
    Cancel {
        /// Its id.
        run: String,
    },
    /// Keep so many hosts of a type.
    Resize {
        /// The type.
        pool: String,
        /// How many.
        size: usize,
        /// Whether or not the machine has room for them.
        #[serde(default)]
        force: bool,
    },
    /// What hosts print.
    Logs {
        /// Go on with what they print from now on.
        follow: bool,
        /// Of this host alone.
        host: Option<String>,
        /// Of this run alone.
        run: Option<String>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(StatusReport),
    /// To [`Request::Hosts`].
    Hosts(Vec<HostReport>),
    /// To [`Request::Runs`].
    Runs(Vec<RunReport>),
    /// It is done: what.
    Done(String),
    /// A line that a host printed.
    Line(LineReport),
    /// It is not done: why.
    Error(String),
}

/// How a worker is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The worker's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Time since it started, in seconds.
    pub uptime_s: u64,
    /// Whether it is drained, or on the way to that.
    pub draining: bool,
    /// How it bounds the memory of runs.
    pub limits: String,
    /// Its connection to Lightning.
    pub lightning: LightningReport,
    /// Its hosts by type.
    pub pools: Vec<PoolReport>,
}

/// The worker's connection to Lightning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LightningReport {
    /// There is a websocket.
    pub connected: bool,
    /// The queue is joined.
    pub joined: bool,
    /// Runs that have not ended.
    pub active_runs: usize,
    /// Runs that may be active at once.
    pub capacity: usize,
    /// Claims that are not answered yet.
    pub open_claims: usize,
    /// Runs that have ended, however.
    pub runs_ended: u64,
}

/// The hosts of a type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The type.
    pub pool: String,
    /// How many there are to be: those that wait, or all.
    pub size: usize,
    /// How many there are in each state.
    pub hosts: BTreeMap<String, usize>,
    /// Who waits for one.
    pub waiting: usize,
    /// How many were started so far.
    pub started: u64,
    /// Whether hosts fail one after the other.
    pub circuit_open: bool,
    /// Whether there are to be none.
    pub draining: bool,
    /// How the last one ended.
    pub last_end: Option<String>,
    /// Numbers that hosts report.
    pub ops: BTreeMap<String, f64>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Its id.
    pub id: String,
    /// Its type.
    pub pool: String,
    /// Its process.
    pub pid: Option<u32>,
    /// What it does.
    pub state: String,
    /// The engine that it has ready.
    pub engine: Option<String>,
    /// The run that it executes.
    pub run: Option<String>,
    /// Time since it was started, in seconds.
    pub age_s: u64,
    /// Runs that it was given, or how often it was lent.
    pub runs: u32,
    /// Memory of it and of its engine when it was last looked at, in bytes.
    pub memory_bytes: Option<u64>,
}

/// A run that is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Its id.
    pub run: String,
    /// The host that executes it.
    pub host: String,
    /// The host's process.
    pub pid: Option<u32>,
    /// The engine.
    pub engine: Option<String>,
}

/// A line that a host printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineReport {
    /// The host.
    pub host: String,
    /// The run that it executed.
    pub run: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_lines_that_people_can_type_and_read() {
        let requests = [
            (Request::Status, r#"{"command":"status"}"#),
            (Request::Recycle { pool: None }, r#"{"command":"recycle","pool":null}"#),
            (
                Request::Resize { pool: "engines".into(), size: 3, force: false },
                r#"{"command":"resize","pool":"engines","size":3,"force":false}"#,
            ),
        ];
        for (request, text) in requests {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert_eq!(serde_json::to_string(&Answer::Done("drained".into())).unwrap(), r#"{"done":"drained"}"#);
    }
}
