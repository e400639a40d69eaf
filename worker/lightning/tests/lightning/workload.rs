//! Runs by chance, with what they must look like on the server.

use std::time::Duration;

use base::execution::{RunEnd, RunSignal};
use mock_lightning::RunState;
use protocol::run::{Exit, ExitReason, StepInput, StepOutput};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fake::{Host, json};

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How a step goes.
#[derive(Debug, Clone)]
pub(crate) struct StepScript {
    pub(crate) lines: u64,
    pub(crate) output: Output,
    pub(crate) failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Output {
    State { bytes: usize },
    TooLarge,
}

impl Output {
    /// So long that it is on its way for a while.
    pub(crate) const LARGE: Self = Self::State { bytes: 1_200_000 };
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    Finished(ExitReason),
    /// Its host dies, within a step that is open.
    HostDies,
}

/// How a run goes.
#[derive(Debug, Clone)]
pub(crate) struct RunScript {
    pub(crate) steps: Vec<StepScript>,
    pub(crate) end: End,
    /// The longest pause between two events.
    pub(crate) pause: Duration,
    chance: Chance,
}

impl RunScript {
    pub(crate) fn draw(chance: &mut Chance, large_states: bool) -> Self {
        let steps = (0..chance.below(5)).map(|_| StepScript {
            lines: if chance.one_in(10) { chance.below(150) } else { chance.below(8) },
            output: match chance.below(12) {
                0 => Output::TooLarge,
                1 if large_states => Output::LARGE,
                _ => Output::State { bytes: 10 },
            },
            failed: chance.one_in(6),
        });
        let steps: Vec<_> = steps.collect();
        let end = match chance.below(8) {
            0 => End::HostDies,
            1 => End::Finished(ExitReason::Crash),
            2 => End::Finished(ExitReason::Kill),
            3 => End::Finished(ExitReason::Fail),
            _ => End::Finished(ExitReason::Success),
        };
        let pause = [Duration::ZERO, Duration::from_millis(20), Duration::from_secs(2)][chance.below(3) as usize];
        Self { steps, end, pause, chance: Chance::new(chance.next()) }
    }

    async fn rest(&self, chance: &mut Chance) {
        if !self.pause.is_zero() && chance.one_in(3) {
            sleep(self.pause.mul_f64(chance.below(100) as f64 / 100.0)).await;
        }
    }

    /// Does on a host what the script says.
    pub(crate) async fn play(self, host: Host) {
        let mut chance = self.chance.clone();
        let mut line = 0;
        host.run_started().await;
        for (index, step) in (0..).zip(&self.steps) {
            self.rest(&mut chance).await;
            let input = u32::checked_sub(index, 1).map_or(StepInput::Run, StepInput::Step);
            host.step_started(index, "a", input).await;
            for _ in 0..step.lines {
                self.rest(&mut chance).await;
                host.log(json!([line])).await;
                line += 1;
            }
            let output = match step.output {
                Output::State { .. } => StepOutput::State(json(state_of(index, step))),
                Output::TooLarge => StepOutput::TooLarge(99_000_000),
            };
            let exit = match step.failed {
                true => Exit::error(ExitReason::Fail, "JobError", "no"),
                false => Exit::success(),
            };
            host.step_ended(index, "a", output, exit).await;
        }
        match self.end {
            End::Finished(reason) => {
                let last = self.steps.len().checked_sub(1);
                let state = last.map(|at| state_of(at as u32, &self.steps[at]));
                host.finish(exit_of(reason), state, last.map(|at| at as u32)).await;
            }
            End::HostDies => {
                let index = self.steps.len() as u32;
                host.step_started(index, "a", StepInput::Run).await;
                host.send(RunSignal::Ended(RunEnd::Lost(exit_of(ExitReason::Crash)))).await;
            }
        }
    }

    /// Messages of the `JOB` lines.
    pub(crate) fn lines(&self) -> Vec<Value> {
        (0..self.steps.iter().map(|step| step.lines).sum()).map(|line| json!([line])).collect()
    }

    /// Reasons of the steps.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<_> = self.steps.iter().map(|step| if step.failed { "fail" } else { "success" }).collect();
        if self.end == End::HostDies {
            reasons.push("crash");
        }
        reasons
    }

    pub(crate) fn reason(&self) -> ExitReason {
        match self.end {
            End::Finished(reason) => reason,
            End::HostDies => ExitReason::Crash,
        }
    }

    pub(crate) fn state(&self) -> RunState {
        match self.reason() {
            ExitReason::Success => RunState::Success,
            ExitReason::Fail => RunState::Failed,
            ExitReason::Crash => RunState::Crashed,
            ExitReason::Kill => RunState::Killed,
            ExitReason::Cancel => RunState::Cancelled,
            ExitReason::Exception => RunState::Exception,
        }
    }

    /// The final state, as far as it is sent.
    pub(crate) fn final_state(&self) -> Option<Value> {
        let at = self.steps.len().checked_sub(1).filter(|_| self.end != End::HostDies)?;
        Some(state_of(at as u32, &self.steps[at]))
    }
}

/// The state that a step leaves.
pub(crate) fn state_of(index: u32, step: &StepScript) -> Value {
    match step.output {
        Output::State { bytes } => json!({"n": index, "x": "y".repeat(bytes)}),
        Output::TooLarge => json!({"data": "[REDACTED]"}),
    }
}

fn exit_of(reason: ExitReason) -> Exit {
    match reason {
        ExitReason::Success => Exit::success(),
        reason => Exit::error(reason, "SomeError", "it happened"),
    }
}
