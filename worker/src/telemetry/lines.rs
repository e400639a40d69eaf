//! The worker's own log lines, for the dashboard and for error reports.
//!
//! Only what the worker itself says: not the logs of runs, and not what hosts print, which may be users' data. Of a line
//! the message and the ids are kept; other fields may quote what a user's code said, and are left out.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use protocol::clock::now_us;
use serde::Serialize;
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::logging::OWN_TARGETS;

/// Lines that are kept for who comes later.
const KEPT: usize = 500;
/// Lines that a slow listener may fall behind by.
const BEHIND: usize = 1024;
/// A longer text is cut here, in bytes.
const LONGEST: usize = 1024;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// How bad it is: `ERROR`, `WARN`, `INFO` or `DEBUG`.
    pub level: &'static str,
    /// The module that says it.
    pub target: String,
    /// The run that it is about.
    pub run: Option<String>,
    /// The host that it is about.
    pub host: Option<String>,
    /// What it says.
    pub text: String,
}

/// The lines of this process.
#[derive(Debug)]
pub struct Lines {
    kept: Mutex<VecDeque<Arc<Line>>>,
    new: broadcast::Sender<Arc<Line>>,
}

/// The lines of this process, as far as [`collector`] is among the subscriber's layers.
pub fn lines() -> &'static Lines {
    static LINES: LazyLock<Lines> =
        LazyLock::new(|| Lines { kept: Mutex::default(), new: broadcast::channel(BEHIND).0 });
    &LINES
}

impl Lines {
    /// The last lines, oldest first.
    pub fn last(&self) -> Vec<Arc<Line>> {
        self.kept.lock().iter().cloned().collect()
    }

    /// The lines from now on. Who falls behind misses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Line>> {
        self.new.subscribe()
    }

    fn add(&self, line: Line) {
        let line = Arc::new(line);
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&line));
        // Fails when nobody listens.
        let _ = self.new.send(line);
    }
}

/// The layer that collects lines from this level on.
pub fn collector<S: Subscriber + for<'a> LookupSpan<'a>>(level: Level) -> impl Layer<S> {
    Collector.with_filter(Targets::new().with_targets(OWN_TARGETS.map(|target| (target, level))))
}

struct Collector;

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            at_us: now_us(),
            level: metadata.level().as_str(),
            target: metadata.target().to_owned(),
            run: None,
            host: None,
            text: String::new(),
        };
        event.record(&mut line);
        lines().add(line);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // Writing to a string does not fail.
            "message" => drop(write!(Cut(&mut self.text), "{value:?}")),
            "run" => self.run = Some(format!("{value:?}")),
            "host" => self.host = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

/// Takes no more than [`LONGEST`] bytes.
struct Cut<'a>(&'a mut String);

impl fmt::Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_workers_own_lines_are_kept_with_their_ids_and_without_other_fields() {
        let subscriber = tracing_subscriber::registry().with(collector(Level::DEBUG));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "worker::x", run = "lines-1", host = %"h1", error = "of a user", "it {}", "ends");
            tracing::error!(target: "run", run = "lines-1", "[JOB] of a user");
            tracing::warn!(target: "engine_host", run = "lines-1", "of a user");
            tracing::info!(target: "worker::x", run = "lines-1", "{}", "é".repeat(2 * LONGEST));
        });
        let mine: Vec<_> = lines().last().into_iter().filter(|line| line.run.as_deref() == Some("lines-1")).collect();
        assert_eq!(mine.len(), 2, "{mine:?}");
        assert_eq!((mine[0].text.as_str(), mine[0].host.as_deref()), ("it ends", Some("h1")));
        assert_eq!(mine[1].text.len(), LONGEST);
    }
}
