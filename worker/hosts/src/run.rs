//! One run on one host: what the host sends goes to whoever waits for the run, and the end comes last, once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::execution::{ActiveRun, RunEnd, RunSignal};
use base::optional::sleep_until;
use base::run_log::RunLog;
use futures_util::FutureExt;
use protocol::link::{CallError, Inbox, Incoming, Link, WorkerSide};
use protocol::message::{Prepare, Taken, WorkerNotice, WorkerReply, WorkerRequest};
use protocol::queue::{self, TrySendError};
use protocol::run::{Exit, RunEvent, RunSpec};
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout};

use super::broker::HostRuntime;
use super::forked_engines::ForkedEngines;
use super::host::platform_fault;
use super::pool_task::PoolMessage;
use super::supervisor::{Event, Identity, Report, Said};

/// How many bytes of signals may wait before the host is made to wait. One signal may be larger.
const SIGNALS: usize = 1024 * 1024;
/// How long a dead host's link may be silent before nothing more is expected of it.
const SILENCE: Duration = Duration::from_millis(50);
/// How long a run's events may wait for its first step.
const OPENING: Duration = Duration::from_secs(1);
/// How many bytes of events may wait for that, each with what it costs beside its bytes.
const OPENING_BYTES: usize = 256 * 1024;
/// What an event costs beside its bytes.
const EVENT: usize = 256;
/// How many hosts may die of a run before anything is heard of it.
const MOST_DEATHS: u32 = 3;

/// Why a run ends for which there is no pool any more.
pub(super) const GONE: &str = "the engine hosts were shut down";

/// A run that is to be executed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Box<RunSpec>,
    /// Where what its host prints goes.
    pub(super) log: Arc<RunLog>,
    /// What its host is to prepare.
    wanted: Prepare,
    cancel: mpsc::Receiver<Exit>,
    signals: queue::Sender<RunSignal>,
    /// Hosts that died with it before anything was heard of it.
    deaths: u32,
}

impl Job {
    pub(super) fn new(spec: RunSpec, log: Arc<RunLog>) -> (Self, ActiveRun) {
        let (signals, signals_out) = queue::channel(SIGNALS);
        let (cancel_in, cancel) = mpsc::channel(1);
        let wanted = Prepare::of(&spec);
        let job = Self { spec: Box::new(spec), log, wanted, cancel, signals, deaths: 0 };
        (job, ActiveRun { signals: signals_out, cancel: cancel_in })
    }

    pub(super) fn wanted(&self) -> &Prepare {
        &self.wanted
    }

    /// Whether nobody waits for the run any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.signals.is_closed()
    }

    /// Ends a run of which nothing was heard.
    pub(super) fn give_up(self, exit: Exit) {
        // Fails when nobody waits: there is room for the first signal.
        let _ = self.signals.try_send(RunSignal::Ended(RunEnd::Lost(exit)), 0);
    }
}

/// Gives a run back to its pool whose host died before anything was heard of it.
pub(super) fn hand_back(mut job: Job, pool: &mpsc::UnboundedSender<PoolMessage>) {
    job.deaths += 1;
    if job.deaths >= MOST_DEATHS {
        return job.give_up(platform_fault(format!("{MOST_DEATHS} engine hosts died before they had begun the run")));
    }
    if let Err(mpsc::error::SendError(PoolMessage::Return(job))) = pool.send(PoolMessage::Return(job)) {
        job.give_up(platform_fault(GONE.to_owned()));
    }
}

/// How a run ends that its host has not reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunVerdict {
    pub(super) exit: Exit,
    /// Whether another host may execute it if nothing was heard of it.
    pub(super) may_move: bool,
}

impl RunVerdict {
    /// The end of the run, whatever was heard of it.
    pub(super) fn last(exit: Exit) -> Self {
        Self { exit, may_move: false }
    }

    /// What came of a host that failed by itself: if no step had begun, another one may execute the run.
    pub(super) fn of_host(exit: Exit) -> Self {
        Self { exit, may_move: true }
    }
}

