//! The actor of one run: from the claim to the acknowledged `run:complete`.
//!
//! Owns the run's channel, its outbox and its place on a host. Ends in exactly one of two ways: Lightning has the
//! outcome, or the worker's own log has it.

use std::io;
use std::sync::Arc;

use base::execution::{ActiveRun, Executor, RunEnd, RunSignal};
use base::metrics::metrics;
use base::optional::{or_never, sleep_until};
use base::redact::Redactor;
use base::run_log::RunLog;
use protocol::Json;
use protocol::backoff::jitter;
use protocol::clock::now_us;
use protocol::run::{
    CUT, Exit, ExitReason, LogLine, RunEvent, RunOptions, RunOutcome, StepCompleted, StepOutput, StepStarted,
};
use secrecy::SecretString;
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant};

use super::journal::Entry;
use super::opening::{opening_lines, versions_payload};
use super::outbox::{OpenStep, Outbox, OutboxOptions, Progress, StepEnd, describe};
use super::phoenix::{Channel, ChannelEvent};
use super::prepare::{Prepared, prepare};
use super::tail::{Speaker, print_line, report_end};
use super::timeline::Timeline;
use super::token::TokenFault;
use super::{PROBATION, Settings, bounded, token};

/// How long the outcome of a run may be on its way after the run's own time limit, where no token says more.
const DELIVERY_GRACE: Duration = Duration::from_secs(600);

/// So long before its token expires, and not within the last tenth of its time, a run is ended that is not over.
const LAST_CALL: Duration = Duration::from_secs(10);

/// Lightning's push, on a run's channel, that ends the run.
pub(super) const CANCEL: &str = "run:cancel";

/// Why a run is given up that Lightning could not be told of in time.
const STOPPED: &str = "the worker stops before Lightning could be told";

/// A run as a claim brings it.
pub(super) struct ClaimedRun {
    pub(super) id: String,
    pub(super) token: SecretString,
}

/// A run whose channel was just opened.
pub(super) struct OpenRun {
    pub(super) run: ClaimedRun,
    pub(super) timeline: Timeline,
    pub(super) channel: Channel,
    pub(super) settings: Settings,
    pub(super) stop: watch::Receiver<Stop>,
}

/// What runs are told when the worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Nothing: go on.
    No,
    /// Kill what still executes, and tell Lightning.
    Kill,
    /// Time is up: say in the worker's own log what Lightning could not be told.
    GiveUp,
}

/// Executes a run until Lightning has its end or `stop` says that time is up.
pub(super) async fn execute<E: Executor>(mut open: OpenRun, executor: Arc<E>) {
    let claimed_at = Instant::now();
    let OpenRun { run, channel, settings, stop, .. } = &mut open;
    let lifetime = token::lifetime(&run.token).map(bounded);
    let expires = lifetime.map(|lifetime| claimed_at + lifetime);
    let last_call = lifetime.map(|lifetime| claimed_at + lifetime - (lifetime / 10).min(LAST_CALL));
    let entry = journal_entry(settings, run, lifetime).await;
    let mut joined = false;
    let prepared = tokio::select! {
        prepared = prepare(run, channel, &mut joined, &*executor, settings) => prepared,
        () = stopped(stop, Stop::Kill) => Ok(Err(shutdown_exit())),
        () = sleep_until(last_call) => Ok(Err(unstarted_exit())),
    };
    let told = match prepared {
        Ok(prepared) => {
            let mut actor = Actor::new(open, joined, expires, prepared);
            actor.last_call = last_call;
            actor.run(claimed_at).await
        }
        Err(why) => {
            tracing::error!(run = %open.run.id, "giving up the run: {why}");
            Told::AsFarAsPossible
        }
    };
    close_entry(entry, told).await;
}

