//! The production engine: Node, as a process of the host's own, which runs adaptors as they are published.
//!
//! A process serves one run. It is started before the run comes, with the engine and the adaptors from a start-up
//! snapshot, from bundles, or as they are installed; then it takes one command at a time over a channel of its own, and
//! is killed with all its descendants when the run is over. What it prints is not believed but shown.

mod death;
mod frame;
mod launch;
mod load;
mod memory;
mod process;
mod quota;
mod scratch;
pub mod snapshot;
mod source;
mod template;
mod version;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::Json;
use protocol::engine::{Adaptor, NodeSpec, TemplateAddress};
use protocol::message::{ForkFault, NotForked};
use protocol::run::{LogLevel, LogSource};
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::death::Evidence;
use self::frame::{BadFrame, Frame};
use self::launch::{Launch, Mode};
pub use self::load::{LoadError, Trial, loads};
use self::memory::Watch;
use self::process::{NoAnswer, NodeProcess};
use self::quota::{OpenFiles, Quota};
use self::scratch::Scratch;
pub use self::source::prelude_hash;
pub use self::template::{Adopting, Counting, Forks, Parent, Template, TemplateOptions, Unforkable};
use self::template::{FIRST_ANSWER, Unforked};
pub use self::version::BadVersion;
use super::{
    ConditionCall, ConditionEnd, Engine, EngineLost, Exports, JobCall, JobEnd, JobResult, LogSink, Thrown, withheld,
};
use crate::confine::rules_of_forks;
use crate::sys;
use hosting::guard::say;

/// How long Node may take to load the adaptors of a workflow.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether a Node that starts is held by a signal.
const HELD_EVERY: Duration = Duration::from_millis(500);

/// A frame that is not a value of the run's: its command and an index of exports at the most.
const SMALL_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// What a Node process is started for.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Program and adaptors.
    pub spec: NodeSpec,
    /// Memory of a run, in bytes.
    pub memory_bytes: u64,
    /// Where the process gets a private folder, which is gone when the engine is dropped.
    pub folder: PathBuf,
    /// How much it may write, in bytes. None where several processes share a host, which then execute no run.
    pub scratch_bytes: Option<u64>,
    /// What it takes to have it forked where `spec` names a template. None if it is to be started anyway.
    pub forks: Option<Forks>,
}

/// Node with the adaptors of one workflow. Dropping it kills the process and its descendants.
#[derive(Debug)]
pub struct NodeEngine {
    // Before the folder, in which it works.
    process: NodeProcess,
    quota: Option<Quota>,
    scratch: Scratch,
    watch: Watch,
    version: String,
    sink: SharedSink,
    adaptors: HashMap<String, Exports>,
    /// What adaptors read while they were loaded, by specifier, where that was watched.
    reads: HashMap<String, Vec<String>>,
    peak_heap_bytes: Option<u64>,
    /// Why nothing more can be asked.
    lost: Option<EngineLost>,
}

/// What Node says when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    version: String,
    adaptors: Vec<Loaded>,
}

/// An adaptor in a Node process.
#[derive(Debug, Deserialize)]
struct Loaded {
    specifier: String,
    names: Vec<String>,
    failed: Option<String>,
    /// What it read while it was loaded, where that was watched.
    #[serde(default)]
    reads: Option<Vec<String>>,
}

/// A sink that can be printed.
#[derive(Clone)]
struct SharedSink(Arc<dyn LogSink>);

impl std::fmt::Debug for SharedSink {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SharedSink")
    }
}

impl NodeEngine {
    /// Starts Node and waits until it has loaded its adaptors. The process dies with the thread that polls this first.
    /// A template that does not give one and a snapshot that does not start are done without.
    pub async fn start(options: NodeOptions, sink: Arc<dyn LogSink>) -> Result<Self, EngineLost> {
        if let (Some(address), Some(forks)) = (&options.spec.origin.0, &options.forks) {
            match Self::start_forked(&options, address, forks, Arc::clone(&sink)).await {
                Ok(engine) => return Ok(engine),
                Err(Unforked { fault, why }) => {
                    say(&format!("the template of {} is of no use: {why}", address.host));
                    forks.parent.not_forked(NotForked { template: address.host.clone(), fault, why });
                }
            }
        }
        if let Some(blob) = &options.spec.snapshot {
            match Self::start_as(&options, Mode::Snapshot(blob), false, Arc::clone(&sink)).await {
                Ok((engine, _)) => return Ok(engine),
                Err(lost) => say(&format!("the snapshot {} is of no use: {lost}", blob.display())),
            }
        }
        Self::start_as(&options, Mode::Sent, false, sink).await.map(|(engine, _)| engine)
    }

