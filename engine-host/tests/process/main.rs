//! The `engine-host` program as its worker sees it: a process at the other end of a socket.
#![allow(clippy::unwrap_used)]

mod ends;
mod node;
mod runs;

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use protocol::Json;
use protocol::handshake::{self, ADDRESS_VARIABLE, LinkToken, PARENT_VARIABLE, TOKEN_VARIABLE};
use protocol::link::{CallError, Inbox, Incoming, Link, LinkOptions, WorkerSide};
use protocol::message::{Refusal, RefusalCode, Taken, Welcome, WorkerNotice, WorkerReply, WorkerRequest};
use protocol::run::{
    Condition, Edge, LogSource, RunEvent, RunOptions, RunOutcome, RunSpec, Step, StepCompleted, Usage,
};
use protocol::socket::{Listener, RuntimeDir};
use tokio::task::JoinHandle;

/// Everything that is waited for comes much sooner.
const SOON: Duration = Duration::from_secs(60);

/// A job that nothing but its engine's end stops.
const BUSY: &str = "fn(() => { console.log('busy'); for (;;) { try { for (;;) {} } catch (e) {} } })";

/// The worker's side of one host.
struct Worker {
    token: LinkToken,
    listener: Listener,
    _directory: RuntimeDir,
    root: tempfile::TempDir,
}

impl Worker {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::create(Some(root.path())).unwrap();
        let listener = Listener::bind(&directory).unwrap();
        Self { token: LinkToken::generate().unwrap(), listener, _directory: directory, root }
    }

    /// The command that starts a host, whose engines' files lie in a folder of its own: the sources' folder must not change
    /// while they are tested, or they are built again.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.root.path())
            .env(ADDRESS_VARIABLE, self.listener.address())
            .env(TOKEN_VARIABLE, self.token.expose())
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn spawn(&self) -> Process {
        Process::spawn(&mut self.command(HOST))
    }

    /// Takes the next host that connects.
    async fn accept(&self) -> Result<Host, handshake::HandshakeError> {
        let mut stream = within(self.listener.accept()).await.unwrap();
        let hello = handshake::greet(&mut stream, SOON, |hello| {
            if hello.token == self.token {
                Ok(Welcome { host_id: "h".into() })
            } else {
                Err(Refusal::new(RefusalCode::BadToken, "the token is not one of mine"))
            }
        })
        .await?;
        let (link, inbox) = Link::start(stream, LinkOptions::default());
        Ok(Host { pid: hello.pid, link, inbox })
    }

    /// A host that is ready to serve, and its process.
    async fn start(&self) -> (Host, Process) {
        let process = self.spawn();
        (self.accept().await.unwrap(), process)
    }
}

const HOST: &str = env!("CARGO_BIN_EXE_engine-host");

/// A process that does not outlive its test.
struct Process(Option<Child>);

impl Process {
    fn spawn(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not waited for")
    }

    /// Waits for its end. Returns what it wrote to stderr, too.
    async fn end(mut self) -> (ExitStatus, String) {
        let mut child = self.0.take().expect("it was not waited for");
        let end = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            child.stderr.take().expect("it is piped").read_to_string(&mut text).unwrap();
            (child.wait().unwrap(), text)
        });
        within(end).await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A host at the other end of its link.
struct Host {
    pid: u32,
    link: Link<WorkerSide>,
    inbox: Inbox<WorkerSide>,
}

impl Host {
    fn start(&self, spec: RunSpec) -> JoinHandle<Result<RunOutcome, CallError>> {
        let link = self.link.clone();
        tokio::spawn(async move { link.call_within(spec, SOON).await })
    }

    /// Runs a workflow to its end.
    async fn run(&mut self, spec: RunSpec) -> Ran {
        let mut run = self.start(spec);
        let mut ran = Ran::default();
        loop {
            tokio::select! {
                biased;
                incoming = self.inbox.next() => ran.take(incoming.expect("the link lives")),
                outcome = &mut run => {
                    ran.outcome = Some(outcome.unwrap().unwrap());
                    return ran;
                }
            }
        }
    }

    /// Waits for a line of the job's.
    async fn until_logged(&mut self, text: &str) {
        loop {
            if let Incoming::Notice(WorkerNotice::Event(RunEvent::Log(line))) =
                within(self.inbox.next()).await.expect("the link lives")
                && line.message.as_str().contains(text)
            {
                return;
            }
        }
    }
}

/// What a run reported.
#[derive(Debug, Default)]
struct Ran {
    /// In their order: `start <id>` and `<id> <reason>`.
    events: Vec<String>,
    steps: Vec<StepCompleted>,
    /// What the jobs logged.
    jobs: Vec<String>,
    /// What the runtime logged.
    runtime: Vec<String>,
    usage: Option<Usage>,
    outcome: Option<RunOutcome>,
}

impl Ran {
    fn take(&mut self, incoming: Incoming<WorkerSide>) {
        match incoming {
            Incoming::Request(WorkerRequest::StepCompleted(step), responder) => {
                responder.reply(WorkerReply::Taken(Taken {}));
                self.events.push(format!("{} {}", step.step_id, step.exit.reason.as_str()));
                self.steps.push(*step);
            }
            Incoming::Request(other, _) => panic!("a run does not ask for {other:?}"),
            Incoming::Notice(WorkerNotice::Event(event)) => match event {
                RunEvent::Started(versions) => self.events.push(versions.engine.0),
                RunEvent::StepStarted(step) => self.events.push(format!("start {}", step.step_id)),
                RunEvent::Log(line) => {
                    let lines = match line.source {
                        LogSource::Job => &mut self.jobs,
                        _ => &mut self.runtime,
                    };
                    lines.push(line.message.as_str().to_owned());
                }
                RunEvent::Used(usage) => self.usage = Some(usage),
            },
            Incoming::Notice(other) => panic!("an engine host does not say {other:?}"),
        }
    }

    fn outcome(&self) -> &RunOutcome {
        self.outcome.as_ref().expect("the run is over")
    }

    fn final_state(&self) -> &str {
        self.outcome().final_state.as_ref().map_or("", Json::as_str)
    }
}

/// A job's id, its code and its edges.
type Job<'a> = (&'a str, &'a str, &'a [(Condition, &'a str)]);

fn workflow(jobs: &[Job<'_>]) -> RunSpec {
    let steps = jobs
        .iter()
        .map(|(id, code, edges)| Step {
            id: (*id).into(),
            name: None,
            expression: Some((*code).into()),
            adaptors: vec!["@openfn/language-common@3.3.4".into()],
            configuration: None,
            state: None,
            next: edges
                .iter()
                .map(|(condition, target)| Edge { target: (*target).into(), condition: condition.clone() })
                .collect(),
        })
        .collect();
    RunSpec {
        run_id: "0af3".into(),
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

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it comes in time")
}
