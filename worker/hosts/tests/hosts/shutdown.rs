//! Nothing is left of a pool that was shut down.

use std::time::Duration;

use base::execution::Executor;
use hosts::{Broker, HostsOptions, PoolSize, TemplatePolicy, TemplateState};
use protocol::engine::{EngineSpec, ForkOrigin, NodeSpec};
use protocol::message::Prepare;
use protocol::run::{ExitReason, RunSpec};

use crate::fake::{Act, Habit};
use crate::harness::*;

#[tokio::test]
async fn every_process_is_reaped_and_the_folder_is_gone() {
    for habits in [&[][..], &[Habit::IgnoresStop, Habit::IgnoresTerm]] {
        let root = tempfile::tempdir().unwrap();
        let broker = Broker::start(Some(root.path())).unwrap();
        let hosts = soon(broker.open("engines", options(habits))).await.unwrap();
        let shared =
            HostsOptions { size: PoolSize::Shared { least: 1, most: 1, idle: Duration::MAX }, ..options(habits) };
        let other = soon(broker.open("others", shared)).await.unwrap();
        let all = [until_ready(&hosts, 2).await.hosts, until_ready(&other, 1).await.hosts].concat();
        let pids: Vec<u32> = all.iter().filter_map(|host| host.pid).collect();
        assert!(pids.len() >= 3 && pids.iter().all(|pid| is_there(*pid)));
        soon(broker.shutdown(Duration::from_secs(1))).await;
        assert!(!pids.iter().any(|pid| is_there(*pid)));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(soon(hosts.reserve(wanted())).await.is_err());
        assert!(soon(hosts.status()).await.is_none());
        soon(hosts.shutdown(Duration::ZERO)).await;
    }
}

#[tokio::test]
async fn a_run_may_end_first_and_is_killed_if_it_does_not() {
    let hosts = start(&[]).await;
    let ends = reserve(&hosts).await.start(spec(&Act::Log(10)), log());
    let hangs = reserve(&hosts).await.start(spec(&Act::Hang), log());
    let grace = Duration::from_millis(1_500);
    let (ended, hung, ()) = soon(async { tokio::join!(follow(ends), follow(hangs), hosts.shutdown(grace)) }).await;
    ended.succeeded();
    let exit = hung.lost();
    assert_eq!((exit.reason, exit.error.unwrap().kind.as_str()), (ExitReason::Kill, "Shutdown"));
}

#[tokio::test]
async fn dropping_the_pool_kills_its_hosts() {
    let hosts = start(&[]).await;
    let pids: Vec<u32> = until_ready(&hosts, 2).await.hosts.iter().filter_map(|host| host.pid).collect();
    drop(hosts);
    soon(async {
        while pids.iter().any(|pid| is_there(*pid)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn templates_are_not_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let broker = Broker::start(Some(root.path())).unwrap();
    let engines = soon(broker.open("engines", HostsOptions { first: None, ..options(&[]) })).await.unwrap();
    let of_templates = HostsOptions {
        size: PoolSize::Shared { least: 0, most: 1, idle: Duration::MAX },
        first: None,
        ..options(&[Habit::NeverPrepares])
    };
    let policy = TemplatePolicy { wanted: 1, ..TemplatePolicy::default() };
    let templates = soon(broker.open_templates(of_templates, policy)).await.unwrap();
    let node = NodeSpec {
        program: "/node".into(),
        version: "24.1.0".into(),
        adaptors: vec![],
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    let run = RunSpec { engine: EngineSpec::Node(node), ..spec(&Act::Finish) };
    let reservation = soon(engines.reserve(Prepare::of(&run))).await.unwrap();
    follow(reservation.start(run, log())).await.succeeded();
    soon(async {
        while !templates.status().iter().any(|known| known.state == TemplateState::Warming) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Its host is lent, which a pool would wait for that long.
    soon(broker.shutdown(Duration::from_secs(3_600))).await;
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}
