//! What goes next, and when.

use protocol::Json;
use protocol::run::{StepIndex, StepInput};
use tokio::time::Instant;
use uuid::Uuid;

use super::item::{Item, RunComplete, batch_payload};
use super::{BatchOptions, Begun, Entry, Outbox, Push, Sent};
use crate::phoenix::Payload;
use crate::server::Form;

/// Most pushes in flight. The server handles a run's events one at a time, so more would only wait there.
pub(super) const WINDOW: usize = 64;

/// Bytes in flight beyond which nothing further is pushed.
pub(super) const WINDOW_BYTES: usize = 4 * 1024 * 1024;

impl Outbox {
    /// The next event to push, if one may go now.
    pub(crate) fn next_push(&mut self, now: Instant) -> Option<Push> {
        self.hold_until = self.hold_until.filter(|&until| until > now);
        if !self.joined || self.hold_until.is_some() || self.sent.len() >= self.window() || !self.may_go() {
            self.gather_until = None;
            return None;
        }
        if !self.fit_first() {
            return self.next_push(now);
        }
        let count = self.gathered(now)?;
        let entries: Vec<_> = self.waiting.drain(..count).collect();
        let size = entries.iter().map(|entry| entry.item.size()).sum();
        self.last_tag += 1;
        let push = self.push(self.last_tag, &entries);
        if let Item::StepStart(start) = &entries[0].item {
            self.begun = Some(Begun { step: start.step, job_id: start.job_id.clone() });
        }
        let in_batch = push.event == "run:batch_logs";
        self.sent.push_back(Sent { tag: self.last_tag, at: now, overtaken: false, size, in_batch, entries });
        Some(push)
    }

    /// How many pushes may be in flight for now.
    fn window(&self) -> usize {
        let in_flight = self.sent.iter().flat_map(|sent| &sent.entries);
        let is_suspected = in_flight.chain(self.waiting.front()).any(|entry| entry.sequence <= self.alone_until);
        if is_suspected { 1 } else { self.window }
    }

    /// How lines go in batches, if they do.
    pub(super) fn batch(&self) -> Option<BatchOptions> {
        self.options.batch.filter(|_| self.options.server.takes_batches())
    }

    /// Whether nothing in flight stands against sending the first that waits.
    fn may_go(&self) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let size: usize = self.sent.iter().map(|sent| sent.size).sum();
        let fits = self.sent.is_empty() || size + first.item.size() <= WINDOW_BYTES;
        let in_flight = || self.sent.iter().flat_map(|sent| &sent.entries).map(|entry| &entry.item);
        fits && match first.item {
            Item::Log(_) | Item::RunStart(_) => true,
            // They may name a dataclip that is still in flight, and a `step:complete` that is refused goes again.
            Item::StepStart(_) | Item::StepComplete(_) => !in_flight().any(|it| matches!(it, Item::StepComplete(_))),
            // Nothing can be mended after it: a line that the server was too busy for would be lost.
            Item::RunComplete(_) => self.sent.is_empty(),
        }
    }

    /// How many entries go with the next push; none while lines gather.
    fn gathered(&mut self, now: Instant) -> Option<usize> {
        let is_line = |entry: &&Entry| matches!(entry.item, Item::Log(_)) && !entry.alone;
        let Some(batch) = self.batch().filter(|_| self.waiting.front().as_ref().is_some_and(is_line)) else {
            return Some(1);
        };
        let limit = batch.limit.max(1);
        let most = WINDOW_BYTES.min(self.options.server.limit() / 2);
        let mut size = 0;
        let fits = |entry: &&Entry| {
            size += entry.item.size();
            size <= most
        };
        let count = self.waiting.iter().take(limit).take_while(is_line).take_while(fits).count().max(1);
        let in_flight = self.sent.iter().any(|sent| matches!(sent.entries[0].item, Item::Log(_)));
        let until = *self.gather_until.get_or_insert(now + batch.interval);
        if in_flight && count < limit && count == self.waiting.len() && until > now {
            return None;
        }
        self.gather_until = None;
        Some(count)
    }

    fn push(&self, tag: u64, entries: &[Entry]) -> Push {
        let run_id = &self.options.run_id;
        let first = &entries[0].item;
        let id_of = |index: StepIndex| self.dataclips.get(&index).map(Uuid::to_string);
        let payload = match first {
            Item::RunStart(payload) => payload.clone(),
            Item::Log(line) if self.batch().is_none() || entries[0].alone => line.payload(run_id),
            Item::Log(_) => {
                let lines = entries.iter().filter_map(|entry| match &entry.item {
                    Item::Log(line) => Some(line),
                    _ => None,
                });
                return Push { tag, event: "run:batch_logs", payload: batch_payload(run_id, lines) };
            }
            Item::StepStart(step) => step.payload(match step.input {
                Some(StepInput::Run) => self.options.input_dataclip_id.clone(),
                Some(StepInput::Step(index)) => id_of(index),
                None => None,
            }),
            Item::StepComplete(step) => step.payload(entries[0].form.unwrap_or(Form::String)),
            Item::RunComplete(run) => self.end_payload(run),
        };
        Push { tag, event: first.event(), payload }
    }

    pub(super) fn end_payload(&self, run: &RunComplete) -> Payload {
        let redacted = run.final_step.filter(|index| self.withheld.contains(index)).map(|_| redacted_state());
        let final_dataclip_id = run.final_step.and_then(|index| self.dataclips.get(&index)).map(Uuid::to_string);
        run.payload(redacted.as_ref().or(run.final_state.as_ref()), final_dataclip_id)
    }
}

/// What stands for a state that is too large to be sent.
pub(super) fn redacted_state() -> Json {
    Json::parse("{\"data\":\"[REDACTED]\"}").unwrap_or_else(|_| Json::empty_object())
}
