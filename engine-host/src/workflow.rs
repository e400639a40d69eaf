//! Makes a run's steps ready to be walked: compiles all jobs, then checks the plan. Pure, and of bounded time only
//! for sane sources: call it where it may take long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::run::{Exit, Step};

use crate::compile::{self, Adaptor, Compiled, Places};
use crate::engine::Exports;
use crate::errors;
use crate::plan::{Plan, PlanError};

/// A workflow that is ready to be walked.
#[derive(Debug)]
pub struct Workflow {
    /// Its steps and ways.
    pub plan: Plan,
    /// The compiled jobs, in the order of the plan's nodes; none for steps without code.
    pub jobs: Vec<Option<Job>>,
    /// What the compilation took.
    pub compile_time: Duration,
}

/// A compiled job.
#[derive(Debug)]
pub struct Job {
    /// What was made of the step's code.
    pub compiled: Compiled,
    /// Why the engine cannot run it, if one of its adaptors is not for this engine.
    pub refused: Option<String>,
}

/// A workflow that cannot be walked.
#[derive(Debug)]
pub enum Unready {
    /// A job does not compile: how the run ends, and where in the source it is.
    Compile(Exit, Vec<String>),
    /// The plan makes no sense.
    Plan(PlanError),
}

impl Unready {
    /// How the run ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Compile(exit, _) => exit.clone(),
            Self::Plan(error) => error.exit(),
        }
    }
}

impl Workflow {
    /// Compiles and checks `steps`; `exports` has what the engine says of each adaptor that they name.
    /// The engine knows the `places` of that in its code.
    pub fn prepare(
        steps: Vec<Step>,
        start: Option<&str>,
        exports: &HashMap<String, Exports>,
        places: Places,
    ) -> Result<Self, Unready> {
        let began = Instant::now();
        let jobs = steps.iter().map(|step| compile_step(step, exports, places)).collect::<Result<_, _>>()?;
        let compile_time = began.elapsed();
        let plan = Plan::check(steps, start).map_err(Unready::Plan)?;
        Ok(Self { plan, jobs, compile_time })
    }
}

/// What a step is called in messages.
pub fn label(step: &Step) -> &str {
    step.name.as_deref().unwrap_or(&step.id)
}

/// A step's code; an empty text is none.
pub fn code(step: &Step) -> Option<&str> {
    step.expression.as_deref().filter(|code| !code.is_empty())
}

/// An adaptor's name and version, as in `@openfn/language-http@7.2.0`.
pub fn name_and_version(adaptor: &str) -> (&str, Option<&str>) {
    match adaptor.rfind('@') {
        Some(at) if at > 0 => (&adaptor[..at], Some(&adaptor[at + 1..])),
        _ => (adaptor, None),
    }
}

fn compile_step(step: &Step, exports: &HashMap<String, Exports>, places: Places) -> Result<Option<Job>, Unready> {
    let Some(source) = code(step) else { return Ok(None) };
    let mut refused = None;
    let adaptors: Vec<Adaptor<'_>> = step
        .adaptors
        .iter()
        .map(|adaptor| Adaptor {
            specifier: name_and_version(adaptor).0,
            exports: match exports.get(adaptor) {
                Some(Exports::Known(names)) => Some(names.as_slice()),
                Some(Exports::Refused(why)) => {
                    refused.get_or_insert_with(|| why.clone());
                    None
                }
                Some(Exports::Unknown) | None => None,
            },
        })
        .collect();
    let compiled = compile::compile_for(source, &adaptors, places).map_err(|error| {
        let lines = errors::compile_log_lines(source, &error);
        Unready::Compile(errors::compile_exit(label(step), &error), lines)
    })?;
    Ok(Some(Job { compiled, refused }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptors_have_a_name_and_maybe_a_version() {
        for (adaptor, name, version) in [
            ("@openfn/language-http@7.2.0", "@openfn/language-http", Some("7.2.0")),
            ("@openfn/language-http", "@openfn/language-http", None),
            ("common@latest", "common", Some("latest")),
            ("common", "common", None),
            ("", "", None),
        ] {
            assert_eq!(name_and_version(adaptor), (name, version));
        }
    }
}
