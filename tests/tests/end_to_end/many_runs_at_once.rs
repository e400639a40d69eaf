//! More runs than there is room for are all executed, no more at once than the capacity, and none is mixed up.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tests::lightning::{self, LightningOptions, end, one_job};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_its_own_result() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let body = |n: usize| {
        format!(
            "fn(async s => {{ await new Promise(r => setTimeout(r, 20)); console.log('run {n}'); return {{ data: {n} }}; }})"
        )
    };
    let ids: Vec<String> =
        (0..40).map(|n| lightning.queue_run(one_job(&body(n))).expect("the plan is valid")).collect();
    let worker = Worker::start(&lightning, &["--capacity", "4"]).await;
    let mut spans = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let record = end(&lightning, &worker, id).await;
        assert_eq!(record.final_state, Some(json!({ "data": n })));
        assert_eq!(lightning::messages(&record, "JOB"), [format!("run {n}")]);
        spans.push((record.claimed_at.expect("it was claimed"), record.finished_at.expect("it ended")));
    }
    let overlap = |&(at, _): &(u64, u64)| spans.iter().filter(|(from, to)| (*from..*to).contains(&at)).count();
    let most = spans.iter().map(overlap).max();
    assert!((2..=4).contains(&most.unwrap_or(0)), "{most:?} runs at once");
    worker.stop().await;
    assert_eq!(lightning.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_runs_in_a_process_of_its_own() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "2", "--warm-hosts", "1"]).await;
    let mut pids = HashSet::new();
    for _ in 0..3 {
        let body = "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 200)); return s; })";
        let id = lightning::queue(&lightning, one_job(body));
        lightning::until(&lightning, &worker, &id, |record| lightning::logged(record, "here")).await;
        let host = worker.host_of(&id);
        assert!(pids.insert(host.pid), "host {} ran twice", host.pid);
        end(&lightning, &worker, &id).await;
        assert_eq!(
            tests::processes::gone(&[host.pid], Duration::from_secs(5)).await,
            [0u32; 0],
            "the host outlived its run"
        );
    }
    worker.stop().await;
}
