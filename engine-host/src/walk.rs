//! The walk over a workflow: one step at a time, breadth first, from a queue.
//!
//! Decides what runs next and with what state, for every engine alike. It owns the order of what is reported and
//! never touches the link, the process or JavaScript. It ends when nothing is left to do, when an error ends the run,
//! or when it is stopped, whether or not the engine notices.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use protocol::Json;
use protocol::run::{
    Condition, Exit, ExitReason, LogLevel, LogSource, RunEvent, RunOptions, RunOutcome, RunSpec, StepCompleted,
    StepIndex, StepInput, StepMemory, StepOutput, StepStarted, Versions,
};

use crate::engine::{ConditionCall, ConditionEnd, Engine, Exports, JobCall, JobEnd, JobResult, Thrown};
use crate::outcome::{Ends, Leaf};
use crate::plan::Way;
use crate::report::Reporter;
use crate::state::{self, Ingredients};
use crate::workflow::{self, Job, Unready, Workflow};
use crate::{errors, limits};

/// Executes a workflow. `stop` ends it at once, with the exit that it resolves to.
pub async fn walk<E: Engine>(
    spec: RunSpec,
    engine: &mut E,
    reporter: &Reporter,
    stop: impl Future<Output = Exit>,
) -> RunOutcome {
    let mut stop = Stop { signal: pin!(stop), fired: false };
    match run(spec, engine, reporter, &mut stop).await {
        Ok(outcome) => outcome,
        Err(exit) => RunOutcome { exit, final_state: None, final_step: None },
    }
}

async fn run<E: Engine, F: Future<Output = Exit>>(
    spec: RunSpec,
    engine: &mut E,
    reporter: &Reporter,
    stop: &mut Stop<'_, F>,
) -> Result<RunOutcome, Exit> {
    let RunSpec { run_id: _, steps, start, input, globals, configuration, options } = spec;
    reporter.event(RunEvent::Started(versions(engine, &steps))).await;

    let exports = known_exports(engine, &steps);
    let compiling = tokio::task::spawn_blocking(move || Workflow::prepare(steps, start.as_deref(), &exports));
    let prepared = stop.or(compiling).await?;
    let prepared = prepared.map_err(|panic| engine_error(&format!("the compiler failed: {panic}")))?;
    let workflow = match prepared {
        Ok(workflow) => workflow,
        Err(unready) => return Err(report_unready(unready, reporter).await),
    };
    let compiled = match workflow.jobs.iter().flatten().count() {
        1 => "Compiled 1 job".to_owned(),
        count => format!("Compiled {count} jobs"),
    };
    let line = format!("{compiled} in {}", duration(workflow.compile_time));
    reporter.log(LogSource::Compiler, LogLevel::Info, &line).await;

    let mut walk = Walk {
        workflow: &workflow,
        globals,
        configuration,
        options: &options,
        engine,
        reporter,
        stop,
        steps_started: 0,
        visits: HashMap::new(),
        ends: Ends::default(),
    };
    let input = if input.is_null() { Json::empty_object() } else { input };
    walk.walk_from(workflow.plan.start, input).await?;
    Ok(walk.ends.outcome(&workflow.plan, &options))
}

/// Writes why a workflow cannot be walked into the run's log. Returns how the run ends.
async fn report_unready(unready: Unready, reporter: &Reporter) -> Exit {
    let exit = unready.exit();
    if let Unready::Compile(..) = &unready {
        reporter.log(LogSource::Engine, LogLevel::Info, "Error occurred during compilation").await;
    }
    reporter.log(LogSource::Runtime, LogLevel::Error, &describe(&exit)).await;
    if let Unready::Compile(_, lines) = unready {
        for line in lines {
            reporter.log(LogSource::Runtime, LogLevel::Error, &line).await;
        }
    }
    exit
}

/// A walk under way.
struct Walk<'a, 's, E, F> {
    workflow: &'a Workflow,
    globals: Option<String>,
    configuration: Option<Json>,
    options: &'a RunOptions,
    engine: &'a mut E,
    reporter: &'a Reporter,
    stop: &'a mut Stop<'s, F>,
    steps_started: StepIndex,
    /// How often each step was visited.
    visits: HashMap<usize, usize>,
    ends: Ends,
}

/// A step in the queue.
struct Visit {
    place: usize,
    input: Json,
    from: StepInput,
}

/// What a step leaves to those after it.
struct Left {
    /// None if it is undefined.
    state: Option<Json>,
    from: StepInput,
    next: Vec<usize>,
    /// Its place in the order of execution; none if it has no code.
    index: Option<StepIndex>,
    /// Whether its dataclip was too large to be sent.
    withheld: bool,
}

