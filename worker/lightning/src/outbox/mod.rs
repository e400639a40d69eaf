//! The ordered outbox of one run: every event leaves it on a definitive reply, in the order in which it happened.
//!
//! Pure: events and replies go in, pushes and progress come out. It never drops a state event; log lines it drops only
//! past [`MAX_LOG_BYTES`], counted and told.

mod fit;
mod item;
mod pushes;
mod replies;
mod verdict;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use base::metrics::metrics;
use protocol::Json;
use protocol::backoff::Backoff;
use protocol::clock::now_us;
use protocol::run::{Exit, ExitReason, LogLevel, LogSource, RunOutcome, StepIndex, StepInput, StepMemory, StepOutput};
use tokio::time::Instant;
use uuid::Uuid;

use super::phoenix::Payload;
use super::server::{Form, Server};
use crate::timeline::Delivery;
use item::{Item, Line, Output, RunComplete, StepComplete, StepStart};
use pushes::WINDOW;
pub(super) use verdict::{describe, is_busy, says_gone};

/// Memory that unsent log lines may take. What comes beyond is dropped and counted.
pub(super) const MAX_LOG_BYTES: usize = 32 * 1024 * 1024;

/// States that wait for delivery beyond this stop the host until they are taken.
const MAX_STATE_BYTES: usize = 4 * 1024 * 1024;

/// So often in a row the link must die on an event for it to go alone, and to be held back for a while when there is a link
/// again: one that dies meanwhile does so by itself.
const SUSPICIOUS: u32 = 3;

/// What a run's log says, once, of states with characters that had to be replaced.
const NUL_REPLACED: &str =
    "States of this run hold NUL characters, which Lightning cannot store: each is replaced by U+FFFD";

/// How many times the usual patience a channel may be silent before it is joined anew.
const STUCK: u32 = 4;

/// Pauses while the server says that it is busy.
const BUSY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How log lines are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// How long lines may gather while a batch is in flight.
    pub interval: Duration,
    /// How many lines go at once.
    pub limit: usize,
}

/// What does not change during a run.
#[derive(Debug, Clone)]
pub(super) struct OutboxOptions {
    pub(super) run_id: String,
    /// The dataclip that first steps get.
    pub(super) input_dataclip_id: Option<String>,
    pub(super) batch: Option<BatchOptions>,
    /// What the server takes.
    pub(super) server: Server,
    /// The longest line of the log, in bytes of JSON.
    pub(super) line_bytes: u64,
    /// How long what links died on is held back when there is a new one.
    pub(super) probation: Duration,
}

/// As much of a text as makes a line of at most `limit` bytes of JSON.
fn cut(text: &str, limit: u64) -> &str {
    const AROUND: u64 = "[\"\"]".len() as u64;
    let mut length = AROUND;
    for (at, char) in text.char_indices() {
        length += match char {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            char => char.len_utf8() as u64,
        };
        if length > limit {
            return &text[..at];
        }
    }
    text
}

/// A step that Lightning is told of and that has not ended. Without one there is no `step:complete`.
#[derive(Debug)]
pub(super) struct OpenStep {
    index: StepIndex,
    job_id: String,
    id: Uuid,
}

impl OpenStep {
    /// Its place in the order of execution.
    pub(super) fn index(&self) -> StepIndex {
        self.index
    }
}

/// How a step ended, as far as it is told.
#[derive(Debug)]
pub(super) struct StepEnd {
    pub(super) exit: Exit,
    pub(super) output: StepOutput,
    pub(super) webhook_response: Option<Json>,
    pub(super) duration_ms: u64,
    pub(super) memory: StepMemory,
    pub(super) thread_id: String,
}

/// An event to push.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) tag: u64,
    pub(super) event: &'static str,
    pub(super) payload: Payload,
}

/// What a reply led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Go on.
    Going,
    /// Lightning refuses what the rest of the run builds on: stop the engine. The outbox has completed the run.
    StopEngine(String),
    /// Replies are missing that can come no more: join the channel anew.
    Rejoin,
    /// Lightning has everything, `run:complete` included.
    Done,
    /// The run is over for Lightning: nothing more can be told.
    Gone(String),
}

