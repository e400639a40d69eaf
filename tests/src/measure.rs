//! What benchmarks of the whole program have in common: their options, what processes cost, and how figures are written.

use std::time::{Duration, Instant};

use mock_lightning::RunRecord;

use crate::processes;
use crate::worker::Worker;

/// How long a template may take.
const WARM: Duration = Duration::from_secs(60);

/// The options of the command line, each with its value.
pub fn options() -> impl Iterator<Item = (String, String)> {
    // Cargo itself passes that one.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    std::iter::from_fn(move || {
        let name = arguments.next()?;
        let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        Some((name, value))
    })
}

/// The number that an option has for its value.
pub fn number<T: std::str::FromStr>(name: &str, value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {value}"))
}

/// Waits until there are templates for engines of so many kinds.
pub async fn until_forked(worker: &Worker, kinds: usize) {
    let end = Instant::now() + WARM;
    while worker.output().matches("is forked from now on").count() < kinds {
        assert!(Instant::now() < end, "there is no template\n{}", worker.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From a run's claim to its end, by the double's clock.
pub fn claim_to_complete(record: &RunRecord) -> Duration {
    let claimed = record.claimed_at.expect("a finished run was claimed");
    let finished = record.finished_at.expect("a finished run has an end");
    Duration::from_micros(finished.saturating_sub(claimed))
}

/// The time in the middle, in milliseconds.
pub fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Processor time of the worker and of the hosts that it has waited for.
pub fn cpu(worker: u32) -> Duration {
    processes::process(worker).map_or(Duration::ZERO, |process| process.cpu)
}

/// Processor time of the worker, of all that lives below it, and of what those have waited for.
pub fn cpu_of_tree(worker: u32) -> Duration {
    let below: Duration = processes::descendants(worker).iter().map(|process| process.cpu).sum();
    cpu(worker) + below
}

/// Resident memory of a process, in bytes; 0 if there is none.
pub fn rss(pid: u32) -> u64 {
    processes::process(pid).map_or(0, |process| process.rss)
}

/// Bytes, for people.
pub fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1024.0 / 1024.0)
}
