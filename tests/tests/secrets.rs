//! Nobody finds the worker's secrets beside it.

use tests::lightning::{self, LightningOptions, SECRET, end, one_job, queue};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn neither_its_environment_nor_its_hosts_hold_them() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &id).await;

    let hosts = worker.hosts();
    assert!(!hosts.is_empty());
    for pid in [worker.pid()].into_iter().chain(hosts.iter().map(|host| host.pid)) {
        // Only the superuser may look at all.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        assert!(!text.contains(SECRET), "process {pid} shows it");
        if pid == worker.pid() && !environment.is_empty() {
            assert!(text.contains("WORKER_SECRET=\0"), "the rest is still there");
        }
    }
    let owner = std::fs::metadata(format!("/proc/{}/environ", worker.pid())).expect("the worker lives");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "others of its user may not look into it");
    worker.stop().await;
}