/// The outbox.
#[derive(Debug)]
pub(super) struct Outbox {
    options: OutboxOptions,
    /// Dataclips that Lightning has, by the step that made them.
    dataclips: HashMap<StepIndex, Uuid>,
    /// Steps whose dataclip Lightning refused.
    withheld: HashSet<StepIndex>,
    waiting: VecDeque<Entry>,
    sent: VecDeque<Sent>,
    joined: bool,
    open_step: Option<Uuid>,
    /// The step that Lightning was last told to have started, until it has the end of it.
    begun: Option<Begun>,
    last_sequence: u64,
    /// The time of the last log line, by which Lightning orders them.
    last_line_us: u64,
    last_tag: u64,
    /// How many pushes may be in flight.
    window: usize,
    /// The last push that was in flight when the server was busy: it grows with the replies to later ones.
    busy_until: u64,
    /// Events up to this one go one at a time: the last is suspected, and what happens while it is alone is its doing.
    alone_until: u64,
    last_reply: Option<Instant>,
    busy: Backoff,
    /// The server is busy until then.
    hold_until: Option<Instant>,
    /// Lines gather until then.
    gather_until: Option<Instant>,
    log_bytes: usize,
    state_bytes: usize,
    lines_dropped: Dropped,
    /// The rest of what did not get to Lightning at once and as it was.
    delivery: Delivery,
    /// `run:complete` is in the outbox or beyond; nothing may follow it.
    completed: bool,
    /// Replies to steps no longer matter.
    abandoned: bool,
    /// What Lightning is told of the run's end in place of what was to be told.
    replaced_exit: Option<Exit>,
    /// The run's log has [`NUL_REPLACED`].
    told_nul: bool,
}

/// A step that Lightning may have an open record of.
#[derive(Debug, Clone)]
struct Begun {
    step: Uuid,
    job_id: String,
}

#[derive(Debug, Default)]
struct Dropped {
    untold: u64,
    total: u64,
}

#[derive(Debug)]
struct Entry {
    /// Its place in the order of events.
    sequence: u64,
    item: Item,
    /// It was sent before, and will be again.
    resent: bool,
    /// The ids that its dataclip had before: the server may have one of them, and crashes on an id that it has.
    earlier_dataclips: Vec<Uuid>,
    /// The form in which its dataclip was last sent, and the one that was refused.
    form: Option<Form>,
    refused_form: Option<Form>,
    /// How often in a row the link died when it was the longest thing on it.
    losses: u32,
    /// How often the channel crashed on it.
    crashes: u32,
    /// It goes without a batch, since one with it was refused.
    alone: bool,
}

#[derive(Debug)]
struct Sent {
    tag: u64,
    at: Instant,
    /// A later push was answered before it, which the server does not do with one that it will still answer.
    overtaken: bool,
    size: usize,
    /// It went as `run:batch_logs`.
    in_batch: bool,
    entries: Vec<Entry>,
}

impl Outbox {
    /// An empty outbox, whose channel is joined or will be.
    pub(super) fn new(options: OutboxOptions, joined: bool) -> Self {
        Self {
            options,
            dataclips: HashMap::new(),
            withheld: HashSet::new(),
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            joined,
            open_step: None,
            begun: None,
            last_sequence: 0,
            last_line_us: 0,
            last_tag: 0,
            window: WINDOW,
            busy_until: 0,
            alone_until: 0,
            last_reply: None,
            busy: Backoff::new(BUSY, 2.0),
            hold_until: None,
            gather_until: None,
            log_bytes: 0,
            state_bytes: 0,
            lines_dropped: Dropped::default(),
            delivery: Delivery::default(),
            completed: false,
            abandoned: false,
            replaced_exit: None,
            told_nul: false,
        }
    }

    /// The run starts, with the versions that `payload` tells.
    pub(super) fn run_started(&mut self, payload: Payload) {
        self.put(Item::RunStart(payload));
    }

    /// A step starts. Log lines belong to it until it ends.
    pub(super) fn step_started(
        &mut self,
        index: StepIndex,
        job_id: &str,
        input: StepInput,
        timestamp_us: u64,
    ) -> OpenStep {
        let id = Uuid::new_v4();
        self.open_step = Some(id);
        let input = Some(input);
        self.put(Item::StepStart(StepStart { step: id, job_id: job_id.into(), input, timestamp_us }));
        OpenStep { index, job_id: job_id.into(), id }
    }

