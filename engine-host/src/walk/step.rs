//! One step with code: from its input to what it leaves, and what the worker is told of it.

use std::future::Future;
use std::time::{Duration, Instant};

use protocol::Json;
use protocol::clock::now_us;
use protocol::run::{
    Exit, ExitReason, LogLevel, LogSource, RunEvent, StepCompleted, StepInput, StepMemory, StepOutput, StepStarted,
};

use super::{Left, Visit, Walk, engine_error};
use crate::engine::{Engine, JobCall, JobEnd, JobResult, Thrown};
use crate::log::{describe, duration};
use crate::state::{self, Ingredients};
use crate::workflow::{self, Job};
use crate::{errors, limits, webhook};

/// How a job ended.
enum JobOutcome {
    /// There is a result, of a success or of a failure that the run survives.
    Result { exit: Exit, state: Option<Json>, webhook_response: Option<Json> },
    /// The run ends with it.
    Dead { step: Exit, run: Exit, output: Json },
}

impl<E: Engine, F: Future<Output = Exit>> Walk<'_, '_, E, F> {
    /// Runs a step with code, from its start to its end, and finds where to go from there.
    pub(super) async fn run_step(&mut self, job: &Job, visit: Visit) -> Result<Left, Exit> {
        let workflow = self.workflow;
        let step = &workflow.plan.nodes[visit.place].step;
        let label = workflow::label(step);
        let index = self.steps_started;
        self.steps_started += 1;
        let started = StepStarted { index, step_id: step.id.clone(), input: visit.from, timestamp_us: now_us() };
        self.reporter.event(RunEvent::StepStarted(started)).await;
        self.reporter.log(LogSource::Runtime, LogLevel::Info, &format!("Starting step {label}")).await;

        let began = Instant::now();
        let mut ended = self.run_job(job, &visit).await;
        let took = began.elapsed();
        let memory = StepMemory {
            job: self.engine.peak_heap_bytes().unwrap_or(0),
            // The host adds its own.
            system: self.engine.take_peak_resident_bytes(),
        };

        let mut next = Vec::new();
        if let JobOutcome::Result { exit, state, .. } = &ended {
            self.log_end(label, exit, took).await;
            let state = state.clone().unwrap_or_else(Json::empty_object);
            match self.open_ways(visit.place, &state).await {
                Ok(places) => next = places,
                Err(exit) => ended = self.stopped(exit).await,
            }
        }
        let limit = self.options.log_payload_bytes;
        let completed = |exit, output, webhook_response| StepCompleted {
            index,
            step_id: step.id.clone(),
            exit: errors::capped(exit, limit),
            output,
            webhook_response,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            memory,
            timestamp_us: now_us(),
        };
        match ended {
            JobOutcome::Dead { step: exit, run, output } => {
                self.log_end(label, &exit, took).await;
                let output = limits::output(output, self.options);
                self.complete(completed(exit, output, None)).await?;
                Err(run)
            }
            JobOutcome::Result { exit, state, webhook_response } => {
                self.ends.step(visit.place, exit.clone());
                let output = self.output(state.as_ref()).await;
                let withheld = matches!(output, StepOutput::TooLarge(_));
                let webhook_response = self.webhook_response(webhook_response).await;
                self.complete(completed(exit, output, webhook_response)).await?;
                Ok(Left { state, from: StepInput::Step(index), next, index: Some(index), withheld })
            }
        }
    }

    /// Runs a step's code on the state made for it.
    async fn run_job(&mut self, job: &Job, visit: &Visit) -> JobOutcome {
        let step = &self.workflow.plan.nodes[visit.place].step;
        let initial = state::assemble(Ingredients {
            input: &visit.input,
            default: step.state.as_ref(),
            workflow_configuration: self.configuration.as_ref(),
            configuration: step.configuration.as_ref(),
        });
        let removed = &self.options.state_props_to_remove;
        if let Some(why) = &job.refused {
            let exit = Exit::error(ExitReason::Crash, "ImportError", why);
            self.log_exit(&exit).await;
            return JobOutcome::Dead { step: exit.clone(), run: exit, output: state::without(&initial, removed) };
        }
        let call = JobCall {
            step_id: step.id.clone(),
            code: job.compiled.code.clone(),
            adaptors: step.adaptors.clone(),
            globals: self.globals.clone(),
            meta: self.meta.clone(),
            state: initial.clone(),
            state_props_to_remove: removed.clone(),
            state_bytes: self.options.state_bytes,
        };
        let ended = match self.stop.or(self.engine.run_job(call)).await {
            Ok(ended) => ended,
            Err(exit) => {
                self.reporter.mute_engine();
                return self.stopped(exit).await;
            }
        };
        match ended {
            Err(lost) => self.stopped(errors::lost_exit(&lost)).await,
            Ok(JobEnd::Threw(mut thrown)) => {
                let now = thrown.state.take().and_then(|state| Json::parse(state).ok()).filter(Json::is_object);
                let state = now.unwrap_or_else(|| state::without(&initial, removed));
                self.judge(thrown, job, visit.place, &state).await
            }
            Ok(JobEnd::TooLarge) => self.stopped(limits::state_too_large(self.options)).await,
            Ok(JobEnd::Returned(JobResult { state, webhook_response })) => {
                match state.as_ref().and_then(|state| limits::state_exit(state.len(), self.options)) {
                    Some(exit) => self.stopped(exit).await,
                    None => {
                        let exit = self.exit_of(state.as_ref(), &step.id).await;
                        JobOutcome::Result { exit, state, webhook_response }
                    }
                }
            }
        }
    }