/// How a job ended.
enum JobOutcome {
    /// There is a result, of a success or of a failure that the run survives.
    Result { exit: Exit, state: Option<Json>, webhook_response: Option<Json> },
    /// The run ends with it.
    Dead { step: Exit, run: Exit, output: Json },
}

impl<E: Engine, F: Future<Output = Exit>> Walk<'_, '_, E, F> {
    async fn walk_from(&mut self, start: usize, input: Json) -> Result<(), Exit> {
        let mut queue = VecDeque::from([Visit { place: start, input, from: StepInput::Run }]);
        while let Some(visit) = queue.pop_front() {
            let place = visit.place;
            let name = self.visit_name(place);
            let left = match &self.workflow.jobs[place] {
                Some(job) => self.run_step(job, visit).await?,
                None => self.pass_on(visit).await?,
            };
            if left.next.is_empty() {
                self.ends.leaf(Leaf { name, state: left.state, index: left.index, withheld: left.withheld });
                continue;
            }
            let state = left.state.unwrap_or_else(Json::empty_object);
            queue.extend(left.next.into_iter().map(|place| Visit { place, input: state.clone(), from: left.from }));
        }
        Ok(())
    }

    /// The step's id, with a number from its second visit on.
    fn visit_name(&mut self, place: usize) -> String {
        let id = &self.workflow.plan.nodes[place].step.id;
        let visits = self.visits.entry(place).or_default();
        let name = if *visits == 0 { id.clone() } else { format!("{id}-{visits}") };
        *visits += 1;
        name
    }

    /// A step without code: what comes in goes out.
    async fn pass_on(&mut self, visit: Visit) -> Result<Left, Exit> {
        let next = self.open_ways(visit.place, &visit.input).await?;
        Ok(Left { state: Some(visit.input), from: visit.from, next, index: None, withheld: false })
    }

