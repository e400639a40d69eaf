//! What a reply does to the outbox: delivered, again, degraded or given up.

use base::metrics::metrics;
use protocol::clock::now_us;
use protocol::run::{Exit, ExitReason, RunOutcome, StepIndex, StepMemory};
use tokio::time::Instant;

use super::item::{Item, Line, Output, StepComplete};
use super::pushes::{WINDOW, redacted_state};
use super::verdict::{Verdict, judge};
use super::{Begun, Entry, Outbox, Progress, SUSPICIOUS};
use crate::phoenix::{Loss, Reply, Status};
use crate::server::may_end_links;

/// An event on which the link was lost so often in a row is taken to be the cause: the server may be unable to read it.
/// Links that die by themselves do not come so far, see [`Outbox::joined`].
const MAX_LOSSES: u32 = 6;

/// An event on which the channel crashed so often is taken to be the cause.
const MAX_CRASHES: u32 = 3;

/// Why a dataclip is withheld that the server does not take.
const REFUSED: &str = "Lightning does not take it";

impl Outbox {
    /// The channel is down: what has no reply will be sent again, in order.
    pub(crate) fn down(&mut self, loss: Loss) -> Progress {
        self.joined = false;
        if matches!(loss, Loss::Link | Loss::Longest { .. }) {
            // They were not on the link that died.
            self.waiting.iter_mut().for_each(|entry| entry.losses = 0);
        }
        let mut progress = Progress::Going;
        for (at, sent) in std::mem::take(&mut self.sent).into_iter().enumerate() {
            let mut is_suspect = match loss {
                Loss::Link => false,
                Loss::Longest { tag, bytes, .. } => sent.tag == tag && may_end_links(bytes),
                // The server handles events in order, so what killed the channel is the first without a reply.
                Loss::Channel | Loss::Restart => at == 0,
            };
            let server = &self.options.server;
            if is_suspect && loss == Loss::Channel && sent.in_batch && !server.knows_batches() {
                is_suspect = false; // Its lines are not the cause.
                if server.crashed_on_batch() {
                    tracing::warn!("Lightning crashes on run:batch_logs: log lines go one by one over this connection");
                }
            }
            for mut entry in sent.entries {
                entry.resent = true;
                // It may have the dataclip, whose answer was lost, and crashes on an id that comes again.
                entry.earlier_dataclips.extend(entry.item.renew_dataclip());
                metrics().events_resent.inc();
                self.delivery.events_resent += 1;
                match is_suspect {
                    true => progress = self.blamed(entry, loss),
                    false => self.requeue(entry),
                }
            }
        }
        progress
    }

    /// An event that may be why the link or the channel died.
    fn blamed(&mut self, mut entry: Entry, loss: Loss) -> Progress {
        let guilty = match loss {
            // It takes another form now, or goes without what makes it long.
            Loss::Longest { too_long: true, bytes, .. } if self.options.server.refused_length(bytes) => false,
            Loss::Channel if entry.item.replace_nul() => {
                self.options.server.crashed_on_nul();
                self.requeue_without_nul(entry);
                return Progress::Going;
            }
            // A server that is joined anew may only be slow.
            Loss::Link | Loss::Longest { .. } | Loss::Restart => {
                entry.losses += 1;
                entry.losses >= MAX_LOSSES
            }
            Loss::Channel => {
                entry.crashes += 1;
                entry.crashes >= MAX_CRASHES
            }
        };
        if !guilty {
            if loss != Loss::Restart && (entry.losses >= SUSPICIOUS || entry.crashes > 0) {
                self.alone_until = self.alone_until.max(entry.sequence);
            }
            self.requeue(entry);
            return Progress::Going;
        }
        let (run, event) = (&self.options.run_id, entry.item.event());
        tracing::warn!(%run, "{event} seems to be more than Lightning can take");
        (entry.losses, entry.crashes) = (0, 0);
        let in_batch = matches!(entry.item, Item::Log(_)) && self.batch().is_some() && !entry.alone;
        entry.alone |= in_batch;
        if in_batch || self.degrade(&mut entry.item, REFUSED) {
            self.requeue(entry);
            return Progress::Going;
        }
        match entry.item {
            // There is nothing left that a link could die of.
            Item::RunStart(_) | Item::StepStart(_) | Item::StepComplete(_) | Item::RunComplete(_)
                if loss != Loss::Channel =>
            {
                self.requeue(entry);
                Progress::Going
            }
            // A server that cannot bear an event twice has taken it the first time; if not, what follows is refused.
            Item::RunStart(_) | Item::StepStart(_) | Item::StepComplete(_) => self.accepted(entry, false),
            Item::Log(_) | Item::RunComplete(_) => self.give_up(entry, "its channel crashes each time"),
        }
    }

