//! Where the worker's own log goes, how much of it, and how it looks.

use std::fmt::{self, Debug, Write};
use std::io::IsTerminal;
use std::os::fd::AsFd;

use base::escape::Escaping;
use base::run_log::TARGET;
use rustix::fs::fstat;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};
use crate::telemetry::collector;

const WORKER: &str = "worker";

/// The targets of the worker's own lines: its crates.
pub(crate) const OWN_TARGETS: [&str; 7] = [WORKER, "base", "hosts", "lightning", "mock_lightning", "oada", "protocol"];

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
    let (filter, wrong) = match named.map(|named| EnvFilter::try_new(with_crates(&named))) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(directives(level, target)), Some(error)),
        None => (EnvFilter::new(directives(level, target)), None),
    };
    let (writer, terminal, journal) = match target {
        LogTarget::Stdout => {
            let stream = std::io::stdout();
            (BoxMakeWriter::new(std::io::stdout), stream.is_terminal(), is_journal(stream))
        }
        LogTarget::Stderr => {
            let stream = std::io::stderr();
            (BoxMakeWriter::new(std::io::stderr), stream.is_terminal(), is_journal(stream))
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_timer(SystemTime);
    let lines = match format {
        LogFormat::Human => {
            let lines = lines.fmt_fields(debug_fn(write_field).delimited(" ")).with_target(false);
            let coloured = terminal && std::env::var_os("NO_COLOR").is_none();
            match journal {
                // It has the time.
                true => lines.without_time().with_ansi(false).map_event_format(Prioritised).boxed(),
                false => lines.with_ansi(coloured).boxed(),
            }
        }
        LogFormat::Json => {
            let lines = lines.with_ansi(false).json().flatten_event(true);
            let lines = lines.with_current_span(false).with_span_list(false);
            if journal { lines.map_event_format(Prioritised).boxed() } else { lines.boxed() }
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(collected.map(collector)).init();
    if let Some(error) = wrong {
        warn!("ignoring RUST_LOG and using --log (WORKER_LOG_LEVEL): {error}");
    }
}

/// Writes the message, or another field after its name, as one line.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let name = field.name().strip_prefix("r#").unwrap_or(field.name());
    match (name, writer.has_ansi_escapes()) {
        ("message", _) => {}
        (name, true) => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
        (name, false) => write!(writer, "{name}=")?,
    }
    write!(Escaping(writer), "{value:?}")
}

/// Prints an error that ends the program, on stderr.
pub fn print_error(text: &str) {
    let priority = if is_journal(std::io::stderr()) { format!("<{}>", priority(Level::ERROR)) } else { String::new() };
    eprintln!("{priority}error: {text}");
}

/// Lines that begin with their priority, as journald reads it from what a service prints.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The priority of syslog, as in `sd-daemon(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Whether journald reads this stream: systemd names the device and inode of the one that it made (`systemd.exec(5)`).
fn is_journal(stream: impl AsFd) -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    fstat(stream).is_ok_and(|it| named.to_str() == Some(&format!("{}:{}", it.st_dev, it.st_ino)))
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
    let ours = OWN_TARGETS.map(|name| format!("{name}={own}")).join(",");
    format!("{others},{ours},engine_host={own},{TARGET}={runs}")
}

/// Directives in which `worker` stands for all crates of the worker, and `worker::hosts` for the one of this name.
fn with_crates(directives: &str) -> String {
    let crates = || OWN_TARGETS.into_iter().filter(|name| *name != WORKER);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '=', '[']);
    let (mut all, mut named) = (Vec::new(), Vec::new());
    for directive in directives.split(',') {
        let of_worker = directive.trim().strip_prefix(WORKER).filter(|rest| ends(rest));
        match of_worker.map(|rest| (rest, rest.strip_prefix("::"))) {
            Some((_, Some(path))) if crates().any(|name| path.strip_prefix(name).is_some_and(ends)) => {
                named.push(path.to_owned());
            }
            Some((rest, None)) => all.extend(crates().chain([WORKER]).map(|name| format!("{name}{rest}"))),
            _ => named.push(directive.to_owned()),
        }
    }
    // The more exact ones beat those before them.
    all.extend(named);
    all.join(",")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{error, info};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_names_the_worker_means_all_of_its_crates() {
        let all = "base=debug,hosts=debug,lightning=debug,mock_lightning=debug,oada=debug,protocol=debug,worker=debug";
        for (named, expected) in [
            ("info,worker::hosts=debug", "info,hosts=debug".to_owned()),
            ("worker=debug,hyper=info", format!("{all},hyper=info")),
            ("worker::lightning::run=warn, worker=debug", format!("{all},lightning::run=warn")),
            ("worker::start=debug,workers=info,hosts", "worker::start=debug,workers=info,hosts".to_owned()),
        ] {
            assert_eq!(with_crates(named), expected);
            assert!(EnvFilter::try_new(with_crates(named)).is_ok());
        }
    }

    #[test]
    fn an_event_is_one_line_for_people_whatever_its_fields_hold() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).without_time();
        let lines = lines.fmt_fields(debug_fn(write_field).delimited(" ")).with_target(false).with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let id = "r1\n2026-01-01 ERROR forged";
            info!(run = %id, step = id, error = Some(id), none = None::<&str>, count = 3, "it\r\nends\u{1b}[2J {id}");
            error!("plain");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let forged = r"r1\n2026-01-01 ERROR forged";
        let expected =
            format!(r#" INFO it\r\nends\u{{1b}}[2J {forged} run={forged} step="{forged}" error="{forged}" count=3"#);
        assert_eq!(lines, [expected.as_str(), "ERROR plain"]);
    }
}
