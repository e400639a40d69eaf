//! What a message may be: no longer than the server takes, and without what it cannot store. A dataclip goes in the form
//! that fits, and what fits in none is left out, with a line in the run's log that says so.

use protocol::Json;
use protocol::run::{CUT, Exit};

use super::item::{Item, Output};
use super::pushes::redacted_state;
use super::{Entry, Outbox, cut};
use crate::phoenix::Payload;
use crate::server::Form;

/// What stands around a payload in its message, less the run's id: refs, topic and event.
const AROUND: usize = 200;

/// What an event has beside its states and its error, at most.
const FIELDS: usize = 16 * 1024;

/// A line of the log that is not made shorter.
const SHORT_LINE: usize = 1024;

/// What is left out of an event, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Dataclip,
    WebhookResponse,
    FinalState,
    Error,
    Line,
}

impl Outbox {
    /// Makes the first that waits such that the server can take it, and chooses the form of its dataclip. False if that is
    /// to be looked at again, or another one is the first now.
    pub(super) fn fit_first(&mut self) -> bool {
        let Some(mut entry) = self.waiting.pop_front() else { return true };
        if self.options.server.crashes_on_nul() && entry.item.replace_nul() {
            self.requeue_without_nul(entry);
            return false;
        }
        if let Some((part, bytes)) = self.too_long(&mut entry) {
            self.leave_out(entry, part, bytes);
            return false;
        }
        self.waiting.push_front(entry);
        true
    }

    /// What must be left out of an event, and how long its message would be with it.
    fn too_long(&self, entry: &mut Entry) -> Option<(Part, usize)> {
        let limit = self.options.server.limit();
        // Escaping makes JSON twice as long at most, and other text six times.
        let is_far_from_it = 2 * entry.item.size() + 6 * error_of(&entry.item).map_or(0, error_len) + FIELDS < limit;
        let length = |payload: &Payload| AROUND + self.options.run_id.len() + payload.len();
        let (part, bytes) = match &entry.item {
            Item::StepComplete(step) if matches!(step.output, Output::Sent(..)) => {
                let fits = |form: Form| is_far_from_it || length(&step.payload(form)) <= limit;
                match self.forms(entry).find(|form| fits(*form)) {
                    Some(form) => {
                        entry.form = Some(form);
                        return None;
                    }
                    None => (Part::Dataclip, self.forms(entry).map(|form| length(&step.payload(form))).min()?),
                }
            }
            _ if is_far_from_it => return None,
            Item::StepComplete(step) if step.webhook_response.is_some() => {
                (Part::WebhookResponse, length(&step.payload(Form::String)))
            }
            Item::StepComplete(step) => (Part::Error, length(&step.payload(Form::String))),
            Item::RunComplete(run) => {
                let has_state = run.final_state.as_ref().is_some_and(|state| *state != redacted_state());
                (if has_state { Part::FinalState } else { Part::Error }, length(&self.end_payload(run)))
            }
            Item::Log(line) if line.message.len() <= SHORT_LINE => return None,
            Item::Log(line) => (Part::Line, length(&line.payload(&self.options.run_id))),
            Item::RunStart(_) | Item::StepStart(_) => return None,
        };
        let helps = part != Part::Error || error_of(&entry.item).map_or(0, error_len) > 2 * longest_error(limit);
        (bytes > limit && helps).then_some((part, bytes))
    }

    /// The forms that an event's dataclip may have, in the order in which they are tried.
    pub(super) fn forms(&self, entry: &Entry) -> impl Iterator<Item = Form> + use<> {
        let refused = entry.refused_form;
        self.options.server.forms().filter(move |form| refused != Some(*form))
    }

    fn leave_out(&mut self, mut entry: Entry, part: Part, bytes: usize) {
        let limit = self.options.server.limit();
        let why =
            format!("its message of {bytes} bytes is longer than the {limit} that one may have (--max-message-mb)");
        let size = entry.item.size();
        tracing::warn!(run = %self.options.run_id, "part of {} is left out: {why}", entry.item.event());
        let told = match (part, &mut entry.item) {
            (Part::Dataclip, item) => {
                self.degrade(item, &why);
                return self.requeue(entry);
            }
            (Part::WebhookResponse, Item::StepComplete(step)) => {
                step.webhook_response = None;
                format!("The step's webhook response is left out: {why}")
            }
            (Part::FinalState, Item::RunComplete(run)) => {
                run.final_state = Some(redacted_state());
                format!("The run's final state is left out: {why}")
            }
            (Part::Line, Item::Log(line)) => {
                let text = format!("[A line of the log is left out: {why}]");
                line.message = Json::encode(&[text]).unwrap_or_else(|_| Json::null());
                self.log_bytes = self.log_bytes.saturating_sub(size - entry.item.size());
                return self.requeue(entry);
            }
            (_, Item::StepComplete(step)) => shorten_error(&mut step.exit, limit, &why),
            (_, Item::RunComplete(run)) => shorten_error(&mut run.exit, limit, &why),
            (_, Item::RunStart(_) | Item::StepStart(_) | Item::Log(_)) => return self.requeue(entry),
        };
        self.state_bytes = self.state_bytes.saturating_sub(size - entry.item.size());
        self.requeue_warning(entry, &told);
    }
}

/// Bytes of JSON that a name or a message of an error may take where it is cut.
fn longest_error(limit: usize) -> usize {
    limit / 16
}

fn error_of(item: &Item) -> Option<&Exit> {
    match item {
        Item::StepComplete(step) => Some(&step.exit),
        Item::RunComplete(run) => Some(&run.exit),
        Item::RunStart(_) | Item::Log(_) | Item::StepStart(_) => None,
    }
}

fn error_len(exit: &Exit) -> usize {
    exit.error.as_ref().map_or(0, |error| error.kind.len() + error.message.len())
}

fn shorten_error(exit: &mut Exit, limit: usize, why: &str) -> String {
    let longest = longest_error(limit) as u64;
    if let Some(error) = &mut exit.error {
        error.kind = cut(&error.kind, longest).to_owned();
        error.message = cut(&error.message, longest).to_owned() + CUT;
    }
    format!("The error's text is cut: {why}")
}
