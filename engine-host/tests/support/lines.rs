//! What an engine under test logs.

use std::sync::Mutex;

use protocol::run::{LogLevel, LogSource};

use super::LogSink;

/// Keeps the lines it gets, as `SOURCE level text`.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn wants(&self, _source: LogSource, _level: LogLevel) -> bool {
        true
    }

    fn write(&self, source: LogSource, level: LogLevel, message: String) {
        self.0.lock().unwrap().push(format!("{} {} {message}", source.as_str(), level.as_str()));
    }
}

impl Lines {
    /// Those since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
