//! What the dashboard remembers: the last runs, how many ended when and how long they took, and how hosts ended.
//!
//! Pure: what happened goes in, with the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use lightning::timeline::{Phase, RunView};

/// Runs that are remembered; those that go on are always.
const RUNS: usize = 200;
/// Ends of hosts that are remembered.
const EXITS: usize = 20;
/// Length of a bucket of the charts, in seconds.
const BUCKET_SECONDS: u64 = 5;
/// Buckets that are remembered: ten minutes.
const BUCKETS: usize = 120;
/// Durations that a bucket keeps; more would not change what it says.
const DURATIONS: usize = 500;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Board {
    runs: VecDeque<Arc<RunView>>,
    exits: VecDeque<HostExit>,
    buckets: VecDeque<Bucket>,
}

/// The end of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HostExit {
    pub(super) at_us: u64,
    pub(super) host: String,
    /// How it ended.
    pub(super) death: String,
    /// Whether the worker wanted it to.
    pub(super) is_wanted: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    /// The time that it is about, divided by its length.
    number: u64,
    reasons: BTreeMap<&'static str, u32>,
    durations_ms: Vec<u64>,
}

/// What happened in a few seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    /// Its beginning, in seconds since the epoch.
    at: u64,
    /// How many runs ended, by reason; `lost` are those whose end nobody knows.
    reasons: BTreeMap<&'static str, u32>,
    /// Time from claim to end that half of them took at most, in milliseconds.
    p50: Option<u64>,
    /// The same for 95 of 100.
    p95: Option<u64>,
}

impl Board {
    /// Something about a run changed.
    pub(super) fn run_changed(&mut self, run: Arc<RunView>, now_s: u64) {
        if run.phase == Phase::Ended {
            self.count(&run, now_s);
        }
        match self.runs.iter_mut().rfind(|known| known.run == run.run) {
            Some(known) => *known = run,
            None => self.runs.push_back(run),
        }
        let ended = self.runs.iter().position(|run| run.phase == Phase::Ended);
        if let Some(oldest) = ended.filter(|_| self.runs.len() > RUNS) {
            self.runs.remove(oldest);
        }
    }

    /// A host ended.
    pub(super) fn host_ended(&mut self, exit: HostExit) {
        if self.exits.len() == EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back(exit);
    }

    /// The last runs, oldest first.
    pub(super) fn runs(&self) -> Vec<Arc<RunView>> {
        self.runs.iter().cloned().collect()
    }

    /// The last ends of hosts, oldest first.
    pub(super) fn exits(&self) -> Vec<HostExit> {
        self.exits.iter().cloned().collect()
    }

    /// The charts' points up to now, oldest first; those in which nothing happened are left out.
    pub(super) fn points(&self, now_s: u64) -> Vec<Point> {
        let first = (now_s / BUCKET_SECONDS).saturating_sub(BUCKETS as u64);
        self.buckets.iter().filter(|bucket| bucket.number > first).map(Bucket::point).collect()
    }

    fn count(&mut self, run: &RunView, now_s: u64) {
        let number = now_s / BUCKET_SECONDS;
        if self.buckets.back().is_none_or(|bucket| bucket.number < number) {
            self.buckets.push_back(Bucket { number, ..Bucket::default() });
            if self.buckets.len() > BUCKETS {
                self.buckets.pop_front();
            }
        }
        let Some(bucket) = self.buckets.back_mut() else { return };
        *bucket.reasons.entry(run.reason.unwrap_or("lost")).or_default() += 1;
        let times = run.phases.first().zip(run.phases.last());
        if let Some(((_, claimed), (_, ended))) = times.filter(|_| bucket.durations_ms.len() < DURATIONS) {
            bucket.durations_ms.push(ended.saturating_sub(*claimed) / 1000);
        }
    }
}

impl Bucket {
    fn point(&self) -> Point {
        let mut sorted = self.durations_ms.clone();
        sorted.sort_unstable();
        let of_100 = |part: usize| sorted.get((sorted.len() * part).div_ceil(100).saturating_sub(1)).copied();
        let at = self.number * BUCKET_SECONDS;
        Point { at, reasons: self.reasons.clone(), p50: of_100(50), p95: of_100(95) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: usize, phase: Phase, ms: u64) -> Arc<RunView> {
        let reason = match id % 10 {
            _ if phase != Phase::Ended || id == 50 => None,
            0 => Some("fail"),
            7 => Some("kill"),
            _ => Some("success"),
        };
        Arc::new(RunView {
            phase,
            phases: vec![(Phase::Prepare, 0), (phase, ms * 1000)],
            reason,
            delivered: true,
            ..RunView::new(&format!("run-{id}"), "*", 0)
        })
    }

    #[test]
    fn runs_that_go_on_are_kept_and_the_oldest_that_ended_go() {
        let mut board = Board::default();
        board.run_changed(run(0, Phase::Execute, 1), 0);
        for id in 1..=500 {
            board.run_changed(run(id, Phase::Execute, 1), 0);
            board.run_changed(run(id, Phase::Ended, 2), 0);
        }
        let runs = board.runs();
        assert_eq!((runs.len(), runs[0].run.as_str()), (RUNS, "run-0"));
        assert_eq!(runs.last().unwrap().run, "run-500");
        assert_eq!(runs.last().unwrap().phase, Phase::Ended);
    }

    #[test]
    fn points_tell_how_many_ended_how_and_how_long_they_took() {
        let mut board = Board::default();
        for id in 1..=100 {
            board.run_changed(run(id, Phase::Ended, id as u64), 1000);
        }
        board.run_changed(run(101, Phase::Ended, 7), 1011);
        let points = board.points(1012);
        let reasons = [("fail", 9), ("kill", 10), ("lost", 1), ("success", 80)].into();
        let first = Point { at: 1000, reasons, p50: Some(50), p95: Some(95) };
        let second = Point { at: 1010, reasons: [("success", 1)].into(), p50: Some(7), p95: Some(7) };
        assert_eq!(points, [first, second]);
        assert!(board.points(1012 + 600).is_empty(), "old ones are not shown");
    }

    #[test]
    fn the_last_ends_of_hosts_are_kept() {
        let mut board = Board::default();
        for at_us in 0..100 {
            board.host_ended(HostExit { at_us, host: "h".into(), death: "crashed".into(), is_wanted: false });
        }
        assert_eq!(board.exits().iter().map(|exit| exit.at_us).collect::<Vec<_>>(), (80..100).collect::<Vec<_>>());
    }
}