    /// The id of its process, for who looks at it from outside.
    pub fn process_id(&self) -> u32 {
        self.process.id().as_raw_nonzero().get().unsigned_abs()
    }

    /// Has a template fork Node, and waits until that has answered its first command.
    async fn start_forked(
        options: &NodeOptions,
        address: &TemplateAddress,
        forks: &Forks,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, Unforked> {
        let NodeOptions { folder, memory_bytes, .. } = options;
        let scratch = Scratch::create(folder).map_err(template::refused)?;
        let report = scratch.out_of_reach(launch::REPORT);
        // There has to be one for a rule about it.
        std::fs::write(&report, "").map_err(template::refused)?;
        let rules = rules_of_forks(&forks.confinement, &scratch.files(), &report).map_err(template::refused)?;
        let rules = rules.ok_or_else(|| template::refused("nothing would keep it from the files of others"))?;
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(template::refused)?;
        let [a, b, c, d, e, f] = random;
        let introduction = |pid: i32| {
            let told = json!({
                "pid": pid,
                "root": scratch.root(),
                "files": scratch.files(),
                "report": launch::REPORT,
                // One that V8 takes for none is not among them.
                "seed": u32::from_le_bytes([a, b, c, d]) % 0x7fff_fffe + 1,
                "turns": u16::from_le_bytes([e, f]) % 1_024,
            });
            encoded(b'b', &[Some(&told.to_string())]).map_err(template::refused)
        };
        let parent = &*forks.parent;
        let frame_bytes = frame_bytes(*memory_bytes);
        let process = NodeProcess::fork(address, parent, rules, introduction, frame_bytes, Arc::clone(&sink)).await?;
        let open = OpenFiles::OfParent(Arc::clone(&forks.parent));
        let mut engine = Self::around(process, scratch, open, options, sink).map_err(template::refused)?;
        let fault = |fault, why| Unforked { fault, why };
        match timeout(FIRST_ANSWER, engine.get_ready(&options.spec, false, false)).await {
            Ok(Ok(_)) => Ok(engine),
            Ok(Err(lost)) => Err(fault(ForkFault::Died, lost.to_string())),
            Err(_) => Err(fault(ForkFault::Silent, format!("it did not answer within {FIRST_ANSWER:?}"))),
        }
    }

    /// Starts Node in one way, once more if it is held by a signal meanwhile. With `caches`, also gives what V8 made of
    /// each bundle, by specifier.
    async fn start_as(
        options: &NodeOptions,
        mode: Mode<'_>,
        caches: bool,
        sink: Arc<dyn LogSink>,
    ) -> Result<(Self, Vec<CodeCache>), EngineLost> {
        for _ in 0..2 {
            if let Some(started) = Self::start_once(options, mode, caches, Arc::clone(&sink)).await? {
                return Ok(started);
            }
            say("Node was held by a signal while it started");
        }
        Err(EngineLost::Failed("it was held by a signal each time that it started".to_owned()))
    }

    /// None if it was held by a signal.
    async fn start_once(
        options: &NodeOptions,
        mode: Mode<'_>,
        caches: bool,
        sink: Arc<dyn LogSink>,
    ) -> Result<Option<(Self, Vec<CodeCache>)>, EngineLost> {
        let NodeOptions { spec, memory_bytes, folder, scratch_bytes, .. } = options;
        let failed = |what: &str, error: &dyn std::fmt::Display| EngineLost::Failed(format!("{what}: {error}"));
        let scratch = Scratch::create(folder)
            .map_err(|error| failed(&format!("no private folder in {}", folder.display()), &error))?;
        let launch = Launch {
            program: &spec.program,
            version: spec.version.parse().map_err(|error: BadVersion| EngineLost::Failed(error.to_string()))?,
            mode,
            adaptors: &spec.adaptors,
            heap_bytes: *memory_bytes,
            scratch: &scratch,
            is_alone: scratch_bytes.is_some(),
        };
        let process = NodeProcess::spawn(launch, frame_bytes(*memory_bytes), Arc::clone(&sink))
            .map_err(|error| failed(&format!("cannot start {}", spec.program.display()), &error))?;
        let mut engine = Self::around(process, scratch, OpenFiles::OfDescent, options, sink)?;
        let is_sent = matches!(mode, Mode::Sent);
        let process = engine.process.id();
        let caches = tokio::select! {
            ready = timeout(START_WITHIN, engine.get_ready(spec, is_sent, caches)) => match ready {
                Ok(ready) => ready?,
                Err(_) => return Err(EngineLost::Failed(format!("it was not ready within {START_WITHIN:?}"))),
            },
            () = held(process) => return Ok(None),
        };
        Ok(Some((engine, caches)))
    }

    fn around(
        process: NodeProcess,
        scratch: Scratch,
        open: OpenFiles,
        options: &NodeOptions,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, EngineLost> {
        let NodeOptions { spec, memory_bytes, scratch_bytes, .. } = options;
        let quota = scratch_bytes.map(|limit| Quota::watch(&scratch.files(), open, limit)).transpose();
        let quota = quota.map_err(|error| EngineLost::Failed(format!("cannot watch what the run writes: {error}")))?;
        let watch =
            Watch { process: process.id(), family: process.family(), memory_bytes: *memory_bytes, peak_bytes: 0 };
        Ok(Self {
            process,
            quota,
            scratch,
            watch,
            version: spec.version.clone(),
            sink: SharedSink(sink),
            adaptors: HashMap::new(),
            reads: HashMap::new(),
            peak_heap_bytes: None,
            lost: None,
        })
    }

    /// Sends what the process needs, the engine's source if it has none, and waits until it has loaded it.
    async fn get_ready(&mut self, spec: &NodeSpec, is_sent: bool, caches: bool) -> Result<Vec<CodeCache>, EngineLost> {
        let mut bytes = if is_sent { source::framed() } else { Vec::new() };
        let adaptors: Vec<Value> = spec.adaptors.iter().map(wanted).collect();
        let setup = json!({ "adaptors": adaptors, "caches": caches }).to_string();
        bytes.extend(encoded(b'p', &[Some(&setup)])?);
        let mut made = Vec::new();
        let mut answer = self.ask(&bytes).await.map_err(|lost| self.unready(lost))?;
        while answer.kind == b'd' {
            made.push(CodeCache::read(&mut answer).map_err(|bad| self.misbehaved(&bad))?);
            answer = self.ask(&[]).await.map_err(|lost| self.unready(lost))?;
        }
        let ready = match answer.kind {
            b'y' => answer.needed().map_err(|bad| self.misbehaved(&bad))?,
            _ => return Err(self.unexpected(&mut answer)),
        };
        let ready: Ready = serde_json::from_str(&ready)
            .map_err(|error| EngineLost::Failed(format!("it told wrongly what it loaded: {error}")))?;
        self.version = ready.version;
        let reads = ready.adaptors.iter().filter_map(|it| Some((it.specifier.clone(), it.reads.clone()?)));
        self.reads = reads.collect();
        self.adaptors = ready.adaptors.into_iter().map(|it| (it.specifier.clone(), it.into_exports())).collect();
        Ok(made)
    }

    /// Why it does not start, with what it printed, which is for people.
    fn unready(&self, lost: EngineLost) -> EngineLost {
        match self.process.last_words() {
            _ if lost == EngineLost::OutOfMemory => lost,
            words if words.is_empty() => EngineLost::Failed(format!("Node did not get ready: {lost}")),
            words => EngineLost::Failed(format!("Node did not get ready: {lost}. It printed: {words}")),
        }
    }

    /// Sends a command and waits for its answer, or for what ends the process.
    async fn ask(&mut self, bytes: &[u8]) -> Result<Frame, EngineLost> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let answer = tokio::select! {
            biased;
            answer = self.process.exchange(bytes) => Ok(answer),
            () = self.watch.exceeded() => Err(()),
        };
        match answer {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(NoAnswer::Ended(status))) => {
                let evidence = Evidence {
                    status,
                    reported_oom: death::reports_oom(&self.scratch.out_of_reach(launch::REPORT)),
                    was_full: self.watch.was_full(),
                    exceeded_bytes: self.quota.as_ref().and_then(Quota::exceeded),
                    file_bytes: self.quota.as_ref().map(Quota::limit_bytes),
                };
                Err(self.lose(evidence.verdict()))
            }
            Ok(Err(NoAnswer::Bad(bad))) => Err(self.misbehaved(&bad)),
            Ok(Err(NoAnswer::Unknown(error))) => {
                Err(self.lose(EngineLost::Failed(format!("nobody knows how Node ended: {error}"))))
            }
            Err(()) => {
                self.process.kill();
                self.process.drain().await;
                Err(self.lose(EngineLost::OutOfMemory))
            }
        }
    }

