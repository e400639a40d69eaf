//! What hosts print, line by line into the worker's log.
//!
//! A host's pipes are always read, so that printing never holds a host up. What is too much is thrown away and
//! counted: lines longer than [`LONGEST_LINE`], and lines beyond what [`Allowance`] lets pass. The secrets of a host's run
//! are taken out of what is printed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::escape::{one_line, without_url_secrets};
use base::redact::Redactor;
use base::run_log::RunLog;
use protocol::message::{HostLog, HostLogLevel};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tracing::field::{DisplayValue, display};
use tracing::{debug, error, info, trace, warn};

use super::lines::{HostLine, Lines};

/// Bytes that are read of a pipe at once.
const AT_ONCE: usize = 16 * 1024;
/// A longer line is cut here, in bytes.
const LONGEST_LINE: usize = 8 * 1024;
/// Bytes that a stream may print at once.
const BURST: u64 = 256 * 1024;
/// Bytes that a stream may print a second in the long run.
const RATE: u64 = 32 * 1024;
/// What a line costs beyond its bytes: a flood of short lines is as bad as one of long ones.
const LINE_COST: u64 = 64;

/// Which of a host's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// The link, over which it sends lines for the log.
    Link,
}

/// Whose output it is.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    /// The host's id.
    pub(super) host: String,
    /// The run that it executes, or has executed.
    pub(super) run: watch::Receiver<Option<Arc<RunLog>>>,
    /// Who looks on.
    pub(super) lines: Lines,
}

/// Reads `pipe` to its end.
pub(super) async fn pump(mut pipe: impl AsyncRead + Unpin, stream: Stream, speaker: Speaker) {
    let mut lines = Splitter::default();
    let mut allowance = Allowance::new(Instant::now());
    let mut buffer = Vec::with_capacity(AT_ONCE);
    loop {
        buffer.clear();
        // An error on a pipe from a child means the same as its end: nothing more will come.
        let count = pipe.read_buf(&mut buffer).await.unwrap_or(0);
        let now = Instant::now();
        let level = if stream == Stream::Stderr { HostLogLevel::Warn } else { HostLogLevel::Info };
        let mut print = |line: &[u8], is_cut| match allowance.take(line.len(), now) {
            Verdict::Pass => speaker.say(stream, level, line, is_cut),
            Verdict::PassAfter(dropped) => {
                speaker.tell_dropped(stream, dropped);
                speaker.say(stream, level, line, is_cut);
            }
            Verdict::Drop => {}
        };
        if count == 0 {
            lines.finish(&mut print);
            break;
        }
        lines.add(&buffer, &mut print);
    }
    if let Some(dropped) = allowance.dropped() {
        speaker.tell_dropped(stream, dropped);
    }
}

/// Writes a line to the worker's log.
fn write(level: HostLogLevel, host: &str, run: Option<DisplayValue<&String>>, text: &str) {
    match level {
        HostLogLevel::Trace => trace!(target: "engine_host", %host, run, "{text}"),
        HostLogLevel::Debug => debug!(target: "engine_host", %host, run, "{text}"),
        HostLogLevel::Info => info!(target: "engine_host", %host, run, "{text}"),
        HostLogLevel::Warn => warn!(target: "engine_host", %host, run, "{text}"),
        HostLogLevel::Error => error!(target: "engine_host", %host, run, "{text}"),
    }
}

impl Speaker {
    /// Passes on a line that the host sent over its link.
    pub(super) fn log(&self, line: &HostLog, allowance: &mut Allowance) {
        let message = one_line(&line.message);
        let bytes = message.as_bytes();
        let kept = &bytes[..bytes.len().min(LONGEST_LINE)];
        let verdict = allowance.take(kept.len(), Instant::now());
        if let Verdict::PassAfter(dropped) = verdict {
            self.tell_dropped(Stream::Link, dropped);
        }
        if verdict != Verdict::Drop {
            self.say(Stream::Link, line.level, kept, kept.len() < bytes.len());
        }
    }

    fn say(&self, stream: Stream, level: HostLogLevel, line: &[u8], is_cut: bool) {
        let log = self.run.borrow().clone();
        let text = printable(line, is_cut, log.as_ref().map(|log| log.redactor()));
        let shown = match &log {
            Some(log) => log.admit(&text),
            None => Some(Cow::Borrowed(text.as_str())),
        };
        let run = log.as_ref().map(|log| log.run().to_owned());
        if let Some(text) = shown {
            write(level, &self.host, run.as_ref().map(display), &text);
        }
        self.lines.add(HostLine { host: self.host.clone(), run, stream, text });
    }

    fn tell_dropped(&self, stream: Stream, dropped: Dropped) {
        let Dropped { lines, bytes } = dropped;
        let run = self.run.borrow().as_ref().map(|log| log.run().to_owned());
        let text = format!("{lines} lines ({bytes} bytes) of {stream} were dropped: too many at once");
        let shown = run.as_ref().map(display);
        warn!(target: "engine_host", host = %self.host, run = shown, "{text}");
        self.lines.add(HostLine { host: self.host.clone(), run, stream, text });
    }
}

/// A line as it may be shown. The end of one that was cut may hold a part of a secret, so it goes.
fn printable(line: &[u8], is_cut: bool, redactor: Option<&Redactor>) -> String {
    let line = String::from_utf8_lossy(line);
    // Installers quote the addresses of proxies and registries.
    let line = without_url_secrets(&line);
    match (redactor, is_cut) {
        (None, false) => line.into_owned(),
        (None, true) => format!("{line} [cut]"),
        (Some(redactor), false) => redactor.text(&line).into_owned(),
        (Some(redactor), true) => redactor.cut_text(&line) + " [cut]",
    }
}

