//! Hosts are lent again and again to those who make calls of them.

use std::time::Duration;

use futures_util::FutureExt;
use hosts::{HostState, Hosts, HostsOptions, LentHostError, PoolSize, Reason, Recycling, Status};
use protocol::message::{Ping, Stop};

use crate::fake::Habit;
use crate::harness::*;

const DEADLINE: Duration = Duration::from_secs(20);

async fn shared(least: usize, most: usize, habits: &[Habit]) -> Hosts {
    let size = PoolSize::Shared { least, most, idle: Duration::ZERO };
    soon(Hosts::start(HostsOptions { size, first: None, ..options(habits) })).await.unwrap()
}

#[tokio::test]
async fn a_host_comes_back_and_is_lent_again() {
    let hosts = shared(1, 1, &[]).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let host = soon(hosts.lend()).await.unwrap();
        assert_eq!(soon(host.call(Ping {}, DEADLINE)).await.unwrap().rss_bytes, 0);
        seen.insert(host.host_id().to_owned());
    }
    assert_eq!(seen.len(), 1);
    assert_eq!(status(&hosts).await.hosts[0].runs, 3);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn hosts_come_when_they_are_wanted_and_go_when_they_are_not() {
    let hosts = shared(0, 2, &[]).await;
    assert_eq!(status(&hosts).await.hosts, []);
    let one = soon(hosts.lend()).await.unwrap();
    let two = soon(hosts.lend()).await.unwrap();
    assert_ne!(one.host_id(), two.host_id());
    let third = hosts.lend();
    tokio::pin!(third);
    assert!((&mut third).now_or_never().is_none(), "there are two at most");
    let freed = one.host_id().to_owned();
    drop(one);
    let three = soon(third).await.unwrap();
    assert_eq!(three.host_id(), freed);
    let mut events = hosts.events();
    drop((two, three));
    for _ in 0..2 {
        assert_eq!(ended(&mut events).await.reason, Reason::Retired);
    }
    assert_eq!(status(&hosts).await.hosts, []);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_death_of_the_host_is_the_error_of_the_call() {
    let hosts = shared(0, 1, &[Habit::DiesOfPings]).await;
    let host = soon(hosts.lend()).await.unwrap();
    let Err(LentHostError::Died(death)) = soon(host.call(Ping {}, DEADLINE)).await else { panic!("it dies of that") };
    assert_eq!((death.reason, death.status), (Reason::Crashed, Some(Status::Code(6))));
    drop(host);
    let again = soon(hosts.lend()).await.unwrap();
    assert!(soon(again.call(Ping {}, DEADLINE)).await.is_err());
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_did_not_answer_in_time_is_killed_instead_of_lent_again() {
    let hosts = shared(1, 1, &[Habit::IgnoresPings]).await;
    let mut events = hosts.events();
    let host = soon(hosts.lend()).await.unwrap();
    let first = host.host_id().to_owned();
    let error = soon(host.call(Ping {}, Duration::from_millis(20))).await.unwrap_err();
    assert!(error.to_string().contains("no answer to ping"), "{error}");
    drop(host);
    assert_eq!(ended(&mut events).await.reason, Reason::Abandoned);
    assert_ne!(soon(hosts.lend()).await.unwrap().host_id(), first);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_leaves_while_it_is_lent_does_not_come_back() {
    let hosts = shared(1, 1, &[]).await;
    let host = soon(hosts.lend()).await.unwrap();
    let first = host.host_id().to_owned();
    soon(host.call(Stop {}, DEADLINE)).await.unwrap();
    // Until it is gone.
    while soon(host.call(Ping {}, DEADLINE)).await.is_ok() {}
    drop(host);
    assert_ne!(soon(hosts.lend()).await.unwrap().host_id(), first);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_was_lent_often_enough_is_replaced() {
    let size = PoolSize::Shared { least: 1, most: 1, idle: Duration::ZERO };
    let recycling = Recycling { max_runs: Some(2), ..Recycling::default() };
    let hosts = soon(Hosts::start(HostsOptions { size, recycling, first: None, ..options(&[]) })).await.unwrap();
    let mut events = hosts.events();
    for _ in 0..2 {
        assert_eq!(soon(hosts.lend()).await.unwrap().host_id(), "h1");
    }
    assert_eq!(ended(&mut events).await.reason, Reason::Recycled);
    let status = until_ready(&hosts, 1).await;
    assert_eq!((status.hosts[0].id.as_str(), status.hosts[0].state), ("h2", HostState::Ready));
    hosts.shutdown(Duration::ZERO).await;
}