    async fn run_step(&mut self, job: &Job, visit: Visit) -> Result<Left, Exit> {
        let workflow = self.workflow;
        let step = &workflow.plan.nodes[visit.place].step;
        let label = workflow::label(step);
        let index = self.steps_started;
        self.steps_started += 1;
        let started = StepStarted { index, step_id: step.id.clone(), input: visit.from };
        self.reporter.event(RunEvent::StepStarted(started)).await;
        self.reporter.log(LogSource::Runtime, LogLevel::Info, &format!("Starting step {label}")).await;

        let began = Instant::now();
        let mut ended = self.run_job(job, &visit).await;
        let took = began.elapsed();
        let peak_heap_bytes = self.engine.peak_heap_bytes().unwrap_or(0);

        let mut next = Vec::new();
        if let JobOutcome::Result { exit, state, .. } = &ended {
            self.log_end(label, exit, took).await;
            let state = state.clone().unwrap_or_else(Json::empty_object);
            match self.open_ways(visit.place, &state).await {
                Ok(places) => next = places,
                Err(exit) => ended = self.stopped(exit).await,
            }
        }
        let completed = |exit, output, webhook_response| StepCompleted {
            index,
            step_id: step.id.clone(),
            exit,
            output,
            webhook_response,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            memory: StepMemory { job: peak_heap_bytes, system: 0 },
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
            return JobOutcome::Dead { step: exit.clone(), run: exit, output: cleaned(&initial, removed) };
        }
        let call = JobCall {
            step_id: step.id.clone(),
            code: job.compiled.code.clone(),
            adaptors: step.adaptors.clone(),
            globals: self.globals.clone(),
            state: initial.clone(),
            state_props_to_remove: removed.clone(),
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
                let state = now.unwrap_or_else(|| cleaned(&initial, removed));
                self.judge(thrown, job, visit.place, &state).await
            }
            Ok(JobEnd::Returned(JobResult { state, webhook_response })) => {
                match state.as_ref().and_then(|state| limits::state_exit(state.len(), self.options)) {
                    Some(exit) => self.stopped(exit).await,
                    None => JobOutcome::Result { exit: Exit::success(), state, webhook_response },
                }
            }
        }
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
                Some(exit) => self.stopped(exit).await,
                None => JobOutcome::Result { exit, state: Some(state), webhook_response: None },
            }
        } else {
            let output = if failure.has_state() { state.clone() } else { Json::empty_object() };
            JobOutcome::Dead { step: exit, run: failure.run_exit(), output }
        }
    }

    /// Where to go from a step that left `state`.
    async fn open_ways(&mut self, place: usize, state: &Json) -> Result<Vec<usize>, Exit> {
        let workflow = self.workflow;
        let node = &workflow.plan.nodes[place];
        let mut failed = None;
        let mut open = Vec::new();
        for way in &node.ways {
            let mut has_error = || *failed.get_or_insert_with(|| state::has_error(state, &node.step.id));
            let is_open = match &way.condition {
                Condition::Always => true,
                Condition::Never => false,
                Condition::OnSuccess => !has_error(),
                Condition::OnFailure => has_error(),
                Condition::Expression(expression) => self.test(expression, &node.step.id, state).await?,
            };
            if is_open {
                open.push(way.target);
            } else {
                self.log_closed(&node.step.id, way).await;
            }
        }
        Ok(open)
    }

    async fn test(&mut self, expression: &str, step_id: &str, state: &Json) -> Result<bool, Exit> {
        let call = ConditionCall {
            expression: expression.to_owned(),
            state: state.clone(),
            upstream_step_id: step_id.to_owned(),
        };
        let ended = self.stop.or(self.engine.test(call)).await.inspect_err(|_| self.reporter.mute_engine())?;
        match ended {
            Ok(ConditionEnd::Value(value)) => Ok(value),
            Ok(ConditionEnd::Threw(thrown)) => {
                let line = format!("The condition \"{expression}\" after the step {step_id} cannot be evaluated");
                self.reporter.log(LogSource::Runtime, LogLevel::Error, &line).await;
                Err(errors::condition_exit(&thrown))
            }
            Err(lost) => Err(errors::lost_exit(&lost)),
        }
    }

    /// As much of a result as is sent.
    async fn output(&mut self, state: Option<&Json>) -> StepOutput {
        let dataclip = match state {
            None => Json::empty_object(),
            Some(state) => {
                if !state.is_object() {
                    let line = "The step returned a value that is no object: it is kept as the data of its dataclip";
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
        let response = response?;
        if limits::is_over_payload(&response, self.options) {
            let line = "The step's webhookResponse is withheld: it exceeds the payload limit";
            self.reporter.log(LogSource::Runtime, LogLevel::Warn, line).await;
            return None;
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

    async fn log_closed(&mut self, from: &str, way: &Way) {
        let to = &self.workflow.plan.nodes[way.target].step.id;
        let line = format!("The edge {from}->{to} is not taken");
        self.reporter.log(LogSource::Runtime, LogLevel::Debug, &line).await;
    }
}

/// What ends a walk early.
struct Stop<'s, F> {
    signal: Pin<&'s mut F>,
    fired: bool,
}

impl<F: Future<Output = Exit>> Stop<'_, F> {
    /// Waits for `work`, or gives it up when the signal comes first.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Exit> {
        tokio::select! {
            biased;
            exit = self.signal.as_mut() => {
                self.fired = true;
                Err(exit)
            }
            done = work => Ok(done),
        }
    }
}

fn cleaned(initial: &Json, removed: &[String]) -> Json {
    state::without(initial, removed)
}

fn known_exports<E: Engine>(engine: &E, steps: &[protocol::run::Step]) -> HashMap<String, Exports> {
    let adaptors = steps.iter().filter(|step| workflow::code(step).is_some()).flat_map(|step| &step.adaptors);
    adaptors.map(|adaptor| (adaptor.clone(), engine.exports(adaptor))).collect()
}

fn versions<E: Engine>(engine: &E, steps: &[protocol::run::Step]) -> Versions {
    let mut adaptors: Vec<(String, Vec<String>)> = Vec::new();
    for adaptor in steps.iter().flat_map(|step| &step.adaptors) {
        let (name, version) = workflow::name_and_version(adaptor);
        let version = version.unwrap_or("latest");
        match adaptors.iter_mut().find(|(known, _)| known == name) {
            Some((_, versions)) if versions.iter().any(|known| known == version) => {}
            Some((_, versions)) => versions.push(version.to_owned()),
            None => adaptors.push((name.to_owned(), vec![version.to_owned()])),
        }
    }
    Versions { engine: engine.version(), adaptors }
}

fn engine_error(message: &str) -> Exit {
    Exit::error(ExitReason::Exception, "EngineError", message)
}

fn describe(exit: &Exit) -> String {
    match &exit.error {
        Some(error) => format!("{}: {}", error.kind, error.message),
        None => exit.reason.as_str().to_owned(),
    }
}

fn duration(took: Duration) -> String {
    match took.as_millis() {
        short @ 0..10_000 => format!("{short} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests;