/// Tells Lightning of a run that the dead worker process `pid` left behind, whose token is valid for the time that is
/// `left`.
pub(super) async fn recover(open: OpenRun, left: Option<Duration>, pid: u32, entry: Entry) {
    tracing::warn!(run = %open.run.id, "worker process {pid} died while it had this run: reporting a crash");
    let now = Instant::now();
    let expires = now + left.map_or(DELIVERY_GRACE, bounded);
    let message = "The worker that executed this run has crashed";
    let exit = Exit::error(ExitReason::Crash, "WorkerCrashError", message);
    let mut actor = Actor::new(open, false, Some(expires), Err(exit));
    let told = actor.run(now).await;
    close_entry(Some(entry), told).await;
}

/// Tells Lightning of a run that is not executed, as its token is not valid here.
pub(super) fn refuse(open: OpenRun, fault: &TokenFault) -> impl Future<Output = ()> + use<> {
    let message = format!("The worker refused the run, as it could not verify its token: {fault}");
    let exit = Exit::error(ExitReason::Exception, "InvalidTokenError", message);
    let now = Instant::now();
    let expires = now + token::lifetime(&open.run.token).map_or(DELIVERY_GRACE, bounded);
    async move {
        Actor::new(open, false, Some(expires), Err(exit)).run(now).await;
    }
}

async fn journal_entry(settings: &Settings, run: &ClaimedRun, lifetime: Option<Duration>) -> Option<Entry> {
    let journal = settings.options.journal.clone()?;
    let (id, token) = (run.id.clone(), run.token.clone());
    let written = tokio::task::spawn_blocking(move || journal.enter(&id, &token, lifetime)).await;
    match written.map_err(io::Error::from).flatten() {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::error!(run = %run.id, "cannot write the run to the journal, continuing without: {error}");
            None
        }
    }
}

/// What became of a run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Lightning has it, or can never have it.
    AsFarAsPossible,
    /// The worker stopped before Lightning could be told.
    NotYet,
}

async fn close_entry(entry: Option<Entry>, told: Told) {
    if let Some(entry) = entry.filter(|_| told == Told::AsFarAsPossible) {
        // It cannot fail: it does not panic, and nobody aborts it.
        let _ = tokio::task::spawn_blocking(move || entry.remove()).await;
    }
}

/// What a run gets that is killed because the worker stops.
fn shutdown_exit() -> Exit {
    Exit::error(ExitReason::Kill, "Shutdown", "The worker was stopped before the run had ended")
}

/// What a run gets that Lightning cancels.
pub(super) fn cancelled_exit() -> Exit {
    Exit::error(ExitReason::Cancel, "Cancelled", "The run was cancelled in Lightning")
}

/// What a run gets that has not begun shortly before its token expires, after which Lightning hears nothing of it.
fn unstarted_exit() -> Exit {
    let message = "The time that Lightning gives the run was over before it could start";
    Exit::error(ExitReason::Exception, "PrepareTimeoutError", message)
}

/// What a run gets that is not over then: as getting it ready took long, its own limit is beyond that.
fn overdue_exit() -> Exit {
    let message = "The run was not over when the time that Lightning gives it was";
    Exit::error(ExitReason::Kill, "TimeoutError", message)
}

struct Actor {
    id: String,
    timeline: Timeline,
    settings: Settings,
    stop: watch::Receiver<Stop>,
    channel: Channel,
    outbox: Outbox,
    log: Arc<RunLog>,
    options: RunOptions,
    host_id: String,
    active: Option<ActiveRun>,
    open_step: Option<OpenStep>,
    /// The host waits for this while states are on their way.
    unacknowledged: Option<oneshot::Sender<()>>,
    /// The run's exit, once it is known.
    exit: Option<Exit>,
    deadline: Option<Instant>,
    /// When a run that is not over is ended, so that Lightning can still be told.
    last_call: Option<Instant>,
    /// When a reply was last told to be late.
    told_late: Option<Instant>,
}

/// Something to react to.
enum Event {
    Channel(Option<ChannelEvent>),
    Signal(Option<RunSignal>),
    Stop,
    LastCall,
    Deadline,
    Timer,
}

