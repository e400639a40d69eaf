//! `--profile`: the peak memory of each step, as the worker sees it from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use tracing::field::display;

use hosts::{HostState, Hosts};
use lightning::timeline::{Phase, RunView};

/// Logs the peak memory of each step that ends from now on, measured every `pause`; for ever.
pub async fn profile_steps(hosts: Arc<Hosts>, pause: Duration, mut runs: broadcast::Receiver<Arc<RunView>>) {
    let mut ticks = interval(pause.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peaks = Peaks::default();
    loop {
        tokio::select! {
            run = runs.recv() => match run {
                Ok(run) => peaks.follow(&run).into_iter().for_each(|told| {
                    let Told { step, name, bytes } = told;
                    let (host, megabytes) = (run.host.as_ref().map(display), bytes / (1024 * 1024));
                    tracing::info!(run = %run.run, host, %step, name, megabytes, "peak memory of a step");
                }),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick(), if !peaks.open.is_empty() => {
                let Some(pool) = hosts.status().await else { return };
                let running = pool.hosts.iter().filter(|host| host.state == HostState::Running);
                running.for_each(|host| peaks.saw(&host.id, host.resident_bytes()));
            }
        }
    }
}

/// The most memory seen in steps that go on.
#[derive(Debug, Default)]
struct Peaks {
    /// By host: the place of the open step, and its peak in bytes.
    open: HashMap<String, (u32, u64)>,
}

/// The peak of a step that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    step: String,
    name: Option<String>,
    bytes: u64,
}

impl Peaks {
    fn saw(&mut self, host: &str, bytes: u64) {
        if let Some((_, peak)) = self.open.get_mut(host) {
            *peak = (*peak).max(bytes);
        }
    }

    /// Takes in what changed about a run. The engine's own measure counts, too: it sees what is between two looks.
    fn follow(&mut self, run: &RunView) -> Option<Told> {
        let host = run.host.as_ref()?;
        let last = run.steps.last().filter(|_| run.phase != Phase::Ended);
        let Some(step) = last else {
            self.open.remove(host);
            return None;
        };
        if step.ended_us.is_none() {
            let open = self.open.entry(host.clone()).or_insert((step.index, 0));
            if open.0 != step.index {
                *open = (step.index, 0);
            }
            return None;
        }
        let (_, seen) = self.open.remove(host).filter(|(index, _)| *index == step.index)?;
        let bytes = seen.max(step.memory.unwrap_or(0));
        Some(Told { step: step.step.clone(), name: step.name.clone(), bytes })
    }
}

#[cfg(test)]
mod tests {
    use lightning::timeline::{Timeline, subscribe};
    use protocol::run::{Exit, RunSpec, StepCompleted, StepInput, StepMemory, StepOutput, StepStarted};

    use super::*;

    fn spec() -> RunSpec {
        RunSpec {
            run_id: "profile-1".into(),
            steps: Vec::new(),
            start: None,
            input: protocol::Json::null(),
            globals: None,
            meta: protocol::Json::empty_object(),
            configuration: None,
            engine: protocol::engine::EngineSpec::Embedded,
            options: Default::default(),
        }
    }

    #[test]
    fn each_step_is_told_once_with_the_most_that_was_seen_in_it() {
        let mut changes = subscribe();
        let mut peaks = Peaks::default();
        let mut told = Vec::new();
        let mut timeline = Timeline::claimed("profile-1", "*");
        let mut take = |peaks: &mut Peaks| {
            while let Ok(view) = changes.try_recv() {
                told.extend(peaks.follow(&view).filter(|_| view.run == "profile-1"));
            }
        };
        timeline.prepared("profile-host", &spec());
        for (index, seen, own) in [(0, 70, 50), (1, 20, 90)] {
            let step_id = format!("s{index}");
            let started = StepStarted { index, step_id: step_id.clone(), input: StepInput::Run, timestamp_us: 1 };
            timeline.step_started(&started);
            take(&mut peaks);
            peaks.saw("profile-host", 10);
            peaks.saw("profile-host", seen);
            peaks.saw("another", 1000);
            timeline.step_completed(&StepCompleted {
                index,
                step_id,
                exit: Exit::success(),
                output: StepOutput::Unwanted,
                webhook_response: None,
                duration_ms: 1,
                memory: StepMemory { job: 0, system: own },
                timestamp_us: 2,
            });
            take(&mut peaks);
        }
        drop(timeline);
        take(&mut peaks);
        let told: Vec<_> = told.iter().map(|it| (it.step.as_str(), it.bytes)).collect();
        assert_eq!(told, [("s0", 70), ("s1", 90)]);
        assert!(peaks.open.is_empty());
    }
}
