//! Where the worker's own log goes, how much of it, and how it looks.

use std::io::IsTerminal;

use tracing::{Level, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};
use crate::telemetry::collector;

/// The target of lines that come from a run's log, by which they can be told from the worker's own.
pub const RUN_LOG: &str = "run";

/// Where log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// For a program whose log is its output.
    Stdout,
    /// For a program that prints something else, runs' logs among it.
    Stderr,
}

/// Starts logging, once in a process. `RUST_LOG` beats `level`, unless it is empty or wrong. The worker's own lines are
/// collected from level `collected` on, for who else wants them.
pub fn start(level: LogLevel, format: LogFormat, target: LogTarget, collected: Option<Level>) {
    let named = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let (filter, wrong) = match named.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(directives(level, target)), Some(error)),
        None => (EnvFilter::new(directives(level, target)), None),
    };
    let (writer, terminal) = match target {
        LogTarget::Stdout => (BoxMakeWriter::new(std::io::stdout), std::io::stdout().is_terminal()),
        LogTarget::Stderr => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_timer(SystemTime);
    let lines = match format {
        LogFormat::Human => {
            lines.with_target(false).with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed()
        }
        LogFormat::Json => {
            lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(collected.map(collector)).init();
    if let Some(error) = wrong {
        warn!("RUST_LOG is not used, --log (WORKER_LOG_LEVEL) is: {error}");
    }
}

fn directives(level: LogLevel, target: LogTarget) -> String {
    let own = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::None => return "off".to_owned(),
    };
    // What libraries say is of interest when something is wrong.
    let others = if level == LogLevel::Error { "error" } else { "warn" };
    let runs = if target == LogTarget::Stdout { own } else { "off" };
    format!("{others},worker={own},protocol={own},engine_host={own},{RUN_LOG}={runs}")
}