    fn lose(&mut self, lost: EngineLost) -> EngineLost {
        self.lost.insert(lost).clone()
    }

    /// Only the adaptors' realm can write what the engine would not.
    fn misbehaved(&mut self, bad: &BadFrame) -> EngineLost {
        self.process.kill();
        self.lose(EngineLost::Failed(format!("Node broke the channel: {bad}")))
    }

    fn unexpected(&mut self, answer: &mut Frame) -> EngineLost {
        self.process.kill();
        let why = match answer.kind {
            b'f' => answer.needed().unwrap_or_else(|bad| bad.to_string()),
            kind => format!("an answer of the unknown kind {kind}"),
        };
        self.lose(EngineLost::Failed(why))
    }

    /// What the answer says of something that was thrown.
    fn thrown(&mut self, answer: &mut Frame) -> Result<Thrown, EngineLost> {
        let read =
            |answer: &mut Frame| -> Result<_, BadFrame> { Ok((answer.needed()?, answer.text()?, answer.text()?)) };
        let (description, state, too_large) = read(answer).map_err(|bad| self.misbehaved(&bad))?;
        let thrown = serde_json::from_str(&description);
        let mut thrown: Thrown =
            thrown.map_err(|error| EngineLost::Failed(format!("its prelude told an error wrongly: {error}")))?;
        thrown.state = state;
        thrown.is_too_large = too_large.is_some();
        Ok(thrown)
    }

