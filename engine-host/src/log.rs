//! The run's log: which lines are sent, and in what form.
//!
//! Pure; [`crate::report`] does the sending. Secrets are not known here: the worker takes them out.

use std::time::Duration;

use protocol::Json;
use protocol::run::{Exit, JobLogLevel, LogLevel, LogSource, RunOptions, Sanitize};
use serde_json::value::RawValue;

use crate::state::Object;

const TOO_LONG: &str = "[REDACTED: Message length exceeds payload limit]";
const SECRET: &str = "****";
/// How the text of an error begins, and of nothing else: an error is no object to be hidden.
const ERROR: &str = "{ \"";

/// Objects nested deeper than this are not searched for credentials but hidden.
const SEARCH_DEPTH: usize = 64;

/// What a run's options say about its log.
#[derive(Debug, Clone, Copy)]
pub struct LogPolicy {
    job_level: JobLogLevel,
    sanitize: Sanitize,
    limit_bytes: u64,
}

impl LogPolicy {
    /// The policy of a run with these options.
    pub fn new(options: &RunOptions) -> Self {
        Self { job_level: options.job_log_level, sanitize: options.sanitize, limit_bytes: options.log_payload_bytes }
    }

    /// Whether lines of this kind are sent. Only a job's console is filtered.
    pub fn wants(&self, source: LogSource, level: LogLevel) -> bool {
        if source != LogSource::Job {
            return true;
        }
        let loudness = match level {
            LogLevel::Debug => JobLogLevel::Debug,
            LogLevel::Info | LogLevel::Success => JobLogLevel::Info,
            LogLevel::Warn | LogLevel::Always => JobLogLevel::Warn,
            LogLevel::Error => return true,
        };
        loudness >= self.job_level
    }

    /// The message in the form in which it is sent, if anything of it is left. `message` is the text of a JSON array.
    pub fn apply(&self, message: String) -> Option<Json> {
        let message = self.sanitized(message)?;
        if message.len() as u64 > self.limit_bytes {
            return Some(text(TOO_LONG));
        }
        let message = if message.contains("\"configuration\"") { hide_configuration(&message) } else { message };
        Some(Json::parse(message).unwrap_or_else(|error| text(&format!("[a log line that cannot be shown: {error}]"))))
    }

    fn sanitized(&self, message: String) -> Option<String> {
        if self.sanitize == Sanitize::None && !message.contains(ERROR) {
            return Some(message);
        }
        let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(&message) else { return Some(message) };
        let values: Vec<String> = values.into_iter().map(|value| self.sanitized_value(value)).collect();
        // A line of nothing but a removed value says nothing.
        if self.sanitize == Sanitize::Remove && values == ["null"] {
            return None;
        }
        Some(format!("[{}]", values.join(",")))
    }

    fn sanitized_value(&self, value: &RawValue) -> String {
        if let Some(fields) = value.get().strip_prefix(ERROR) {
            return format!("{{\"{fields}");
        }
        let kind = value.get().as_bytes().first();
        match (self.sanitize, kind) {
            (Sanitize::Remove, Some(b'{' | b'[')) => "null".to_owned(),
            (Sanitize::Obfuscate, Some(b'{')) => "\"[object]\"".to_owned(),
            (Sanitize::Obfuscate, Some(b'[')) => "\"[array]\"".to_owned(),
            (Sanitize::Summarize, Some(b'[')) => match Object::of_raw(Some(value)).members().count() {
                0 => "\"(empty array)\"".to_owned(),
                length => format!("\"(array with {length} items)\""),
            },
            (Sanitize::Summarize, Some(b'{')) => summary_of_object(value),
            _ => value.get().to_owned(),
        }
    }
}

/// A message of one text.
pub fn text(line: &str) -> Json {
    Json::encode(&[line]).expect("a string is JSON")
}

/// An exit as a line.
pub fn describe(exit: &Exit) -> String {
    match &exit.error {
        Some(error) => format!("{}: {}", error.kind, error.message),
        None => exit.reason.as_str().to_owned(),
    }
}