    /// Takes the reply to a push.
    pub(crate) fn replied(&mut self, tag: u64, reply: &Reply, now: Instant, jitter: f64) -> Progress {
        let Some(at) = self.sent.iter().position(|sent| sent.tag == tag) else { return Progress::Going };
        let Some(sent) = self.sent.remove(at) else { return Progress::Going };
        self.last_reply = Some(now);
        self.sent.iter_mut().take(at).for_each(|earlier| earlier.overtaken = true);
        match judge(reply, sent.entries.iter().all(|entry| entry.resent)) {
            Verdict::Accepted => {
                self.busy.reset();
                if tag > self.busy_until {
                    self.window = (self.window + 1).min(WINDOW);
                }
                let is_new = reply.status == Status::Ok;
                if is_new && sent.in_batch {
                    self.options.server.took_batch();
                }
                sent.entries.into_iter().fold(Progress::Going, |_, entry| self.accepted(entry, is_new))
            }
            Verdict::Busy => {
                self.hold_until = Some(now + self.busy.next(jitter));
                // What is in flight behind it may overtake it, and must be little when it is tried again.
                self.window = 1;
                self.busy_until = self.last_tag;
                sent.entries.into_iter().for_each(|entry| self.requeue(entry));
                Progress::Going
            }
            Verdict::Gone(reason) => Progress::Gone(reason),
            Verdict::Rejected(_) if at > 0 => {
                // The server may never have seen what this one builds on.
                sent.entries.into_iter().for_each(|entry| self.requeue(entry));
                Progress::Rejoin
            }
            Verdict::Rejected(reason) => self.rejected(sent.entries, &reason),
        }
    }

    /// Lightning has an event: as it was sent now (`is_new`), or as it was sent first.
    fn accepted(&mut self, entry: Entry, is_new: bool) -> Progress {
        self.forget(&entry.item);
        match entry.item {
            Item::RunComplete(_) => return Progress::Done,
            Item::StepComplete(step) => {
                self.begun = self.begun.take().filter(|begun| begun.step != step.step);
                if let Some(refused) = entry.refused_form.filter(|_| is_new && step.output.id().is_some()) {
                    self.options.server.refused_form(refused);
                }
                let id = match entry.earlier_dataclips[..] {
                    _ if is_new => step.output.id(),
                    [] => step.output.id(),
                    [only] => Some(only),
                    // It has one of them.
                    _ => None,
                };
                if let Some(id) = id {
                    self.dataclips.insert(step.index, id);
                }
            }
            Item::RunStart(_) | Item::Log(_) | Item::StepStart(_) => {}
        }
        Progress::Going
    }

    /// Degrades what was refused, or gives it up.
    fn rejected(&mut self, entries: Vec<Entry>, reason: &str) -> Progress {
        let first = entries.first().map_or(0, |entry| entry.sequence);
        let in_flight = self.sent.iter().flat_map(|sent| &sent.entries);
        if self.waiting.iter().take(1).chain(in_flight).any(|earlier| earlier.sequence < first) {
            // They may have been refused only for want of what must be sent again before them.
            entries.into_iter().for_each(|entry| self.requeue(entry));
            return Progress::Going;
        }
        let batched = entries.len() > 1;
        let mut progress = Progress::Going;
        for mut entry in entries {
            let event = entry.item.event();
            metrics().events_rejected.inc();
            self.delivery.events_refused += 1;
            tracing::warn!(run = %self.options.run_id, "Lightning refused {event}: {reason}");
            if batched {
                entry.alone = true;
                self.requeue(entry);
            } else if entry.resent && matches!(entry.item, Item::RunStart(_)) {
                // Servers differ in what they say to a run that has started already.
                progress = self.accepted(entry, false);
            } else if self.is_worth_more(&entry.item)
                && (self.takes_other_form(&mut entry, reason) || self.forgets_dataclip(&mut entry.item, reason))
            {
                self.requeue(entry);
            } else if self.is_worth_more(&entry.item) && self.degrade(&mut entry.item, REFUSED) {
                // It stays one that the server may have, in its first form.
                self.requeue(entry);
            } else {
                progress = self.give_up(entry, reason);
            }
        }
        progress
    }

