//! Hosts that wait get ready what runs have wanted.

use std::time::Duration;

use base::execution::Executor;
use hosts::{HostState, Hosts, HostsOptions, PoolStatus};
use protocol::engine::{EngineSpec, ForkOrigin, NodeSpec};
use protocol::message::Prepare;
use protocol::run::RunSpec;

use crate::fake::{Act, Habit};
use crate::harness::*;

fn engine(version: &str) -> EngineSpec {
    let node = NodeSpec {
        program: "/node".into(),
        version: version.into(),
        adaptors: vec![],
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    EngineSpec::Node(node)
}

fn run_on(version: &str) -> RunSpec {
    RunSpec { engine: engine(version), ..spec(&Act::Finish) }
}

/// A pool whose hosts have nothing ready at first.
async fn unkeyed(habits: &[Habit]) -> Hosts {
    soon(Hosts::start(HostsOptions { first: None, ..options(habits) })).await.unwrap()
}

async fn execute_on(hosts: &Hosts, version: &str) -> String {
    let run = run_on(version);
    let reservation = soon(hosts.reserve(Prepare::of(&run))).await.unwrap();
    let host = reservation.host_id().to_owned();
    follow(reservation.start(run, log())).await.succeeded();
    host
}

/// Waits until this many hosts wait with this engine.
async fn until_prepared(hosts: &Hosts, version: &str, count: usize) -> PoolStatus {
    let mut events = hosts.events();
    loop {
        let status = status(hosts).await;
        let prepared = status.hosts.iter().filter(|host| {
            let prepared = host.prepared.as_deref().unwrap_or_default();
            host.state == HostState::Ready && prepared.starts_with(&format!("node {version}"))
        });
        if prepared.count() == count {
            return status;
        }
        soon(events.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_wanted_is_ready_when_it_is_wanted_again() {
    let hosts = unkeyed(&[]).await;
    assert!(until_ready(&hosts, 2).await.hosts.iter().all(|host| host.prepared.is_none()));
    execute_on(&hosts, "24.1.0").await;
    let status = until_prepared(&hosts, "24.1.0", 2).await;
    let prepared: Vec<_> =
        status.hosts.iter().filter(|host| host.state == HostState::Ready).map(|host| &host.id).collect();
    let used = execute_on(&hosts, "24.1.0").await;
    assert!(prepared.contains(&&used), "{used} is none of {prepared:?}");
    // Another engine gets a host of its own, and from then on one is kept ready.
    execute_on(&hosts, "24.2.0").await;
    until_prepared(&hosts, "24.2.0", 1).await;
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn runs_that_want_different_engines_do_not_wait_for_each_other() {
    let hosts = unkeyed(&[]).await;
    let versions: Vec<String> = (0..8).map(|number| format!("24.{number}.0")).collect();
    let runs = versions.iter().map(|version| execute_on(&hosts, version));
    soon(futures_util::future::join_all(runs)).await;
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_host_that_cannot_prepare_ahead_still_gets_the_run() {
    let hosts = unkeyed(&[Habit::RefusesToPrepare]).await;
    for _ in 0..4 {
        execute_on(&hosts, "24.1.0").await;
    }
    hosts.shutdown(Duration::ZERO).await;
}
