//! Where the worker's own log goes and how much of it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::UtcTime;

use crate::cli::LogLevel;

/// Where log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// For a program whose log is its output.
    Stdout,
    /// For a program that prints something else.
    Stderr,
}

/// Starts logging, once in a process. `RUST_LOG` beats `level`.
pub fn start(level: LogLevel, target: LogTarget) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directive(level)));
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

fn directive(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "warn,worker=debug,protocol=debug,engine_host=debug",
        LogLevel::Info => "warn,worker=info,protocol=info,engine_host=info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::None => "off",
    }
}
