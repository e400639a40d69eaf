//! The events of a run, and the payloads that they become.

use std::borrow::Cow;

use protocol::Json;
use protocol::run::{Exit, ExitReason, LogLevel, LogSource, StepIndex, StepInput, StepMemory};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::phoenix::Payload;
use crate::server::Form;

/// What an entry beside its message costs, about.
const OVERHEAD: usize = 160;

/// Something to tell Lightning.
#[derive(Debug)]
pub(super) enum Item {
    RunStart(Payload),
    Log(Line),
    StepStart(StepStart),
    StepComplete(Box<StepComplete>),
    RunComplete(Box<RunComplete>),
}

/// A line of the run's log.
#[derive(Debug)]
pub(super) struct Line {
    /// By which a server knows a line that comes again.
    pub(super) id: Uuid,
    pub(super) source: LogSource,
    pub(super) level: LogLevel,
    pub(super) message: Json,
    pub(super) timestamp_us: u64,
    pub(super) step: Option<Uuid>,
}

#[derive(Debug)]
pub(super) struct StepStart {
    pub(super) step: Uuid,
    pub(super) job_id: String,
    /// What it gets, as far as Lightning knows it.
    pub(super) input: Option<StepInput>,
    pub(super) timestamp_us: u64,
}

#[derive(Debug)]
pub(super) struct StepComplete {
    pub(super) step: Uuid,
    pub(super) job_id: String,
    pub(super) index: StepIndex,
    pub(super) output: Output,
    /// Length of its result, in bytes, where that is known, whether or not it goes.
    pub(super) size: Option<u64>,
    pub(super) exit: Exit,
    pub(super) memory: StepMemory,
    pub(super) duration_ms: u64,
    pub(super) thread_id: String,
    pub(super) webhook_response: Option<Json>,
    pub(super) timestamp_us: u64,
}

/// The dataclip that a step leaves.
#[derive(Debug)]
pub(super) enum Output {
    /// With its text.
    Sent(Uuid, Json),
    /// Its id alone, because the run's options say so.
    Unwanted(Uuid),
    /// Too large: no dataclip.
    Withheld,
    /// The step came to no result.
    Nothing,
}

#[derive(Debug)]
pub(super) struct RunComplete {
    pub(super) exit: Exit,
    pub(super) final_state: Option<Json>,
    pub(super) final_step: Option<StepIndex>,
    pub(super) timestamp_us: u64,
}

impl Item {
    /// Lightning's name of the event.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::RunStart(_) => "run:start",
            Self::Log(_) => "run:log",
            Self::StepStart(_) => "step:start",
            Self::StepComplete(_) => "step:complete",
            Self::RunComplete(_) => "run:complete",
        }
    }

    /// Gives a step's dataclip another id, and returns the one that it had.
    pub(super) fn renew_dataclip(&mut self) -> Option<Uuid> {
        match self {
            Self::StepComplete(step) => match &mut step.output {
                Output::Sent(id, _) | Output::Unwanted(id) => Some(std::mem::replace(id, Uuid::new_v4())),
                Output::Withheld | Output::Nothing => None,
            },
            _ => None,
        }
    }

    /// Whether a dataclip goes with it.
    pub(super) fn has_dataclip(&self) -> bool {
        matches!(self, Self::StepComplete(step) if matches!(step.output, Output::Sent(..)))
    }

    /// Puts U+FFFD in the place of NUL characters in its states; false if there are none. Its size stays as it is.
    pub(super) fn replace_nul(&mut self) -> bool {
        let replace = |json: &mut Json| json.without_nul().map(|mended| *json = mended).is_some();
        match self {
            Self::StepComplete(step) => {
                let in_output = if let Output::Sent(_, json) = &mut step.output { replace(json) } else { false };
                step.webhook_response.as_mut().is_some_and(replace) || in_output
            }
            Self::RunComplete(run) => run.final_state.as_mut().is_some_and(replace),
            Self::RunStart(_) | Self::Log(_) | Self::StepStart(_) => false,
        }
    }

    /// About how much memory it takes.
    pub(super) fn size(&self) -> usize {
        let json = |json: &Option<Json>| json.as_ref().map_or(0, Json::len);
        OVERHEAD
            + match self {
                Self::RunStart(payload) => payload.len(),
                Self::Log(line) => line.message.len(),
                Self::StepStart(_) => 0,
                Self::StepComplete(step) => json(&step.webhook_response) + step.output.size(),
                Self::RunComplete(run) => json(&run.final_state),
            }
    }
}

impl Output {
    /// The dataclip's id, once the server has it.
    pub(super) fn id(&self) -> Option<Uuid> {
        match self {
            Self::Sent(id, _) | Self::Unwanted(id) => Some(*id),
            Self::Withheld | Self::Nothing => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Sent(_, json) => json.len(),
            Self::Unwanted(_) | Self::Withheld | Self::Nothing => 0,
        }
    }
}

