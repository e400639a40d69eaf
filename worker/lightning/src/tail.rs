//! What the worker's own log says of a run.

use base::run_log::{RunLog, TARGET, shortened};
use protocol::Json;
use protocol::run::{Exit, LogLevel, LogSource};
use serde_json::Value;
use tokio::time::Instant;
use tracing::Level;
use tracing::field::display;

use super::outbox::{Outbox, Progress};

/// Says how a run ended, and all of it if Lightning could not be told.
pub(super) fn report_end(run: &str, exit: Option<&Exit>, outbox: &Outbox, progress: &Progress, claimed_at: Instant) {
    let reason = exit.map_or("not yet, so it was stopped", |exit| exit.reason.as_str());
    // A field of its own: it may quote users' data, and who collects messages leaves it out.
    let error = exit.and_then(|exit| exit.error.as_ref()).map(|it| format!("{}: {}", it.kind, it.message));
    let error = error.as_deref().map(shortened);
    let error = error.as_deref();
    let lines = outbox.lines_dropped();
    if lines > 0 {
        tracing::warn!(%run, "{lines} log lines were not delivered");
    }
    match progress {
        Progress::Gone(_) if outbox.may_be_complete() => {
            tracing::warn!(%run, error, "run ended: {reason}; whether Lightning has its end is not known");
        }
        Progress::Gone(why) => {
            let events = outbox.unconfirmed();
            tracing::error!(%run, error, "run lost for Lightning: {why}; it ended here: {reason}; {events} events are not delivered");
        }
        _ => {
            let ms = claimed_at.elapsed().as_millis();
            tracing::info!(%run, error, "run ended: {reason} after {ms}ms");
        }
    }
}

/// Whose line it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaker<'a> {
    pub(super) log: &'a RunLog,
    pub(super) host: &'a str,
    /// Id of the step that is being executed.
    pub(super) step: Option<&'a str>,
}

/// Shows a line of a run's log, already without secrets. What jobs and adaptors write is users' data and is shown only
/// when `tail_jobs` asks for it.
pub(super) fn print_line(speaker: Speaker<'_>, tail_jobs: bool, source: LogSource, level: LogLevel, message: &Json) {
    if matches!(source, LogSource::Job | LogSource::Adaptor) && !tail_jobs {
        return;
    }
    let Speaker { log, host, step } = speaker;
    if level == LogLevel::Debug && !tracing::enabled!(target: TARGET, Level::DEBUG) {
        return;
    }
    let text = plain(message);
    let Some(text) = log.admit(&text) else { return };
    let (run, step, source) = (log.run(), step.map(display), source.as_str());
    match level {
        LogLevel::Error => tracing::error!(target: TARGET, %run, %host, step, "[{source}] {text}"),
        LogLevel::Warn => tracing::warn!(target: TARGET, %run, %host, step, "[{source}] {text}"),
        LogLevel::Info | LogLevel::Success | LogLevel::Always => {
            tracing::info!(target: TARGET, %run, %host, step, "[{source}] {text}");
        }
        LogLevel::Debug => tracing::debug!(target: TARGET, %run, %host, step, "[{source}] {text}"),
    }
}

/// The values of a line one after the other, texts without quotes.
fn plain(message: &Json) -> String {
    let Ok(values) = message.decode::<Vec<Value>>() else { return message.as_str().to_owned() };
    let texts = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), Into::into));
    texts.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_plain_text() {
        let cases = [(r#"["a", 1, {"b": [2]}, null]"#, r#"a 1 {"b":[2]} null"#), ("[]", ""), (r#""odd""#, r#""odd""#)];
        for (message, expected) in cases {
            assert_eq!(plain(&Json::parse(message).unwrap()), expected);
        }
    }
}
