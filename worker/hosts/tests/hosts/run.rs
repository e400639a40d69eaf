//! What a host reports of a run arrives complete and in order.

use std::time::Duration;

use hosts::{HostEvent, Phase, Reason};
use protocol::run::RunEvent;

use crate::fake::Act;
use crate::harness::*;

#[tokio::test]
async fn events_steps_and_the_outcome_arrive() {
    let hosts = start(&[]).await;
    let run = execute(&hosts, Act::Finish).await;
    assert!(matches!(run.events[..], [RunEvent::Started(_), RunEvent::StepStarted(_)]), "{:?}", run.events);
    assert_eq!(run.steps, 1);
    run.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn all_lines_come_before_the_end_although_nobody_takes_them_for_a_while() {
    let hosts = start(&[]).await;
    let run = reserve(&hosts).await.start(spec(&Act::Log(5_000)), log());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let run = follow(run).await;
    assert_eq!(run.lines(), (0..5_000).collect::<Vec<_>>());
    run.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_outcome_counts_although_the_host_dies_right_after_it() {
    let hosts = start(&[]).await;
    for _ in 0..20 {
        execute(&hosts, Act::FinishAndExit(3)).await.succeeded();
    }
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_ends_after_its_run() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    execute(&hosts, Act::Finish).await.succeeded();
    let death = event(&mut events, |event| match event {
        HostEvent::Ended { death, .. } => Some(death.clone()),
        _ => None,
    });
    let death = death.await;
    assert_eq!((death.phase, death.reason), (Phase::Stopping, Reason::Retired));
    hosts.shutdown(Duration::ZERO).await;
}
