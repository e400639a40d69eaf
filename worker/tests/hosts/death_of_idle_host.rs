//! A host that dies while it waits is replaced before a run is given to it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use worker::execution::Executor;
use worker::hosts::HostEvent;

use crate::fake::{Act, Habit};
use crate::harness::*;

#[tokio::test]
async fn no_run_is_given_to_the_dead() {
    let hosts = start(&[]).await;
    for _ in 0..3 {
        for host in until_ready(&hosts, 2).await.hosts {
            let pid = Pid::from_raw(host.pid.unwrap().cast_signed()).unwrap();
            // Fails when it is gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
        execute(&hosts, Act::Finish).await.succeeded();
    }
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_whose_reserved_host_dies_moves_to_another() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    let reservation = reserve(&hosts).await;
    let id = reservation.host_id().to_owned();
    let host = status(&hosts).await.hosts.into_iter().find(|host| host.id == id).unwrap();
    kill_process(Pid::from_raw(host.pid.unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
    event(&mut events, |event| matches!(event, HostEvent::Died { host, .. } if *host == id).then_some(())).await;
    follow(reservation.start(spec(&Act::Finish))).await.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn hosts_that_keep_dying_open_the_circuit_and_nobody_waits_for_ever() {
    let hosts = start(&[Habit::DiesWhenReady]).await;
    let mut events = hosts.events();
    let mut deaths = 0;
    loop {
        match soon(events.recv()).await.unwrap() {
            HostEvent::Died { .. } => deaths += 1,
            HostEvent::CircuitOpened { death } => {
                println!("the circuit opened after {deaths} deaths: {death}");
                break;
            }
            _ => {}
        }
    }
    let error = soon(hosts.reserve()).await.unwrap_err().to_string();
    assert!(error.contains("Process exited with code: 4"), "{error}");
    assert!(status(&hosts).await.is_circuit_open);
    hosts.shutdown(Duration::ZERO).await;
}
