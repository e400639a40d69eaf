//! The runs that are under way, and the last ones that ended, for whoever asks later. Never users' data.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, MutexGuard};

use super::{Phase, RunView};

/// Runs that are remembered after their end.
const MOST_RUNS: usize = 1_000;
/// Steps of all of those together. The oldest runs lose theirs first, and only count them.
const MOST_STEPS: usize = 20_000;

/// A run that somebody follows and anybody may look at.
pub(super) type SharedView = Arc<Mutex<RunView>>;

/// What is known of runs.
#[derive(Debug, Default)]
pub struct History {
    live: Vec<SharedView>,
    /// The newest last.
    ended: VecDeque<RunView>,
    /// Steps of those that ended.
    steps: usize,
}

/// The history of this process's runs.
pub fn history() -> MutexGuard<'static, History> {
    static HISTORY: LazyLock<Mutex<History>> = LazyLock::new(Mutex::default);
    HISTORY.lock()
}

impl History {
    /// A run began.
    pub(super) fn began(&mut self, view: SharedView) {
        self.live.push(view);
    }

    /// A run ended.
    pub(super) fn ended(&mut self, view: &SharedView) {
        self.live.retain(|other| !Arc::ptr_eq(other, view));
        self.remember(view.lock().clone());
    }

    fn remember(&mut self, view: RunView) {
        self.steps += view.steps.len();
        self.ended.push_back(view);
        while self.ended.len() > MOST_RUNS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.steps -= oldest.steps.len();
        }
        for view in &mut self.ended {
            if self.steps <= MOST_STEPS {
                break;
            }
            self.steps -= view.steps.len();
            view.steps_left_out += view.steps.len();
            view.steps = Vec::new();
        }
    }

    /// The runs that are under way, the oldest first.
    pub fn live(&self) -> Vec<RunView> {
        self.live.iter().map(|view| view.lock().clone()).collect()
    }

    /// The last runs that ended, at most so many, the newest first.
    pub fn last(&self, most: usize) -> impl Iterator<Item = &RunView> {
        self.ended.iter().rev().take(most)
    }

    /// All runs whose ids begin so: those under way first, then the newest.
    pub fn find(&self, prefix: &str) -> Vec<RunView> {
        let live = self.live().into_iter().filter(|view| view.run.starts_with(prefix));
        let ended = self.ended.iter().rev().filter(|view| view.run.starts_with(prefix)).cloned();
        live.chain(ended).collect()
    }
}

impl RunView {
    /// When it was claimed, in microseconds since the epoch.
    pub fn claimed_us(&self) -> u64 {
        self.phases.first().map_or(0, |(_, since)| *since)
    }

    /// How long each phase took that is over, in microseconds.
    pub fn durations(&self) -> impl Iterator<Item = (Phase, u64)> {
        self.phases.windows(2).map(|pair| (pair[0].0, pair[1].1.saturating_sub(pair[0].1)))
    }

    /// The most memory that is known of, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        let steps = self.steps.iter().filter_map(|step| step.memory);
        steps.chain(self.usage.map(|usage| usage.peak_bytes)).max()
    }
}

#[cfg(test)]
mod tests {
    use protocol::run::Usage;

    use super::super::StepView;
    use super::*;

    fn run(id: &str, host: &str, steps: usize) -> RunView {
        let step = |index| StepView {
            index,
            step: "s".into(),
            name: None,
            started_us: 1,
            ended_us: Some(2),
            reason: Some("success"),
            error_type: None,
            memory: Some(u64::from(index)),
        };
        RunView {
            host: Some(host.into()),
            phases: vec![(Phase::Prepare, 10), (Phase::Execute, 15), (Phase::Ended, 40)],
            steps: (0..u32::try_from(steps).unwrap()).map(step).collect(),
            ..RunView::new(id, "*", 10)
        }
    }

    #[test]
    fn the_last_runs_are_kept_and_of_old_ones_no_steps() {
        let mut it = History::default();
        for index in 0..MOST_RUNS + 5 {
            it.remember(run(&format!("r{index}"), "h", 100));
        }
        assert_eq!(it.last(usize::MAX).count(), MOST_RUNS);
        assert_eq!(it.last(1).next().unwrap().run, format!("r{}", MOST_RUNS + 4));
        let kept: usize = it.last(usize::MAX).map(|view| view.steps.len()).sum();
        assert_eq!((kept, it.steps), (MOST_STEPS, MOST_STEPS));
        let oldest = it.last(usize::MAX).last().unwrap();
        assert_eq!((oldest.steps.len(), oldest.steps_left_out), (0, 100));
    }

    #[test]
    fn runs_are_found_by_how_their_ids_begin_whether_they_ended_or_not() {
        let mut it = History::default();
        let live = Arc::new(Mutex::new(run("abc", "h1", 1)));
        it.began(Arc::clone(&live));
        it.remember(run("abd", "h2", 3));
        it.remember(run("b", "h2", 3));
        let ids = |found: Vec<RunView>| found.into_iter().map(|view| view.run).collect::<Vec<_>>();
        assert_eq!(ids(it.find("ab")), ["abc", "abd"]);
        assert_eq!(ids(it.find("abd")), ["abd"]);
        assert_eq!(ids(it.live()), ["abc"]);
        it.ended(&live);
        assert!(it.live().is_empty());
        assert_eq!(ids(it.last(2).cloned().collect()), ["abc", "b"]);
    }

    #[test]
    fn a_run_has_durations_and_a_peak() {
        let mut it = run("a", "h", 3);
        assert_eq!(it.durations().collect::<Vec<_>>(), [(Phase::Prepare, 5), (Phase::Execute, 25)]);
        assert_eq!(it.peak_bytes(), Some(2));
        it.usage = Some(Usage { cpu_us: 7, peak_bytes: 1_000 });
        assert_eq!(it.peak_bytes(), Some(1_000));
    }
}
