//! The timeline of a run: its phases and steps, with when they began.

mod history;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use base::metrics::{error_type, metrics};
use parking_lot::Mutex;
use protocol::clock::now_us;
use protocol::run::{Exit, ExitReason, RunSpec, StepCompleted, StepStarted, Usage};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use tokio::sync::broadcast;

use self::history::SharedView;
pub use self::history::{History, history};

/// Steps that a timeline keeps; the ones before the last so many are only counted.
const MOST_STEPS: usize = 100;
/// Changes that a slow listener may fall behind by.
const CHANGES: usize = 1024;

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    /// It is claimed; its plan, input, credentials and adaptors are fetched, and it waits for a host.
    #[default]
    Prepare,
    /// A host has it; the engine does not run it yet.
    Start,
    /// The engine runs it.
    Execute,
    /// It is over; what Lightning has not confirmed is on its way.
    Deliver,
    /// It is over and forgotten.
    Ended,
}

impl Phase {
    /// The word for labels.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A look at a run. Times are microseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// The run's id.
    pub run: String,
    /// The workloop that claimed it.
    pub workloop: String,
    /// The workflow whose run it is, where the plan tells.
    pub workflow: Option<String>,
    /// The host that executes it.
    pub host: Option<String>,
    /// What it is doing.
    pub phase: Phase,
    /// Its phases so far, each with when it began.
    pub phases: Vec<(Phase, u64)>,
    /// Its last steps.
    pub steps: Vec<StepView>,
    /// How many more there were before those.
    pub steps_left_out: usize,
    /// How it ended.
    pub reason: Option<&'static str>,
    /// The type of its error, from a fixed list.
    pub error_type: Option<&'static str>,
    /// Whether Lightning has everything.
    pub delivered: bool,
    /// What its host and engine have used; none if the host ended before it could tell.
    pub usage: Option<Usage>,
    /// What did not get to Lightning at once and as it was.
    pub delivery: Delivery,
}

impl RunView {
    /// A run that this workloop has just claimed.
    pub fn new(run: &str, workloop: &str, claimed_us: u64) -> Self {
        Self {
            run: run.to_owned(),
            workloop: workloop.to_owned(),
            phases: vec![(Phase::Prepare, claimed_us)],
            ..Self::default()
        }
    }
}

/// What of a run's events did not get to Lightning at once and as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Log lines that were dropped.
    pub lines_dropped: u64,
    /// Events that were sent again after a connection or channel was lost.
    pub events_resent: u64,
    /// Events that Lightning refused.
    pub events_refused: u64,
    /// Dataclips of steps, and final states, that Lightning did not get.
    pub states_withheld: u64,
}

/// A look at a step. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// Its place in the order of execution.
    pub index: u32,
    /// Its id in the workflow.
    pub step: String,
    /// What its author calls it.
    pub name: Option<String>,
    /// When it began.
    pub started_us: u64,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// How it ended.
    pub reason: Option<&'static str>,
    /// The type of its error, from a fixed list.
    pub error_type: Option<&'static str>,
    /// Peak memory of the engine's process, in bytes, where known.
    pub memory: Option<u64>,
}

/// Whether names that users gave are left out of all that is told of runs.
static NAMES_ARE_HIDDEN: AtomicBool = AtomicBool::new(false);

/// From now on steps are told by their ids alone: in the dashboard, `top`, `ctl history` and traces.
pub fn hide_names() {
    NAMES_ARE_HIDDEN.store(true, Ordering::Relaxed);
}

/// What happens to runs from now on: a look at a run whenever something about it changed. Who falls behind misses the
/// oldest.
pub fn subscribe() -> broadcast::Receiver<Arc<RunView>> {
    changes().subscribe()
}

fn changes() -> &'static broadcast::Sender<Arc<RunView>> {
    static CHANGES_OF_RUNS: LazyLock<broadcast::Sender<Arc<RunView>>> = LazyLock::new(|| broadcast::channel(CHANGES).0);
    &CHANGES_OF_RUNS
}

