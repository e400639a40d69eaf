//! Runs in flight are written down, and those of a dead worker are reported by its successor.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lightning::{Journal, LightningOptions, Workloop, start};
use mock_lightning::{MockLightning, MockOptions, RunState};
use protocol::run::StepInput;
use tokio::sync::Notify;

use crate::fake::*;

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn options(mock: &MockLightning, folder: &Path) -> LightningOptions {
    let mut options = LightningOptions::new(mock.url().parse().unwrap(), "a secret".into());
    options.workloops = vec![Workloop::standard(1)];
    options.journal = Some(Arc::new(Journal::open(folder, &options.endpoint).unwrap()));
    options
}

/// Hosts whose runs say that they have begun and never end.
fn endless(begun: &Arc<Notify>) -> Arc<FakeHosts> {
    let begun = begun.clone();
    FakeHosts::new(move |_, mut host| {
        let begun = begun.clone();
        async move {
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            begun.notify_one();
            host.cancelled.recv().await;
            std::future::pending::<()>().await;
        }
    })
}

#[tokio::test]
async fn a_run_is_in_the_journal_while_it_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let hosts = FakeHosts::new(move |spec, host| {
        assert_eq!(files(&path), 1);
        host.trivial(spec)
    });
    let it = with_options(MockOptions::default(), hosts, |options| {
        options.journal = Some(Arc::new(Journal::open(folder.path(), &options.endpoint).unwrap()));
    })
    .await;
    assert_eq!(it.run(&one_job()).await.state, RunState::Success);
    it.lightning.shutdown(DEADLINE).await;
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test]
async fn the_runs_of_a_dead_worker_are_reported_by_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let mock = mock_lightning::start(MockOptions::default()).await.unwrap();
    let begun = Arc::new(Notify::new());
    let first = start(options(&mock, folder.path()), endless(&begun));
    let id = mock.queue_run(one_job()).unwrap();
    mock.wake();
    begun.notified().await;
    std::fs::write(folder.path().join("run-broken.json"), "{").unwrap();

    // A second worker on the same folder leaves alone what is in flight.
    let second = start(options(&mock, folder.path()), FakeHosts::new(|spec, host| host.trivial(spec)));
    let other = mock.queue_run(one_job()).unwrap();
    mock.wake();
    assert_eq!(mock.wait_for_end(&other, DEADLINE).await.unwrap().state, RunState::Success);
    assert!(!mock.run(&id).unwrap().state.is_final());
    second.shutdown(DEADLINE).await;

    // Nothing of it gets to the server any more: this is as near to a crash as a test can be within a process.
    mock.stop_listening().await;
    mock.cut_sockets();
    drop(first);
    abandoned(folder.path()).await;
    mock.listen_again().await.unwrap();

    let third = start(options(&mock, folder.path()), FakeHosts::new(|spec, host| host.trivial(spec)));
    let run = mock.wait_for_end(&id, DEADLINE).await.unwrap();
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Crashed, Some("WorkerCrashError")));
    let told: Vec<_> = run.logs.iter().filter_map(|log| log.line["message"][0].as_str()).collect();
    assert!(told.contains(&"Run complete with status: crash"), "{told:?}");
    third.shutdown(DEADLINE).await;
    assert_eq!(files(folder.path()), 1, "the broken file, set aside");
}

/// Waits until nobody owns any file.
async fn abandoned(folder: &Path) {
    let all = async {
        while std::fs::read_dir(folder).unwrap().flatten().any(|entry| is_locked(&entry.path())) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
}

fn is_locked(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| file.try_lock().is_err())
}

#[tokio::test]
async fn a_successor_that_stops_too_soon_leaves_it_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mock = mock_lightning::start(MockOptions::default()).await.unwrap();
    let begun = Arc::new(Notify::new());
    let first = start(options(&mock, folder.path()), endless(&begun));
    let id = mock.queue_run(one_job()).unwrap();
    mock.wake();
    begun.notified().await;
    mock.stop_listening().await;
    mock.cut_sockets();
    // Neither can tell anybody.
    drop(first);
    abandoned(folder.path()).await;
    let second = start(options(&mock, folder.path()), FakeHosts::new(|spec, host| host.trivial(spec)));
    second.shutdown(Duration::ZERO).await;
    assert_eq!(files(folder.path()), 1);
    mock.listen_again().await.unwrap();
    let third = start(options(&mock, folder.path()), FakeHosts::new(|spec, host| host.trivial(spec)));
    assert_eq!(mock.wait_for_end(&id, DEADLINE).await.unwrap().state, RunState::Crashed);
    third.shutdown(DEADLINE).await;
    assert_eq!(files(folder.path()), 0);
}
