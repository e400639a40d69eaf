//! A pool starts when its first host is ready, and says why not otherwise.

use std::time::Duration;

use hosts::{HostEvent, HostProgram, HostsOptions, Phase, StartError, Status};

use crate::fake::Habit;
use crate::harness::*;

#[tokio::test]
async fn the_first_host_is_ready_when_the_pool_is() {
    let before = std::time::Instant::now();
    let hosts = start(&[]).await;
    println!("first host ready after {:?}", before.elapsed());
    let status = status(&hosts).await;
    assert!(status.hosts.iter().any(|host| host.state == hosts::HostState::Ready), "{status:?}");
    let mut events = hosts.events();
    drop(reserve(&hosts).await.start(spec(&crate::fake::Act::Hang), log()));
    let after = event(&mut events, |event| match event {
        HostEvent::Ready { after, .. } => Some(*after),
        _ => None,
    });
    println!("next host ready after {:?}", after.await);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_error_says_what_was_wrong_with_the_last_host() {
    let table = [
        (Habit::ExitsAtStart, "crashed while starting (Process exited with code: 3)"),
        (Habit::NeverConnects, "not ready in time"),
        (Habit::ShowsAWrongToken, "the link token is wrong"),
        (Habit::SpeaksAnOtherVersion, "the host version 999"),
        (Habit::RefusesToPrepare, "no engine here"),
        (Habit::SendsGarbage, "the link broke"),
    ];
    for (habit, words) in table {
        let limit = Duration::from_secs(if habit == Habit::NeverConnects { 1 } else { 30 });
        let error = fail_to_start(HostsOptions { validation_timeout: limit, ..options(&[habit]) }).await;
        assert!(error.to_string().contains(words), "{habit:?}: {error}");
        let StartError::Unusable { attempts: 1, death } = error else { panic!("{habit:?}: {error}") };
        assert_eq!(death.phase, Phase::Starting, "{habit:?}");
    }
}

#[tokio::test]
async fn the_first_host_is_tried_again() {
    let options = HostsOptions { validation_retries: 1, ..options(&[Habit::ExitsAtStart]) };
    let StartError::Unusable { attempts, death } = fail_to_start(options).await else { panic!("not usable") };
    assert_eq!((attempts, death.status), (2, Some(Status::Code(3))));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine-host");
    std::fs::write(&path, "no program").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = HostsOptions { validation_retries: 0, ..HostsOptions::new(HostProgram::at(&path).unwrap()) };
    let error = fail_to_start(options).await.to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}
