//! What the tests have in common.

use std::path::Path;
use std::time::Duration;

use base::execution::{ActiveRun, Executor, Reservation, RunEnd, RunSignal};
use hosts::{Death, HostEvent, HostProgram, Hosts, HostsOptions, PoolStatus, StartError};
use protocol::Json;
use protocol::engine::EngineSpec;
use protocol::message::Prepare;
use protocol::run::{Exit, RunEvent, RunOptions, RunSpec};
use tokio::sync::broadcast;

use crate::fake::{Act, HOST, Habit};

/// Nothing takes longer than that, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should have happened long ago")
}

/// Options for two warm hosts with these habits.
pub(crate) fn options(habits: &[Habit]) -> HostsOptions {
    options_for(&std::env::current_exe().unwrap(), habits)
}

/// As [`options`], for a program that starts this one.
pub(crate) fn options_for(program: &Path, habits: &[Habit]) -> HostsOptions {
    let arguments = [HOST.to_owned(), "--exact".into(), "--nocapture".into()];
    let habits = habits.iter().map(|habit| format!("{habit:?}"));
    let program = HostProgram::at(program).unwrap().with_arguments(arguments.into_iter().chain(habits));
    HostsOptions { validation_retries: 0, validation_timeout: PATIENCE, ..HostsOptions::new(program) }
}

pub(crate) async fn start(habits: &[Habit]) -> Hosts {
    soon(Hosts::start(options(habits))).await.unwrap()
}

pub(crate) async fn fail_to_start(options: HostsOptions) -> StartError {
    soon(Hosts::start(options)).await.expect_err("no host can get ready")
}

pub(crate) async fn reserve(hosts: &Hosts) -> Reservation {
    soon(hosts.reserve(wanted())).await.unwrap()
}

/// What every run of the tests wants.
pub(crate) fn wanted() -> Prepare {
    Prepare { engine: EngineSpec::Embedded, memory_bytes: RunOptions::default().memory_bytes }
}

pub(crate) fn spec(act: &Act) -> RunSpec {
    RunSpec {
        run_id: "r1".into(),
        steps: vec![],
        start: None,
        input: Json::encode(act).unwrap(),
        globals: None,
        meta: Json::empty_object(),
        configuration: None,
        engine: EngineSpec::Embedded,
        options: RunOptions::default(),
    }
}

/// Executes one run to its end.
pub(crate) async fn execute(hosts: &Hosts, act: Act) -> Followed {
    follow(reserve(hosts).await.start(spec(&act), log())).await
}

/// What a run told.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) events: Vec<RunEvent>,
    pub(crate) steps: usize,
    pub(crate) end: RunEnd,
}

impl Followed {
    /// Numbers of the log lines, in order.
    pub(crate) fn lines(&self) -> Vec<u64> {
        let lines = self.events.iter().filter_map(|event| match event {
            RunEvent::Log(line) => Some(line.timestamp_us),
            _ => None,
        });
        lines.collect()
    }

    #[track_caller]
    pub(crate) fn lost(self) -> Exit {
        match self.end {
            RunEnd::Lost(exit) => exit,
            RunEnd::Finished(outcome) => panic!("the run was not lost: {outcome:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) {
        match self.end {
            RunEnd::Finished(outcome) => assert_eq!(outcome.exit, Exit::success()),
            RunEnd::Lost(exit) => panic!("the run was lost: {exit:?}"),
        }
    }
}

/// Follows a run to its end, and sees that nothing comes after it.
pub(crate) async fn follow(mut run: ActiveRun) -> Followed {
    let (mut events, mut steps) = (Vec::new(), 0);
    let end = loop {
        match soon(run.signals.recv()).await.expect("a run has an end") {
            RunSignal::Event(event) => events.push(event),
            RunSignal::StepCompleted(_, acknowledge) => {
                steps += 1;
                acknowledge.send(()).unwrap();
            }
            RunSignal::Ended(end) => break end,
        }
    };
    assert!(soon(run.signals.recv()).await.is_none(), "the end is the last signal");
    Followed { events, steps, end }
}

pub(crate) async fn status(hosts: &Hosts) -> PoolStatus {
    soon(hosts.status()).await.unwrap()
}

/// Waits for an event that `matches`.
pub(crate) async fn event<T>(
    events: &mut broadcast::Receiver<HostEvent>,
    matches: impl Fn(&HostEvent) -> Option<T>,
) -> T {
    soon(async {
        loop {
            if let Some(found) = matches(&events.recv().await.unwrap()) {
                return found;
            }
        }
    })
    .await
}

/// Waits until this many hosts are ready.
pub(crate) async fn until_ready(hosts: &Hosts, count: usize) -> PoolStatus {
    use hosts::HostState;
    let mut events = hosts.events();
    loop {
        let status = status(hosts).await;
        if status.hosts.iter().filter(|host| host.state == HostState::Ready).count() >= count {
            return status;
        }
        soon(events.recv()).await.unwrap();
    }
}

/// Whether the process is there, a zombie included.
pub(crate) fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for the end of a host.
pub(crate) async fn ended(events: &mut broadcast::Receiver<HostEvent>) -> Death {
    let ended = event(events, |event| match event {
        HostEvent::Ended { death, .. } | HostEvent::Died { death, .. } => Some(death.clone()),
        _ => None,
    });
    ended.await
}

/// The log of a run without secrets.
pub(crate) fn log() -> std::sync::Arc<base::run_log::RunLog> {
    std::sync::Arc::new(base::run_log::RunLog::new("r1".into(), base::redact::Redactor::default()))
}
