//! What each event of a run channel does, and what Lightning validates before.

use std::sync::Arc;

use protocol::clock::now_us;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::{Exit, Fields, Rejection, is_json};
use super::frame::Response;
use super::postgres::{holds_lone_surrogate, holds_nul, text_holds_nul};
use super::record::{RunState, StepRecord};
use super::store::{Run, Store};
use super::{DataclipForm, DataclipReply, Dialect, MockOptions};

/// Characters of a log line's source, by Lightning's `LogLine`.
const LONGEST_SOURCE: usize = 8;

const LOG_LEVELS: [&str; 6] = ["debug", "info", "success", "always", "warn", "error"];

impl Store {
    /// Handles an event of a run: validates it, takes it over, records it. `copy` is the run's state as the channel has
    /// it: Lightning's RunChannel loads the run when it is joined, and judges by that.
    pub(super) fn handle_event(
        &mut self,
        run_id: &str,
        event: &str,
        payload: &Arc<Value>,
        copy: &mut RunState,
    ) -> Result<Response, Rejection> {
        if !self.runs.contains_key(run_id) {
            return Err(Rejection::Crash(format!("there is no run {run_id}")));
        }
        // Postgrex raises within the insert, and the channel's process with it.
        if self.options.crash_on_nul && holds_nul(payload) {
            return Err(Rejection::Crash("a NUL character cannot be stored".to_owned()));
        }
        let response = match event {
            "fetch:plan" => self.fetch_plan(run_id, payload),
            "fetch:credential" => self.fetch_credential(payload),
            "fetch:dataclip" => self.fetch_dataclip(run_id, payload),
            "run:start" => self.run_start(run_id, payload, copy),
            "step:start" => self.step_start(run_id, payload),
            "step:complete" => self.step_complete(run_id, payload),
            "run:log" => self.run_log(run_id, payload),
            "run:batch_logs" if self.options.batch_logs => self.run_batch_logs(run_id, payload),
            "run:complete" => self.run_complete(run_id, payload, copy),
            _ => return Err(Rejection::Crash(format!("there is no event {event} on a run's channel"))),
        }?;
        self.record_event(run_id, event, payload);
        if event == "run:complete" {
            self.end_run(run_id);
        }
        Ok(response)
    }

    fn run_mut(&mut self, run_id: &str) -> Result<&mut Run, Rejection> {
        self.runs.get_mut(run_id).ok_or_else(|| Rejection::Crash(format!("there is no run {run_id}")))
    }

    fn fetch_plan(&mut self, run_id: &str, payload: &Value) -> Result<Response, Rejection> {
        if !payload.is_null() {
            Fields::of(payload, &[])?;
        }
        Ok(Response::Text(self.run_mut(run_id)?.submission.plan.clone()))
    }

    fn fetch_credential(&self, payload: &Value) -> Result<Response, Rejection> {
        let credential = self.credentials.get(fetched_id(payload)?);
        credential.map(|body| Response::Text(body.clone())).ok_or_else(|| not_found("Credential not found!"))
    }

    /// Lightning's RunChannel answers `fetch:dataclip` with the input of its run, whatever id is asked for, and with the
    /// text `null` if it has none. The reference worker's mock looks the id up. A project that keeps no data forgets its
    /// run's input when it gives it away.
    fn fetch_dataclip(&mut self, run_id: &str, payload: &Value) -> Result<Response, Rejection> {
        let run = self.run_mut(run_id)?;
        let (keeps_data, input) = (run.submission.output_dataclips, run.submission.dataclip_id.clone());
        let kept = match self.options.dialect {
            Dialect::Lightning => input.and_then(|id| self.dataclips.get_mut(&id)),
            Dialect::ReferenceMock => {
                Some(self.dataclips.get_mut(fetched_id(payload)?).ok_or_else(|| not_found("Dataclip not found!"))?)
            }
        };
        let text = match kept {
            None => Box::default(),
            Some(kept) if keeps_data => kept.clone(),
            Some(kept) => std::mem::take(kept),
        };
        Ok(match self.options.dataclip_reply {
            DataclipReply::Binary => Response::Binary(text),
            DataclipReply::ByteArray => Response::ByteArray(text),
        })
    }

