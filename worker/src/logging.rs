//! Where the worker's own log goes and how much of it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::UtcTime;

use crate::cli::LogLevel;

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

/// Starts logging, once in a process. `RUST_LOG` beats `level`.
pub fn start(level: LogLevel, target: LogTarget) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(level, target)));
    let terminal = match target {
        LogTarget::Stdout => std::io::stdout().is_terminal(),
        LogTarget::Stderr => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(UtcTime::rfc_3339())
        .with_target(false)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none());
    match target {
        LogTarget::Stdout => builder.init(),
        LogTarget::Stderr => builder.with_writer(std::io::stderr).init(),
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
