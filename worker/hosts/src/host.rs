//! One host's life: a state machine without I/O.
//!
//! What happens to a host goes in as [`Event`]s, what is to be done about it comes out as [`Action`]s. A host has one
//! deadline at a time, which each state sets anew.

use std::time::Duration;

use protocol::message::Prepare;
use protocol::run::{Exit, ExitReason};

use super::death::{Death, Phase, Reason, Status};
use super::run::RunVerdict;

/// How much longer than its own limit a run may take to be reported.
const OVERRUN: Duration = Duration::from_secs(5);
/// How long a host may take to report a cancelled run.
const CANCEL: Duration = Duration::from_millis(100);
/// A dying process closes its link a little before its exit can be seen: how long that is waited for before the end
/// of the link counts as the cause. A dump of its memory may come in between.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// How long a run's end waits for the death of its killed host. A process that the kernel holds dies later.
const KILL: Duration = Duration::from_secs(1);

/// How long a host may take for things that it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until it has an engine ready.
    pub(super) start: Duration,
    /// To exit when asked.
    pub(super) stop: Duration,
    /// To exit when sent SIGTERM.
    pub(super) terminate: Duration,
}

/// How a process ends that SIGTERM was sent to.
const TERMINATED: Status = Status::Signal(15);

/// Something that happened to a host. `R` is a run to execute, `L` is who borrows the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event<R, L> {
    /// It connected and was let in.
    Connected,
    /// It is to get this ready before a run comes.
    Prepare(Prepare),
    /// Its engine is ready.
    Prepared,
    /// It was not let in, or could not prepare.
    Unfit(String),
    /// It is to execute a run that may take this long.
    Run { timeout_ms: u64, run: R },
    /// It is lent to somebody who makes calls of it.
    Lend(L),
    /// Who had it gives it back.
    Returned,
    /// Who had it does not know what it does now.
    Discarded,
    /// It does not answer, and the worker's unit or the machine has memory for it, or has not.
    Silent { has_memory: bool },
    /// It reported the end of its run.
    Finished,
    /// It would not execute the run: why, and whether something was reported of it before.
    Declined { why: String, was_heard: bool },
    /// Its run is to end at once, like this.
    Cancel(Exit),
    /// Nobody waits for its run any more.
    Abandoned,
    /// Its link has ended: why.
    LinkEnded(String),
    /// It is not needed any more, for this reason.
    Stop(Reason),
    /// It has to go now.
    Shutdown,
    /// The deadline that was set last has passed.
    Deadline,
    /// Its process has ended.
    Exited(Status),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action<R, L> {
    /// Have it prepare this, and tell of that by [`Event::Prepared`] or [`Event::Unfit`].
    Prepare(Prepare),
    /// Tell the pool that it is ready.
    AnnounceReady,
    /// Tell the pool that it could not prepare, and waits with nothing.
    AnnounceUnprepared(String),
    /// Send it the run.
    Execute(R),
    /// Give the run back to the pool: the host cannot take it.
    HandBack(R),
    /// Give its link to who borrows it.
    HandOver(L),
    /// Have who borrows it wait for another one.
    BorrowAgain(L),
    /// Ask it to end its run like this.
    AskToCancel(Exit),
    /// Ask it to exit.
    AskToStop,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL to its process group.
    Kill,
    /// Set the deadline anew, or to none.
    SetDeadline(Option<Duration>),
    /// Send [`Event::Deadline`] when the host has had so much time of its own. It takes the place of a deadline.
    AllowStart(Duration),
    /// Tell whoever waits for the run that it ended like this, after all that the host still said of it.
    EndRun(RunVerdict),
    /// Tell the pool that it is dead.
    AnnounceDeath(Death),
}

/// The state of one host.
#[derive(Debug)]
pub(super) struct Host {
    state: State,
    patience: Patience,
}

#[derive(Debug)]
enum State {
    /// It has not connected, or prepares for the first time. What it is to prepare is there until it has connected.
    Starting(Option<Prepare>),
    /// It was ready, and prepares something else.
    Preparing,
    Ready,
    Running(Run),
    /// In the hands of somebody who makes calls of it; `stop` when it is to exit afterwards.
    Lent {
        stop: Option<Reason>,
    },
    /// The link has ended; most likely the process is about to be seen to end, too.
    Severed {
        phase: Phase,
        why: String,
    },
    /// Asked to exit; `terminated` when SIGTERM was sent, too.
    Stopping {
        reason: Reason,
        terminated: bool,
    },
    /// SIGKILL was sent. `end` is what is still to be told about its run.
    Dying {
        phase: Phase,
        reason: Reason,
        end: Option<RunVerdict>,
    },
    Dead,
}

