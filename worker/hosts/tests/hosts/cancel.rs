//! A cancelled run ends at once, whether its host obeys or not.

use std::time::Duration;

use base::execution::RunEnd;
use hosts::{HostEvent, Reason};
use protocol::run::{Exit, ExitReason, RunOptions, RunSpec};

use crate::fake::Act;
use crate::harness::*;

fn exit() -> Exit {
    Exit::error(ExitReason::Cancel, "Cancelled", "by the user")
}

#[tokio::test]
async fn a_host_that_obeys_reports_the_outcome() {
    let hosts = start(&[]).await;
    let run = reserve(&hosts).await.start(spec(&Act::WaitForCancel), log());
    run.cancel.send(exit()).await.unwrap();
    let RunEnd::Finished(outcome) = follow(run).await.end else { panic!("the host reports it") };
    assert_eq!(outcome.exit, exit());
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_hangs_is_killed() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    let run = reserve(&hosts).await.start(spec(&Act::Hang), log());
    run.cancel.send(exit()).await.unwrap();
    assert_eq!(follow(run).await.lost(), exit());
    assert_eq!(died(&mut events).await, Reason::Cancelled);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_that_nobody_follows_is_killed() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    drop(reserve(&hosts).await.start(spec(&Act::Hang), log()));
    assert_eq!(died(&mut events).await, Reason::Abandoned);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_that_is_not_reported_in_time_is_killed() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    let options = RunOptions { timeout_ms: 1, ..RunOptions::default() };
    let run = reserve(&hosts).await.start(RunSpec { options, ..spec(&Act::WaitForCancel) }, log());
    let expected = Exit::error(ExitReason::Kill, "TimeoutError", "Workflow failed to return within 1ms");
    assert_eq!(follow(run).await.lost(), expected);
    assert_eq!(died(&mut events).await, Reason::Overdue);
    hosts.shutdown(Duration::ZERO).await;
}

async fn died(events: &mut tokio::sync::broadcast::Receiver<HostEvent>) -> Reason {
    let reason = event(events, |event| match event {
        HostEvent::Died { death, .. } => Some(death.reason.clone()),
        _ => None,
    });
    reason.await
}