    /// Lightning's `Run` lets any run start that was claimed, one that has ended, too, which nobody else notices.
    fn run_start(&mut self, run_id: &str, payload: &Value, copy: &mut RunState) -> Result<Response, Rejection> {
        let fields = Fields::of(payload, &["timestamp", "versions"])?;
        fields.check_timestamp()?;
        let versions = fields.get("versions").filter(|versions| versions.is_object());
        let versions = versions.ok_or_else(|| Rejection::field("versions", "is invalid"))?;
        refuse_unclaimed(*copy, "started")?;
        *copy = RunState::Started;
        let record = &mut self.run_mut(run_id)?.record;
        if !record.state.is_final() {
            record.state = RunState::Started;
        }
        record.started_at.get_or_insert_with(now_us);
        record.versions = Some(versions.clone());
        Ok(Response::nothing())
    }

    fn step_start(&mut self, run_id: &str, payload: &Value) -> Result<Response, Rejection> {
        match payload.get("job_id") {
            None => return Err(Rejection::errors("job_id", "This field can't be blank.")),
            Some(Value::Null) => return Err(Rejection::errors("job_id", "Job not found!")),
            Some(_) => {}
        }
        let strict = self.options.strict_ids;
        let fields = Fields::of(payload, &["step_id", "job_id", "input_dataclip_id", "timestamp"])?;
        let step_id = fields.required_uuid("step_id")?;
        let job_id = fields.id("job_id", strict)?.unwrap_or_default();
        let input_dataclip_id = fields.id("input_dataclip_id", strict)?;
        fields.check_timestamp()?;
        if input_dataclip_id.is_some_and(|id| !self.dataclips.contains_key(id)) {
            return Err(Rejection::field("input_dataclip", "does not exist"));
        }
        let duplicate = self.duplicate("step", step_id);
        let run = self.run_mut(run_id)?;
        if !run.submission.jobs.contain(job_id) {
            return Err(Rejection::field("job_id", "does not exist"));
        }
        if step(run, step_id).is_some() {
            return Err(duplicate);
        }
        run.record.steps.push(StepRecord {
            step_id: step_id.to_owned(),
            job_id: job_id.to_owned(),
            input_dataclip_id: input_dataclip_id.map(str::to_owned),
            started_at: now_us(),
            ..StepRecord::default()
        });
        Ok(Response::Json(json!({ "step_id": step_id })))
    }

    fn step_complete(&mut self, run_id: &str, payload: &Value) -> Result<Response, Rejection> {
        const ALLOWED: [&str; 14] = [
            "step_id",
            "job_id",
            "output_dataclip_id",
            "output_dataclip",
            "output_dataclip_error",
            "dataclip_size_mb",
            "reason",
            "error_type",
            "error_message",
            "mem",
            "duration",
            "thread_id",
            "timestamp",
            "webhook_response",
        ];
        let fields = Fields::of(payload, &ALLOWED)?;
        let step_id = fields.required_uuid("step_id")?;
        let exit = fields.exit("reason")?;
        fields.check_timestamp()?;
        let withheld = fields.text("output_dataclip_error")?;
        if fields.text("dataclip_size_mb")?.is_some_and(|size| !is_size(size)) {
            return Err(Rejection::field("dataclip_size_mb", "is invalid"));
        }
        let run = self.runs.get(run_id).ok_or_else(|| Rejection::Crash(format!("there is no run {run_id}")))?;
        let output = Output::of(fields, run.submission.output_dataclips, &self.options)?;
        let started = step(run, step_id).ok_or_else(|| Rejection::field("step_id", "not found"))?;
        // `Handlers.CompleteStep` looks at neither the job nor whether the step is complete already.
        if let Some(id) = output.id.filter(|id| self.dataclips.contains_key(*id)) {
            return Err(self.duplicate("dataclip", id));
        }
        if let Some(id) = output.id {
            self.dataclips.insert(id.to_owned(), output.text);
        }
        let step = &mut self.run_mut(run_id)?.record.steps[started];
        step.finished_at = Some(now_us());
        (step.reason, step.error_type, step.error_message) = owned(exit);
        step.output_dataclip_id = output.id.map(str::to_owned);
        step.output_dataclip_error = withheld.map(str::to_owned);
        Ok(Response::Json(json!({ "step_id": step_id })))
    }