#[derive(Debug)]
struct Run {
    timeout_ms: u64,
    cancelled: Option<Exit>,
}

impl Host {
    /// A host that has just been spawned, may take [`Patience::start`] from now on, and is to prepare `first` as it starts.
    pub(super) fn spawned(first: Option<Prepare>, patience: Patience) -> Self {
        Self { state: State::Starting(first), patience }
    }

    /// Takes in what happened, and says what to do about it, in order.
    pub(super) fn on<R, L>(&mut self, event: Event<R, L>) -> Vec<Action<R, L>> {
        let state = std::mem::replace(&mut self.state, State::Dead);
        let patience = self.patience;
        let (state, actions) = match event {
            Event::Exited(status) => exited(state, status),
            Event::Shutdown => shut_down(state),
            Event::Run { timeout_ms, run } => execute(state, timeout_ms, run, patience),
            Event::Lend(lending) => lend(state, lending),
            event => match state {
                State::Starting(first) => starting(first, event),
                State::Preparing => preparing(event),
                State::Ready => ready(event, patience),
                State::Running(run) => running(run, event, patience),
                State::Lent { stop } => lent(stop, event, patience),
                State::Severed { phase, why } => severed(phase, why, event, patience),
                State::Stopping { reason, terminated } => stopping(reason, terminated, event, patience),
                State::Dying { phase, reason, end } => dying(phase, reason, end, event),
                State::Dead => (State::Dead, Vec::new()),
            },
        };
        self.state = state;
        actions
    }
}

type Step<R, L> = (State, Vec<Action<R, L>>);

fn stay<R, L>(state: State) -> Step<R, L> {
    (state, Vec::new())
}

fn kill<R, L>(phase: Phase, reason: Reason, end: Option<Exit>) -> Step<R, L> {
    kill_with(phase, reason, end.map(RunVerdict::last))
}

fn kill_with<R, L>(phase: Phase, reason: Reason, end: Option<RunVerdict>) -> Step<R, L> {
    (State::Dying { phase, reason, end }, vec![Action::Kill, Action::SetDeadline(Some(KILL))])
}

fn sever<R, L>(phase: Phase, why: String) -> Step<R, L> {
    (State::Severed { phase, why }, vec![Action::SetDeadline(Some(LAST_BREATH))])
}

fn ask_to_stop<R, L>(reason: Reason, patience: Patience) -> Step<R, L> {
    let actions = vec![Action::AskToStop, Action::SetDeadline(Some(patience.stop))];
    (State::Stopping { reason, terminated: false }, actions)
}

fn become_ready<R, L>() -> Step<R, L> {
    (State::Ready, vec![Action::SetDeadline(None), Action::AnnounceReady])
}

fn execute<R, L>(state: State, timeout_ms: u64, run: R, patience: Patience) -> Step<R, L> {
    let preparation = match state {
        State::Ready => Duration::ZERO,
        State::Preparing => patience.start,
        other => return (other, vec![Action::HandBack(run)]),
    };
    let limit = Duration::from_millis(timeout_ms).saturating_add(OVERRUN).saturating_add(preparation);
    let actions = vec![Action::Execute(run), Action::SetDeadline(Some(limit))];
    (State::Running(Run { timeout_ms, cancelled: None }), actions)
}

fn lend<R, L>(state: State, lending: L) -> Step<R, L> {
    match state {
        State::Ready => (State::Lent { stop: None }, vec![Action::HandOver(lending)]),
        other => (other, vec![Action::BorrowAgain(lending)]),
    }
}

fn starting<R, L>(first: Option<Prepare>, event: Event<R, L>) -> Step<R, L> {
    let phase = Phase::Starting;
    match (event, first) {
        (Event::Connected, None) => become_ready(),
        (Event::Connected, Some(first)) => (State::Starting(None), vec![Action::Prepare(first)]),
        (Event::Prepared, _) => become_ready(),
        (Event::Unfit(why), _) => kill(phase, Reason::NotStarted(why), None),
        (Event::Deadline, _) => kill(phase, Reason::StartTimeout, None),
        // There is nothing that it could have to finish.
        (Event::Stop(reason), _) => kill(phase, reason, None),
        (Event::LinkEnded(why), _) => sever(phase, why),
        (_, first) => stay(State::Starting(first)),
    }
}

