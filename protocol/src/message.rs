//! The messages of the link, one enum for each kind and direction.
//!
//! A host starts with [`Hello`]; the worker answers [`Welcome`] or a [`Refusal`]. From then on both sides may send
//! requests, each answered by exactly one reply, and notices, which are not answered. Cancelling a run, for example,
//! is a request of its own and does not end the request to run it: that one is still answered, with the outcome.
//!
//! [`Hello`], [`Welcome`] and [`Refusal`] are understood by every version: keys are only ever added to them. All the
//! rest belongs to one [`PROTOCOL_VERSION`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Json;
use crate::engine::{EngineSpec, TemplateAddress};
use crate::handler::{HandlerReply, HandlerRequest, StoreAnswer, StoreCall};
use crate::handshake::LinkToken;
use crate::install::{InstallerReply, InstallerRequest, Progress};
use crate::run::{RunEvent, RunOutcome, RunSpec, StepCompleted};

/// Version of everything in this module, in [`crate::run`] and in [`crate::install`]. Worker and host must have the same.
pub const PROTOCOL_VERSION: u32 = 4;

/// What the worker asks of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HostRequest {
    /// Get an engine ready before a run comes.
    Prepare(Prepare),
    /// Execute a workflow.
    Run(Box<RunSpec>),
    /// End the run at once.
    Cancel(Cancel),
    /// Show that you live.
    Ping(Ping),
    /// Finish and exit.
    Stop(Stop),
    /// Look after a repo of adaptors. A host that was asked for this executes no runs.
    Installer(InstallerRequest),
    /// Run a handler.
    Handler(HandlerRequest),
    /// Something that whoever wrote this kind of host has given a meaning.
    Custom(Custom),
    /// Go by these environment variables from now on.
    SetEnv(SetEnv),
    /// Be a template for engines of this kind, to the end.
    Template(BeTemplate),
}

/// A host's answers, in the order of [`HostRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HostReply {
    /// To [`HostRequest::Prepare`].
    Prepared(Prepared),
    /// To [`HostRequest::Run`]: the run is over.
    Ran(RunOutcome),
    /// To [`HostRequest::Cancel`].
    Cancelled(Cancelled),
    /// To [`HostRequest::Ping`].
    Pong(Pong),
    /// To [`HostRequest::Stop`]: the host exits when this is on its way.
    Stopping(Stopping),
    /// To [`HostRequest::Installer`].
    Installer(InstallerReply),
    /// To [`HostRequest::Handler`].
    Handler(HandlerReply),
    /// To [`HostRequest::Custom`].
    Custom(Json),
    /// To [`HostRequest::SetEnv`].
    EnvSet(EnvSet),
    /// To [`HostRequest::Template`]: it was tried, and can be forked from.
    Template(Template),
}

/// What a host asks of the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum WorkerRequest {
    /// A step ended; go on when I have it.
    StepCompleted(Box<StepCompleted>),
    /// A handler wants something of the store that its job is in.
    Store(StoreCall),
    /// Something that whoever wrote this kind of host has given a meaning.
    Custom(Custom),
    /// An engine that was forked for me is your child: it belongs to me.
    Adopt(Adopt),
    /// Count what engines that were forked for me have open without a name. The kernel does not let me look.
    CountUnnamed(CountUnnamed),
}

/// The worker's answers, in the order of [`WorkerRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum WorkerReply {
    /// To [`WorkerRequest::StepCompleted`].
    Taken(Taken),
    /// To [`WorkerRequest::Store`].
    Store(StoreAnswer),
    /// To [`WorkerRequest::Custom`].
    Custom(Json),
    /// To [`WorkerRequest::Adopt`].
    Adopted(Adopted),
    /// To [`WorkerRequest::CountUnnamed`].
    Unnamed(Unnamed),
}

/// What a host tells the worker without expecting an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum WorkerNotice {
    /// Something happened in the run.
    Event(RunEvent),
    /// Something for whoever in the worker knows this kind of host.
    Custom(Json),
    /// Numbers of the host's work.
    Ops(OpsReport),
    /// A request that takes its time has come further.
    Progress(Progress),
    /// A line for the worker's log.
    Log(HostLog),
    /// A template was of no use.
    NotForked(NotForked),
}

/// What the worker tells a host without expecting an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HostNotice {
    /// Something that whoever wrote this kind of host has given a meaning.
    Custom(Json),
    /// An engine that was adopted has ended.
    EngineEnded(EngineEnded),
}

/// A request whose meaning is the business of those who wrote the host and the program that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom(pub Json);

