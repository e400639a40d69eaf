//! The walk over a workflow: one step at a time, breadth first, from a queue.
//!
//! Decides what runs next and with what state, for every engine alike. It owns the order of what is reported and
//! never touches the link, the process or JavaScript. It ends when nothing is left to do, when an error ends the run,
//! or when it is stopped, whether or not the engine notices.

mod step;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};

use protocol::Json;
use protocol::run::{
    Condition, Exit, ExitReason, LogLevel, LogSource, RunEvent, RunOptions, RunOutcome, RunSpec, Step, StepIndex,
    StepInput, Versions,
};

use crate::engine::{ConditionCall, ConditionEnd, Engine, Exports};
use crate::log::{describe, duration};
use crate::outcome::{Ends, Leaf};
use crate::plan::Way;
use crate::report::Reporter;
use crate::workflow::{self, Unready, Workflow};
use crate::{compile, errors, state};

/// The adaptor of jobs that name none, where the engine has it at hand.
const DEFAULT_ADAPTOR: &str = "@openfn/language-common";

/// Executes a workflow. `stop` ends it at once, with the exit that it resolves to.
pub async fn walk<E: Engine>(
    spec: RunSpec,
    engine: &mut E,
    reporter: &Reporter,
    stop: impl Future<Output = Exit>,
) -> RunOutcome {
    let mut stop = Stop { signal: pin!(stop), fired: false };
    let limit = spec.options.log_payload_bytes;
    let outcome = run(spec, engine, reporter, &mut stop).await;
    let outcome = outcome.unwrap_or_else(|exit| RunOutcome { exit, final_state: None, final_step: None });
    RunOutcome { exit: errors::capped(outcome.exit, limit), ..outcome }
}

async fn run<E: Engine, F: Future<Output = Exit>>(
    spec: RunSpec,
    engine: &mut E,
    reporter: &Reporter,
    stop: &mut Stop<'_, F>,
) -> Result<RunOutcome, Exit> {
    let RunSpec { run_id: _, mut steps, start, input, globals, meta, configuration, engine: _, options } = spec;
    reporter.event(RunEvent::Started(versions(engine, &steps))).await;

    add_default_adaptor(engine, &mut steps);
    let exports = known_exports(engine, &steps);
    let places = engine.places();
    let compiling = tokio::task::spawn_blocking(move || {
        let globals = globals.map(|source| compile::compile_globals(&source, places));
        (globals, Workflow::prepare(steps, start.as_deref(), &exports, places))
    });
    let compiled = stop.or(compiling).await?;
    let (globals, prepared) = compiled.map_err(|panic| engine_error(&format!("the compiler failed: {panic}")))?;
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
        meta,
        configuration,
        options: &options,
        engine,
        reporter,
        stop,
        steps_started: 0,
        visits: vec![0; workflow.plan.nodes.len()],
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
    meta: Json,
    configuration: Option<Json>,
    options: &'a RunOptions,
    engine: &'a mut E,
    reporter: &'a Reporter,
    stop: &'a mut Stop<'s, F>,
    steps_started: StepIndex,
    /// How often each node was visited.
    visits: Vec<usize>,
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
        let visits = &mut self.visits[place];
        let name = if *visits == 0 { id.clone() } else { format!("{id}-{visits}") };
        *visits += 1;
        name
    }

    /// A step without code: what comes in goes out.
    async fn pass_on(&mut self, visit: Visit) -> Result<Left, Exit> {
        let next = self.open_ways(visit.place, &visit.input).await?;
        Ok(Left { state: Some(visit.input), from: visit.from, next, index: None, withheld: false })
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
            expression: compile::condition(expression).to_owned(),
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

fn add_default_adaptor<E: Engine>(engine: &E, steps: &mut [Step]) {
    if let Exports::Known(_) = engine.exports(DEFAULT_ADAPTOR) {
        for step in steps.iter_mut().filter(|step| step.adaptors.is_empty()) {
            step.adaptors.push(DEFAULT_ADAPTOR.to_owned());
        }
    }
}

fn known_exports<E: Engine>(engine: &E, steps: &[Step]) -> HashMap<String, Exports> {
    let adaptors = steps.iter().filter(|step| workflow::code(step).is_some()).flat_map(|step| &step.adaptors);
    adaptors.map(|adaptor| (adaptor.clone(), engine.exports(adaptor))).collect()
}

fn versions<E: Engine>(engine: &E, steps: &[Step]) -> Versions {
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

#[cfg(test)]
mod tests;