fn preparing<R, L>(event: Event<R, L>) -> Step<R, L> {
    let phase = Phase::Preparing;
    match event {
        Event::Prepared => become_ready(),
        // Another engine may be what the next run wants.
        Event::Unfit(why) => (State::Ready, vec![Action::SetDeadline(None), Action::AnnounceUnprepared(why)]),
        Event::Deadline => kill(phase, Reason::StartTimeout, None),
        Event::Silent { has_memory } => kill(phase, hung(has_memory), None),
        Event::Stop(reason) => kill(phase, reason, None),
        Event::LinkEnded(why) => sever(phase, why),
        _ => stay(State::Preparing),
    }
}

fn ready<R, L>(event: Event<R, L>, patience: Patience) -> Step<R, L> {
    match event {
        Event::Prepare(wanted) => (State::Preparing, vec![Action::Prepare(wanted), Action::AllowStart(patience.start)]),
        Event::Stop(reason) => ask_to_stop(reason, patience),
        Event::Silent { has_memory } => kill(Phase::Ready, hung(has_memory), None),
        Event::LinkEnded(why) => sever(Phase::Ready, why),
        _ => stay(State::Ready),
    }
}

fn lent<R, L>(stop: Option<Reason>, event: Event<R, L>, patience: Patience) -> Step<R, L> {
    match (event, stop) {
        (Event::Returned, None) => become_ready(),
        (Event::Returned, Some(reason)) => ask_to_stop(reason, patience),
        (Event::Stop(reason), _) => stay(State::Lent { stop: Some(reason) }),
        (Event::Discarded, _) => kill(Phase::Lent, Reason::Abandoned, None),
        (Event::Silent { has_memory }, _) => kill(Phase::Lent, hung(has_memory), None),
        (Event::LinkEnded(why), _) => sever(Phase::Lent, why),
        (_, stop) => stay(State::Lent { stop }),
    }
}

fn running<R, L>(run: Run, event: Event<R, L>, patience: Patience) -> Step<R, L> {
    let phase = Phase::Running;
    match (event, run.cancelled) {
        (Event::Finished, _) => ask_to_stop(Reason::Retired, patience),
        (Event::Abandoned, exit) => kill(phase, Reason::Abandoned, exit),
        (Event::Cancel(exit), None) => {
            let actions = vec![Action::AskToCancel(exit.clone()), Action::SetDeadline(Some(CANCEL))];
            (State::Running(Run { cancelled: Some(exit), ..run }), actions)
        }
        (Event::Deadline | Event::LinkEnded(_) | Event::Declined { .. } | Event::Silent { .. }, Some(exit)) => {
            kill(phase, Reason::Cancelled, Some(exit))
        }
        (Event::Deadline, None) => kill(phase, Reason::Overdue, Some(overdue(run.timeout_ms))),
        (Event::Silent { has_memory }, None) => {
            kill_with(phase, hung(has_memory), Some(RunVerdict::of_host(silence(has_memory))))
        }
        (Event::LinkEnded(why), None) => sever(phase, why),
        (Event::Declined { why, was_heard }, None) => {
            let exit = platform_fault(format!("the engine host did not execute the run: {why}"));
            // One that did not even begin is a host that does not work, and another one may.
            let (phase, end) =
                if was_heard { (phase, RunVerdict::last(exit)) } else { (Phase::Preparing, RunVerdict::of_host(exit)) };
            kill_with(phase, Reason::NotStarted(why), Some(end))
        }
        // It stops after its run in any case.
        (_, cancelled) => stay(State::Running(Run { cancelled, ..run })),
    }
}

fn severed<R, L>(phase: Phase, why: String, event: Event<R, L>, patience: Patience) -> Step<R, L> {
    let end = |exit| (phase == Phase::Running).then_some(exit);
    match event {
        Event::Finished => ask_to_stop(Reason::Retired, patience),
        Event::Cancel(exit) => kill(phase, Reason::Cancelled, end(exit)),
        Event::Deadline => {
            let exit = platform_fault(format!("the link to the engine host was lost: {why}"));
            kill(phase, Reason::LinkLost(why), end(exit))
        }
        _ => stay(State::Severed { phase, why }),
    }
}

