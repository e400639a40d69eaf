//! What a host is asked, without waiting for the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::room::is_out_of_memory;
use protocol::Json;
use protocol::link::{CallError, Link, Responder, WorkerSide};
use protocol::message::{Ping, Prepare, SetEnv};
use tokio::time::Instant;
use tracing::debug;

use super::{Event, MOST_TASKS, Report, Supervisor};
use crate::templates::Demand;

/// How long a host may take to go by other variables.
const SET_ENV: Duration = Duration::from_secs(10);

impl Supervisor<'_> {
    pub(super) fn prepare(&mut self, mut wanted: Prepare) {
        self.setup.runtime.offer_template(&mut wanted.engine, wanted.memory_bytes, Demand::New);
        let events = self.event_sender.clone();
        self.process.bound(wanted.memory_bytes);
        self.ask(move |link| async move {
            // The host's state has a deadline for that.
            let event = match link.call_within(wanted, Duration::MAX).await {
                Ok(_) => Event::Prepared,
                Err(failure @ CallError::Ended(_)) => return Some(failure),
                Err(failure) => Event::Unfit(failure.to_string()),
            };
            // Fails when the host is dead.
            let _ = events.send(event);
            None
        });
    }

    /// Answers what the host asks, on a task of its own.
    pub(super) fn answer(&mut self, question: Json, responder: Responder<WorkerSide>) {
        while self.tasks.try_join_next().is_some() {}
        match &self.setup.options.answers {
            Some(answers) if self.tasks.len() < MOST_TASKS => {
                self.tasks.spawn(answers.clone().answer(self.identity.id.clone(), question, responder));
            }
            // Refused, as the responder is dropped.
            _ => {}
        }
    }

    pub(super) fn set_env(&mut self, set: SetEnv) {
        let identity = self.identity.clone();
        if self.connection.link().is_none() {
            return identity.report(Report::EnvSet(false));
        }
        self.ask(move |link| async move {
            let failure = link.call_within(set, SET_ENV).await.err();
            identity.report(Report::EnvSet(failure.is_none()));
            failure
        });
    }

    pub(super) fn measure(&mut self) {
        let pid = self.process.id();
        let identity = self.identity.clone();
        self.ask(move |link| async move {
            match link.call(Ping {}).await {
                Ok(pong) => identity.report(Report::Measured(measured(pid, pong.rss_bytes))),
                Err(failure) => return Some(failure),
            }
            None
        });
    }

    /// Asks whether the host lives.
    pub(super) fn ping(&mut self, timeout: Duration) {
        self.ping_at = Instant::now() + self.setup.options.ping_every.max(timeout);
        let (identity, events, pid) = (self.identity.clone(), self.event_sender.clone(), self.process.id());
        let is_held_up = Arc::clone(&self.is_held_up);
        self.ask(move |link| async move {
            // An answer comes after all that was said before it, which may wait for being taken.
            let (was_held_up, heard) = (is_held_up.load(Ordering::Relaxed), link.heard());
            let is_silent = || !was_held_up && !is_held_up.load(Ordering::Relaxed) && link.heard() == heard;
            match link.call_within(Ping {}, timeout).await {
                Ok(pong) => identity.report(Report::Measured(measured(pid, pong.rss_bytes))),
                Err(CallError::Timeout { .. }) if is_silent() => {
                    // Fails when the host is dead.
                    let _ = events.send(Event::Silent { has_memory: !is_out_of_memory() });
                }
                Err(failure) => return Some(failure),
            }
            None
        });
    }

    /// Asks something of the host without waiting for the answer. What fails shows by itself: the host's state has a
    /// deadline, and its link is watched.
    pub(super) fn ask<F: Future<Output = Option<CallError>> + Send + 'static>(
        &mut self,
        question: impl FnOnce(Link<WorkerSide>) -> F,
    ) {
        let Some(link) = self.connection.link().cloned() else { return };
        let (answer, host) = (question(link), self.identity.id.clone());
        self.tasks.spawn(async move {
            if let Some(failure) = answer.await {
                debug!(%host, "the engine host did not answer: {failure}");
            }
        });
    }
}

/// Memory of a host and of what it has started, in bytes: what it says, or what can be seen of it if it cannot tell.
fn measured(pid: Option<u32>, told: u64) -> u64 {
    if told > 0 { told } else { pid.map_or(0, base::processes::resident_tree) }
}
