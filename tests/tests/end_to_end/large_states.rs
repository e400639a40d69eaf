//! Large states arrive whole or are withheld, and cost the worker no more memory than they must.

use std::sync::Arc;

use mock_lightning::{HookVerdict, Hooks, Incoming, RunState};
use tests::lightning::{self, LightningOptions, end, messages, one_job, queue};
use tests::states::{MB, ROOMY, run_with_state};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn large_states_arrive_whole_and_cost_no_second_copy() {
    let lightning = lightning::start(LightningOptions { any_length: true, ..LightningOptions::default() }).await;
    let worker = Worker::start(&lightning, &ROOMY).await;
    end(&lightning, &worker, &queue(&lightning, one_job("fn(s => s)"))).await;
    for size in [10 * MB, 100 * MB] {
        let (record, rise) = run_with_state(&lightning, &worker, size).await;
        assert_eq!(record.state, RunState::Success, "{:?} {}", record.error_message, worker.output());
        let clip = record.final_dataclip_id.as_deref().and_then(|id| lightning.dataclip(id));
        let text = clip.as_ref().and_then(|clip| clip["data"].as_str()).expect("there is a dataclip");
        assert_eq!(text.len() as u64, size / 32 * 32);
        println!("a state of {} MB costs {:.1} MB", size / MB, rise as f64 / MB as f64);
        // The state itself, and of the rest as much again at most. Threads and buffers take some whatever the size.
        assert!(rise <= 2 * size + 6 * MB, "a state of {} MB costs {} MB", size / MB, rise / MB);
    }
    assert!(lightning.violations().is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_no_message_has_room_for_is_withheld_and_the_log_says_so() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--run-memory", "3000", "--payload-memory", "150"]).await;
    let (record, _) = run_with_state(&lightning, &worker, 20 * MB).await;
    assert_eq!((record.state, lightning.activity().connections.len()), (RunState::Success, 1));
    assert_eq!(record.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    let log = messages(&record, "R/T").join("\n");
    assert!(log.contains("dataclip is withheld") && log.contains("longer than the 10905190"), "{log}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_above_the_limit_is_withheld() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--payload-memory", "1"]).await;
    let (record, _) = run_with_state(&lightning, &worker, 2 * MB).await;
    assert_eq!(record.state, RunState::Success);
    assert_eq!(record.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    assert_eq!((record.final_dataclip_id, record.steps[0].output_dataclip_id.as_ref()), (None, None));
    worker.stop().await;
}

/// Takes no dataclip of more than a megabyte.
struct Small;

impl Hooks for Small {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let clip = message.payload.get("output_dataclip").map(|clip| clip.to_string()).unwrap_or_default();
        if clip.len() as u64 > MB {
            return HookVerdict::Refuse(serde_json::json!({ "output_dataclip": ["is too large"] }));
        }
        HookVerdict::GoOn
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_refused_goes_without() {
    let lightning = lightning::start(LightningOptions { hooks: Some(Arc::new(Small)), any_length: true }).await;
    let worker = Worker::start(&lightning, &ROOMY).await;
    let (record, _) = run_with_state(&lightning, &worker, 10 * MB).await;
    assert_eq!(record.state, RunState::Success);
    assert_eq!(record.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    worker.stop().await;
}

/// Is silent from the first line on.
struct Silent;

impl Hooks for Silent {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        if message.event == "run:log" { HookVerdict::Hang } else { HookVerdict::GoOn }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_a_silent_server_have_a_bound() {
    let lightning =
        lightning::start(LightningOptions { hooks: Some(Arc::new(Silent)), ..LightningOptions::default() }).await;
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    worker.printed("joined Lightning's queue").await;
    let before = tests::processes::forget_peak(worker.pid());
    // 200 MB of lines; 32 MB may wait.
    queue(
        &lightning,
        one_job("fn(s => { for (let i = 0; i < 400; i += 1) console.log('x'.repeat(500000)); return s; })"),
    );
    worker.printed("dropping some").await;
    worker.printed("a succeeded after").await;
    let rise = tests::processes::peak_memory(worker.pid()).saturating_sub(before);
    assert!(rise < 60 * MB, "{} MB", rise / MB);
}
