//! What an error means: for the step, for the run, for the state, and for who reads the log.
//!
//! Pure. The engine describes what was thrown; here it gets its type, its severity and its place in the user's
//! source.

use protocol::run::{CUT, Exit, ExitReason};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::compile::{CompileError, Compiled, Operation, Position, source_line};
use crate::engine::{EngineLost, Origin, Thrown};
use crate::limits::megabytes;

/// The job in which something was thrown.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Its name, else its id.
    pub name: &'a str,
    /// The user's source.
    pub source: &'a str,
    /// What was made of it.
    pub compiled: &'a Compiled,
}

/// An error of a job or of an adaptor. As JSON it is what a failed step leaves in `state.errors`.
#[derive(Debug, Serialize)]
pub struct JobFailure {
    source: &'static str,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pos: Option<SourcePlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<RawValue>>,
    severity: ExitReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtype: Option<String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(rename = "operationName", skip_serializing_if = "Option::is_none")]
    operation_name: Option<String>,
    /// For the log only: where a plain error was thrown.
    #[serde(skip)]
    place: Option<SourcePlace>,
    /// Whether the job's code ended in an orderly way, so that there is a state to go on with.
    #[serde(skip)]
    has_state: bool,
}

/// A place in the user's source, and the line that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SourcePlace {
    /// From 1.
    line: u32,
    /// From 1, in UTF-16 code units.
    column: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<String>,
}

/// Gives what was thrown its type and severity.
pub fn classify(thrown: Thrown, job: Job<'_>) -> JobFailure {
    let place = thrown.position.and_then(|position| find_place(position, job, &thrown.message));
    let mut failure = JobFailure {
        source: "runtime",
        name: "JobError",
        pos: None,
        step: None,
        details: None,
        severity: ExitReason::Fail,
        subtype: None,
        message: thrown.message,
        line: None,
        operation_name: None,
        place,
        has_state: true,
    };
    match (thrown.origin, thrown.name.as_str()) {
        (Origin::Import, _) => failure.is("ImportError", ExitReason::Crash),
        (Origin::Adaptor, _) => {
            let operation = thrown.operation.and_then(|index| job.compiled.operations.get(index));
            failure.is_adaptors(thrown.details, operation, job);
        }
        (Origin::Evaluation, _) | (Origin::Job, "EvalError") => {
            failure.is("SecurityError", ExitReason::Kill);
            failure.message = "Illegal eval statement detected".to_owned();
        }
        (Origin::Exports, _) => {
            failure.message = "Invalid exports in job expression: exports must be an array".to_owned();
            failure.is_native("RuntimeCrash", ExitReason::Crash, "InvalidExportsError");
        }
        (Origin::Operation, _) => {
            if let Some(index) = thrown.operation {
                failure.message = format!("Invalid operation at statement {index}");
            }
            failure.is_native("RuntimeCrash", ExitReason::Crash, "InvalidOperationError");
        }
        (Origin::Uncaught, _) => {
            failure.is("ExecutionError", ExitReason::Crash);
            failure.has_state = false;
        }
        (Origin::Job, class @ ("TypeError" | "RangeError")) => {
            failure.is_native("RuntimeError", ExitReason::Fail, class);
            failure.show_place(job);
        }
        (Origin::Job, class @ ("ReferenceError" | "SyntaxError")) => {
            failure.is_native("RuntimeCrash", ExitReason::Crash, class);
            failure.show_place(job);
        }
        (Origin::Job, _) => {}
    }
    failure
}

impl JobFailure {
    /// How the step ends.
    pub fn step_exit(&self) -> Exit {
        // A failure is reported by what it leaves in the state, where only its name counts.
        let kind = match &self.subtype {
            Some(subtype) if self.severity != ExitReason::Fail => subtype,
            _ => self.name,
        };
        Exit::error(self.severity, kind, &self.message)
    }

    /// How the run ends, if this ends it.
    pub fn run_exit(&self) -> Exit {
        Exit::error(self.severity, self.name, &self.message)
    }

    /// Whether the run goes on after it.
    pub fn is_survivable(&self) -> bool {
        self.severity == ExitReason::Fail
    }

    /// Whether the job's code ended in an orderly way, so that the step has a state.
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// The error as it is put into `state.errors`.
    pub fn to_raw(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(self).expect("its keys are strings")
    }

