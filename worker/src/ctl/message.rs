//! What is said over the admin socket.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use hosts::HostLine;
use lightning::LightningStatus;
use lightning::timeline::{Delivery, RunView, StepView};

/// What is asked of a worker, by a command of `worker ctl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How the worker is.
    Status,
    /// Its hosts.
    Hosts,
    /// The runs that are under way: what each is doing, and where.
    Runs,
    /// The last thousand runs that ended, the newest first: how, how long each phase took, memory, processor time, host.
    History {
        /// All that is known of this run, under way or ended: its phases and steps, and what did not get to Lightning at
        /// once and as it was.
        // A request of its own for the worker: see `Request::for_worker`.
        #[arg(long, value_name = "ID")]
        #[serde(skip)]
        run: Option<String>,
        /// How many runs at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 1_000, conflicts_with = "run")]
        most: usize,
    },
    /// All that is known of one run.
    #[command(skip)]
    Run {
        /// Its id, or how that begins.
        run: String,
    },
    /// Replace hosts: new ones get ready first, and those at work finish what they are at.
    Recycle {
        /// Of this type; of all unless given.
        #[arg(value_name = "TYPE")]
        pool: Option<String>,
    },
    /// Claim nothing, let runs end, have no hosts; returns when that is so.
    Drain,
    /// End a drain.
    Resume,
    /// End a run.
    Cancel {
        /// Its id, or how that begins.
        run: String,
    },
    /// Keep so many hosts of a type: warm ones for runs, or hosts at all.
    Resize {
        /// The type.
        #[arg(value_name = "TYPE")]
        pool: String,
        /// How many.
        #[arg(value_name = "N")]
        size: usize,
        /// Even if they are more than four for each run of the capacity, or than the machine has room for.
        #[arg(long)]
        #[serde(default)]
        force: bool,
    },
    /// What hosts print: the last lines.
    Logs {
        /// Go on with what they print from now on.
        #[arg(short, long)]
        follow: bool,
        /// Of this host alone.
        #[arg(long, value_name = "ID", conflicts_with = "run")]
        host: Option<String>,
        /// Of this run alone.
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
}

impl Request {
    /// As a worker is asked: for one run of the history if one is named.
    pub fn for_worker(self) -> Self {
        match self {
            Self::History { run: Some(run), .. } => Self::Run { run },
            other => other,
        }
    }

    /// Whether the worker is another one afterwards.
    pub(super) fn changes_something(&self) -> bool {
        match self {
            Self::Status | Self::Hosts | Self::Runs | Self::History { .. } | Self::Run { .. } | Self::Logs { .. } => {
                false
            }
            Self::Recycle { .. } | Self::Drain | Self::Resume | Self::Cancel { .. } | Self::Resize { .. } => true,
        }
    }
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
    /// To [`Request::History`]: the newest first.
    History(Vec<PastRun>),
    /// To [`Request::Run`].
    Run(Box<WholeRun>),
    /// It is done: what.
    Done(String),
    /// A line that a host printed.
    Line(HostLine),
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
    pub lightning: LightningStatus,
    /// Its hosts by type.
    pub pools: Vec<PoolReport>,
    /// What is known of engines that are forked, or were to be.
    #[serde(default)]
    pub templates: Vec<TemplateReport>,
}

/// What Node engines of one kind are forked from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateReport {
    /// The engines.
    pub engine: String,
    /// What the template does.
    pub state: String,
    /// The host that looks after it.
    pub host: Option<String>,
    /// Time since it is ready, in seconds.
    pub age_s: u64,
    /// Engines that were forked from it.
    pub forks: u64,
    /// Memory that it had for itself when it was ready, in bytes.
    pub memory_bytes: u64,
    /// For how long engines are not forked, in seconds.
    pub given_up_s: u64,
    /// Why they are not.
    pub why: Option<String>,
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
    /// Whether hosts keep failing.
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

