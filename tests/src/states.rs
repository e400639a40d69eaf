//! Runs with a large state, and what they cost the worker.

use mock_lightning::{MockLightning, RunRecord};

use crate::lightning::{end, one_job, queue};
use crate::processes::{forget_peak, peak_memory};
use crate::worker::Worker;

/// Bytes of a megabyte.
pub const MB: u64 = 1024 * 1024;

/// Options with which a state of 100 MB is within all limits of the worker.
pub const ROOMY: [&str; 8] =
    ["--run-memory", "3000", "--payload-memory", "150", "--max-message-mb", "300", "--capacity", "1"];

/// Runs a job whose state is text of this size, and gives what the worker's memory rose by at most.
pub async fn run_with_state(lightning: &MockLightning, worker: &Worker, bytes: u64) -> (RunRecord, u64) {
    // Quotes and line breaks, as JSON in a state has, grow when the state becomes a string.
    let unit = "0123456789abcdef0123456789abcde\\n";
    let body = format!("fn(() => ({{ data: '{unit}'.repeat({}) }}))", bytes / 32);
    let before = forget_peak(worker.pid());
    let id = queue(lightning, one_job(&body));
    let record = end(lightning, worker, &id).await;
    (record, peak_memory(worker.pid()).saturating_sub(before))
}