    fn job_command(&self, job: &JobCall) -> Result<Vec<u8>, EngineLost> {
        use LogLevel::{Always, Debug, Error, Info, Success, Warn};
        let kinds = [LogSource::Job, LogSource::Adaptor, LogSource::Runtime]
            .into_iter()
            .flat_map(|source| [Debug, Info, Success, Always, Warn, Error].map(|level| (source, level)));
        let wanted: Vec<String> = kinds
            .filter(|(source, level)| self.sink.0.wants(*source, *level))
            .map(|(source, level)| format!("{} {}", source.as_str(), level.as_str()))
            .collect();
        let options = json!({
            "adaptors": job.adaptors,
            "meta": job.meta.as_str(),
            "removed": job.state_props_to_remove,
            "stateBytes": job.state_bytes,
            "wanted": wanted,
        });
        let fields = [Some(&*options.to_string()), Some(&*job.code), job.globals.as_deref(), Some(job.state.as_str())];
        encoded(b'j', &fields)
    }

    fn job_result(&mut self, answer: &mut Frame, job: &JobCall) -> Result<JobResult, EngineLost> {
        let (state, webhook_response) = (answer.shared(), answer.shared());
        let heap = answer.text().map_err(|bad| self.misbehaved(&bad))?;
        self.peak_heap_bytes = heap.and_then(|bytes| bytes.parse().ok());
        let parse = |text: Option<Bytes>| text.map(Json::parse).transpose();
        let without = |state| withheld::of_result(state, &job.state_props_to_remove);
        let result = parse(state).and_then(|state| state.map(without).transpose()).and_then(|state| {
            let webhook_response = parse(webhook_response)?;
            Ok(JobResult { state, webhook_response })
        });
        result.map_err(|error| EngineLost::Failed(format!("it told its result wrongly: {error}")))
    }
}