    /// What comes of a step or dataclip whose id is there already.
    fn duplicate(&self, what: &str, id: &str) -> Rejection {
        match self.options.crash_on_duplicates {
            true => Rejection::Crash(format!("there is a {what} {id} already")),
            false => Rejection::field("id", "has already been taken"),
        }
    }

    fn run_log(&mut self, run_id: &str, payload: &Arc<Value>) -> Result<Response, Rejection> {
        let run = self.run_mut(run_id)?;
        if payload.get("run_id").and_then(Value::as_str) != Some(run_id) {
            return Err(Rejection::field("run_id", "is invalid"));
        }
        let id = check_line(run, payload, true)?;
        let log_line_id = Self::record_log(run, id, payload.clone());
        Ok(Response::Json(json!({ "log_line_id": log_line_id })))
    }

    fn run_batch_logs(&mut self, run_id: &str, payload: &Value) -> Result<Response, Rejection> {
        let fields = Fields::of(payload, &["run_id", "logs"])?;
        if fields.text("run_id")?.is_some_and(|id| id != run_id) {
            return Err(Rejection::field("run_id", "is invalid"));
        }
        let Some(lines) = fields.get("logs").and_then(Value::as_array) else {
            return Err(Rejection::Crash("run:batch_logs without a list of logs".to_owned()));
        };
        let run = self.run_mut(run_id)?;
        let ids = lines.iter().map(|line| check_line(run, line, false)).collect::<Result<Vec<_>, _>>()?;
        for (line, id) in lines.iter().zip(ids) {
            Self::record_log(run, id, Arc::new(line.clone()));
        }
        Ok(Response::Json(json!({})))
    }

    /// A run that the janitor marked lost is completed all the same on a channel that was joined before.
    fn run_complete(&mut self, run_id: &str, payload: &Value, copy: &mut RunState) -> Result<Response, Rejection> {
        const ALLOWED: [&str; 6] =
            ["reason", "error_type", "error_message", "final_dataclip_id", "final_state", "timestamp"];
        let fields = Fields::of(payload, &ALLOWED)?;
        let exit = fields.exit("state")?;
        fields.check_timestamp()?;
        let final_dataclip_id = fields.id("final_dataclip_id", true)?;
        if final_dataclip_id.is_some_and(|id| !self.dataclips.contains_key(id)) {
            return Err(Rejection::errors("final_dataclip_id", "does not exist"));
        }
        // What is no object is wrapped, as the body of a dataclip has to be one.
        let final_state = fields.get("final_state").map(|state| match state {
            Value::Object(_) => state.clone(),
            state => json!({ "value": state }),
        });
        refuse_unclaimed(*copy, exit.reason)?;
        if copy.is_final() {
            return Err(Rejection::field("state", "already in completed state"));
        }
        *copy = RunState::from_reason(exit.reason).unwrap_or(*copy);
        let record = &mut self.run_mut(run_id)?.record;
        (record.reason, record.error_type, record.error_message) = owned(exit);
        record.final_dataclip_id = final_dataclip_id.map(str::to_owned);
        record.final_state = final_state;
        Ok(Response::nothing())
    }

    fn end_run(&mut self, run_id: &str) {
        if let Some(run) = self.runs.get_mut(run_id)
            && let Some(state) = run.record.reason.as_deref().and_then(RunState::from_reason)
        {
            run.end(state);
        }
    }
}

/// A step's output. Its id goes even when its body stays with the worker.
struct Output<'a> {
    id: Option<&'a str>,
    text: Box<RawValue>,
}

impl<'a> Output<'a> {
    fn of(fields: Fields<'a>, wanted: bool, options: &MockOptions) -> Result<Self, Rejection> {
        // An Ecto type that cannot be cast, and Lightning's `Dataclip.new`.
        let invalid = || Rejection::field("output_dataclip", "is invalid");
        let no_map = || Rejection::field("body", "must be a map");
        let id = fields.id("output_dataclip_id", true)?;
        let text = match (fields.get("output_dataclip"), options.dataclip_form) {
            (Some(_), _) if !wanted => {
                return Err(Rejection::field("output_dataclip", "must be left out, as the run's options say"));
            }
            (None, _) if wanted && id.is_some() => return Err(Rejection::field("output_dataclip", "can't be blank")),
            (None, _) => "null".to_owned(),
            (Some(_), _) if id.is_none() => return Err(Rejection::field("output_dataclip_id", "can't be blank")),
            (Some(Value::String(_)), DataclipForm::Values) => return Err(invalid()),
            (Some(Value::String(text)), _) => {
                check_text(text, options.crash_on_nul)?;
                if text.trim_start().starts_with('{') { text.clone() } else { return Err(no_map()) }
            }
            (Some(_), DataclipForm::Strings) => return Err(invalid()),
            (Some(object @ Value::Object(_)), _) => object.to_string(),
            (Some(_), _) => return Err(no_map()),
        };
        Ok(Self { id, text: RawValue::from_string(text).map_err(|_| no_map())? })
    }
}