/// Go by these environment variables from now on: a host that needs a new process for that refuses, and is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEnv {
    /// Names with their values; those without one are unset.
    pub variables: BTreeMap<String, Option<String>>,
}

/// The answer to [`SetEnv`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvSet {}

/// A line for the worker's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLog {
    /// How much it matters.
    pub level: HostLogLevel,
    /// What it says.
    pub message: String,
}

/// How much a line of a host's matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostLogLevel {
    /// For who follows each step.
    Trace,
    /// For who looks closely.
    Debug,
    /// For operators.
    Info,
    /// Something looks wrong.
    Warn,
    /// Something is wrong.
    Error,
}

/// Be a template: load what this engine is to load, and be forked from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BeTemplate {
    /// The engines that are forked.
    pub engine: EngineSpec,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// Variables of the environment that jobs may see.
    pub variables: Vec<String>,
}

/// A template that can be forked from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Where it takes requests.
    pub address: TemplateAddress,
    /// Memory that it has for itself, in bytes.
    pub private_bytes: u64,
}

/// An engine was forked, and is a child of the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// The engine's process.
    pub pid: u32,
    /// The host that looks after the template.
    pub template: String,
    /// How long the fork took, in nanoseconds.
    pub fork_ns: u64,
}

/// The engine is the host's: it is where the host is, ends when the host does, and its end is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {}

/// Count the files that are in no folder any more, but open in the engines that were adopted for this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountUnnamed {}

/// Files that are in no folder, but open. One that is open several times counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnamed {
    /// How many there are.
    pub files: u64,
    /// What they take on their disks, in bytes.
    pub bytes: u64,
}

/// The end of an engine that was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineEnded {
    /// Its process.
    pub pid: u32,
    /// Its status, as the kernel tells it to a parent.
    pub status: i32,
}

/// An engine was to be forked and is not, or has not answered its first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotForked {
    /// The host that looks after the template.
    pub template: String,
    /// What failed.
    pub fault: ForkFault,
    /// For people.
    pub why: String,
}

/// What a fork failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ForkFault {
    /// The template did not take the request, or could not fork.
    Refused,
    /// The worker did not adopt it.
    NotAdopted,
    /// It ended before it had answered.
    Died,
    /// It did not answer in time.
    Silent,
}

/// Numbers of a host's work, which the worker adds up over all hosts of a type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpsReport {
    /// What was counted since the last report.
    pub counts: BTreeMap<String, u64>,
    /// What is so now.
    pub gauges: BTreeMap<String, f64>,
}

/// Introduction of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] that the host was built with.
    pub protocol: u32,
    /// Version of the host program.
    pub version: String,
    /// The one-time token from the host's environment.
    pub token: LinkToken,
    /// The host's process id.
    pub pid: u32,
}

/// The worker takes the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The id under which the worker's log speaks of the host.
    pub host_id: String,
}

/// Get ready for runs of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prepare {
    /// The engine to start.
    pub engine: EngineSpec,
    /// Memory that the engine may use, in bytes.
    pub memory_bytes: u64,
}

impl Prepare {
    /// What a host that is to execute `spec` prepares.
    pub fn of(spec: &RunSpec) -> Self {
        Self { engine: spec.engine.clone(), memory_bytes: spec.options.memory_bytes }
    }
}

/// The engine is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Kind and version of the engine.
    pub engine: (String, String),
}

/// End the run that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// How the run is to end: the step that is open and the run itself get this exit.
    pub exit: crate::run::Exit,
}

/// The answer to [`Cancel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether there was a run to cancel.
    pub was_running: bool,
}

/// Show that you live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// A host's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Resident memory of the host and its engine in bytes.
    pub rss_bytes: u64,
}

/// Exit when the run that is under way, if any, has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {}

/// The answer to [`Stop`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {}

/// The worker has a step's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {}

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which kind of refusal, for programs.
    pub code: RefusalCode,
    /// What was wrong and what would be right, for people.
    pub message: String,
    /// What caused it, outermost first.
    pub causes: Vec<String>,
}

impl Refusal {
    /// A refusal without causes of its own.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new() }
    }

    /// What was asked was tried, and failed with `error`.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect();
        Self { code: RefusalCode::Failed, message: error.to_string(), causes }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The two sides were built with different [`PROTOCOL_VERSION`]s.
    VersionMismatch,
    /// The link token is wrong or was used before.
    BadToken,
    /// The request is not possible in the state that the other side is in.
    WrongState,
    /// The other side tried, and failed.
    Failed,
    /// The other side tried, and failed because a package registry did not serve it. Later it may.
    RegistryDown,
}