/// A run that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Its id.
    pub run: String,
    /// The workloop that claimed it.
    pub workloop: String,
    /// What it is doing.
    pub phase: String,
    /// The step that is being executed: its name, or its id.
    pub step: Option<String>,
    /// Time since it was claimed, in milliseconds.
    pub age_ms: u64,
    /// The host that executes it; none before it has one.
    pub host: Option<String>,
    /// The host's process.
    pub pid: Option<u32>,
    /// The engine.
    pub engine: Option<String>,
    /// Memory of the host and its engine when they were last looked at, in bytes.
    pub memory_bytes: Option<u64>,
}

/// A run that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRun {
    /// Its id.
    pub run: String,
    /// The workloop that claimed it.
    pub workloop: String,
    /// When it was claimed, in microseconds since the epoch.
    pub claimed_us: u64,
    /// How it ended; none if the worker gave it up before that was known.
    pub reason: Option<String>,
    /// The type of its error, from a fixed list.
    pub error_type: Option<String>,
    /// Whether Lightning has everything.
    pub delivered: bool,
    /// How long each of its phases took, in microseconds.
    pub phases_us: BTreeMap<String, u64>,
    /// The host that executed it.
    pub host: Option<String>,
    /// The most memory of its host or engine, in bytes, where known.
    pub peak_bytes: Option<u64>,
    /// Processor time of its host and engine, in microseconds, where known.
    pub cpu_us: Option<u64>,
    /// What did not get to Lightning at once and as it was.
    pub delivery: Delivery,
}

/// All that is known of a run. Times are microseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeRun {
    /// The run, as far as it is.
    #[serde(flatten)]
    pub run: PastRun,
    /// Its phases, each with when it began.
    pub timeline: Vec<(String, u64)>,
    /// Its last steps.
    pub steps: Vec<PastStep>,
    /// How many more there were before those.
    pub steps_left_out: usize,
}

/// A step of a run. Times are microseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStep {
    /// Its name, or its id.
    pub step: String,
    /// When it began.
    pub started_us: u64,
    /// When it ended; none while it is executed.
    pub ended_us: Option<u64>,
    /// How it ended.
    pub reason: Option<String>,
    /// The type of its error, from a fixed list.
    pub error_type: Option<String>,
    /// The most memory of the engine's process, in bytes, where known.
    pub memory_bytes: Option<u64>,
}

impl From<&RunView> for PastRun {
    fn from(view: &RunView) -> Self {
        let phases = view.durations().map(|(phase, time)| (phase.as_str().to_owned(), time)).collect();
        Self {
            run: view.run.clone(),
            workloop: view.workloop.clone(),
            claimed_us: view.claimed_us(),
            reason: view.reason.map(str::to_owned),
            error_type: view.error_type.map(str::to_owned),
            delivered: view.delivered,
            phases_us: phases,
            host: view.host.clone(),
            peak_bytes: view.peak_bytes(),
            cpu_us: view.usage.map(|usage| usage.cpu_us),
            delivery: view.delivery,
        }
    }
}

impl From<&RunView> for WholeRun {
    fn from(view: &RunView) -> Self {
        Self {
            run: view.into(),
            timeline: view.phases.iter().map(|(phase, since)| (phase.as_str().to_owned(), *since)).collect(),
            steps: view.steps.iter().map(PastStep::from).collect(),
            steps_left_out: view.steps_left_out,
        }
    }
}

impl From<&StepView> for PastStep {
    fn from(view: &StepView) -> Self {
        Self {
            step: view.name.as_ref().unwrap_or(&view.step).clone(),
            started_us: view.started_us,
            ended_us: view.ended_us,
            reason: view.reason.map(str::to_owned),
            error_type: view.error_type.map(str::to_owned),
            memory_bytes: view.memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_deep_is_an_error_and_no_more() {
        let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for text in [
            deep.clone(),
            format!(r#"{{"command":{deep}}}"#),
            format!(r#"{{"command":"status","more":{deep}}}"#),
            format!(r#"{{"command":"resize","pool":{deep},"size":3}}"#),
            r#"{"command":"#.repeat(1_000_000),
        ] {
            assert!(serde_json::from_str::<Request>(&text).is_err(), "{}", &text[..40]);
        }
    }

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