impl Actor {
    fn new(open: OpenRun, joined: bool, expires: Option<Instant>, prepared: Result<Prepared, Exit>) -> Self {
        let OpenRun { run, timeline, channel, settings, stop } = open;
        let input = prepared.as_ref().ok().and_then(|it| it.input_dataclip_id.clone());
        let common = &settings.options;
        let options = prepared.as_ref().map_or(&common.run_defaults, |it| &it.spec.options);
        let outbox = OutboxOptions {
            run_id: run.id.clone(),
            input_dataclip_id: input,
            batch: common.batch_logs,
            server: settings.server.clone(),
            line_bytes: options.log_payload_bytes,
            // Longer than a link lives that dies by itself again and again.
            probation: common.reconnect.1.min(PROBATION),
        };
        let log = prepared.as_ref().map(|it| Arc::clone(&it.log));
        let log = log.unwrap_or_else(|_| Arc::new(RunLog::new(run.id.clone(), Redactor::default())));
        let mut it = Self {
            id: run.id,
            timeline,
            channel,
            outbox: Outbox::new(outbox, joined),
            log,
            options: common.run_defaults.clone(),
            host_id: String::new(),
            active: None,
            open_step: None,
            unacknowledged: None,
            exit: None,
            deadline: expires,
            last_call: None,
            told_late: None,
            settings,
            stop,
        };
        match prepared {
            Ok(prepared) => it.start(prepared),
            Err(exit) => it.complete(RunOutcome { exit, final_state: None, final_step: None }),
        }
        it
    }

    fn start(&mut self, prepared: Prepared) {
        let Prepared { spec, warnings, reservation, log, .. } = prepared;
        self.options = spec.options.clone();
        let limit = bounded(Duration::from_millis(self.options.timeout_ms)) + DELIVERY_GRACE;
        self.deadline.get_or_insert(Instant::now() + limit);
        warnings.iter().for_each(|warning| self.outbox.warn(warning));
        self.host_id = reservation.host_id().to_owned();
        self.timeline.prepared(&self.host_id, &spec);
        tracing::info!(run = %self.id, host = %self.host_id, "run starts");
        self.active = Some(reservation.start(spec, log));
    }

    async fn run(&mut self, claimed_at: Instant) -> Told {
        let mut next_stop = Stop::Kill;
        let (end, told) = loop {
            self.push();
            let progress = match self.next_event(next_stop).await {
                Event::Stop if next_stop == Stop::GiveUp => break (Progress::Gone(STOPPED.into()), Told::NotYet),
                Event::Stop => {
                    next_stop = Stop::GiveUp;
                    self.kill(shutdown_exit());
                    Progress::Going
                }
                Event::Channel(event) => self.channel_event(event),
                Event::Signal(signal) => {
                    self.signal(signal);
                    Progress::Going
                }
                Event::LastCall => {
                    self.last_call = None;
                    self.kill(overdue_exit());
                    Progress::Going
                }
                Event::Deadline => Progress::Gone("its time is over".into()),
                Event::Timer => self.timer(),
            };
            if let Some(end) = self.go_on(progress) {
                break (end, Told::AsFarAsPossible);
            }
        };
        report_end(&self.id, self.exit.as_ref(), &self.outbox, &end, claimed_at);
        told
    }

    /// Does what the outbox asks for. Returns what ends the run.
    fn go_on(&mut self, progress: Progress) -> Option<Progress> {
        match progress {
            Progress::Going => None,
            Progress::Rejoin => {
                self.rejoin();
                None
            }
            Progress::StopEngine(why) => {
                tracing::error!(run = %self.id, "the run is stopped: {why}");
                let exit = Exit::error(ExitReason::Exception, "LightningError", why);
                self.timeline.finished(&exit);
                self.exit = Some(exit);
                (self.active, self.open_step, self.unacknowledged) = (None, None, None);
                None
            }
            Progress::Done => {
                if let Some(told) = self.outbox.replaced_exit() {
                    self.timeline.finished(told);
                    self.exit = Some(told.clone());
                }
                self.timeline.delivered();
                Some(progress)
            }
            Progress::Gone(_) => Some(progress),
        }
    }

