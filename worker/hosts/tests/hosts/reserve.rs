//! Hosts are lent in the order of asking, each for one run.

use std::collections::HashSet;
use std::time::Duration;

use base::execution::Executor;
use futures_util::FutureExt;
use hosts::HostState;

use crate::fake::Act;
use crate::harness::*;

#[tokio::test]
async fn each_run_gets_a_host_of_its_own() {
    let hosts = start(&[]).await;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let reservation = reserve(&hosts).await;
        assert!(seen.insert(reservation.host_id().to_owned()), "{} was lent twice", reservation.host_id());
        follow(reservation.start(spec(&Act::Finish), log())).await.succeeded();
    }
    hosts.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn more_callers_than_warm_hosts_all_get_one() {
    let hosts = start(&[]).await;
    let callers: Vec<_> = (0..8).map(|_| hosts.reserve(wanted())).collect();
    let reservations = soon(futures_util::future::join_all(callers)).await;
    let ids: HashSet<_> = reservations.iter().map(|one| one.as_ref().unwrap().host_id().to_owned()).collect();
    assert_eq!(ids.len(), 8);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_unused_host_is_given_back() {
    let hosts = start(&[]).await;
    until_ready(&hosts, 2).await;
    let reservation = reserve(&hosts).await;
    let id = reservation.host_id().to_owned();
    let state = async || status(&hosts).await.hosts.into_iter().find(|host| host.id == id).map(|host| host.state);
    assert_eq!(state().await, Some(HostState::Reserved));
    drop(reservation);
    assert_eq!(state().await, Some(HostState::Ready));
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_no_host_along() {
    let hosts = start(&[]).await;
    for _ in 0..50 {
        // Asks, and does not wait for the answer.
        let _ = hosts.reserve(wanted()).now_or_never();
    }
    until_ready(&hosts, 2).await;
    let status = status(&hosts).await;
    assert_eq!(status.waiting, 0);
    assert!(status.hosts.iter().all(|host| host.state != HostState::Reserved), "{status:?}");
    hosts.shutdown(Duration::ZERO).await;
}
