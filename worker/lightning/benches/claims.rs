//! What claims of several runs at once gain and cost: throughput over a distance, and runs that lost replies strand.
//!
//! Time is simulated, so that the figures are the same on any machine. `cargo bench -p lightning --bench claims`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/lightning/fake.rs"]
mod fake;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/lightning/network.rs"]
mod network;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lightning::{Demand, Workloop};
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::json;
use tokio::time::{Instant, sleep};

use fake::{FakeHosts, Setting, in_memory, one_job};
use network::simulate;

/// Replies to claims that are lost. More give the same figures, and take minutes.
const LOST_REPLIES: usize = 250;

const POLICIES: [Demand; 3] = [Demand::One, Demand::Growing, Demand::All];

fn main() {
    println!("| | one | growing | all |\n| --- | --- | --- | --- |");
    for capacity in [5, 20] {
        for round_trip in [5, 100] {
            for takes in [10, 1000] {
                let (distance, length) = (Duration::from_millis(round_trip), Duration::from_millis(takes));
                let [one, growing, all] = each(|policy| throughput(policy, capacity, distance, length));
                println!(
                    "| runs/s, capacity {capacity}, round trip {round_trip} ms, runs of {takes} ms \
                     | {one:.1} | {growing:.1} | {all:.1} |"
                );
            }
        }
        for (load, pause) in [("a full queue", None), ("bursts of 10 runs", Some(Duration::from_secs(2)))] {
            let [one, growing, all] =
                each(|policy| stranded(policy, capacity, pause)).map(|runs| runs * 1000 / LOST_REPLIES);
            println!("| stranded by 1000 lost replies, capacity {capacity}, {load} | {one} | {growing} | {all} |");
        }
    }
}

/// What a policy comes to, all of them at the same time.
fn each<T: Send>(measure: impl Fn(Demand) -> T + Sync) -> [T; 3] {
    let measure = &measure;
    std::thread::scope(|scope| {
        POLICIES.map(|policy| scope.spawn(move || measure(policy))).map(|policy| policy.join().unwrap())
    })
}

/// Hosts on which a run takes so long.
fn hosts(takes: Duration) -> Arc<FakeHosts> {
    FakeHosts::new(move |spec, host| async move {
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        sleep(takes).await;
        host.step_completed(0, "a", StepOutput::State(spec.input)).await;
        host.finish(Exit::success(), Some(json!({})), Some(0)).await;
    })
}

fn setting(policy: Demand, capacity: usize, round_trip: Duration, takes: Duration, hooks: Arc<dyn Hooks>) -> Setting {
    let mock = MockOptions { hooks, ..MockOptions::default() };
    in_memory(mock, round_trip / 2, hosts(takes), |options| {
        options.demand = policy;
        options.workloops = vec![Workloop::standard(capacity)];
        options.backoff = (Duration::from_secs(1), Duration::from_secs(10));
    })
}

/// Runs a second while there is always one more, from the first claim to the last end.
fn throughput(policy: Demand, capacity: usize, round_trip: Duration, takes: Duration) -> f64 {
    const RUNS: usize = 600;
    simulate(|_| async move {
        let it = setting(policy, capacity, round_trip, takes, Arc::new(mock_lightning::NoHooks));
        it.joined().await;
        let ids: Vec<_> = (0..RUNS).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
        let began = Instant::now();
        it.mock.wake();
        for id in &ids {
            it.mock.wait_for_end(id, Duration::from_secs(24 * 3600)).await.unwrap();
        }
        RUNS as f64 / began.elapsed().as_secs_f64()
    })
}

/// Loses the replies to some claims that bring runs, with the connection.
struct LoseReplies {
    claims: AtomicUsize,
    lost: AtomicUsize,
}

impl Hooks for LoseReplies {
    fn before_reply(&self, message: &Incoming<'_>, _accepted: bool) -> HookVerdict {
        if message.event != "claim" || self.lost.load(Ordering::Relaxed) >= LOST_REPLIES {
            return HookVerdict::GoOn;
        }
        // One in seven, in no pattern that claims may have, too.
        let mixed = (self.claims.fetch_add(1, Ordering::Relaxed) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if !(mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(17).is_multiple_of(7) {
            return HookVerdict::GoOn;
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        HookVerdict::LoseReply
    }
}

/// How many runs are claimed for ever when so many replies were lost: with a queue that is never empty, or with one that
/// gets ten runs now and then.
fn stranded(policy: Demand, capacity: usize, pause: Option<Duration>) -> usize {
    simulate(|_| async move {
        let hooks = Arc::new(LoseReplies { claims: AtomicUsize::new(1), lost: AtomicUsize::new(0) });
        let (round_trip, takes) = (Duration::from_millis(5), Duration::from_millis(300));
        let it = setting(policy, capacity, round_trip, takes, hooks.clone());
        it.joined().await;
        let mut ids = Vec::new();
        while hooks.lost.load(Ordering::Relaxed) < LOST_REPLIES {
            ids.extend((0..10).map(|_| it.mock.queue_run(one_job()).unwrap()));
            it.mock.wake();
            sleep(pause.unwrap_or(Duration::from_millis(500))).await;
        }
        sleep(Duration::from_secs(3600)).await;
        let is_stranded = |id: &&String| {
            let run = it.mock.run(id).unwrap();
            run.state == RunState::Claimed && run.events.is_empty()
        };
        ids.iter().filter(is_stranded).count()
    })
}
