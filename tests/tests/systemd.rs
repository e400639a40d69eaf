//! What systemd is told: ready, alive, how it stands, stopping.

use std::time::{Duration, Instant};

use tests::lightning::{self, DEADLINE, LightningOptions};
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
    worker.signal(rustix::process::Signal::TERM);
    until(&["STOPPING=1", "EXTEND_TIMEOUT_USEC=37000000", "finishing what runs, for at most 37s"], &worker).await;
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}
