//! Hosts that are killed at random under load harm their own run and no other.
//!
//! `KILLS` says how many, `SEED` when.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mock_lightning::RunState;
use rustix::process::{Pid, Signal, kill_process};
use tests::leftovers;
use tests::lightning::{self, LightningOptions, end, one_job};
use tests::random::{Random, amount};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn no_other_run_is_harmed_and_nothing_is_left() {
    let kills = amount("KILLS", 40);
    let mut random = Random::seeded();
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_in(&lightning, &["--capacity", "4", "--log", "info"], runtime.path()).await;
    let job = "fn(async s => { for (let i = 0; i < 4; i++) await new Promise(r => setTimeout(r, 10)); return s; })";
    let is_over = Arc::new(AtomicBool::new(false));

    let killing = async {
        let mut killed = 0;
        while killed < kills {
            tokio::time::sleep(Duration::from_millis(10 + random.below(40) as u64)).await;
            let hosts = worker.hosts();
            if hosts.is_empty() {
                continue;
            }
            let host = random.one_of(&hosts);
            let pid = i32::try_from(host.pid).ok().and_then(Pid::from_raw).expect("a pid is positive");
            // It may just have ended by itself.
            killed += usize::from(kill_process(pid, Signal::KILL).is_ok());
        }
        is_over.store(true, Ordering::Relaxed);
        killed
    };
    let working = async {
        let mut ids = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let batch: Vec<_> = (0..8).map(|_| lightning.queue_run(one_job(job)).expect("the plan is valid")).collect();
            lightning.wake();
            for id in &batch {
                end(&lightning, &worker, id).await;
            }
            ids.extend(batch);
        }
        ids
    };
    let (killed, ids) = tokio::join!(killing, working);

    let mut harmed = HashSet::new();
    for id in &ids {
        let record = end(&lightning, &worker, id).await;
        if record.state != RunState::Success {
            let message = record.error_message.as_deref().unwrap_or_default();
            assert_eq!(record.state, RunState::Crashed, "{message}");
            assert!(message.contains("SIGKILL"), "{message}\n{}", worker.output());
            harmed.insert(id);
        }
    }
    println!("{} runs, {killed} hosts killed, {} runs harmed by that", ids.len(), harmed.len());
    assert!(harmed.len() <= killed, "{} runs were harmed by {killed} kills", harmed.len());
    // Capacity is whole again.
    let last: Vec<_> = (0..8).map(|_| lightning.queue_run(one_job(job)).expect("the plan is valid")).collect();
    lightning.wake();
    for id in &last {
        assert_eq!(end(&lightning, &worker, id).await.state, RunState::Success);
    }
    worker.stop().await;
    assert_eq!(lightning.violations(), []);
    assert_eq!(leftovers::gone(runtime.path(), Duration::from_secs(10)).await, [""; 0]);
}