fn stopping<R, L>(reason: Reason, terminated: bool, event: Event<R, L>, patience: Patience) -> Step<R, L> {
    match event {
        Event::Deadline if terminated => kill(Phase::Stopping, Reason::Hung, None),
        Event::Deadline => {
            let actions = vec![Action::Terminate, Action::SetDeadline(Some(patience.terminate))];
            (State::Stopping { reason, terminated: true }, actions)
        }
        _ => stay(State::Stopping { reason, terminated }),
    }
}

fn dying<R, L>(phase: Phase, reason: Reason, end: Option<RunVerdict>, event: Event<R, L>) -> Step<R, L> {
    match (event, end) {
        (Event::Deadline, Some(end)) => {
            let actions = vec![Action::SetDeadline(None), Action::EndRun(end)];
            (State::Dying { phase, reason, end: None }, actions)
        }
        (_, end) => stay(State::Dying { phase, reason, end }),
    }
}

fn exited<R, L>(state: State, status: Status) -> Step<R, L> {
    let lost = || Some(RunVerdict::of_host(status.run_exit()));
    let (phase, reason, end) = match state {
        State::Dead => return stay(State::Dead),
        State::Starting(_) => (Phase::Starting, status.unasked_reason(), None),
        State::Preparing => (Phase::Preparing, status.unasked_reason(), None),
        State::Ready => (Phase::Ready, status.unasked_reason(), None),
        State::Lent { .. } => (Phase::Lent, status.unasked_reason(), None),
        State::Running(Run { cancelled: Some(exit), .. }) => {
            (Phase::Running, status.unasked_reason(), Some(RunVerdict::last(exit)))
        }
        State::Running(_) | State::Severed { phase: Phase::Running, .. } => {
            (Phase::Running, status.unasked_reason(), lost())
        }
        State::Severed { phase, .. } => (phase, status.unasked_reason(), None),
        State::Stopping { reason, terminated } => {
            // What it was asked for it does with 0, or by the signal that asked it.
            let obeyed = status == Status::Code(0) || (terminated && status == TERMINATED);
            (Phase::Stopping, if obeyed { reason } else { status.unasked_reason() }, None)
        }
        State::Dying { phase, reason, end } => (phase, reason, end),
    };
    let death = Action::AnnounceDeath(Death { phase, reason, status: Some(status) });
    (State::Dead, [Action::SetDeadline(None)].into_iter().chain(end.map(Action::EndRun)).chain([death]).collect())
}

fn shut_down<R, L>(state: State) -> Step<R, L> {
    let (phase, end) = match state {
        State::Dead => return stay(State::Dead),
        State::Dying { .. } => return stay(state),
        State::Starting(_) => (Phase::Starting, None),
        State::Preparing => (Phase::Preparing, None),
        State::Ready => (Phase::Ready, None),
        State::Lent { .. } => (Phase::Lent, None),
        State::Running(Run { cancelled: Some(exit), .. }) => (Phase::Running, Some(exit)),
        State::Running(_) | State::Severed { phase: Phase::Running, .. } => (Phase::Running, Some(shutdown())),
        State::Severed { phase, .. } => (phase, None),
        State::Stopping { .. } => (Phase::Stopping, None),
    };
    kill(phase, Reason::Shutdown, end)
}

fn overdue(timeout_ms: u64) -> Exit {
    Exit::error(ExitReason::Kill, "TimeoutError", format!("Workflow failed to return within {timeout_ms}ms"))
}

fn shutdown() -> Exit {
    Exit::error(ExitReason::Kill, "Shutdown", "The worker was shut down before the run ended")
}

/// Why a host is killed that does not answer. Where there is next to no memory, the system often reads programs from the
/// disk again and again rather than kill anything: nothing gets on, and it is not the host's fault.
fn hung(has_memory: bool) -> Reason {
    if has_memory { Reason::Hung } else { Reason::UnitOutOfMemory }
}

/// The exit of a run whose host did not answer.
fn silence(has_memory: bool) -> Exit {
    const WHAT: &str = "the engine host did not answer any more and was killed";
    if has_memory {
        return platform_fault(WHAT.to_owned());
    }
    let why = format!("{WHAT}: the worker's unit ran out of memory, or the whole machine did");
    Exit::error(ExitReason::Crash, "ExitError", why)
}

/// The exit of a run that ended through a fault of ours.
pub(super) fn platform_fault(message: String) -> Exit {
    Exit::error(ExitReason::Exception, "EngineHostError", message)
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