    /// How a step ends whose code returned `state`: a job may say itself that it failed.
    async fn exit_of(&mut self, state: Option<&Json>, step_id: &str) -> Exit {
        let Some((kind, message)) = state.and_then(|state| state::own_error(state, step_id)) else {
            return Exit::success();
        };
        let exit = Exit::error(ExitReason::Fail, kind, message);
        self.log_exit(&exit).await;
        exit
    }

    /// What becomes of a step that was ended from outside of its code.
    async fn stopped(&mut self, exit: Exit) -> JobOutcome {
        self.log_exit(&exit).await;
        JobOutcome::Dead { step: exit.clone(), run: exit, output: Json::empty_object() }
    }

    /// What becomes of a step whose code threw and left `state`.
    async fn judge(&mut self, thrown: Thrown, job: &Job, place: usize, state: &Json) -> JobOutcome {
        let step = &self.workflow.plan.nodes[place].step;
        let source = step.expression.as_deref().unwrap_or_default();
        let is_too_large = thrown.is_too_large;
        let failure =
            errors::classify(thrown, errors::Job { name: workflow::label(step), source, compiled: &job.compiled });
        for line in failure.log_lines() {
            self.reporter.log(LogSource::Runtime, LogLevel::Error, &line).await;
        }
        let exit = failure.step_exit();
        if failure.is_survivable() {
            let line = format!("The error is in state.errors.{}", step.id);
            self.reporter.log(LogSource::Runtime, LogLevel::Error, &line).await;
            let state = state::with_error(state, &step.id, &failure.to_raw());
            match limits::state_exit(state.len(), self.options) {
                _ if is_too_large => self.stopped(limits::state_too_large(self.options)).await,
                Some(exit) => self.stopped(exit).await,
                None => JobOutcome::Result { exit, state: Some(state), webhook_response: None },
            }
        } else {
            let output = if failure.has_state() { state.clone() } else { Json::empty_object() };
            JobOutcome::Dead { step: exit, run: failure.run_exit(), output }
        }
    }

    /// As much of a result as is sent.
    async fn output(&mut self, state: Option<&Json>) -> StepOutput {
        let dataclip = match state {
            None => {
                let line = "The step returned no state: what comes after it starts with an empty one";
                self.reporter.log(LogSource::Runtime, LogLevel::Warn, line).await;
                Json::empty_object()
            }
            Some(state) => {
                if !state.is_object() {
                    let line = "The step returned a value that is no object: Lightning gets it as {\"value\": …}";
                    self.reporter.log(LogSource::Runtime, LogLevel::Warn, line).await;
                }
                state::as_dataclip(state)
            }
        };
        let output = limits::output(dataclip, self.options);
        if let StepOutput::TooLarge(length) = output {
            let line = format!(
                "The step's dataclip is withheld: its {} MB exceed the payload limit of {} MB",
                limits::megabytes(length),
                limits::megabytes(self.options.payload_bytes)
            );
            self.reporter.log(LogSource::Runtime, LogLevel::Warn, &line).await;
        }
        output
    }

    async fn webhook_response(&mut self, response: Option<Json>) -> Option<Json> {
        let response = response.filter(|response| !response.is_null())?;
        if limits::is_over_payload(&response, self.options) {
            let line = "The step's webhookResponse is withheld: it exceeds the payload limit";
            self.reporter.log(LogSource::Runtime, LogLevel::Warn, line).await;
            return None;
        }
        if let Some(fault) = webhook::fault(&response) {
            let line =
                format!("The step's webhookResponse is malformed, so that Lightning cannot answer with it: {fault}");
            self.reporter.log(LogSource::Runtime, LogLevel::Warn, &line).await;
        }
        Some(response)
    }

    /// Reports a step's end. A worker that cannot take it for now does not keep the run from being stopped.
    async fn complete(&mut self, step: StepCompleted) -> Result<(), Exit> {
        let taken = self.reporter.completed(step);
        let taken = if self.stop.fired { taken.await } else { self.stop.or(taken).await? };
        taken.map_err(|not_taken| engine_error(&not_taken.to_string()))
    }

    async fn log_end(&mut self, label: &str, exit: &Exit, took: Duration) {
        let took = duration(took);
        let (level, line) = match exit.reason {
            ExitReason::Success => (LogLevel::Success, format!("{label} succeeded after {took}")),
            ExitReason::Fail => (LogLevel::Error, format!("{label} failed after {took}")),
            _ => (LogLevel::Error, format!("{label} ended the run after {took}")),
        };
        self.reporter.log(LogSource::Runtime, level, &line).await;
    }

    async fn log_exit(&mut self, exit: &Exit) {
        self.reporter.log(LogSource::Runtime, LogLevel::Error, &describe(exit)).await;
    }
}
