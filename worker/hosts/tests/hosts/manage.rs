//! A pool is changed while it works: recycled, drained, resumed, resized, given other settings. Nothing in flight is
//! lost by that.

use std::collections::HashSet;
use std::time::Duration;

use base::execution::Executor;
use futures_util::FutureExt;
use hosts::{HostEvent, HostState, Hosts, HostsOptions, ManageError, PoolSize, Reason, Recycling};

use crate::fake::{Act, Habit};
use crate::harness::*;

async fn ids(hosts: &Hosts) -> HashSet<String> {
    status(hosts).await.hosts.into_iter().map(|host| host.id).collect()
}

#[tokio::test]
async fn recycling_replaces_all_hosts_and_there_are_never_too_few() {
    let hosts = start(&[]).await;
    until_ready(&hosts, 2).await;
    let before = ids(&hosts).await;
    let mut events = hosts.events();
    soon(hosts.recycle()).await.unwrap();
    assert!(ids(&hosts).await.is_disjoint(&before));
    // Two were ready from the start, and one is asked to go only when another one is ready.
    let (mut ready, mut gone) = (2, 0);
    while gone < 2 {
        match soon(events.recv()).await.unwrap() {
            HostEvent::Ready { .. } => ready += 1,
            HostEvent::Ended { death, .. } => {
                assert_eq!(death.reason, Reason::Recycled);
                gone += 1;
                assert!(ready - gone >= 2, "{ready} ready, {gone} gone");
            }
            _ => {}
        }
    }
    soon(hosts.recycle()).await.unwrap();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_goes_on_while_hosts_are_replaced() {
    let hosts = start(&[]).await;
    let run = reserve(&hosts).await.start(spec(&Act::WaitForCancel), log());
    let recycled = hosts.recycle();
    tokio::pin!(recycled);
    until_ready(&hosts, 2).await;
    assert!((&mut recycled).now_or_never().is_none(), "the host at work was there");
    run.cancel.send(protocol::run::Exit::success()).await.unwrap();
    follow(run).await.succeeded();
    soon(recycled).await.unwrap();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_drained_pool_is_empty_and_who_wants_a_host_waits_for_the_end_of_that() {
    let hosts = start(&[]).await;
    let run = reserve(&hosts).await.start(spec(&Act::WaitForCancel), log());
    let drained = hosts.drain();
    tokio::pin!(drained);
    assert!((&mut drained).now_or_never().is_none());
    let waiting = hosts.reserve(wanted());
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    run.cancel.send(protocol::run::Exit::success()).await.unwrap();
    follow(run).await.succeeded();
    soon(drained).await.unwrap();
    let drained = status(&hosts).await;
    assert!(drained.hosts.is_empty() && drained.is_draining && drained.waiting == 1, "{drained:?}");
    soon(hosts.drain()).await.unwrap();

    soon(hosts.resume()).await.unwrap();
    let reservation = soon(waiting).await.unwrap();
    follow(reservation.start(spec(&Act::Finish), log())).await.succeeded();
    soon(hosts.resume()).await.unwrap();
    assert!(!status(&hosts).await.is_draining);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn who_waits_for_the_contrary_is_told() {
    let hosts = start(&[]).await;
    let run = reserve(&hosts).await.start(spec(&Act::Hang), log());
    let (drained, resumed) = soon(async { tokio::join!(hosts.drain(), hosts.resume()) }).await;
    assert_eq!((drained, resumed), (Err(ManageError::Overtaken), Ok(())));
    let (drained, ()) = soon(async { tokio::join!(hosts.drain(), hosts.shutdown(Duration::ZERO)) }).await;
    assert_eq!(drained, Err(ManageError::Closed));
    assert_eq!(soon(hosts.recycle()).await, Err(ManageError::Closed));
    drop(run);
}

#[tokio::test]
async fn a_pool_grows_and_shrinks() {
    let hosts = start(&[]).await;
    for size in [5, 1, 0, 2] {
        soon(hosts.resize(size)).await.unwrap();
        let status = status(&hosts).await;
        let ready = status.hosts.iter().filter(|host| host.state == HostState::Ready).count();
        assert_eq!((ready, status.size), (size, PoolSize::OneRunEach { warm: size }));
        assert_eq!(status.hosts.len(), size, "those that are too many are gone: {status:?}");
    }
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn other_settings_replace_hosts_only_if_they_make_other_hosts() {
    let hosts = start(&[]).await;
    until_ready(&hosts, 2).await;
    let before = ids(&hosts).await;
    let same = HostsOptions { recycling: Recycling { surge: 2, ..Recycling::default() }, ..options(&[]) };
    soon(hosts.reconfigure(same)).await.unwrap();
    assert_eq!(ids(&hosts).await, before);
    let others = HostsOptions { environment: vec![("NAME".into(), "value".into())], ..options(&[]) };
    soon(hosts.reconfigure(others.clone())).await.unwrap();
    let after = ids(&hosts).await;
    assert!(after.is_disjoint(&before));
    soon(hosts.reconfigure(others)).await.unwrap();
    assert_eq!(ids(&hosts).await, after);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn hosts_stay_where_new_ones_cannot_be_started() {
    let hosts = start(&[]).await;
    let before: HashSet<_> = until_ready(&hosts, 2).await.hosts.into_iter().map(|host| host.id).collect();
    let result = hosts.reconfigure(options(&[Habit::ExitsAtStart]));
    assert_eq!(soon(result).await, Err(ManageError::Failing));
    assert!(before.is_subset(&ids(&hosts).await));
    execute(&hosts, Act::Finish).await.succeeded();
    soon(hosts.reconfigure(options(&[]))).await.unwrap();
    assert!(before.is_disjoint(&ids(&hosts).await));
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_is_too_old_is_replaced() {
    let recycling = Recycling { max_age: Some(Duration::from_millis(300)), ..Recycling::default() };
    let hosts = soon(Hosts::start(HostsOptions { recycling, ..options(&[]) })).await.unwrap();
    let mut events = hosts.events();
    assert_eq!(ended(&mut events).await.reason, Reason::Recycled);
    hosts.shutdown(Duration::ZERO).await;
}
