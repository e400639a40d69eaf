//! One run on one host: what the host sends goes to whoever waits for the run, and the end comes last, once.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use protocol::link::{CallError, Inbox, Incoming, Link, WorkerSide};
use protocol::message::{Taken, WorkerNotice, WorkerReply, WorkerRequest};
use protocol::run::{Exit, RunSpec};
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::host::{Event, platform_fault};
use crate::execution::{ActiveRun, RunEnd, RunSignal};

/// How many signals may wait for being taken before the host is made to wait.
const SIGNALS: usize = 64;
/// How long a dead host's link may be silent before nothing more is expected of it.
const SILENCE: Duration = Duration::from_millis(50);

/// A run that is to be executed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Box<RunSpec>,
    pub(super) cancel: mpsc::Receiver<Exit>,
    pub(super) signals: mpsc::Sender<RunSignal>,
}

impl Job {
    pub(super) fn new(spec: RunSpec) -> (Self, ActiveRun) {
        let (signals, signals_out) = mpsc::channel(SIGNALS);
        let (cancel_in, cancel) = mpsc::channel(1);
        let job = Self { spec: Box::new(spec), cancel, signals };
        (job, ActiveRun { signals: signals_out, cancel: cancel_in })
    }

    /// Whether nobody waits for the run any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.signals.is_closed()
    }

    /// Ends the run without a host.
    pub(super) fn give_up(self, exit: Exit) {
        // Fails when nobody waits, or waits with so many signals that there must have been a host.
        let _ = self.signals.try_send(RunSignal::Ended(RunEnd::Lost(exit)));
    }
}

/// Follows the run to its end, and tells the host's supervisor what it has to know.
///
/// `verdict` is how the run ends if the host has not reported an outcome until it comes.
pub(super) async fn execute(
    link: Link<WorkerSide>,
    inbox: Inbox<WorkerSide>,
    spec: Box<RunSpec>,
    signals: mpsc::Sender<RunSignal>,
    verdict: oneshot::Receiver<Exit>,
    events: mpsc::UnboundedSender<Event>,
) {
    // Fails when the supervisor is gone, who then has killed the host.
    let tell = |event| drop(events.send(event));
    let mut relay = Relay { inbox, signals, is_over: false };
    // The supervisor knows the deadline.
    let mut call = pin!(link.call_within(spec, Duration::MAX).fuse());
    let mut verdict = pin!(verdict);
    let end = loop {
        let goes_on = tokio::select! {
            incoming = relay.inbox.next(), if !relay.is_over => relay.forward(incoming).await,
            _ = relay.signals.closed() => Err(Abandoned),
            answer = &mut call => match answer {
                Ok(outcome) => {
                    tell(Event::Finished);
                    let rest = relay.forward_what_is_there().await;
                    if rest.is_ok() {
                        break RunEnd::Finished(outcome);
                    }
                    rest
                }
                // The supervisor sees that by itself, and finds out why.
                Err(CallError::Ended(_)) => Ok(()),
                Err(error) => {
                    tell(Event::Declined(error.to_string()));
                    Ok(())
                }
            },
            exit = &mut verdict => match relay.forward_the_rest().await {
                Ok(()) => break match (&mut call).now_or_never() {
                    Some(Ok(outcome)) => RunEnd::Finished(outcome),
                    _ => RunEnd::Lost(exit.unwrap_or_else(|_| platform_fault("the engine host was given up".into()))),
                },
                abandoned => abandoned,
            },
        };
        if goes_on.is_err() {
            return tell(Event::Abandoned);
        }
    };
    if relay.signals.send(RunSignal::Ended(end)).await.is_err() {
        tell(Event::Abandoned);
    }
}

/// Nobody waits for the run any more.
#[derive(Debug)]
struct Abandoned;

struct Relay {
    inbox: Inbox<WorkerSide>,
    signals: mpsc::Sender<RunSignal>,
    is_over: bool,
}

impl Relay {
    async fn forward(&mut self, incoming: Option<Incoming<WorkerSide>>) -> Result<(), Abandoned> {
        let signal = match incoming {
            Some(Incoming::Notice(WorkerNotice::Event(event))) => RunSignal::Event(event),
            Some(Incoming::Request(WorkerRequest::StepCompleted(step), responder)) => {
                let (acknowledge, acknowledged) = oneshot::channel();
                tokio::spawn(async move {
                    // Without an acknowledgement the request is refused as the responder is dropped.
                    if acknowledged.await.is_ok() {
                        responder.reply(WorkerReply::Taken(Taken {}));
                    }
                });
                RunSignal::StepCompleted(step, acknowledge)
            }
            None => {
                self.is_over = true;
                return Ok(());
            }
        };
        self.signals.send(signal).await.map_err(|_| Abandoned)
    }

    /// Forwards what has arrived.
    async fn forward_what_is_there(&mut self) -> Result<(), Abandoned> {
        // Unconstrained, because a task that has used up its turn is told that nothing is there.
        while !self.is_over
            && let Some(incoming) = unconstrained(self.inbox.next()).now_or_never()
        {
            self.forward(incoming).await?;
        }
        Ok(())
    }

    /// Forwards all that a dead host has sent.
    async fn forward_the_rest(&mut self) -> Result<(), Abandoned> {
        while !self.is_over
            && let Ok(incoming) = timeout(SILENCE, self.inbox.next()).await
        {
            self.forward(incoming).await?;
        }
        Ok(())
    }
}
