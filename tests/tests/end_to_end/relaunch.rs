//! A worker goes by what has changed while it runs, and loses nothing in flight.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mock_lightning::RunState;
use rustix::process::Signal;
use tests::binaries;
use tests::lightning::{self, DEADLINE, LightningOptions, end, logged, one_job, queue, until};
use tests::worker::Worker;

fn pids(worker: &Worker) -> HashSet<u32> {
    worker.hosts().into_iter().map(|host| host.pid).collect()
}

async fn until_hosts(worker: &Worker, wanted: impl Fn(&HashSet<u32>) -> bool) {
    let end = Instant::now() + DEADLINE;
    while !wanted(&pids(worker)) {
        assert!(Instant::now() < end, "hosts did not get there\n{}", worker.output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What writes a configuration file, and the file's name.
fn configuration(folder: &Path) -> (impl Fn(&str), String) {
    let file = folder.join("worker.toml");
    let name = file.display().to_string();
    (move |text: &str| std::fs::write(&file, text).expect("a file can be written"), name)
}

const SLOW: &str = "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 1500)); return s; })";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_changes_hosts_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (write, file) = configuration(folder.path());
    write("warm-hosts = 1\n");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--config", &file]).await;
    worker.printed("joined").await;
    until_hosts(&worker, |hosts| hosts.len() == 1).await;
    write("warm-hosts = 3\n");
    until_hosts(&worker, |hosts| hosts.len() == 3).await;

    write("warm-hosts = 3\nwarm-hots = 1\n");
    worker.printed("options not reloaded").await;
    worker.printed("warm-hots").await;

    // Other limits make other hosts; the one at work finishes first.
    let before = pids(&worker);
    let busy = queue(&lightning, one_job(SLOW));
    until(&lightning, &worker, &busy, |record| logged(record, "here")).await;
    write("warm-hosts = 3\nhost-max-open-files = 1000\nmax-message-mb = 9\n");
    worker.signal(Signal::HUP);
    worker.printed("changed options that need a restart: max-message-mb").await;
    worker.printed("changed: host-max-open-files").await;
    assert_eq!(end(&lightning, &worker, &busy).await.state, RunState::Success);
    until_hosts(&worker, |hosts| hosts.len() == 3 && hosts.is_disjoint(&before)).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_heard_while_the_one_before_waits_for_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (write, file) = configuration(folder.path());
    write("warm-hosts = 1\n");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--config", &file]).await;
    let endless = queue(&lightning, one_job("fn(s => { console.log('here'); for (;;); })"));
    until(&lightning, &worker, &endless, |record| logged(record, "here")).await;
    until_hosts(&worker, |hosts| hosts.len() == 2).await;
    write("warm-hosts = 1\nhost-max-open-files = 1000\n");
    worker.printed("hosts are being replaced").await;
    write("warm-hosts = 2\nhost-max-open-files = 1000\n");
    until_hosts(&worker, |hosts| hosts.len() == 3).await;
    assert_eq!(lightning.run(&endless).expect("it was queued").state, RunState::Started);
    worker.signal(Signal::TERM);
    worker.printed("stopping: no more claims").await;
    worker.signal(Signal::TERM);
    assert_eq!(end(&lightning, &worker, &endless).await.state, RunState::Killed);
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_program_that_is_replaced_replaces_hosts_if_it_is_watched() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = folder.path().join("engine-host");
    let install = |from: &Path| {
        let part = folder.path().join("part");
        std::fs::copy(from, &part).expect("a file can be copied");
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        std::fs::rename(&part, &program).expect("it is in the same folder");
    };
    let built = binaries::worker().with_file_name("engine-host");
    install(&built);
    let lightning = lightning::start(LightningOptions::default()).await;
    let options = ["--watch", "--engine-host", program.to_str().expect("the path is text"), "--capacity", "2"];
    let worker = Worker::start(&lightning, &options).await;
    worker.printed("joined").await;
    until_hosts(&worker, |hosts| hosts.len() == 2).await;
    let before = pids(&worker);
    let busy = queue(&lightning, one_job(SLOW));
    until(&lightning, &worker, &busy, |record| logged(record, "here")).await;
    install(&built);
    assert_eq!(end(&lightning, &worker, &busy).await.state, RunState::Success);
    until_hosts(&worker, |hosts| hosts.len() == 2 && hosts.is_disjoint(&before)).await;
    worker.stop().await;
}