/// The text with U+FFFD for NUL characters, which Lightning's database cannot store.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A field of a payload, which is left out if it has no value.
type Field = (&'static str, Option<Value>);

fn some(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

fn payload(fields: impl IntoIterator<Item = Field>) -> Payload {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Payload::object(&fields.collect::<Map<_, _>>())
}

fn exit_fields(exit: &Exit) -> [Field; 3] {
    // A success with an error would be refused.
    let error = exit.error.as_ref().filter(|_| exit.reason != ExitReason::Success);
    [
        ("reason", some(exit.reason.as_str())),
        ("error_type", some(error.map(|error| storable(&error.kind)))),
        ("error_message", some(error.map(|error| storable(&error.message)))),
    ]
}

impl Line {
    /// Appends the line as an object, with the run's id unless it goes into a batch.
    fn write(&self, run_id: Option<&str>, out: &mut String) {
        #[derive(Serialize)]
        struct Fields<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            run_id: Option<&'a str>,
            id: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            step_id: Option<String>,
            source: &'static str,
            level: &'static str,
            timestamp: String,
        }
        let fields = Fields {
            run_id,
            id: self.id.to_string(),
            step_id: self.step.map(|id| id.to_string()),
            source: self.source.as_str(),
            level: self.level.as_str(),
            timestamp: self.timestamp_us.to_string(),
        };
        out.push_str(&serde_json::to_string(&fields).expect("a plain struct is always JSON"));
        out.pop();
        out.push_str(",\"message\":");
        out.push_str(self.message.as_str());
        out.push('}');
    }

    /// The payload of `run:log`.
    pub(super) fn payload(&self, run_id: &str) -> Payload {
        let mut text = String::with_capacity(self.message.len() + 256);
        self.write(Some(run_id), &mut text);
        Payload::text(text)
    }
}

/// The payload of `run:batch_logs`.
pub(super) fn batch_payload<'a>(run_id: &str, lines: impl Iterator<Item = &'a Line>) -> Payload {
    let mut text = format!("{{\"run_id\":\"{run_id}\",\"logs\":[");
    for (at, line) in lines.enumerate() {
        if at > 0 {
            text.push(',');
        }
        line.write(None, &mut text);
    }
    text.push_str("]}");
    Payload::text(text)
}

impl StepStart {
    /// The payload of `step:start`.
    pub(super) fn payload(&self, input_dataclip_id: Option<String>) -> Payload {
        payload([
            ("step_id", some(self.step.to_string())),
            ("job_id", some(&*self.job_id)),
            ("input_dataclip_id", input_dataclip_id.map(Value::from)),
            ("timestamp", some(self.timestamp_us.to_string())),
        ])
    }
}

impl StepComplete {
    /// The payload of `step:complete`, with the dataclip in this form.
    pub(super) fn payload(&self, form: Form) -> Payload {
        let head = [
            ("step_id", some(self.step.to_string())),
            ("job_id", some(&*self.job_id)),
            ("output_dataclip_id", self.output.id().map(|id| id.to_string().into())),
            ("output_dataclip_error", matches!(self.output, Output::Withheld).then(|| "DATACLIP_TOO_LARGE".into())),
            ("dataclip_size_mb", self.size.map(|bytes| size_mb(bytes).into())),
        ];
        let tail = [
            ("mem", some(json!({ "job": self.memory.job, "system": self.memory.system }))),
            ("duration", some(self.duration_ms)),
            ("thread_id", some(&*self.thread_id)),
            ("timestamp", some(self.timestamp_us.to_string())),
        ];
        let mut payload = payload(head.into_iter().chain(exit_fields(&self.exit)).chain(tail));
        if let Output::Sent(_, json) = &self.output {
            payload = match form {
                Form::String => payload.with_quoted("output_dataclip", json.clone()),
                Form::Value => payload.with_value("output_dataclip", json.clone()),
            };
        }
        match &self.webhook_response {
            Some(json) => payload.with_value("webhook_response", json.clone()),
            None => payload,
        }
    }
}

/// Bytes as megabytes with three significant digits, as JavaScript's `toPrecision(3)` writes them.
fn size_mb(bytes: u64) -> String {
    let mb = bytes as f64 / (1024.0 * 1024.0);
    let rounded = format!("{mb:.2e}");
    let exponent = rounded.rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    match usize::try_from(2 - exponent) {
        Ok(decimals) => format!("{mb:.decimals$}"),
        Err(_) => rounded.replace('e', "e+"),
    }
}

impl RunComplete {
    /// The payload of `run:complete`.
    pub(super) fn payload(&self, final_state: Option<&Json>, final_dataclip_id: Option<String>) -> Payload {
        let tail = [
            ("final_dataclip_id", final_dataclip_id.map(Value::from)),
            ("timestamp", some(self.timestamp_us.to_string())),
        ];
        let payload = payload(exit_fields(&self.exit).into_iter().chain(tail));
        match final_state {
            Some(json) => payload.with_value("final_state", json.clone()),
            None => payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_significant_digits() {
        for (bytes, expected) in [
            (2, "0.00000191"),
            (1024, "0.000977"),
            (1024 * 1024, "1.00"),
            (10_484_711, "10.0"),
            (12_345_678, "11.8"),
            (150 * 1024 * 1024, "150"),
            (1024 * 1024 * 1024, "1.02e+3"),
            (0, "0.00"),
        ] {
            assert_eq!(size_mb(bytes), expected, "{bytes}");
        }
    }
}