    /// A step ends.
    pub(super) fn step_completed(&mut self, step: OpenStep, end: StepEnd, timestamp_us: u64) {
        let size = match &end.output {
            StepOutput::State(json) => Some(json.len() as u64),
            StepOutput::TooLarge(bytes) => Some(*bytes),
            StepOutput::Unwanted => None,
        };
        let output = match end.output {
            StepOutput::State(json) => Output::Sent(Uuid::new_v4(), as_object(json)),
            StepOutput::Unwanted => Output::Unwanted(Uuid::new_v4()),
            StepOutput::TooLarge(_) => {
                self.delivery.states_withheld += 1;
                Output::Withheld
            }
        };
        self.open_step = None;
        self.put(Item::StepComplete(Box::new(StepComplete {
            step: step.id,
            job_id: step.job_id,
            index: step.index,
            output,
            size,
            exit: end.exit,
            memory: end.memory,
            duration_ms: end.duration_ms,
            thread_id: end.thread_id,
            webhook_response: end.webhook_response,
            timestamp_us,
        })));
    }

    /// A line for the log; false if it was dropped.
    pub(super) fn log(&mut self, source: LogSource, level: LogLevel, message: Json, timestamp_us: u64) -> bool {
        if self.log_bytes > MAX_LOG_BYTES {
            self.lines_dropped.untold += 1;
            self.lines_dropped.total += 1;
            metrics().log_lines_dropped.inc();
            return false;
        }
        if self.log_bytes <= MAX_LOG_BYTES / 2 {
            self.tell_dropped(timestamp_us);
        }
        self.put_line(source, level, message, timestamp_us);
        true
    }

    /// A line of the runtime.
    fn say(&mut self, level: LogLevel, text: &str, timestamp_us: u64) {
        let message = Json::encode(&[text]).unwrap_or_else(|_| Json::null());
        self.put_line(LogSource::Runtime, level, message, timestamp_us);
    }

    /// A warning of the runtime.
    pub(super) fn warn(&mut self, text: &str) {
        self.say(LogLevel::Warn, text, now_us());
    }

    /// A warning of the runtime that still comes before the run's end, if that was not sent yet.
    fn warn_before_end(&mut self, text: &str) {
        match self.waiting.pop_back_if(|entry| matches!(entry.item, Item::RunComplete(_))) {
            Some(end) => self.requeue_warning(end, text),
            None => self.warn(text),
        }
    }

    /// Puts an entry back to its place, without its NUL characters.
    fn requeue_without_nul(&mut self, entry: Entry) {
        if std::mem::replace(&mut self.told_nul, true) {
            self.requeue(entry);
        } else {
            self.requeue_warning(entry, NUL_REPLACED);
        }
    }

    /// Puts an entry back to its place, with a warning of the runtime that comes before the run's end.
    fn requeue_warning(&mut self, mut entry: Entry, text: &str) {
        if matches!(entry.item, Item::RunComplete(_)) {
            self.completed = false;
            self.warn(text);
            self.completed = true;
            self.last_sequence += 1;
            entry.sequence = self.last_sequence;
            self.waiting.push_back(entry);
        } else {
            self.requeue(entry);
            self.warn_before_end(text);
        }
    }

    /// The run is over: its closing lines and `run:complete`, after which nothing is taken any more.
    pub(super) fn complete(&mut self, outcome: RunOutcome, timestamp_us: u64) {
        self.open_step = None;
        self.tell_dropped(timestamp_us);
        let RunOutcome { exit, final_state, final_step } = outcome;
        let line = format!("Run complete with status: {}", exit.reason.as_str());
        self.say(LogLevel::Info, &line, timestamp_us);
        if let Some(error) = exit.error.as_ref().filter(|_| exit.reason != ExitReason::Success) {
            let line = format!("{}: {}", error.kind, error.message);
            self.say(LogLevel::Info, cut(&line, self.options.line_bytes), timestamp_us);
        }
        let final_state = final_state.map(as_object);
        self.put(Item::RunComplete(Box::new(RunComplete { exit, final_state, final_step, timestamp_us })));
        self.completed = true;
    }

    /// The channel is joined again.
    pub(super) fn joined(&mut self, now: Instant) {
        self.joined = true;
        if self.waiting.iter().any(|entry| entry.losses >= SUSPICIOUS) {
            self.hold_until = Some(now + self.options.probation);
        }
    }