/// Whom a run tells what they have to know of it.
#[derive(Debug)]
pub(super) struct RunContext {
    /// The host's supervisor.
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// The pool.
    pub(super) identity: Identity,
    /// Whether the host waits because nobody takes what it says.
    pub(super) is_held_up: Arc<AtomicBool>,
    /// What is forked for the host.
    pub(super) forked: ForkedEngines,
    /// Who is told of templates that are of no use.
    pub(super) runtime: Arc<HostRuntime>,
}

/// Follows the run to its end.
pub(super) async fn execute(
    link: Link<WorkerSide>,
    inbox: Inbox<WorkerSide>,
    job: Job,
    verdict: oneshot::Receiver<RunVerdict>,
    context: RunContext,
) {
    // The supervisor knows the deadline.
    let mut call = pin!(link.call_within(job.spec.clone(), Duration::MAX).fuse());
    let mut verdict = pin!(verdict);
    let opening = Some(Opening { events: Vec::new(), bytes: 0, until: Instant::now() + OPENING });
    let mut relay = Relay { link: link.clone(), inbox, job, context, was_heard: false, opening, is_over: false };
    let end = loop {
        let goes_on = tokio::select! {
            incoming = relay.inbox.next_weighed(), if !relay.is_over => relay.forward(incoming).await,
            () = over(&relay.opening) => relay.open().await,
            Some(exit) = relay.job.cancel.recv() => {
                relay.tell(Event::Cancel(exit));
                Ok(())
            }
            () = relay.job.signals.closed() => Err(Abandoned),
            answer = &mut call => match answer {
                Ok(outcome) => {
                    relay.tell(Event::Finished);
                    match relay.forward_what_is_there().await {
                        Ok(()) => break RunEnd::Finished(outcome),
                        abandoned => abandoned,
                    }
                }
                // The supervisor sees that by itself, and finds out why.
                Err(CallError::Ended(_)) => Ok(()),
                Err(error) => {
                    let was_heard = relay.opening.is_none();
                    relay.tell(Event::Declined { why: error.to_string(), was_heard });
                    Ok(())
                }
            },
            verdict = &mut verdict => match relay.forward_the_rest().await {
                Ok(()) => match (unconstrained(call.as_mut()).now_or_never(), verdict) {
                    (Some(Ok(outcome)), _) => break RunEnd::Finished(outcome),
                    (_, Ok(verdict)) if verdict.may_move && relay.may_move() => {
                        return hand_back(relay.job, &relay.context.identity.pool);
                    }
                    (_, Ok(verdict)) => break RunEnd::Lost(verdict.exit),
                    (_, Err(_)) => break RunEnd::Lost(platform_fault(GONE.to_owned())),
                },
                abandoned => abandoned,
            },
        };
        if goes_on.is_err() {
            return relay.tell(Event::Abandoned);
        }
    };
    // Both fail when nobody waits any more, which does not matter now.
    let _ = relay.open().await;
    let _ = relay.send(RunSignal::Ended(end), 0).await;
}

/// Nobody waits for the run any more.
#[derive(Debug)]
struct Abandoned;

struct Relay {
    link: Link<WorkerSide>,
    inbox: Inbox<WorkerSide>,
    job: Job,
    context: RunContext,
    was_heard: bool,
    /// What came before the first step. It is not told as long as the run may still begin anew on another host.
    opening: Option<Opening>,
    is_over: bool,
}

/// Waits until a run's events need not wait any longer; for ever if they do not.
async fn over(opening: &Option<Opening>) {
    // Of which nothing was heard, nothing waits.
    let opening = opening.as_ref().filter(|opening| !opening.events.is_empty());
    sleep_until(opening.map(|opening| opening.until)).await;
}

/// Events that wait.
struct Opening {
    /// With their length.
    events: Vec<(RunEvent, usize)>,
    bytes: usize,
    until: Instant,
}

impl Relay {
    fn tell(&self, event: Event) {
        // Fails when the host is dead.
        let _ = self.context.events.send(event);
    }

    /// Whether the run may go to another host.
    fn may_move(&self) -> bool {
        self.opening.is_some() && self.job.deaths + 1 < MOST_DEATHS
    }

    /// Tells what waited.
    async fn open(&mut self) -> Result<(), Abandoned> {
        let Some(opening) = self.opening.take() else { return Ok(()) };
        // No other host will need it.
        self.job.spec.forget_data();
        for (event, bytes) in opening.events {
            self.send(RunSignal::Event(event), bytes).await?;
        }
        Ok(())
    }