    /// Whether a dataclip that was refused may go in another form: as a string or as a value, which servers differ in.
    fn takes_other_form(&self, entry: &mut Entry, reason: &str) -> bool {
        let is_about_it = ["output_dataclip:", "body:"].iter().any(|field| reason.contains(field));
        if !is_about_it || entry.refused_form.is_some() || !entry.item.has_dataclip() {
            return false;
        }
        entry.refused_form = entry.form;
        self.forms(entry).next().is_some()
    }

    /// Takes the reference to a dataclip away that the server does not know, so that nothing else is lost for it.
    fn forgets_dataclip(&mut self, item: &mut Item, reason: &str) -> bool {
        let size = item.size();
        let forgets = match item {
            Item::StepStart(start) if reason.contains("input_dataclip") => start.input.take().is_some(),
            Item::RunComplete(run) if reason.contains("final_dataclip_id") => {
                let step = run.final_step.take();
                if step.is_some_and(|step| self.withheld.contains(&step)) {
                    run.final_state = Some(redacted_state());
                }
                step.is_some()
            }
            _ => false,
        };
        self.state_bytes = (self.state_bytes + item.size()).saturating_sub(size);
        forgets
    }

    /// Once the run is given up, only its end counts.
    fn is_worth_more(&self, item: &Item) -> bool {
        !self.abandoned || matches!(item, Item::RunComplete(_))
    }

    /// What can be done when even the least form of an event was refused.
    fn give_up(&mut self, mut entry: Entry, reason: &str) -> Progress {
        let message = format!("Lightning refused {}: {reason}", entry.item.event());
        match &mut entry.item {
            Item::Log(_) => {
                self.forget(&entry.item);
                self.lines_dropped.total += 1;
                Progress::Going
            }
            // The run is more than the end of one of its steps: it goes on, and Lightning hears of the rest.
            Item::StepComplete(_) => {
                self.forget(&entry.item);
                if !self.abandoned {
                    self.warn_before_end(&message);
                }
                Progress::Going
            }
            Item::RunStart(_) | Item::StepStart(_) => {
                self.forget(&entry.item);
                if let Item::StepStart(start) = &entry.item {
                    self.begun = self.begun.take().filter(|begun| begun.step != start.step);
                }
                if self.abandoned {
                    return Progress::Going;
                }
                self.abandon(&message);
                Progress::StopEngine(message)
            }
            Item::RunComplete(run) if run.exit.reason != ExitReason::Exception => {
                run.exit = Exit::error(ExitReason::Exception, "LightningError", message);
                self.replaced_exit = Some(run.exit.clone());
                self.requeue(entry);
                Progress::Going
            }
            Item::RunComplete(_) => Progress::Gone(message),
        }
    }

    /// Completes the run as an exception, in place of whatever else was to be told of its steps. A step that Lightning may
    /// have a record of ends so, too: nothing else would ever end it.
    fn abandon(&mut self, message: &str) {
        self.abandoned = true;
        self.completed = false;
        let waiting = std::mem::take(&mut self.waiting);
        for entry in waiting {
            match entry.item {
                Item::Log(Line { step: None, .. }) => self.waiting.push_back(entry),
                Item::StepStart(_) if entry.resent => self.waiting.push_back(entry),
                item => self.forget(&item),
            }
        }
        let exit = Exit::error(ExitReason::Exception, "LightningError", message);
        let timestamp_us = now_us();
        if let Some(Begun { step, job_id }) = self.begun.take() {
            self.put(Item::StepComplete(Box::new(StepComplete {
                step,
                job_id,
                index: StepIndex::MAX,
                output: Output::Nothing,
                size: None,
                exit: exit.clone(),
                memory: StepMemory::default(),
                duration_ms: 0,
                thread_id: String::new(),
                webhook_response: None,
                timestamp_us,
            })));
        }
        self.complete(RunOutcome { exit, final_state: None, final_step: None }, timestamp_us);
    }

    /// Takes away what the server may refuse an event for; false if there is nothing to take. The run's log says why a
    /// dataclip is withheld.
    pub(super) fn degrade(&mut self, item: &mut Item, why: &str) -> bool {
        let size = item.size();
        match item {
            Item::StepComplete(step) if !matches!(step.output, Output::Withheld | Output::Nothing) => {
                step.output = Output::Withheld;
                self.withheld.insert(step.index);
                self.warn_before_end(&format!("The step's dataclip is withheld: {why}"));
            }
            Item::RunComplete(run) if run.final_state.is_some() || run.final_step.is_some() => {
                (run.final_state, run.final_step) = (None, None);
            }
            _ => return false,
        }
        self.delivery.states_withheld += 1;
        self.state_bytes = self.state_bytes.saturating_sub(size - item.size());
        true
    }
}