    async fn next_event(&mut self, next_stop: Stop) -> Event {
        let timer = self.outbox.wake_at().into_iter().chain(self.late_at()).chain(self.stuck_at()).min();
        let signal = or_never(self.active.as_mut().map(|active| active.signals.recv()));
        tokio::select! {
            event = self.channel.next() => Event::Channel(event),
            signal = signal => Event::Signal(signal),
            () = stopped(&mut self.stop, next_stop) => Event::Stop,
            () = sleep_until(self.last_call) => Event::LastCall,
            () = sleep_until(self.deadline) => Event::Deadline,
            () = sleep_until(timer) => Event::Timer,
        }
    }

    /// Pushes what may go, and lets the host go on when its states are on their way.
    fn push(&mut self) {
        let now = Instant::now();
        while let Some(push) = self.outbox.next_push(now) {
            self.channel.push(push.tag, push.event, push.payload);
        }
        self.timeline.unconfirmed(self.outbox.unconfirmed());
        self.timeline.delivery(self.outbox.delivery());
        if !self.outbox.is_congested()
            && let Some(taken) = self.unacknowledged.take()
        {
            // A host that died no longer waits.
            let _ = taken.send(());
        }
    }

    fn channel_event(&mut self, event: Option<ChannelEvent>) -> Progress {
        match event {
            Some(ChannelEvent::Replied(tag, reply)) => {
                return self.outbox.replied(tag, &reply, Instant::now(), jitter());
            }
            Some(ChannelEvent::Joined(link)) => {
                self.settings.server.reached_over(link);
                self.outbox.joined(Instant::now());
            }
            Some(ChannelEvent::Down(loss)) => return self.outbox.down(loss),
            Some(ChannelEvent::Refused(reply)) => {
                let why = describe(&reply.response.into_json());
                return Progress::Gone(format!("Lightning does not let its channel be joined again: {why}"));
            }
            Some(ChannelEvent::Pushed(event)) if event == CANCEL => {
                tracing::info!(run = %self.id, "Lightning cancels the run");
                self.kill(cancelled_exit());
            }
            Some(ChannelEvent::Pushed(_)) => {}
            None => return Progress::Gone("the worker's connection to Lightning has ended".into()),
        }
        Progress::Going
    }

    fn signal(&mut self, signal: Option<RunSignal>) {
        match signal {
            Some(RunSignal::Event(event)) => self.run_event(event),
            Some(RunSignal::StepCompleted(step, taken)) => {
                self.unacknowledged = Some(taken);
                self.step_completed(*step);
            }
            Some(RunSignal::Ended(end)) => self.ended(end),
            None => {
                let message = "The engine host ended without reporting the run's outcome";
                self.ended(RunEnd::Lost(Exit::error(ExitReason::Crash, "ExitError", message)));
            }
        }
    }

    fn run_event(&mut self, event: RunEvent) {
        match event {
            RunEvent::Started(versions) => {
                self.timeline.started();
                let now = now_us();
                let worker = &self.settings.options.worker_version;
                self.outbox.run_started(versions_payload(&versions, worker, now));
                for (source, level, message) in opening_lines(&versions, worker, &self.options) {
                    self.outbox.log(source, level, message, now);
                }
            }
            RunEvent::StepStarted(step) => {
                self.timeline.step_started(&step);
                let StepStarted { index, step_id, input, timestamp_us } = step;
                if self.open_step.is_some() {
                    return self.violated(&format!("started step {index} while another is open"));
                }
                self.open_step = Some(self.outbox.step_started(index, &step_id, input, timestamp_us));
            }
            RunEvent::Used(usage) => self.timeline.used(usage),
            RunEvent::Log(LogLine { source, level, message, timestamp_us }) => {
                let message = self.log.redactor().json(message);
                let speaker = Speaker { log: &self.log, host: &self.host_id, step: self.timeline.open_step() };
                print_line(speaker, self.settings.options.tail_jobs, source, level, &message);
                if !self.outbox.log(source, level, message, timestamp_us) && self.outbox.lines_dropped() == 1 {
                    tracing::warn!(run = %self.id, "log lines arrive faster than Lightning takes them: dropping some");
                }
            }
        }
    }

