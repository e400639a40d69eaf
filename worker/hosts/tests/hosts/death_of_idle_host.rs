//! A host that dies while it waits is replaced before a run is given to it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base::execution::Executor;
use hosts::{HostEvent, Hosts, Phase, Status};
use protocol::run::{Exit, ExitReason};
use rustix::process::{Pid, Signal, kill_process};

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
    follow(reservation.start(spec(&Act::Finish), log())).await.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_of_which_nothing_was_heard_moves_to_another_twice_at_most() {
    let hosts = start(&[]).await;
    for most in 0..=2 {
        let folder = tempfile::tempdir().unwrap();
        execute(&hosts, Act::ExitSilently(folder.path().to_str().unwrap().into(), most)).await.succeeded();
    }
    let folder = tempfile::tempdir().unwrap();
    let exit = execute(&hosts, Act::ExitSilently(folder.path().to_str().unwrap().into(), 3)).await.lost();
    assert_eq!(exit.error.unwrap().message, "Process exited with code: 5");
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_program_that_is_gone_opens_the_circuit_and_its_return_closes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine-host");
    let away = folder.path().join("away");
    let own = std::env::current_exe().unwrap();
    std::fs::write(&path, format!("#!/bin/sh\nexec '{}' \"$@\"\n", own.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hosts = soon(Hosts::start(options_for(&path, &[]))).await.unwrap();
    until_ready(&hosts, 2).await;

    std::fs::rename(&path, &away).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match soon(hosts.reserve(wanted())).await {
            Ok(reservation) => held.push(reservation),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(status(&hosts).await.is_circuit_open);

    let mut events = hosts.events();
    std::fs::rename(&away, &path).unwrap();
    event(&mut events, |event| matches!(event, HostEvent::CircuitClosed).then_some(())).await;
    execute(&hosts, Act::Finish).await.succeeded();
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_run_that_ends_well_closes_the_circuit_for_who_brings_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine-host");
    let own = std::env::current_exe().unwrap();
    std::fs::write(&path, format!("#!/bin/sh\nexec '{}' \"$@\"\n", own.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hosts = soon(Hosts::start(options_for(&path, &[]))).await.unwrap();
    let mut availability = hosts.availability();
    until_ready(&hosts, 2).await;
    let run = reserve(&hosts).await.start(spec(&Act::WaitForCancel), log());
    until_ready(&hosts, 2).await;
    std::fs::remove_file(&path).unwrap();
    let mut held = Vec::new();
    while let Ok(reservation) = soon(hosts.reserve(wanted())).await {
        held.push(reservation);
    }
    soon(availability.wait_for(|available| !available)).await.unwrap();
    let mut events = hosts.events();
    run.cancel.send(Exit::error(ExitReason::Cancel, "Cancelled", "enough")).await.unwrap();
    follow(run).await;
    soon(availability.wait_for(|available| *available)).await.unwrap();
    event(&mut events, |event| matches!(event, HostEvent::CircuitClosed).then_some(())).await;
    drop(held);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn hosts_that_keep_dying_open_the_circuit() {
    let hosts = start(&[Habit::DiesWhenReady]).await;
    let mut events = hosts.events();
    let death = event(&mut events, |event| match event {
        HostEvent::CircuitOpened { death } => Some(death.clone()),
        _ => None,
    });
    let death = death.await;
    assert_eq!((death.phase, death.status), (Phase::Ready, Some(Status::Code(4))));
    hosts.shutdown(Duration::ZERO).await;
}