/// A time span as a line tells it.
pub fn duration(took: Duration) -> String {
    match took.as_millis() {
        short @ 0..10_000 => format!("{short} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

fn summary_of_object(value: &RawValue) -> String {
    let object = Object::of_raw(Some(value));
    let mut keys: Vec<&str> = object.members().map(|(name, _)| name).collect();
    keys.sort_unstable();
    let summary = match keys.as_slice() {
        [] => "(empty object)".to_owned(),
        keys => format!("(object with keys {})", keys.join(", ")),
    };
    quoted(&summary)
}

/// The message with all values of any object's `configuration` hidden.
fn hide_configuration(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    match serde_json::from_str::<&RawValue>(message) {
        Ok(value) => copy_hiding(value, 0, &mut out),
        Err(_) => out.push_str(message),
    }
    out
}

fn copy_hiding(value: &RawValue, depth: usize, out: &mut String) {
    let text = value.get();
    if !text.contains("\"configuration\"") {
        return out.push_str(text);
    }
    if depth == SEARCH_DEPTH {
        return out.push_str(&quoted(SECRET));
    }
    let object = Object::of_raw(Some(value));
    if text.starts_with('[') {
        copy_all('[', ']', object.members(), out, |(_, item), out| copy_hiding(item, depth + 1, out));
    } else if text.starts_with('{') {
        copy_all('{', '}', object.members(), out, |(name, member), out| {
            out.push_str(&quoted(name));
            out.push(':');
            match name {
                "configuration" => copy_hidden(member, out),
                _ => copy_hiding(member, depth + 1, out),
            }
        });
    } else {
        out.push_str(text);
    }
}

/// A credential: its keys may be seen, its values may not.
fn copy_hidden(value: &RawValue, out: &mut String) {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let object = Object::of_raw(Some(value));
            copy_all('{', '}', object.members(), out, |(name, _), out| {
                out.push_str(&quoted(name));
                out.push(':');
                out.push_str(&quoted(SECRET));
            });
        }
        Some(b'n' | b't' | b'f') => out.push_str(value.get()),
        _ => out.push_str(&quoted(SECRET)),
    }
}

fn copy_all<T>(
    open: char,
    close: char,
    items: impl Iterator<Item = T>,
    out: &mut String,
    mut copy: impl FnMut(T, &mut String),
) {
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        copy(item, out);
    }
    out.push(close);
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(sanitize: Sanitize) -> LogPolicy {
        LogPolicy::new(&RunOptions { sanitize, log_payload_bytes: 200, ..RunOptions::default() })
    }

    fn applied(sanitize: Sanitize, message: &str) -> Option<String> {
        policy(sanitize).apply(message.to_owned()).map(|json| json.as_str().to_owned())
    }

    #[test]
    fn the_filter_is_for_the_jobs_console() {
        use JobLogLevel as Filter;
        use LogLevel::{Always, Debug, Error, Info, Success, Warn};
        for (filter, passing) in [
            (Filter::Debug, &[Debug, Info, Success, Always, Warn, Error][..]),
            (Filter::Info, &[Info, Success, Always, Warn, Error]),
            (Filter::Warn, &[Always, Warn, Error]),
            (Filter::Error, &[Error]),
            (Filter::None, &[Error]),
        ] {
            let policy = LogPolicy::new(&RunOptions { job_log_level: filter, ..RunOptions::default() });
            for level in [Debug, Info, Success, Always, Warn, Error] {
                assert_eq!(policy.wants(LogSource::Job, level), passing.contains(&level), "{filter:?} {level:?}");
                assert!(policy.wants(LogSource::Adaptor, level));
                assert!(policy.wants(LogSource::Runtime, level));
            }
        }
    }

    #[test]
    fn objects_and_arrays_follow_the_policy() {
        let message = r#"["t",1,null,{"b":1,"a":[]},[1,2],{},[]]"#;
        for (sanitize, expected) in [
            (Sanitize::None, message),
            (Sanitize::Remove, r#"["t",1,null,null,null,null,null]"#),
            (Sanitize::Obfuscate, r#"["t",1,null,"[object]","[array]","[object]","[array]"]"#),
            (
                Sanitize::Summarize,
                r#"["t",1,null,"(object with keys a, b)","(array with 2 items)","(empty object)","(empty array)"]"#,
            ),
        ] {
            assert_eq!(applied(sanitize, message).as_deref(), Some(expected));
        }
    }

    #[test]
    fn errors_are_shown_whatever_the_policy() {
        let message = r#"["{ \"","if (x) { ",{ "name":"Error","message":"{ \"x\""},{"name":"Error"}]"#;
        for (sanitize, object) in [
            (Sanitize::None, r#"{"name":"Error"}"#),
            (Sanitize::Remove, "null"),
            (Sanitize::Obfuscate, r#""[object]""#),
            (Sanitize::Summarize, r#""(object with keys name)""#),
        ] {
            let expected = format!(r#"["{{ \"","if (x) {{ ",{{"name":"Error","message":"{{ \"x\""}},{object}]"#);
            assert_eq!(applied(sanitize, message), Some(expected));
        }
    }

    #[test]
    fn a_line_that_is_removed_is_dropped() {
        assert_eq!(applied(Sanitize::Remove, r#"[{"a":1}]"#), None);
        assert_eq!(applied(Sanitize::None, "[null]").as_deref(), Some("[null]"));
    }

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        for (message, expected) in [
            (
                r#"[{"configuration":{"user":"ann","n":[1]},"data":{}}]"#,
                r#"[{"configuration":{"user":"****","n":"****"},"data":{}}]"#,
            ),
            (r#"["s",[{"x":{"configuration":{"a":1}}}]]"#, r#"["s",[{"x":{"configuration":{"a":"****"}}}]]"#),
            (r#"[{"configuration":"token"}]"#, r#"[{"configuration":"****"}]"#),
            (r#"[{"configuration":["token"]}]"#, r#"[{"configuration":"****"}]"#),
            (r#"[{"configuration":null}]"#, r#"[{"configuration":null}]"#),
            (r#"["a \"configuration\" here"]"#, r#"["a \"configuration\" here"]"#),
        ] {
            assert_eq!(applied(Sanitize::None, message).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_too_deep_to_search_is_hidden() {
        let depth = 100_000;
        let message = format!("{}{}{}", "[".repeat(depth), r#"{"configuration":{"a":"secret"}}"#, "]".repeat(depth));
        let policy = LogPolicy::new(&RunOptions::default());
        let shown = policy.apply(message).unwrap();
        assert!(!shown.as_str().contains("secret") && shown.as_str().contains(SECRET));
    }

    #[test]
    fn long_lines_are_replaced() {
        let long = format!("[\"{}\"]", "x".repeat(200));
        let redacted = r#"["[REDACTED: Message length exceeds payload limit]"]"#;
        assert_eq!(applied(Sanitize::None, &long).as_deref(), Some(redacted));
        let object = format!("[{{\"a\":{long}}}]");
        assert_eq!(applied(Sanitize::Obfuscate, &object).as_deref(), Some(r#"["[object]"]"#));
    }

    #[test]
    fn what_is_no_json_is_not_sent() {
        assert!(applied(Sanitize::None, "[oops").unwrap().contains("cannot be shown"));
    }
}