    /// Keeps an event back if it comes before the first step.
    async fn tell_event(&mut self, event: RunEvent, bytes: usize) -> Result<(), Abandoned> {
        match &mut self.opening {
            Some(opening)
                if !matches!(event, RunEvent::StepStarted(_)) && opening.bytes + bytes + EVENT <= OPENING_BYTES =>
            {
                opening.bytes += bytes + EVENT;
                opening.events.push((event, bytes));
                Ok(())
            }
            _ => {
                self.open().await?;
                self.send(RunSignal::Event(event), bytes).await
            }
        }
    }

    async fn forward(&mut self, incoming: Option<(Incoming<WorkerSide>, usize)>) -> Result<(), Abandoned> {
        let Some((incoming, bytes)) = incoming else {
            self.is_over = true;
            return Ok(());
        };
        let signal = match incoming {
            Incoming::Notice(WorkerNotice::Event(event)) => {
                self.was_heard();
                return self.tell_event(event, bytes).await;
            }
            Incoming::Notice(WorkerNotice::Custom(message)) => {
                self.context.identity.report(Report::Said(Said::Message(message)));
                return Ok(());
            }
            Incoming::Notice(WorkerNotice::Ops(report)) => {
                self.context.identity.report(Report::Said(Said::Ops(report)));
                return Ok(());
            }
            Incoming::Notice(WorkerNotice::NotForked(told)) => {
                self.context.runtime.not_forked(&told);
                return Ok(());
            }
            // Hosts that install make the one, and those of other kinds the other, not those that execute runs.
            Incoming::Notice(WorkerNotice::Progress(_) | WorkerNotice::Log(_)) => return Ok(()),
            Incoming::Request(WorkerRequest::StepCompleted(step), responder) => {
                let (acknowledge, acknowledged) = oneshot::channel();
                tokio::spawn(async move {
                    // Without an acknowledgement the request is refused as the responder is dropped.
                    if acknowledged.await.is_ok() {
                        responder.reply(WorkerReply::Taken(Taken {}));
                    }
                });
                RunSignal::StepCompleted(step, acknowledge)
            }
            // Handlers and hosts of other kinds ask the others, not runs: that is refused as the responder is dropped.
            Incoming::Request(request, responder) => {
                drop(self.context.forked.answer(request, responder, &self.link));
                return Ok(());
            }
        };
        self.was_heard();
        self.open().await?;
        self.send(signal, bytes).await
    }

    /// Something was heard of the run.
    fn was_heard(&mut self) {
        if !std::mem::replace(&mut self.was_heard, true) {
            self.context.identity.report(Report::Heard);
        }
    }

    /// Waits for room, and goes on hearing that the run is to be cancelled.
    async fn send(&mut self, signal: RunSignal, bytes: usize) -> Result<(), Abandoned> {
        let signal = match self.job.signals.try_send(signal, bytes) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Abandoned),
            Err(TrySendError::Full(signal)) => signal,
        };
        self.context.is_held_up.store(true, Ordering::Relaxed);
        let mut sending = pin!(self.job.signals.send(signal, bytes));
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent.map_err(|_| Abandoned),
                Some(exit) = self.job.cancel.recv() => {
                    // Fails when the host is dead.
                    let _ = self.context.events.send(Event::Cancel(exit));
                }
            }
        };
        self.context.is_held_up.store(false, Ordering::Relaxed);
        sent
    }

    /// Forwards what has arrived.
    async fn forward_what_is_there(&mut self) -> Result<(), Abandoned> {
        // Unconstrained, because a task that has used up its turn is told that nothing is there.
        while !self.is_over
            && let Some(incoming) = unconstrained(self.inbox.next_weighed()).now_or_never()
        {
            self.forward(incoming).await?;
        }
        Ok(())
    }

    /// Forwards all that a dead host has sent.
    async fn forward_the_rest(&mut self) -> Result<(), Abandoned> {
        while !self.is_over
            && let Ok(incoming) = timeout(SILENCE, self.inbox.next_weighed()).await
        {
            self.forward(incoming).await?;
        }
        Ok(())
    }
}