impl Engine for NodeEngine {
    fn version(&self) -> (String, String) {
        ("node".to_owned(), self.version.clone())
    }

    fn exports(&self, adaptor: &str) -> Exports {
        self.adaptors.get(adaptor).cloned().unwrap_or_else(|| {
            Exports::Refused(format!("{adaptor} was not prepared: it is not among the adaptors of this engine"))
        })
    }

    fn is_lost(&mut self) -> bool {
        self.lost.is_some() || self.process.is_lost()
    }

    fn peak_heap_bytes(&self) -> Option<u64> {
        self.peak_heap_bytes
    }

    fn take_peak_resident_bytes(&mut self) -> u64 {
        sys::take_peak_resident_bytes_of(self.process.id())
    }

    async fn run_job(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        let command = self.job_command(&job)?;
        let mut answer = self.ask(&command).await?;
        let exceeded = match &self.quota {
            Some(quota) => quota.look().await,
            None => None,
        };
        if let Some(limit_bytes) = exceeded {
            self.process.kill();
            return Err(self.lose(EngineLost::WroteTooMuch { limit_bytes }));
        }
        match answer.kind {
            b'r' => self.job_result(&mut answer, &job).map(JobEnd::Returned),
            b'o' => Ok(JobEnd::TooLarge),
            b'x' => {
                let mut thrown = self.thrown(&mut answer)?;
                thrown.state = thrown.state.and_then(|state| {
                    let state = withheld::without(Json::parse(state).ok()?, &job.state_props_to_remove).ok()?;
                    Some(state.as_str().to_owned())
                });
                Ok(JobEnd::Threw(thrown))
            }
            _ => Err(self.unexpected(&mut answer)),
        }
    }

    async fn test(&mut self, condition: ConditionCall) -> Result<ConditionEnd, EngineLost> {
        let ConditionCall { expression, state, upstream_step_id } = &condition;
        let command = encoded(b't', &[Some(upstream_step_id), Some(expression), Some(state.as_str())])?;
        let mut answer = self.ask(&command).await?;
        match answer.kind {
            b'c' => match answer.needed() {
                Ok(value) => Ok(ConditionEnd::Value(!value.is_empty())),
                Err(bad) => Err(self.misbehaved(&bad)),
            },
            b'x' => self.thrown(&mut answer).map(ConditionEnd::Threw),
            _ => Err(self.unexpected(&mut answer)),
        }
    }
}

impl Loaded {
    fn into_exports(self) -> Exports {
        match self.failed {
            None => Exports::Known(self.names),
            Some(why) => Exports::Refused(format!("{} cannot be loaded: {why}", self.specifier)),
        }
    }
}

/// What V8 made of an adaptor's bundle.
struct CodeCache {
    specifier: String,
    code: Bytes,
}

impl CodeCache {
    fn read(frame: &mut Frame) -> Result<Self, BadFrame> {
        Ok(Self { specifier: frame.needed()?, code: frame.bytes()? })
    }
}

/// Where the code is that V8 made of a bundle. It checks that it is of the same V8 and the same bundle.
fn code_cache(bundle: &Path) -> PathBuf {
    bundle.with_added_extension("v8")
}

/// The longest frame of a run with so much memory: a state that is longer than that cannot be made.
fn frame_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes).unwrap_or(usize::MAX).max(SMALL_FRAME_BYTES)
}

/// Waits until a process is held by a signal.
async fn held(process: Pid) {
    while !sys::is_stopped(process) {
        tokio::time::sleep(HELD_EVERY).await;
    }
}

/// How Node is told of an adaptor.
fn wanted(adaptor: &Adaptor) -> Value {
    json!({
        "specifier": adaptor.specifier(),
        "folder": adaptor.folder,
        "bundle": adaptor.bundle,
        "cache": adaptor.bundle.as_deref().map(code_cache),
    })
}

fn encoded(kind: u8, fields: &[Option<&str>]) -> Result<Vec<u8>, EngineLost> {
    frame::encode(kind, fields)
        .map_err(|length| EngineLost::Failed(format!("a command of {length} bytes is too long for Node")))
}
