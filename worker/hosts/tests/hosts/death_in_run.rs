//! A host that dies in a run costs that run and nothing else.

use std::time::Duration;

use protocol::run::{Exit, ExitReason};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::Act;
use crate::harness::*;

fn crash(message: &str) -> Exit {
    Exit::error(ExitReason::Crash, "ExitError", message)
}

#[tokio::test]
async fn the_exit_tells_how_the_process_ended() {
    let hosts = start(&[]).await;
    let table = [
        (Act::LogAndExit(0, 3), "Process exited with code: 3"),
        (Act::LogAndExit(0, 0), "Process exited with code: 0"),
        (Act::Signal(6), "Process killed by signal SIGABRT"),
        (Act::Signal(9), "Process killed by signal SIGKILL"),
        (Act::Signal(11), "Process killed by signal SIGSEGV"),
    ];
    for (act, message) in table {
        assert_eq!(execute(&hosts, act).await.lost(), crash(message));
    }
    execute(&hosts, Act::Finish).await.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_it_had_said_comes_before_the_end() {
    let hosts = start(&[]).await;
    for lines in [0, 1, 100, 3_000] {
        let run = execute(&hosts, Act::LogAndExit(lines, 7)).await;
        assert_eq!(run.lines(), (0..lines).collect::<Vec<_>>());
        assert_eq!(run.lost(), crash("Process exited with code: 7"));
    }
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_stopped_process_can_be_killed() {
    let hosts = start(&[]).await;
    let reservation = reserve(&hosts).await;
    let id = reservation.host_id().to_owned();
    let host = status(&hosts).await.hosts.into_iter().find(|host| host.id == id).unwrap();
    let pid = Pid::from_raw(host.pid.unwrap().cast_signed()).unwrap();
    let run = reservation.start(spec(&Act::Hang), log());
    kill_process(pid, Signal::STOP).unwrap();
    let exit = Exit::error(ExitReason::Cancel, "Cancelled", "by the user");
    run.cancel.send(exit.clone()).await.unwrap();
    assert_eq!(follow(run).await.lost(), exit);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_it_had_started_dies_with_it() {
    let hosts = start(&[]).await;
    let run = execute(&hosts, Act::LeaveChild).await;
    let child = u32::try_from(run.lines()[0]).unwrap();
    // Killed is not yet gone; and a zombie is for whoever adopted it to bury.
    let is_running = || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['R', 'S', 'D']))
    };
    soon(async {
        while is_running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    hosts.shutdown(Duration::ZERO).await;
}
