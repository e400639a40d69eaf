//! Whatever the link does, each run ends once, as it happened, with all of its lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use protocol::run::{Exit, StepInput, StepOutput};
use serde_json::json;
use worker::lightning::{BatchOptions, Workloop};
use worker::mock_lightning::{Hooks, Incoming, MockOptions, RunState, Verdict};

use crate::fake::*;

/// Scripts that are played at the same time.
const SCRIPTS: u64 = 24;

/// Faults by chance, the same ones for the same seed and order of messages.
struct Chance {
    seed: u64,
    messages: AtomicUsize,
    left: AtomicUsize,
}

impl Chance {
    fn draw(&self, faults: &[Verdict]) -> Verdict {
        let n = self.messages.fetch_add(1, Ordering::Relaxed) as u64;
        // SplitMix64.
        let mut z = (self.seed ^ (n << 32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let left = || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if z.is_multiple_of(40) && left() { faults[(z >> 32) as usize % faults.len()].clone() } else { Verdict::GoOn }
    }
}

fn faults() -> [Verdict; 5] {
    let busy = Verdict::Refuse(json!({"reason": "busy"}));
    [
        Verdict::Delay(Duration::from_millis(20)),
        Verdict::CloseChannel,
        Verdict::CloseChannel,
        Verdict::CloseSocket,
        busy,
    ]
}

impl Hooks for Chance {
    fn before_message(&self, message: &Incoming<'_>) -> Verdict {
        if message.event.starts_with("phx_") || message.topic == "phoenix" {
            return Verdict::GoOn;
        }
        // Lines that were sent behind one that must go again have overtaken it.
        let kinds = if message.event.contains("log") { 4 } else { 5 };
        self.draw(&faults()[..kinds])
    }

    fn before_reply(&self, message: &Incoming<'_>, accepted: bool) -> Verdict {
        // What a claim hands out is lost with its reply, and what was taken is not refused.
        if !accepted || !message.topic.starts_with("run:") {
            return Verdict::GoOn;
        }
        self.draw(&faults()[..4])
    }
}

async fn play(seed: u64) {
    let hosts = FakeHosts::new(|_, host| async move {
        host.run_started().await;
        for index in 0..3u32 {
            let input = index.checked_sub(1).map_or(StepInput::Run, StepInput::Step);
            host.step_started(index, "a", input).await;
            for line in 0..20 {
                host.log(json!([index * 20 + line])).await;
            }
            host.step_completed(index, "a", StepOutput::State(json(json!({"n": index})))).await;
        }
        host.finish(Exit::success(), Some(json!({"n": 2})), Some(2)).await;
    });
    let chance = Chance { seed, messages: AtomicUsize::new(0), left: AtomicUsize::new(12) };
    let mock = MockOptions { hooks: Arc::new(chance), ..MockOptions::default() };
    let it = with_options(mock, hosts, |options| {
        options.workloops = vec![Workloop::standard(2)];
        options.backoff = (Duration::from_millis(20), Duration::from_millis(50));
        options.batch_logs =
            seed.is_multiple_of(2).then_some(BatchOptions { interval: Duration::from_millis(5), limit: 7 });
    })
    .await;
    let ids: Vec<_> = (0..4).map(|_| it.queue(&one_job())).collect();
    let expected: Vec<_> = (0..60).map(|n| json!([n])).collect();
    for id in ids {
        let run = match it.mock.wait_for_end(&id, DEADLINE).await {
            Ok(run) => run,
            // The reply to its claim was on the wire when the link died, so that the worker never heard of it.
            Err(_) if it.mock.run(&id).is_some_and(|run| run.events.is_empty()) => continue,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        assert_eq!(run.state, RunState::Success, "seed {seed}: {:?} {:?}", run.error_message, run.violations);
        assert_eq!(run.steps.len(), 3, "seed {seed}");
        let inputs: Vec<_> = run.steps.iter().map(|step| step.input_dataclip_id.clone()).collect();
        let outputs: Vec<_> = run.steps.iter().map(|step| step.output_dataclip_id.clone()).collect();
        assert_eq!((&inputs[1..], &run.final_dataclip_id), (&outputs[..2], &outputs[2]), "seed {seed}");
        assert_eq!(job_lines(&run), expected, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_nothing() {
    let scripts: Vec<_> = (0..SCRIPTS).map(|seed| tokio::spawn(play(seed))).collect();
    for script in scripts {
        script.await.unwrap();
    }
}
