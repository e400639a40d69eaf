//! A pool starts when its first host is ready, and says why not otherwise.

use std::time::Duration;

use worker::hosts::{HostEvent, HostProgram, HostsOptions, Phase, Reason, StartError, Status};

use crate::fake::Habit;
use crate::harness::*;

#[tokio::test]
async fn the_first_host_is_ready_when_the_pool_is() {
    let before = std::time::Instant::now();
    let hosts = start(&[]).await;
    println!("first host ready after {:?}", before.elapsed());
    let status = status(&hosts).await;
    assert!(status.hosts.iter().any(|host| host.state == worker::hosts::HostState::Ready), "{status:?}");
    let mut events = hosts.events();
    drop(reserve(&hosts).await.start(spec(&crate::fake::Act::Hang)));
    let after = event(&mut events, |event| match event {
        HostEvent::Ready { after, .. } => Some(*after),
        _ => None,
    });
    println!("next host ready after {:?}", after.await);
    hosts.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_error_says_what_was_wrong_with_the_last_host() {
    let table: [(Habit, Reason, &str); 6] = [
        (Habit::ExitsAtStart, Reason::Crashed, "Process exited with code: 3"),
        (Habit::NeverConnects, Reason::StartTimeout, "not ready in time"),
        (Habit::ShowsAWrongToken, Reason::Crashed, "Process exited with code: 1"),
        (Habit::SpeaksAnOtherVersion, Reason::Crashed, "999"),
        (Habit::RefusesToPrepare, Reason::Crashed, "no engine here"),
        (Habit::SendsGarbage, Reason::Crashed, "link"),
    ];
    for (habit, reason, words) in table {
        let limit = Duration::from_secs(if habit == Habit::NeverConnects { 1 } else { 30 });
        let error = fail_to_start(HostsOptions { validation_timeout: limit, ..options(&[habit]) }).await;
        assert!(error.to_string().contains(words), "{habit:?}: {error}");
        let StartError::Unusable { attempts: 1, death } = error else { panic!("{habit:?}: {error}") };
        assert_eq!(death.phase, Phase::Starting, "{habit:?}");
        let is_told = matches!(death.reason, Reason::NotStarted(_) | Reason::LinkLost(_));
        assert!(death.reason == reason || is_told, "{habit:?}: {death:?}");
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
