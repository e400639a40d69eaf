//! A host that does not answer any more is killed, whatever it is at.

use std::time::Duration;

use hosts::{Hosts, HostsOptions, Phase, Reason};
use protocol::run::ExitReason;

use crate::fake::{Act, Habit};
use crate::harness::*;

fn impatient(habits: &[Habit]) -> HostsOptions {
    let (ping_every, ping_timeout) = (Duration::from_millis(50), Duration::from_millis(500));
    HostsOptions { ping_every, ping_timeout, ..options(habits) }
}

#[tokio::test]
async fn while_it_waits() {
    let hosts = soon(Hosts::start(impatient(&[Habit::IgnoresPings]))).await.unwrap();
    let death = ended(&mut hosts.events()).await;
    assert_eq!((death.phase, death.reason), (Phase::Ready, Reason::Hung));
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn while_it_executes_a_run() {
    let hosts = soon(Hosts::start(impatient(&[]))).await.unwrap();
    let exit = execute(&hosts, Act::Hang).await.lost();
    let message = exit.error.map(|error| error.message).unwrap_or_default();
    assert_eq!((exit.reason, message.contains("did not answer")), (ExitReason::Exception, true), "{message}");
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn but_not_while_nobody_takes_what_it_says() {
    let hosts = soon(Hosts::start(impatient(&[]))).await.unwrap();
    let run = reserve(&hosts).await.start(spec(&Act::Log(300_000)), log());
    // The host cannot go on for as long as this.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let run = follow(run).await;
    assert_eq!(run.lines().len(), 300_000);
    run.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}