/// Splits bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Splitter {
    /// The line that has no end yet, as far as it is kept.
    partial: Vec<u8>,
    is_cut: bool,
}

impl Splitter {
    /// Takes more bytes and gives each line that they complete to `print`, with whether it was cut.
    fn add(&mut self, bytes: &[u8], print: &mut impl FnMut(&[u8], bool)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.append(piece);
            self.emit(print);
        }
        self.append(last);
    }

    /// Gives the last line to `print` if it has no end.
    fn finish(&mut self, print: &mut impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            self.emit(print);
        }
    }

    fn append(&mut self, piece: &[u8]) {
        let room = LONGEST_LINE - self.partial.len();
        self.is_cut |= piece.len() > room;
        self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn emit(&mut self, print: &mut impl FnMut(&[u8], bool)) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        print(line, self.is_cut);
        self.partial.clear();
        self.is_cut = false;
    }
}

/// What was thrown away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Dropped {
    lines: u64,
    bytes: u64,
}

/// Whether a line may be printed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// It may, after a word about those before it that might not.
    PassAfter(Dropped),
    Drop,
}

/// A bucket of bytes that fills at [`RATE`] up to [`BURST`], and that each line empties.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
    filled: Instant,
    dropped: Dropped,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now, dropped: Dropped::default() }
    }

    fn take(&mut self, bytes: usize, now: Instant) -> Verdict {
        let bytes = bytes as u64;
        self.fill(now);
        let cost = bytes + LINE_COST;
        // Once lines are dropped they are until half of the bucket is full, so that they are told about seldom.
        let needed = if self.dropped == Dropped::default() { cost } else { cost.max(BURST / 2) };
        if self.left < needed {
            self.dropped.lines += 1;
            self.dropped.bytes += bytes;
            return Verdict::Drop;
        }
        self.left -= cost;
        self.dropped().map_or(Verdict::Pass, Verdict::PassAfter)
    }

    /// What has been dropped since this was asked last.
    fn dropped(&mut self) -> Option<Dropped> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped != Dropped::default()).then_some(dropped)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let gained = elapsed.as_micros() * u128::from(RATE) / Duration::from_secs(1).as_micros();
        if gained > 0 {
            self.left = self.left.saturating_add(u64::try_from(gained).unwrap_or(BURST)).min(BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        let mut print = |line: &[u8], is_cut| found.push((String::from_utf8_lossy(line).into_owned(), is_cut));
        let mut lines = Splitter::default();
        for chunk in chunks {
            lines.add(chunk, &mut print);
        }
        lines.finish(&mut print);
        found
    }

    fn whole(texts: &[&str]) -> Vec<(String, bool)> {
        texts.iter().map(|text| ((*text).to_owned(), false)).collect()
    }

    #[test]
    fn lines_are_found_however_the_bytes_arrive() {
        let text = "a\r\n\nb\u{e9}\nlast".as_bytes();
        for split in 0..text.len() {
            assert_eq!(lines(&[&text[..split], &text[split..]]), whole(&["a", "", "b\u{e9}", "last"]), "{split}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(lines(&[b"x\xffy\n"]), whole(&["x\u{fffd}y"]));
    }

    #[test]
    fn long_lines_are_cut_and_do_not_use_more_memory() {
        let chunk = vec![b'x'; 100_000];
        let found = lines(&[&chunk, &chunk, b"\nshort\n"]);
        assert_eq!(found[0], ("x".repeat(LONGEST_LINE), true));
        assert_eq!(found[1], ("short".to_owned(), false));
        let exact = vec![b'x'; LONGEST_LINE];
        assert_eq!(lines(&[&exact, b"\n"]), [("x".repeat(LONGEST_LINE), false)]);
    }

    #[test]
    fn a_runs_secrets_are_taken_out_of_what_its_host_prints() {
        let redactor = Redactor::new([], ["hunter2-hunter2"]);
        let shown = |line: &str, is_cut| printable(line.as_bytes(), is_cut, Some(&redactor));
        assert_eq!(shown("it is hunter2-hunter2!", false), "it is ***!");
        assert_eq!(printable(b"it is h", true, None), "it is h [cut]");
        for (length, _) in "hunter2-hunter2".char_indices() {
            let line = "x".repeat(20) + &"hunter2-hunter2"[..length];
            let cut = shown(&line, true);
            assert!(cut.starts_with("xx") && !cut.contains('h'), "{cut}");
        }
        assert_eq!(shown("\u{e9}\u{e9} hunter2-", true), "\u{e9}\u{e9} *** [cut]");
    }

    #[test]
    fn a_flood_is_dropped_counted_and_told_once() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let cost = 936 + LINE_COST;
        let passed = (0..1_000).filter(|_| allowance.take(936, start) == Verdict::Pass).count() as u64;
        assert_eq!(passed, BURST / cost);
        let dropped = Dropped { lines: 1_000 - passed, bytes: (1_000 - passed) * 936 };

        let soon = start + Duration::from_secs(1);
        assert_eq!(allowance.take(936, soon), Verdict::Drop);
        let later = start + Duration::from_secs(BURST / RATE);
        let dropped = Dropped { lines: dropped.lines + 1, bytes: dropped.bytes + 936 };
        assert_eq!(allowance.take(936, later), Verdict::PassAfter(dropped));
        assert_eq!(allowance.take(936, later), Verdict::Pass);
        assert_eq!(allowance.dropped(), None);
    }

    #[test]
    fn slow_lines_always_pass() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for second in 0..10_000 {
            assert_eq!(allowance.take(20_000, start + Duration::from_secs(second)), Verdict::Pass, "{second}");
        }
    }
}
