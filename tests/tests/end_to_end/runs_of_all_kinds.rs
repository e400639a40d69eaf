//! Runs of all kinds, one beside the other, each end as they should; and templates stay as they were, where engines are
//! forked. `RUNS` says how many; `cargo bench --workspace --bench soak` is the same for as long as one likes.

use std::time::Duration;

use tests::leftovers;
use tests::lightning::{self, LightningOptions};
use tests::node::is_forked;
use tests::random::amount;
use tests::soak::Soak;
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn none_hangs_is_lost_or_ends_otherwise() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let [folder, packages, repo] = ["runtime", "packages", "repo"].map(|name| runtime.path().join(name));
    std::fs::create_dir(&folder).expect("there is room for a folder");
    let soak = Soak::prepare(&packages, None).await;
    let lightning = lightning::start(LightningOptions::default()).await;
    let way = if is_forked() { "fork" } else { "snapshot" };
    let repo = repo.display().to_string();
    let options =
        ["--engine", "node", "--node-start", way, "--repo-dir", &repo, "--capacity", "3", "--run-memory", "128"];
    let options: Vec<&str> = options.into_iter().chain(soak.options.iter().map(String::as_str)).collect();
    let worker = Worker::start_in(&lightning, &options, &folder).await;
    let outcome = soak.execute(&lightning, &worker, (amount("RUNS", 60), 6), |_| ()).await;
    assert_eq!((&outcome.hung, &outcome.wrong), (&Vec::new(), &Vec::new()), "{}", worker.output());
    assert_eq!(outcome.grown_template(), None, "a template leaks");
    worker.stop().await;
    assert_eq!(leftovers::gone(&folder, Duration::from_secs(10)).await, [""; 0]);
    assert_eq!(lightning.violations(), []);
}
