//! What systemd is told: ready, alive, how it stands, stopping.

use std::time::{Duration, Instant};

use tests::lightning::{self, DEADLINE, LightningOptions, logged, one_job, queue};
use tests::worker::Worker;
use tokio::net::UnixDatagram;

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_the_workers_life() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let path = path.to_str().expect("its name is text");
    let environment = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "200000")];
    let worker = Worker::start_with(&lightning, &["--shutdown-grace", "7"], &environment).await;
    let mut heard = String::new();
    let mut until = async |wanted: &[&str], worker: &Worker| {
        let end = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        while !wanted.iter().all(|part| heard.contains(part)) {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let length = match tokio::time::timeout(left, socket.recv(&mut buffer)).await {
                Ok(received) => received.expect("the socket is open"),
                Err(_) => panic!("{wanted:?} is missing in: {heard}\n{}", worker.output()),
            };
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        std::mem::take(&mut heard)
    };
    let first = until(&["READY=1", "joined Lightning's queue; 0 of 5 runs active", "WATCHDOG=1"], &worker).await;
    assert!(!first.contains("STOPPING"), "{first}");
    until(&["WATCHDOG=1"], &worker).await;
    let id = queue(
        &lightning,
        one_job("fn(s => { console.log('here'); return new Promise(done => setTimeout(() => done(s), 2000)); })"),
    );
    lightning::until(&lightning, &worker, &id, |record| logged(record, "here")).await;
    worker.signal(rustix::process::Signal::TERM);
    until(&["STOPPING=1", "EXTEND_TIMEOUT_USEC=3", "stopping: 1 run finishes, for at most 3"], &worker).await;
    until(&["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=3", "stopping: no run is active any more"], &worker).await;
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_hours_is_asked_for_in_pieces() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("its name is text"))];
    let worker = Worker::start_with(&lightning, &["--shutdown-grace", "100000"], &environment).await;
    let id = queue(&lightning, one_job("fn(s => { console.log('here'); for (;;); })"));
    lightning::until(&lightning, &worker, &id, |record| logged(record, "here")).await;
    worker.signal(rustix::process::Signal::TERM);
    let (mut asked, mut buffer) = (0, [0; 4096]);
    while asked < 2 {
        let length = match tokio::time::timeout(DEADLINE, socket.recv(&mut buffer)).await {
            Ok(received) => received.expect("the socket is open"),
            Err(_) => panic!("nothing more is heard\n{}", worker.output()),
        };
        let heard = String::from_utf8_lossy(&buffer[..length]);
        if heard.contains("EXTEND_TIMEOUT_USEC=60000000") {
            assert!(heard.contains("stopping: 1 run finishes, for at most 16"), "{heard}");
            asked += 1;
        }
    }
    worker.signal(rustix::process::Signal::TERM);
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}
