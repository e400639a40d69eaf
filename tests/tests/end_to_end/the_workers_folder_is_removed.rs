//! A worker whose private folder is removed, as by a system that cleans up after its user, lets its runs end and ends,
//! so that it is started anew.

use mock_lightning::RunState;
use rustix::process::Signal;
use tests::lightning::{self, DEADLINE, LightningOptions, end, logged, one_job, queue, until};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn it_finishes_its_runs_and_says_why_it_ends() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_in(&lightning, &["--capacity", "2"], runtime.path()).await;
    let slow = "fn(s => { console.log('here'); return new Promise(done => setTimeout(() => done(s), 1000)); })";
    let slow = queue(&lightning, one_job(slow));
    until(&lightning, &worker, &slow, |record| logged(record, "here")).await;
    for entry in std::fs::read_dir(runtime.path()).expect("the worker made it").flatten() {
        std::fs::remove_dir_all(entry.path()).expect("it is ours");
    }
    // The one that takes the place of this run's host cannot start.
    let quick = queue(&lightning, one_job("fn(s => s)"));
    for run in [&quick, &slow] {
        assert_eq!(end(&lightning, &worker, run).await.state, RunState::Success, "{}", worker.output());
    }
    worker.printed("was removed and no host can start without it").await;
    assert_eq!(worker.exit(DEADLINE).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_still_ends_when_it_is_asked_to() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_in(&lightning, &["--warm-hosts", "1"], runtime.path()).await;
    worker.printed("joined").await;
    // One that is yet to start would find the folder gone.
    worker.printed("host ready").await;
    for entry in std::fs::read_dir(runtime.path()).expect("the worker made it").flatten() {
        std::fs::remove_dir_all(entry.path()).expect("it is ours");
    }
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}