    /// The error for the run's log: what it is, and the line of the user's source with a caret under the column.
    pub fn log_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: {}", self.name, self.message)];
        if let (Some(name), Some(line)) = (&self.operation_name, self.line) {
            lines.push(format!("Raised by the operation {name}() on line {line}"));
        }
        lines.extend(self.pos.iter().chain(&self.place).flat_map(SourcePlace::log_lines));
        lines
    }

    fn is(&mut self, name: &'static str, severity: ExitReason) {
        self.name = name;
        self.severity = severity;
    }

    /// An error of a class of JavaScript's or of the engine's own, which its message then names.
    fn is_native(&mut self, name: &'static str, severity: ExitReason, class: &str) {
        self.is(name, severity);
        self.message = format!("{class}: {}", self.message);
        self.subtype = Some(class.to_owned());
    }

    /// An error of an adaptor, which `operation` called.
    fn is_adaptors(&mut self, details: Option<String>, operation: Option<&Operation>, job: Job<'_>) {
        self.is("AdaptorError", ExitReason::Fail);
        self.details = details.and_then(|details| RawValue::from_string(details).ok());
        match operation {
            Some(operation) if self.place.is_none() => {
                self.line = Some(operation.line);
                self.operation_name = Some(operation.name.clone());
            }
            // With a frame of the job on the stack its place says more than the operation's.
            _ => self.show_place(job),
        }
    }

    fn show_place(&mut self, job: Job<'_>) {
        self.pos = self.place.take();
        self.step = self.pos.as_ref().map(|_| job.name.to_owned());
    }
}

impl SourcePlace {
    fn of(position: Position, source: &str) -> Self {
        let src = source_line(source, position.line).map(str::to_owned);
        Self { line: position.line, column: position.column.saturating_add(1), src }
    }

    fn log_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("At line {}, column {}", self.line, self.column)];
        if let Some(src) = &self.src {
            let number = format!("{}: ", self.line);
            lines.push(format!("{number}{src}"));
            lines.push(format!("{}{}^", " ".repeat(number.len()), blank_until(src, self.column)));
        }
        lines
    }
}

fn find_place((line, column): (u32, u32), job: Job<'_>, message: &str) -> Option<SourcePlace> {
    let position = job.compiled.source_position(job.source, line, column.saturating_sub(1))?;
    let read = message.rsplit_once("(reading '").and_then(|(_, rest)| rest.strip_suffix("')"));
    let exact = read.map(|property| job.compiled.property_position(job.source, position, property));
    Some(SourcePlace::of(exact.unwrap_or(position), job.source))
}

/// As much blank space as `line` takes before `column`; tabs stay tabs.
fn blank_until(line: &str, column: u32) -> String {
    let mut left = column.saturating_sub(1) as usize;
    line.chars()
        .take_while(|letter| {
            let fits = left > 0;
            left = left.saturating_sub(letter.len_utf16());
            fits
        })
        .map(|letter| if letter == '\t' { '\t' } else { ' ' })
        .collect()
}

/// How a run ends whose job `name` does not compile.
pub fn compile_exit(name: &str, error: &CompileError) -> Exit {
    Exit::error(ExitReason::Crash, "CompileError", format!("{name}: {error}"))
}

/// An error of the compiler for the run's log, as [`JobFailure::log_lines`].
pub fn compile_log_lines(source: &str, error: &CompileError) -> Vec<String> {
    SourcePlace::of(error.position, source).log_lines()
}

/// How a run ends when an edge's condition threw.
pub fn condition_exit(thrown: &Thrown) -> Exit {
    Exit::error(ExitReason::Crash, "EdgeConditionError", &thrown.message)
}

/// How a step and its run end when their engine is gone.
pub fn lost_exit(lost: &EngineLost) -> Exit {
    match lost {
        EngineLost::OutOfMemory => Exit::error(ExitReason::Kill, "OOMError", "Run exceeded maximum memory usage"),
        EngineLost::WroteTooMuch { limit_bytes } => {
            let message = format!("Run exceeded the limit of {}mb for its files", megabytes(*limit_bytes));
            Exit::error(ExitReason::Kill, "ScratchLimitError", message)
        }
        EngineLost::Exited(code) => {
            Exit::error(ExitReason::Crash, "ExitError", format!("Process exited with code: {code}"))
        }
        EngineLost::Signalled(signal) => {
            Exit::error(ExitReason::Crash, "ExitError", format!("Process killed by signal {signal}"))
        }
        EngineLost::Failed(_) => Exit::error(ExitReason::Exception, "EngineError", lost.to_string()),
    }
}