    /// When [`Self::next_push`] should be asked next, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.joined { self.hold_until.into_iter().chain(self.gather_until).min() } else { None }
    }

    /// Whether states wait for delivery, so that the host must wait with the next step.
    pub(super) fn is_congested(&self) -> bool {
        self.state_bytes > MAX_STATE_BYTES
    }

    /// The exit that Lightning got in place of the run's own, if it refused that one.
    pub(super) fn replaced_exit(&self) -> Option<&Exit> {
        self.replaced_exit.as_ref()
    }

    /// How many log lines were dropped.
    pub(super) fn lines_dropped(&self) -> u64 {
        self.lines_dropped.total
    }

    /// What did not get to Lightning at once and as it was.
    pub(super) fn delivery(&self) -> Delivery {
        Delivery { lines_dropped: self.lines_dropped.total, ..self.delivery }
    }

    /// Since when the oldest push waits for its reply.
    pub(super) fn oldest_push(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.at)
    }

    /// The channel is about to be joined anew: nothing is pushed until [`Self::down`] says that it is down.
    pub(super) fn rejoining(&mut self) {
        self.joined = false;
    }

    /// When the channel should be joined anew because a reply does not come, if nothing else happens. A reply may be
    /// late by `patience`; one that may only be slow is given many times that.
    pub(super) fn stuck_at(&self, patience: Duration) -> Option<Instant> {
        let oldest = self.sent.front().filter(|_| self.joined)?;
        // A server that answers others is slow, not stuck.
        let since = self.last_reply.map_or(oldest.at, |reply| reply.max(oldest.at));
        Some(since + if oldest.overtaken { patience } else { patience * STUCK })
    }

    /// How many events Lightning has not confirmed.
    pub(super) fn unconfirmed(&self) -> usize {
        self.waiting.len() + self.sent.iter().map(|sent| sent.entries.len()).sum::<usize>()
    }

    /// Whether `run:complete` was sent, so that the server may have it although its reply never came.
    pub(super) fn may_be_complete(&self) -> bool {
        let sent = self.sent.iter().flat_map(|sent| &sent.entries);
        let resent = self.waiting.iter().filter(|entry| entry.resent);
        sent.chain(resent).any(|entry| matches!(entry.item, Item::RunComplete(_)))
    }

    /// Lines of the same moment get different times: one that had to be sent again because the server was busy may come
    /// after those that were in flight with it, and is to be shown in its place.
    fn put_line(&mut self, source: LogSource, level: LogLevel, message: Json, timestamp_us: u64) {
        if self.completed {
            return;
        }
        let step = self.open_step;
        let message = storable_line(message);
        let timestamp_us = timestamp_us.max(self.last_line_us.saturating_add(1));
        self.last_line_us = timestamp_us;
        self.put(Item::Log(Line { id: Uuid::new_v4(), source, level, message, timestamp_us, step }));
    }

    fn tell_dropped(&mut self, timestamp_us: u64) {
        let lines = std::mem::take(&mut self.lines_dropped.untold);
        if lines > 0 {
            let text = format!("{lines} log lines were dropped here: they came faster than Lightning took them");
            let message = Json::encode(&[text]).unwrap_or_else(|_| Json::null());
            self.put_line(LogSource::Runtime, LogLevel::Warn, message, timestamp_us);
        }
    }

    fn put(&mut self, item: Item) {
        if self.completed {
            return;
        }
        *self.bytes_of(&item) += item.size();
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let entry = Entry {
            sequence,
            item,
            resent: false,
            earlier_dataclips: Vec::new(),
            form: None,
            refused_form: None,
            losses: 0,
            crashes: 0,
            alone: false,
        };
        self.waiting.push_back(entry);
    }

    /// The counter that the item's size is in.
    fn bytes_of(&mut self, item: &Item) -> &mut usize {
        if matches!(item, Item::Log(_)) { &mut self.log_bytes } else { &mut self.state_bytes }
    }

    fn forget(&mut self, item: &Item) {
        let bytes = self.bytes_of(item);
        *bytes = bytes.saturating_sub(item.size());
    }

    /// Puts an entry back to its place.
    fn requeue(&mut self, entry: Entry) {
        let at = self.waiting.iter().position(|other| other.sequence > entry.sequence);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), entry);
    }
}

/// A line's message as Lightning takes it: not without a value, and without what its database cannot store.
fn storable_line(message: Json) -> Json {
    let is_empty = message.as_str().trim().strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]");
    let message = if is_empty { Json::encode(&[""]).unwrap_or(message) } else { message };
    message.without_nul().unwrap_or(message)
}

/// Lightning takes only objects for dataclips. Hosts send nothing else.
fn as_object(json: Json) -> Json {
    if json.is_object() {
        return json;
    }
    Json::parse(format!("{{\"value\":{}}}", json.as_str())).unwrap_or_else(|_| Json::empty_object())
}

#[cfg(test)]
mod tests;