/// Follows one run, counts what it does and tells who watches. When it is dropped, the run has ended.
#[derive(Debug)]
pub struct Timeline {
    view: SharedView,
    names: HashMap<String, String>,
    /// Id of the step that is being executed.
    open_step: Option<String>,
    claimed: Instant,
    phase_began: Instant,
    unconfirmed: usize,
}

impl Timeline {
    /// A run was claimed by this workloop.
    pub fn claimed(run: &str, workloop: &str) -> Self {
        metrics().run_claimed(workloop);
        let view = Arc::new(Mutex::new(RunView::new(run, workloop, now_us())));
        history().began(Arc::clone(&view));
        let now = Instant::now();
        let it = Self { view, names: HashMap::new(), open_step: None, claimed: now, phase_began: now, unconfirmed: 0 };
        tell(&it.view.lock());
        it
    }

    /// Everything is there, and this host gets the run.
    pub fn prepared(&mut self, host: &str, spec: &RunSpec) {
        {
            let mut view = self.view.lock();
            view.host = Some(host.to_owned());
            view.workflow = spec.meta.decode::<Meta>().ok().and_then(|meta| meta.workflow_id);
        }
        if !NAMES_ARE_HIDDEN.load(Ordering::Relaxed) {
            let named = spec.steps.iter().filter_map(|step| Some((step.id.clone(), step.name.clone()?)));
            self.names = named.collect();
        }
        self.enter(Phase::Start);
    }

    /// The engine runs it.
    pub fn started(&mut self) {
        self.enter(Phase::Execute);
    }

    /// A step began.
    pub fn step_started(&mut self, step: &StepStarted) {
        self.open_step = Some(step.step_id.clone());
        let mut view = self.view.lock();
        if view.steps.len() >= MOST_STEPS {
            view.steps.remove(0);
            view.steps_left_out += 1;
        }
        view.steps.push(StepView {
            index: step.index,
            step: step.step_id.clone(),
            name: self.names.get(&step.step_id).cloned(),
            started_us: step.timestamp_us,
            ended_us: None,
            reason: None,
            error_type: None,
            memory: None,
        });
        tell(&view);
    }

    /// A step ended.
    pub fn step_completed(&mut self, step: &StepCompleted) {
        self.open_step = None;
        let mut view = self.view.lock();
        if let Some(view) = view.steps.iter_mut().rfind(|view| view.index == step.index) {
            view.ended_us = Some(step.timestamp_us);
            view.memory = Some(step.memory.system).filter(|bytes| *bytes > 0);
            (view.reason, view.error_type) = told(&step.exit);
        }
        tell(&view);
    }

    /// Id of the step that is being executed.
    pub fn open_step(&self) -> Option<&str> {
        self.open_step.as_deref()
    }

    /// The run is over like this; the rest is delivery.
    pub fn finished(&mut self, exit: &Exit) {
        self.open_step = None;
        let mut view = self.view.lock();
        let (reason, error_type) = told(exit);
        for step in view.steps.iter_mut().filter(|step| step.ended_us.is_none()) {
            (step.ended_us, step.reason, step.error_type) = (Some(now_us()), reason, error_type);
        }
        (view.reason, view.error_type) = (reason, error_type);
        drop(view);
        self.enter(Phase::Deliver);
    }

    /// Lightning has not confirmed so many of its events.
    pub fn unconfirmed(&mut self, events: usize) {
        let change = events as i64 - self.unconfirmed as i64;
        self.unconfirmed = events;
        if change != 0 {
            metrics().outbox_events.inc_by(change);
        }
    }

    /// Its host and engine have used this.
    pub fn used(&mut self, usage: Usage) {
        self.view.lock().usage = Some(usage);
    }

    /// This is how delivery went.
    pub fn delivery(&mut self, delivery: Delivery) {
        self.view.lock().delivery = delivery;
    }

