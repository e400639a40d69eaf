//! Whatever ends a host, and whatever it is at: the reason that is told is the right one. What ends runs in real
//! engines is in the end-to-end test of the same matrix (`tests/tests/end_to_end/death_attribution.rs`).

use std::time::Duration;

use base::execution::Executor;
use hosts::{Death, HostStatus, Hosts, HostsOptions, Phase, PoolSize, Reason, Status};
use protocol::engine::{EngineSpec, ForkOrigin, NodeSpec};
use protocol::message::Prepare;
use protocol::run::{Exit, ExitReason};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Act, Habit};
use crate::harness::*;

const PHASES: [Phase; 4] = [Phase::Ready, Phase::Preparing, Phase::Running, Phase::Stopping];

/// What ends the host: it is sent this, and obeys in its own way.
const EXIT_0: Signal = Signal::USR1;
const EXIT_3: Signal = Signal::USR2;
const BREAK_LINK: Signal = Signal::HUP;
const HANG: Signal = Signal::STOP;

fn options_of_matrix(habits: &[Habit]) -> HostsOptions {
    let prepares = !habits.contains(&Habit::NeverPrepares);
    HostsOptions {
        size: PoolSize::OneRunEach { warm: 1 },
        first: prepares.then(wanted),
        ping_every: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(1_500),
        stop_timeout: Duration::from_millis(400),
        kill_timeout: Duration::from_millis(400),
        ..options(habits)
    }
}

/// An engine that needs preparing.
fn engine() -> Prepare {
    let node = NodeSpec {
        program: "/node".into(),
        version: "24".into(),
        adaptors: vec![],
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    Prepare { engine: EngineSpec::Node(node), memory_bytes: 1 }
}

async fn host(hosts: &Hosts, id: &str) -> HostStatus {
    status(hosts).await.hosts.into_iter().find(|host| host.id == id).unwrap()
}

/// Brings a host to a phase, sends it the signal, and tells how it ended, and its run if it had one.
async fn end(phase: Phase, signal: Signal) -> (Death, Option<Exit>) {
    let habits: &[Habit] = match phase {
        Phase::Preparing => &[Habit::ObeysSignals, Habit::NeverPrepares],
        Phase::Stopping => &[Habit::ObeysSignals, Habit::IgnoresStop],
        _ => &[Habit::ObeysSignals],
    };
    let hosts = soon(Hosts::start(options_of_matrix(habits))).await.unwrap();
    let waiting = until_ready(&hosts, 1).await;
    let reservation = match phase {
        Phase::Ready => None,
        Phase::Preparing => Some(soon(hosts.reserve(engine())).await.unwrap()),
        _ => Some(reserve(&hosts).await),
    };
    let id = reservation.as_ref().map_or(waiting.hosts[0].id.as_str(), |host| host.host_id()).to_owned();
    let (mut run, mut held) = (None, None);
    match (phase, reservation) {
        (Phase::Running, Some(reservation)) => run = Some(reservation.start(spec(&Act::WaitInStep), log())),
        (Phase::Stopping, Some(reservation)) => follow(reservation.start(spec(&Act::Finish), log())).await.succeeded(),
        (_, reservation) => held = reservation,
    }
    let run = match run {
        None => None,
        Some(mut run) => {
            // The first step has begun when two events are there.
            for _ in 0..2 {
                soon(run.signals.recv()).await.unwrap();
            }
            Some(run)
        }
    };
    let pid = host(&hosts, &id).await.pid.unwrap();
    let mut events = hosts.events();
    let process = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(process, signal).unwrap();
    // Rust's own handler takes the first of these.
    while signal == Signal::SEGV && is_there(pid) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let _ = kill_process(process, signal);
    }
    let death = event(&mut events, |event| match event {
        hosts::HostEvent::Ended { host, death } | hosts::HostEvent::Died { host, death } => {
            (*host == id).then(|| death.clone())
        }
        _ => None,
    });
    let death = death.await;
    drop(held);
    let exit = match run {
        Some(run) => Some(follow(run).await.lost()),
        None => None,
    };
    soon(hosts.shutdown(Duration::from_secs(5))).await;
    (death, exit)
}

/// The reasons in the phases, in their order; and what the run reports.
async fn check(signal: Signal, reasons: [&dyn Fn(&Reason) -> bool; 4], status: Status, run: (ExitReason, &str)) {
    for (phase, is_right) in PHASES.into_iter().zip(reasons) {
        let (death, exit) = end(phase, signal).await;
        assert!(is_right(&death.reason), "{signal:?} while {phase}: {death}");
        assert_eq!(death.phase, phase, "{signal:?}: {death}");
        // What is killed in the end, ends by that.
        let was_killed = death.status == Some(Status::Signal(9)) || death.status == Some(Status::Signal(15));
        assert!(death.status == Some(status) || was_killed, "{signal:?}: {death}");
        assert_eq!(exit.is_some(), phase == Phase::Running);
        if let Some(exit) = exit {
            let message = exit.error.map(|error| error.message).unwrap_or_default();
            assert_eq!(exit.reason, run.0, "{signal:?}: {message}");
            assert!(message.contains(run.1), "{signal:?}: {message}");
        }
    }
}

fn is(reason: Reason) -> impl Fn(&Reason) -> bool {
    move |found| *found == reason
}

#[tokio::test]
async fn a_host_that_exits_with_0() {
    let (by_itself, asked) = (is(Reason::SelfExit), is(Reason::Retired));
    let run = (ExitReason::Crash, "Process exited with code: 0");
    check(EXIT_0, [&by_itself, &by_itself, &by_itself, &asked], Status::Code(0), run).await;
}

#[tokio::test]
async fn a_host_that_exits_with_3() {
    let crashed = is(Reason::Crashed);
    let run = (ExitReason::Crash, "Process exited with code: 3");
    check(EXIT_3, [&crashed, &crashed, &crashed, &crashed], Status::Code(3), run).await;
}

#[tokio::test]
async fn a_host_that_is_killed() {
    let crashed = is(Reason::Crashed);
    let signals = [(Signal::KILL, 9, "SIGKILL"), (Signal::ABORT, 6, "SIGABRT"), (Signal::SEGV, 11, "SIGSEGV")];
    for (signal, number, name) in signals {
        let run = (ExitReason::Crash, name);
        check(signal, [&crashed, &crashed, &crashed, &crashed], Status::Signal(number), run).await;
    }
}

#[tokio::test]
async fn a_host_that_hangs() {
    let hung = is(Reason::Hung);
    let run = (ExitReason::Exception, "did not answer any more");
    check(HANG, [&hung, &hung, &hung, &hung], Status::Signal(9), run).await;
}

#[tokio::test]
async fn a_host_that_breaks_its_link() {
    let lost = |reason: &Reason| matches!(reason, Reason::LinkLost(_));
    let asked = is(Reason::Retired);
    let run = (ExitReason::Exception, "the link to the engine host was lost");
    check(BREAK_LINK, [&lost, &lost, &lost, &asked], Status::Signal(9), run).await;
}