/// `Jason.decode!` raises on text that is no JSON, Postgrex on what cannot be stored.
fn check_text(text: &str, crash_on_nul: bool) -> Result<(), Rejection> {
    if !is_json(text) || holds_lone_surrogate(text) {
        return Err(Rejection::Crash("output_dataclip is no JSON".to_owned()));
    }
    match crash_on_nul && text_holds_nul(text) {
        true => Err(Rejection::Crash("a NUL character cannot be stored".to_owned())),
        false => Ok(()),
    }
}

fn fetched_id(payload: &Value) -> Result<&str, Rejection> {
    let id = Fields::of(payload, &["id"])?.text("id")?;
    id.ok_or_else(|| Rejection::errors("id", "This field can't be blank."))
}

fn not_found(message: &str) -> Rejection {
    Rejection::Blameless(json!({ "errors": { "id": [message] } }))
}

fn refuse_unclaimed(state: RunState, to: &str) -> Result<(), Rejection> {
    if state == RunState::Available {
        let message = format!("cannot mark run {to} that has not been claimed by a worker");
        return Err(Rejection::field("state", &message));
    }
    Ok(())
}

/// Whether this is a number of megabytes with three significant digits.
fn is_size(text: &str) -> bool {
    let (significant, _) = text.split_once('e').unwrap_or((text, ""));
    let digits = significant.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    text.parse::<f64>().is_ok_and(f64::is_finite) && digits <= 3
}

/// Place of a started step.
fn step(run: &Run, step_id: &str) -> Option<usize> {
    run.record.steps.iter().position(|step| step.step_id == step_id)
}

/// Checks a log line and gives its id, if it has one.
fn check_line<'a>(run: &Run, line: &'a Value, alone: bool) -> Result<Option<&'a str>, Rejection> {
    const ALLOWED: [&str; 7] = ["message", "source", "level", "timestamp", "step_id", "id", "run_id"];
    let fields = Fields::of(line, if alone { &ALLOWED } else { &ALLOWED[..6] })?;
    match fields.get("message") {
        None => return Err(Rejection::field("message", "can't be blank")),
        Some(message) => match message.as_array() {
            None => return Err(Rejection::field("message", "is invalid")),
            // Lightning's `LogLine` casts with `empty_values: [[], nil]`.
            Some(values) if values.is_empty() => return Err(Rejection::field("message", "can't be blank")),
            Some(_) => {}
        },
    }
    if fields.required_text("source")?.chars().count() > LONGEST_SOURCE {
        return Err(Rejection::field("source", "should be at most 8 character(s)"));
    }
    if !LOG_LEVELS.contains(&fields.required_text("level")?) {
        return Err(Rejection::field("level", "is invalid"));
    }
    fields.check_timestamp()?;
    if fields.id("step_id", true)?.is_some_and(|id| step(run, id).is_none()) {
        return Err(Rejection::field("step_id", "must be associated with the run"));
    }
    fields.id("id", true)
}

fn owned(exit: Exit<'_>) -> (Option<String>, Option<String>, Option<String>) {
    (Some(exit.reason.to_owned()), exit.error_type.map(str::to_owned), exit.error_message.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_significant_digits() {
        for (text, expected) in [
            ("1.00", true),
            ("0.000977", true),
            ("150", true),
            ("0.00", true),
            ("1.02e+3", true),
            ("1.234", false),
            ("1024", false),
            ("", false),
            ("inf", false),
            ("2 MB", false),
        ] {
            assert_eq!(is_size(text), expected, "{text}");
        }
    }
}