    fn step_completed(&mut self, step: StepCompleted) {
        self.timeline.step_completed(&step);
        match self.open_step.take() {
            Some(open) if open.index() == step.index => {
                let end = StepEnd {
                    exit: self.redact(step.exit),
                    output: step.output,
                    webhook_response: step.webhook_response,
                    duration_ms: step.duration_ms,
                    memory: step.memory,
                    thread_id: self.host_id.clone(),
                };
                self.outbox.step_completed(open, end, step.timestamp_us);
            }
            open => {
                self.open_step = open;
                self.violated(&format!("completed step {} that is not open", step.index));
            }
        }
    }

    /// A host that breaks the order of events cannot be believed further.
    fn violated(&mut self, what: &str) {
        tracing::error!(run = %self.id, host = %self.host_id, "the engine host {what}");
        let message = format!("The engine host {what}");
        self.ended(RunEnd::Lost(Exit::error(ExitReason::Exception, "EngineError", message)));
    }

    fn ended(&mut self, end: RunEnd) {
        (self.active, self.unacknowledged) = (None, None);
        self.complete(match end {
            RunEnd::Finished(outcome) => outcome,
            RunEnd::Lost(exit) => RunOutcome { exit, final_state: None, final_step: None },
        });
    }

    fn complete(&mut self, outcome: RunOutcome) {
        let outcome = RunOutcome { exit: self.redact(outcome.exit), ..outcome };
        if let Some(open) = self.open_step.take() {
            let end = StepEnd {
                exit: outcome.exit.clone(),
                output: if self.options.output_dataclips {
                    StepOutput::State(Json::empty_object())
                } else {
                    StepOutput::Unwanted
                },
                webhook_response: None,
                duration_ms: 0,
                memory: Default::default(),
                thread_id: self.host_id.clone(),
            };
            self.outbox.step_completed(open, end, now_us());
        }
        self.timeline.finished(&outcome.exit);
        self.exit = Some(outcome.exit.clone());
        self.outbox.complete(outcome, now_us());
    }

    fn redact(&self, mut exit: Exit) -> Exit {
        if let Some(error) = &mut exit.error {
            error.message = match error.message.strip_suffix(CUT) {
                Some(kept) => self.log.redactor().cut_text(kept) + CUT,
                None => self.log.redactor().text(&error.message).into_owned(),
            };
        }
        exit
    }

    fn kill(&mut self, exit: Exit) {
        if let Some(active) = &self.active {
            // Only the first one counts, and its receiver is there as long as the host is.
            let _ = active.cancel.try_send(exit);
        }
    }

    /// When it is to be told that a reply is late.
    fn late_at(&self) -> Option<Instant> {
        let waits_since = self.outbox.oldest_push()?;
        Some(waits_since.max(self.told_late.unwrap_or(waits_since)) + self.settings.options.message_timeout)
    }

    fn stuck_at(&self) -> Option<Instant> {
        self.outbox.stuck_at(self.settings.options.message_timeout)
    }

    fn rejoin(&mut self) {
        tracing::warn!(run = %self.id, "Lightning no longer answers on the run's channel: rejoining");
        self.outbox.rejoining();
        self.channel.restart();
    }

    fn timer(&mut self) -> Progress {
        let now = Instant::now();
        self.report_late(now);
        if self.stuck_at().is_some_and(|at| at <= now) { Progress::Rejoin } else { Progress::Going }
    }

    fn report_late(&mut self, now: Instant) {
        if self.late_at().is_some_and(|at| at <= now) {
            self.told_late = Some(now);
            metrics().replies_late.inc();
            let patience = self.settings.options.message_timeout;
            tracing::warn!(run = %self.id, "Lightning has not answered an event for {}s; waiting on", patience.as_secs());
        }
    }
}

/// Waits until runs are told to stop so far.
async fn stopped(stop: &mut watch::Receiver<Stop>, so_far: Stop) {
    if stop.wait_for(|told| *told >= so_far).await.is_err() {
        std::future::pending().await
    }
}