    /// Lightning has everything.
    pub fn delivered(&mut self) {
        self.view.lock().delivered = true;
    }

    fn enter(&mut self, phase: Phase) {
        let mut view = self.view.lock();
        if view.phase == phase {
            return;
        }
        metrics().run_phase(&view.run, view.phase.as_str(), self.phase_began.elapsed());
        self.phase_began = Instant::now();
        view.phase = phase;
        view.phases.push((phase, now_us()));
        tell(&view);
    }
}

/// What of `meta` is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    workflow_id: Option<String>,
}

/// Tells who watches.
fn tell(view: &RunView) {
    let changes = changes();
    if changes.receiver_count() > 0 {
        // Fails when the last listener has just gone.
        let _ = changes.send(Arc::new(view.clone()));
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.unconfirmed(0);
        self.enter(Phase::Ended);
        {
            let view = self.view.lock();
            let exit = view.reason.map(|reason| (reason, view.error_type.unwrap_or("")));
            metrics().run_ended(&view.run, exit, self.claimed.elapsed());
            if !view.delivered {
                metrics().runs_undelivered.inc();
            }
        }
        history().ended(&self.view);
    }
}

fn told(exit: &Exit) -> (Option<&'static str>, Option<&'static str>) {
    let error = Some(error_type(exit)).filter(|_| exit.reason != ExitReason::Success && exit.error.is_some());
    (Some(exit.reason.as_str()), error)
}

#[cfg(test)]
mod tests {
    use protocol::run::{StepInput, StepMemory, StepOutput};

    use super::*;

    fn start(index: u32) -> StepStarted {
        StepStarted { index, step_id: format!("s{index}"), input: StepInput::Run, timestamp_us: 10 + u64::from(index) }
    }

    fn completed(index: u32, exit: Exit) -> StepCompleted {
        StepCompleted {
            index,
            step_id: format!("s{index}"),
            exit,
            output: StepOutput::Unwanted,
            webhook_response: None,
            duration_ms: 1,
            memory: StepMemory { job: 1, system: 5 },
            timestamp_us: 100,
        }
    }

    #[test]
    fn phases_and_steps_are_told_in_order_and_errors_by_type_alone() {
        let mut changes = subscribe();
        let mut it = Timeline::claimed("timeline-1", "manual>*");
        it.started();
        it.step_started(&start(0));
        it.step_completed(&completed(0, Exit::error(ExitReason::Fail, "Amina", "has no date of birth")));
        it.step_started(&start(1));
        it.finished(&Exit::error(ExitReason::Crash, "ExitError", "code 1"));
        it.delivered();
        drop(it);
        let mut views = Vec::new();
        while let Ok(view) = changes.try_recv() {
            if view.run == "timeline-1" {
                views.push(view);
            }
        }
        let phases: Vec<Phase> = views.iter().map(|view| view.phase).collect();
        let execute = Phase::Execute;
        assert_eq!(phases, [Phase::Prepare, execute, execute, execute, execute, Phase::Deliver, Phase::Ended]);
        let last = views.last().unwrap();
        assert_eq!((last.reason, last.error_type, last.delivered), (Some("crash"), Some("ExitError"), true));
        assert_eq!((last.steps[0].reason, last.steps[0].error_type), (Some("fail"), Some("other")));
        assert_eq!(last.steps[1].reason, Some("crash"), "an open step ends with its run");
        assert!(!serde_json::to_string(&**last).unwrap().contains("Amina"));
    }

    #[test]
    fn a_long_run_keeps_its_last_steps() {
        let mut it = Timeline::claimed("timeline-2", "*");
        (0..250).for_each(|index| it.step_started(&start(index)));
        let view = it.view.lock();
        assert_eq!((view.steps.len(), view.steps_left_out, view.steps[0].index), (MOST_STEPS, 150, 150));
    }
}
