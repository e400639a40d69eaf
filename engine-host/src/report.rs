//! The one ordered stream in which a run is reported: events, log lines and ends of steps, in the order in which they
//! happened, whether they come from the walk or from the engine's own thread.
//!
//! The stream is bounded, so that a job cannot log faster than the worker takes. It knows nothing of the link.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use protocol::Json;
use protocol::clock::now_us;
use protocol::run::{LogLevel, LogLine, LogSource, RunEvent, RunOptions, StepCompleted};
use tokio::sync::{mpsc, oneshot};

use crate::engine::LogSink;
use crate::log::{self, LogPolicy};

/// So many reports wait at most. Few, because each may be as long as the log's payload limit.
const BACKLOG: usize = 64;

/// Something to tell the worker.
#[derive(Debug)]
pub enum Report {
    /// An event or a log line.
    Event(RunEvent),
    /// A step's end, and where to say that the worker has it.
    Completed(Box<StepCompleted>, oneshot::Sender<()>),
}

/// The worker will not take anything more of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker did not take the step's end")]
pub struct NotTaken;

/// The writing end of the stream.
#[derive(Debug, Clone)]
pub struct Reporter {
    reports: mpsc::Sender<Report>,
    policy: LogPolicy,
    muted: Arc<AtomicBool>,
}

/// The stream of a run with these options.
pub fn stream(options: &RunOptions) -> (Reporter, mpsc::Receiver<Report>) {
    let (reports, receiver) = mpsc::channel(BACKLOG);
    (Reporter { reports, policy: LogPolicy::new(options), muted: Arc::default() }, receiver)
}

impl Reporter {
    /// Reports an event. A worker that is gone cannot be told; the link's end stops the host then.
    pub async fn event(&self, event: RunEvent) {
        let _ = self.reports.send(Report::Event(event)).await;
    }

    /// Reports a step's end and waits until the worker has taken it.
    pub async fn completed(&self, step: StepCompleted) -> Result<(), NotTaken> {
        let (taken, wait) = oneshot::channel();
        self.reports.send(Report::Completed(Box::new(step), taken)).await.map_err(|_| NotTaken)?;
        wait.await.map_err(|_| NotTaken)
    }

    /// Writes a line of the host's own into the run's log.
    pub async fn log(&self, source: LogSource, level: LogLevel, line: &str) {
        if let Some(line) = self.line(source, level, log::text(line).as_str().to_owned()) {
            self.event(RunEvent::Log(line)).await;
        }
    }

    /// From now on lines from the engine are dropped: its run is over, even if it does not know.
    pub fn mute_engine(&self) {
        self.muted.store(true, Ordering::Relaxed);
    }

    fn line(&self, source: LogSource, level: LogLevel, message: String) -> Option<LogLine> {
        let message: Json = self.policy.apply(message)?;
        Some(LogLine { source, level, message, timestamp_us: now_us() })
    }
}

/// The log of an engine, which is started before the run that it will be for is known. Lines before that are dropped.
#[derive(Debug, Default)]
pub struct EngineLog {
    reporter: OnceLock<Reporter>,
}

impl EngineLog {
    /// Lines go to this run's log from now on. An engine has one run.
    pub fn open(&self, reporter: Reporter) {
        let _ = self.reporter.set(reporter);
    }

    fn reporter(&self) -> Option<&Reporter> {
        self.reporter.get().filter(|reporter| !reporter.muted.load(Ordering::Relaxed))
    }
}

impl LogSink for EngineLog {
    fn wants(&self, source: LogSource, level: LogLevel) -> bool {
        self.reporter().is_some_and(|reporter| reporter.policy.wants(source, level))
    }

    fn write(&self, source: LogSource, level: LogLevel, message: String) {
        let Some(reporter) = self.reporter() else { return };
        if !reporter.policy.wants(source, level) {
            return;
        }
        if let Some(line) = reporter.line(source, level, message) {
            let _ = reporter.reports.blocking_send(Report::Event(RunEvent::Log(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(report: Option<Report>) -> Option<String> {
        match report? {
            Report::Event(RunEvent::Log(line)) => Some(line.message.as_str().to_owned()),
            other => panic!("not a log line: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_job_that_logs_much_waits_for_the_worker() {
        let (reporter, mut reports) = stream(&RunOptions::default());
        let log = EngineLog::default();
        log.open(reporter);
        const LINES: usize = 100_000;
        let job = std::thread::spawn(move || {
            for n in 0..LINES {
                log.write(LogSource::Job, LogLevel::Info, format!("[{n}]"));
            }
        });
        let mut next = 0;
        while let Some(line) = message(reports.recv().await) {
            assert!(reports.len() <= BACKLOG);
            assert_eq!(line, format!("[{next}]"));
            next += 1;
        }
        job.join().unwrap();
        assert_eq!(next, LINES);
    }

    #[test]
    fn an_engine_without_a_run_is_not_heard() {
        let log = EngineLog::default();
        assert!(!log.wants(LogSource::Job, LogLevel::Error));
        log.write(LogSource::Job, LogLevel::Error, "[1]".into());

        let (reporter, mut reports) = stream(&RunOptions::default());
        log.open(reporter.clone());
        log.write(LogSource::Job, LogLevel::Error, "[2]".into());
        assert_eq!(message(reports.try_recv().ok()).as_deref(), Some("[2]"));

        reporter.mute_engine();
        assert!(!log.wants(LogSource::Job, LogLevel::Error));
        log.write(LogSource::Job, LogLevel::Error, "[3]".into());
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn a_reader_that_is_gone_blocks_nobody() {
        let (reporter, reports) = stream(&RunOptions::default());
        drop(reports);
        let log = EngineLog::default();
        log.open(reporter);
        for _ in 0..=BACKLOG {
            log.write(LogSource::Job, LogLevel::Info, "[1]".into());
        }
    }
}
