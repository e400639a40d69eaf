//! A worker that is killed leaves no process behind, whatever its hosts were doing.

use std::time::Duration;

use mock_lightning::RunState;
use rustix::process::Signal;
use tests::lightning::{self, LightningOptions, logged, one_job, queue, until};
use tests::processes;
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn no_host_outlives_it() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "3"]).await;
    let busy = queue(&lightning, one_job("fn(s => { console.log('busy'); for (;;) { try { for (;;); } catch {} } })"));
    let waiting = queue(&lightning, one_job("fn(s => { console.log('waiting'); return new Promise(() => {}); })"));
    until(&lightning, &worker, &busy, |record| logged(record, "busy")).await;
    until(&lightning, &worker, &waiting, |record| logged(record, "waiting")).await;

    let hosts: Vec<u32> = worker.hosts().iter().map(|host| host.pid).collect();
    assert!(hosts.len() >= 2, "two are running something: {hosts:?}");
    worker.signal(Signal::KILL);
    assert_eq!(worker.exit(Duration::from_secs(5)).await, None);
    assert_eq!(processes::gone(&hosts, Duration::from_secs(1)).await, [0u32; 0], "left over after a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_successor_sweeps_its_socket() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let entries = || std::fs::read_dir(runtime.path()).into_iter().flatten().count();
    let lightning = lightning::start(LightningOptions::default()).await;

    let first = Worker::start_in(&lightning, &[], runtime.path()).await;
    lightning::end(&lightning, &first, &queue(&lightning, one_job("fn(s => s)"))).await;
    first.signal(Signal::KILL);
    first.exit(Duration::from_secs(5)).await;
    assert_eq!(entries(), 1, "a killed worker cannot clean up");

    let second = Worker::start_in(&lightning, &[], runtime.path()).await;
    lightning::end(&lightning, &second, &queue(&lightning, one_job("fn(s => s)"))).await;
    assert_eq!(entries(), 1, "its own alone");
    second.stop().await;
    assert_eq!(entries(), 0, "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_successor_tells_lightning_of_its_runs_from_the_journal() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = folder.path().join("journal");
    let options = ["--journal-dir", journal.to_str().expect("temporary folders have plain names")];
    let lightning = lightning::start(LightningOptions::default()).await;

    let first = Worker::start(&lightning, &options).await;
    let id = queue(&lightning, one_job("fn(s => { console.log('busy'); return new Promise(() => {}); })"));
    until(&lightning, &first, &id, |record| logged(record, "busy")).await;
    first.signal(Signal::KILL);
    first.exit(Duration::from_secs(5)).await;

    let second = Worker::start(&lightning, &options).await;
    let record = lightning::end(&lightning, &second, &id).await;
    assert_eq!((record.state, record.error_type.as_deref()), (RunState::Crashed, Some("WorkerCrashError")));
    assert!(!second.output().contains("run-token"), "a token is never printed");
    second.stop().await;
    assert_eq!(std::fs::read_dir(&journal).into_iter().flatten().count(), 0, "nothing is left");
}
