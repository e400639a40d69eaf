//! What happens in a sandbox while it runs a job or a condition.

use std::time::Duration;

use protocol::Json;
use rquickjs::context::EvalOptions;
use rquickjs::function::IntoArgs;
use rquickjs::{Coerced, Ctx, Error, FromJs, Function, Module, Object, Promise, Value};

use super::sandbox::Evidence;
use crate::engine::{ConditionCall, ConditionEnd, EngineLost, JobCall, JobEnd, JobResult, Thrown, withheld};

/// Access to a sandbox's context and to the prelude in it.
pub(super) struct Session<'a, 'js> {
    pub(super) ctx: Ctx<'js>,
    pub(super) hooks: Object<'js>,
    pub(super) evidence: &'a Evidence,
}

/// Why a job or a condition goes no further.
enum Halt {
    Lost(EngineLost),
    Threw(Box<Thrown>),
}

impl From<EngineLost> for Halt {
    fn from(lost: EngineLost) -> Self {
        Self::Lost(lost)
    }
}

impl<'js> Session<'_, 'js> {
    /// Evaluates a job's module and runs its operations.
    pub(super) fn run_job(&self, job: &JobCall) -> Result<JobEnd, EngineLost> {
        match self.job_result(job) {
            Ok(result) => Ok(JobEnd::Returned(result)),
            Err(Halt::Threw(mut thrown)) => {
                thrown.state = thrown.state.and_then(|state| {
                    let state = withheld::without(Json::parse(state).ok()?, &job.state_props_to_remove).ok()?;
                    Some(state.as_str().to_owned())
                });
                Ok(JobEnd::Threw(*thrown))
            }
            Err(Halt::Lost(lost)) => Err(lost),
        }
    }

    /// Evaluates a condition.
    pub(super) fn test(&self, condition: &ConditionCall) -> Result<ConditionEnd, EngineLost> {
        match self.truth(condition) {
            Ok(value) => Ok(ConditionEnd::Value(value)),
            Err(Halt::Threw(thrown)) => Ok(ConditionEnd::Threw(*thrown)),
            Err(Halt::Lost(lost)) => Err(lost),
        }
    }

    fn job_result(&self, job: &JobCall) -> Result<JobResult, Halt> {
        let state = self.parse(&job.state)?;
        let meta = self.parse(&job.meta)?;
        self.call::<_, ()>("globals", (state.clone(), job.state_props_to_remove.clone(), meta))?;
        if let Some(source) = &job.globals {
            let (evaluation, exports) = self.evaluate("globals", source)?;
            self.call::<_, ()>("adopt", (evaluation, exports))?;
            self.ending()?;
        }
        let (evaluation, exports) = self.evaluate("job", &job.code)?;
        self.call::<_, ()>("begin", (evaluation, exports, state))?;
        let ending = self.ending()?;
        let text = |name: &str| -> Result<Option<Json>, Halt> {
            let text: Option<String> = ending.get(name).map_err(|error| self.halt(error))?;
            text.map(Json::parse).transpose().map_err(|error| Halt::Lost(EngineLost::Failed(error.to_string())))
        };
        let state = text("state")?.map(|state| withheld::of_result(state, &job.state_props_to_remove)).transpose();
        let state = state.map_err(|error| Halt::Lost(EngineLost::Failed(error.to_string())))?;
        let result = JobResult { state, webhook_response: text("webhookResponse")? };
        self.evidence.check()?;
        Ok(result)
    }

    fn truth(&self, condition: &ConditionCall) -> Result<bool, Halt> {
        let globals = self.ctx.globals();
        let state = self.parse(&condition.state)?;
        let mut options = EvalOptions::default();
        options.strict = false;
        options.filename = Some("condition".to_owned());
        // A comment may end the expression.
        let source = format!("(function () {{ return {}\n }})()", condition.expression);
        let value = globals
            .set("state", state)
            .and_then(|()| globals.set("upstreamStepId", condition.upstream_step_id.as_str()))
            .and_then(|()| self.ctx.eval_with_options::<Coerced<bool>, _>(source, options))
            .map_err(|error| self.halt(error))?;
        self.evidence.check()?;
        Ok(value.0)
    }

    fn parse(&self, json: &Json) -> Result<Value<'js>, Halt> {
        self.ctx.json_parse(json.as_str()).map_err(|error| self.halt(error))
    }

    /// Links a module and starts to evaluate it. Gives the promise of the evaluation's end and the exports.
    fn evaluate(&self, name: &str, source: &str) -> Result<(Promise<'js>, Object<'js>), Halt> {
        let hook = if name == "globals" { "globalsError" } else { "linkError" };
        let declared = Module::declare(self.ctx.clone(), name, source).map_err(|error| self.halt_by(hook, error))?;
        let (module, evaluation) = declared.eval().map_err(|error| self.halt_by(hook, error))?;
        self.evidence.check()?;
        let exports = module.namespace().map_err(|error| self.halt(error))?;
        Ok((evaluation, exports))
    }

    /// Runs what is to run until the prelude says how it ended.
    fn ending(&self) -> Result<Object<'js>, Halt> {
        loop {
            while self.ctx.execute_pending_job() {
                self.evidence.check()?;
            }
            if let Some(ending) = self.call::<_, Option<Object>>("outcome", ())? {
                let thrown: Option<String> = ending.get("thrown").map_err(|error| self.halt(error))?;
                let Some(description) = thrown else { return Ok(ending) };
                let state = ending.get("state").map_err(|error| self.halt(error))?;
                let mut halt = self.threw(&description);
                if let Halt::Threw(thrown) = &mut halt {
                    thrown.state = state;
                }
                return Err(halt);
            }
            match self.call::<_, Option<f64>>("wait", ())? {
                Some(millis) if millis <= 0.0 => self.call::<_, ()>("fire", ())?,
                // Without timers nothing can come any more: only the run's own limits end such a job.
                wait => {
                    let wait = wait.and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok());
                    self.evidence.interrupt().sleep(wait);
                }
            }
            self.evidence.check()?;
        }
    }

    /// Calls one of the prelude's functions.
    fn call<A: IntoArgs<'js>, R: FromJs<'js>>(&self, hook: &str, arguments: A) -> Result<R, Halt> {
        let function: Result<Function, Error> = self.hooks.get(hook);
        let result = function.and_then(|function| function.call(arguments)).map_err(|error| self.halt(error));
        self.evidence.check()?;
        result
    }

    fn halt(&self, error: Error) -> Halt {
        self.halt_by("describe", error)
    }

    /// What an error of QuickJS means, its exception described by one of the prelude's functions.
    fn halt_by(&self, describe: &str, error: Error) -> Halt {
        let exception = self.ctx.catch();
        if let Err(lost) = self.evidence.check() {
            return Halt::Lost(lost);
        }
        match error {
            Error::Exception => {
                let function: Result<Function, Error> = self.hooks.get(describe);
                match function.and_then(|function| function.call::<_, String>((exception,))) {
                    Ok(description) => self.threw(&description),
                    Err(error) => {
                        Halt::Lost(self.evidence.check().err().unwrap_or_else(|| EngineLost::Failed(error.to_string())))
                    }
                }
            }
            Error::InvalidString(_) => Halt::Threw(Box::new(Thrown {
                name: "SyntaxError".to_owned(),
                message: "Invalid or unexpected token: a NUL character".to_owned(),
                ..Thrown::default()
            })),
            error => Halt::Lost(EngineLost::Failed(error.to_string())),
        }
    }

    fn threw(&self, description: &str) -> Halt {
        match serde_json::from_str(description) {
            Ok(thrown) => Halt::Threw(Box::new(thrown)),
            Err(error) => Halt::Lost(EngineLost::Failed(format!("its prelude told an error wrongly: {error}"))),
        }
    }
}