/// The exit with a message of at most `limit` bytes (but always room for the mark of the cut), as it is reported.
pub fn capped(mut exit: Exit, limit: u64) -> Exit {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if let Some(error) = exit.error.as_mut().filter(|error| error.message.len() > limit) {
        let end = error.message.floor_char_boundary(limit.saturating_sub(CUT.len()));
        error.message.truncate(end);
        error.message.push_str(CUT);
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn(s => s);\nfn(() => { throw new TypeError(\"two\") })";

    fn thrown(origin: Origin, name: &str, message: &str) -> Thrown {
        Thrown { origin, name: name.into(), message: message.into(), ..Thrown::default() }
    }

    fn compiled() -> Compiled {
        crate::compile::compile(SOURCE, &[]).unwrap()
    }

    fn classified(thrown: Thrown) -> JobFailure {
        let compiled = compiled();
        classify(thrown, Job { name: "A", source: SOURCE, compiled: &compiled })
    }

    #[test]
    fn each_kind_of_error_has_its_type() {
        use ExitReason::{Crash, Fail, Kill};
        use Origin::{Adaptor, Evaluation, Exports, Import, Job, Operation, Uncaught};
        for (origin, name, message, severity, step, run, expected) in [
            (Import, "Error", "module blacklisted: fs", Crash, "ImportError", "ImportError", "module blacklisted: fs"),
            (Adaptor, "TypeError", "no url", Fail, "AdaptorError", "AdaptorError", "no url"),
            (Job, "TypeError", "two", Fail, "RuntimeError", "RuntimeError", "TypeError: two"),
            (Job, "RangeError", "far", Fail, "RuntimeError", "RuntimeError", "RangeError: far"),
            (Job, "ReferenceError", "x", Crash, "ReferenceError", "RuntimeCrash", "ReferenceError: x"),
            (Job, "SyntaxError", "x", Crash, "SyntaxError", "RuntimeCrash", "SyntaxError: x"),
            (Evaluation, "", "any", Kill, "SecurityError", "SecurityError", "Illegal eval statement detected"),
            (Job, "EvalError", "any", Kill, "SecurityError", "SecurityError", "Illegal eval statement detected"),
            (Job, "Error", "oh no", Fail, "JobError", "JobError", "oh no"),
            (Job, "", "just text", Fail, "JobError", "JobError", "just text"),
            (Job, "URIError", "bad", Fail, "JobError", "JobError", "bad"),
            (
                Exports,
                "",
                "",
                Crash,
                "InvalidExportsError",
                "RuntimeCrash",
                "InvalidExportsError: Invalid exports in job expression: exports must be an array",
            ),
            (Operation, "", "odd", Crash, "InvalidOperationError", "RuntimeCrash", "InvalidOperationError: odd"),
            (Uncaught, "TypeError", "late", Crash, "ExecutionError", "ExecutionError", "late"),
        ] {
            let failure = classified(thrown(origin, name, message));
            assert_eq!(failure.step_exit(), Exit::error(severity, step, expected), "{origin:?} {name}");
            assert_eq!(failure.run_exit(), Exit::error(severity, run, expected), "{origin:?} {name}");
            assert_eq!(failure.is_survivable(), severity == Fail);
            assert_eq!(failure.has_state(), origin != Uncaught);
        }
    }

    #[test]
    fn a_bad_operation_is_named_by_its_place() {
        let failure = classified(Thrown { operation: Some(1), ..thrown(Origin::Operation, "", "") });
        let message = "InvalidOperationError: Invalid operation at statement 1";
        assert_eq!(failure.step_exit(), Exit::error(ExitReason::Crash, "InvalidOperationError", message));
    }

    #[test]
    fn the_state_says_what_is_known() {
        let mut native = classified(thrown(Origin::Job, "TypeError", "two"));
        native.pos = Some(SourcePlace { line: 2, column: 18, src: Some("fn()".into()) });
        native.step = Some("A".into());
        let adaptors = Thrown {
            operation: Some(1),
            details: Some(r#"{"message":"must hold"}"#.into()),
            ..thrown(Origin::Adaptor, "Error", "must hold")
        };
        for (failure, expected) in [
            (
                classified(thrown(Origin::Job, "Error", "oh no")),
                r#"{"source":"runtime","name":"JobError","severity":"fail","message":"oh no"}"#,
            ),
            (
                native,
                r#"{"source":"runtime","name":"RuntimeError","pos":{"line":2,"column":18,"src":"fn()"},"step":"A","severity":"fail","subtype":"TypeError","message":"TypeError: two"}"#,
            ),
            (
                classified(adaptors),
                r#"{"source":"runtime","name":"AdaptorError","details":{"message":"must hold"},"severity":"fail","message":"must hold","line":2,"operationName":"fn"}"#,
            ),
            (
                classified(Thrown { details: Some("not JSON".into()), ..thrown(Origin::Adaptor, "", "odd") }),
                r#"{"source":"runtime","name":"AdaptorError","severity":"fail","message":"odd"}"#,
            ),
        ] {
            assert_eq!(failure.to_raw().get(), expected);
        }
    }

    #[test]
    fn the_log_points_at_the_column() {
        for (src, column, expected) in [
            ("fn(() => boom())", 10, "3: fn(() => boom())\n            ^"),
            ("\tboom()", 2, "3: \tboom()\n   \t^"),
            ("'😀' + boom()", 8, "3: '😀' + boom()\n         ^"),
            ("x", 99, "3: x\n    ^"),
            ("", 1, "3: \n   ^"),
        ] {
            let mut failure = classified(thrown(Origin::Job, "Error", "oh no"));
            failure.place = Some(SourcePlace { line: 3, column, src: Some(src.into()) });
            let lines = failure.log_lines();
            assert_eq!(lines[..2], ["JobError: oh no".to_owned(), format!("At line 3, column {column}")]);
            assert_eq!(lines[2..].join("\n"), expected, "{src}");
        }
    }

    #[test]
    fn a_lost_engine_ends_the_run() {
        use ExitReason::{Crash, Exception, Kill};
        for (lost, reason, kind, message) in [
            (EngineLost::OutOfMemory, Kill, "OOMError", "Run exceeded maximum memory usage"),
            (
                EngineLost::WroteTooMuch { limit_bytes: 3 << 19 },
                Kill,
                "ScratchLimitError",
                "Run exceeded the limit of 1.5mb for its files",
            ),
            (EngineLost::Exited(3), Crash, "ExitError", "Process exited with code: 3"),
            (EngineLost::Signalled("SIGKILL".into()), Crash, "ExitError", "Process killed by signal SIGKILL"),
            (EngineLost::Failed("no thread".into()), Exception, "EngineError", "the engine failed: no thread"),
        ] {
            assert_eq!(lost_exit(&lost), Exit::error(reason, kind, message));
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for (message, limit, expected) in [
            ("x".repeat(20), 20, "x".repeat(20)),
            ("x".repeat(21), 20, format!("xxxx{CUT}")),
            ("aé😀bcdefghijklmnopqrst".into(), 20, format!("aé{CUT}")),
            ("x".repeat(21), 3, CUT.into()),
        ] {
            let exit = |message| Exit::error(ExitReason::Fail, "JobError", message);
            assert_eq!(capped(exit(message), limit), exit(expected), "{limit}");
        }
        assert_eq!(capped(Exit::success(), 0), Exit::success());
    }

    #[test]
    fn other_ends_have_their_types() {
        let error = CompileError { message: "Unexpected token".into(), position: Position { line: 2, column: 12 } };
        assert_eq!(
            compile_exit("A", &error),
            Exit::error(ExitReason::Crash, "CompileError", "A: Unexpected token (2:12)")
        );
        assert_eq!(
            compile_log_lines("fn(s => {\n  const a = ;\n})", &error),
            ["At line 2, column 13", "2:   const a = ;", "               ^"]
        );
        let error = CompileError { message: "Unexpected token".into(), position: Position { line: 3, column: 4 } };
        assert_eq!(
            compile_log_lines("a\u{2028}b\u{2029}x = ;\nc", &error),
            ["At line 3, column 5", "3: x = ;", "       ^"]
        );
        assert_eq!(
            condition_exit(&thrown(Origin::Job, "TypeError", "no x")),
            Exit::error(ExitReason::Crash, "EdgeConditionError", "no x")
        );
    }
}
