use protocol::engine::EngineSpec;

use super::*;

const TIMEOUT_MS: u64 = 300;
const SIGKILL: Status = Status::Signal(9);
const SILENT: Event = Event::Silent { has_memory: true };
const STARVED: Event = Event::Silent { has_memory: false };

const START: Duration = Duration::from_secs(9);
const STOP: Duration = Duration::from_secs(3);
const TERMINATE: Duration = Duration::from_secs(1);
const PATIENCE: Patience = Patience { start: START, stop: STOP, terminate: TERMINATE };

fn engine() -> Prepare {
    Prepare { engine: EngineSpec::Embedded, memory_bytes: 1 }
}

type Event = super::Event<(), ()>;
type Action = super::Action<(), ()>;

fn ends(exit: Exit) -> Action {
    Action::EndRun(RunVerdict { exit, may_move: false })
}

fn loses(exit: Exit) -> Action {
    Action::EndRun(RunVerdict { exit, may_move: true })
}

/// Takes a new host through `events` and returns what the last one made it do.
fn after(events: &[Event]) -> Vec<Action> {
    let mut host = Host::spawned(Some(engine()), PATIENCE);
    events.iter().fold(Vec::new(), |_, event| host.on(event.clone()))
}

/// As [`after`], for a host that executes a run.
fn in_run(events: &[Event]) -> Vec<Action> {
    after(&[&[Event::Connected, Event::Prepared, run()], events].concat())
}

fn run() -> Event {
    Event::Run { timeout_ms: TIMEOUT_MS, run: () }
}

fn cancel() -> Exit {
    Exit::error(ExitReason::Cancel, "Cancelled", "by the user")
}

fn link_ended() -> Event {
    Event::LinkEnded("bad frame".into())
}

fn lost() -> Reason {
    Reason::LinkLost("bad frame".into())
}

fn within(limit: Duration) -> Action {
    Action::SetDeadline(Some(limit))
}

fn killed() -> Vec<Action> {
    vec![Action::Kill, within(KILL)]
}

fn dead(phase: Phase, reason: Reason, status: Status, end: Option<Action>) -> Vec<Action> {
    let death = Action::AnnounceDeath(Death { phase, reason, status: Some(status) });
    [Action::SetDeadline(None)].into_iter().chain(end).chain([death]).collect()
}

#[test]
fn gets_ready_executes_one_run_and_stops() {
    use super::Event::{Connected, Deadline, Exited, Finished, Prepared};
    assert_eq!(after(&[Connected]), [Action::Prepare(engine())]);
    assert_eq!(after(&[Connected, Prepared]), [Action::SetDeadline(None), Action::AnnounceReady]);
    assert_eq!(in_run(&[]), [Action::Execute(()), within(Duration::from_millis(TIMEOUT_MS) + OVERRUN)]);
    assert_eq!(in_run(&[Finished]), [Action::AskToStop, within(STOP)]);
    assert_eq!(in_run(&[link_ended(), Finished]), [Action::AskToStop, within(STOP)]);
    assert_eq!(in_run(&[Finished, Deadline]), [Action::Terminate, within(TERMINATE)]);
    assert_eq!(in_run(&[Finished, Deadline, Deadline]), killed());
    let status = Status::Code(0);
    assert_eq!(in_run(&[Finished, Exited(status)]), dead(Phase::Stopping, Reason::Retired, status, None));
    assert_eq!(
        in_run(&[Finished, Deadline, Deadline, Exited(SIGKILL)]),
        dead(Phase::Stopping, Reason::Hung, SIGKILL, None)
    );
}

#[test]
fn a_host_that_is_to_prepare_nothing_is_ready_when_it_has_connected() {
    let mut host = Host::spawned(None, PATIENCE);
    assert_eq!(host.on(Event::Connected), [Action::SetDeadline(None), Action::AnnounceReady]);
}

#[test]
fn a_ready_host_prepares_something_else_and_takes_a_run_meanwhile() {
    use super::Event::{Connected, Deadline, LinkEnded, Prepared, Stop, Unfit};
    let preparing = |events: &[Event]| after(&[&[Connected, Prepared, Event::Prepare(engine())], events].concat());
    assert_eq!(preparing(&[]), [Action::Prepare(engine()), Action::AllowStart(START)]);
    assert_eq!(preparing(&[Prepared]), [Action::SetDeadline(None), Action::AnnounceReady]);
    let limit = Duration::from_millis(TIMEOUT_MS) + OVERRUN + START;
    assert_eq!(preparing(&[run()]), [Action::Execute(()), within(limit)]);
    assert_eq!(preparing(&[run(), Prepared]), []);
    let why = || String::from("no such adaptor");
    assert_eq!(preparing(&[Unfit(why())]), [Action::SetDeadline(None), Action::AnnounceUnprepared(why())]);
    assert_eq!(preparing(&[Unfit(why()), run()]), in_run(&[]), "it can still be used");
    assert_eq!(preparing(&[Deadline]), killed());
    let ends: [(&[Event], Reason); 6] = [
        (&[], Reason::Crashed),
        (&[Deadline], Reason::StartTimeout),
        (&[SILENT], Reason::Hung),
        (&[STARVED], Reason::UnitOutOfMemory),
        (&[Stop(Reason::Drained)], Reason::Drained),
        (&[LinkEnded("bad frame".into()), Deadline], lost()),
    ];
    for (events, reason) in ends {
        let all = [events, &[Event::Exited(SIGKILL)]].concat();
        assert_eq!(preparing(&all), dead(Phase::Preparing, reason, SIGKILL, None), "{events:?}");
    }
}

#[test]
fn a_host_is_lent_again_and_again() {
    use super::Event::{Connected, Lend, Prepared, Returned, Stop};
    let lent = |events: &[Event]| after(&[&[Connected, Prepared, Lend(())], events].concat());
    assert_eq!(lent(&[]), [Action::HandOver(())]);
    assert_eq!(lent(&[Returned]), [Action::SetDeadline(None), Action::AnnounceReady]);
    assert_eq!(lent(&[Returned, Lend(())]), [Action::HandOver(())]);
    assert_eq!(lent(&[Stop(Reason::Recycled)]), [], "what it is at comes first");
    assert_eq!(lent(&[Stop(Reason::Recycled), Returned]), [Action::AskToStop, within(STOP)]);
}

#[test]
fn a_death_has_the_phase_and_the_reason_that_the_events_show() {
    use super::Event::{Connected, Deadline, Exited, Lend, Prepared, Returned, Shutdown, Stop, Unfit};
    let retire = || Stop(Reason::Retired);
    let cases: [(&[Event], Status, Phase, Reason); 21] = [
        (&[], Status::Code(3), Phase::Starting, Reason::Crashed),
        (&[], Status::Code(0), Phase::Starting, Reason::SelfExit),
        (&[Connected, Deadline], SIGKILL, Phase::Starting, Reason::StartTimeout),
        (&[Unfit("old".into())], SIGKILL, Phase::Starting, Reason::NotStarted("old".into())),
        (&[retire()], SIGKILL, Phase::Starting, Reason::Retired),
        (&[Connected, link_ended()], Status::Code(1), Phase::Starting, Reason::Crashed),
        (&[Connected, Prepared], SIGKILL, Phase::Ready, Reason::Crashed),
        (&[Connected, Prepared, link_ended()], Status::Signal(11), Phase::Ready, Reason::Crashed),
        (&[Connected, Prepared, link_ended(), Deadline], SIGKILL, Phase::Ready, lost()),
        (&[Connected, Prepared, SILENT], SIGKILL, Phase::Ready, Reason::Hung),
        (&[Connected, Prepared, STARVED], SIGKILL, Phase::Ready, Reason::UnitOutOfMemory),
        (&[Connected, Prepared, Stop(Reason::Recycled)], Status::Code(0), Phase::Stopping, Reason::Recycled),
        // Somebody else's signal is not obedience, nor is another one than the one that asked.
        (&[Connected, Prepared, retire()], Status::Signal(15), Phase::Stopping, Reason::Crashed),
        (&[Connected, Prepared, retire()], Status::Signal(11), Phase::Stopping, Reason::Crashed),
        (&[Connected, Prepared, retire(), link_ended()], Status::Code(0), Phase::Stopping, Reason::Retired),
        (&[Connected, Prepared, Lend(())], Status::Code(1), Phase::Lent, Reason::Crashed),
        (&[Connected, Prepared, Lend(()), Event::Discarded], SIGKILL, Phase::Lent, Reason::Abandoned),
        (&[Connected, Prepared, Lend(()), SILENT], SIGKILL, Phase::Lent, Reason::Hung),
        (&[Connected, Prepared, Lend(()), STARVED], SIGKILL, Phase::Lent, Reason::UnitOutOfMemory),
        (&[Connected, Prepared, Lend(()), retire(), Returned], Status::Code(0), Phase::Stopping, Reason::Retired),
        (&[Connected, Prepared, Shutdown], SIGKILL, Phase::Ready, Reason::Shutdown),
    ];
    for (events, status, phase, reason) in cases {
        let all = [events, &[Exited(status)]].concat();
        assert_eq!(after(&all), dead(phase, reason, status, None), "{events:?}");
    }
}

fn declined(was_heard: bool) -> Event {
    Event::Declined { why: "busy".into(), was_heard }
}

fn refusal() -> Exit {
    platform_fault("the engine host did not execute the run: busy".to_owned())
}

#[test]
fn a_host_that_refuses_a_run_of_which_nothing_was_heard_is_to_blame_and_another_one_may_take_it() {
    let all = in_run(&[declined(false), Event::Exited(SIGKILL)]);
    let death = Death { phase: Phase::Preparing, reason: Reason::NotStarted("busy".into()), status: Some(SIGKILL) };
    assert!(death.is_failure());
    assert!(all.ends_with(&[loses(refusal()), Action::AnnounceDeath(death)]), "{all:?}");
}

#[test]
fn a_lost_run_gets_one_end_and_the_right_one() {
    use super::Event::{Abandoned, Cancel, Deadline, Exited, Shutdown, Stop};
    let fault = |what: &str| ends(platform_fault(what.to_owned()));
    let crash = |status: Status| loses(status.run_exit());
    let segv = Status::Signal(11);
    let starved = "the engine host did not answer any more and was killed: the worker's unit ran out of memory, or the \
                   whole machine did";
    let starved = Exit::error(ExitReason::Crash, "ExitError", starved);
    let cases: [(&[Event], Status, Reason, Option<Action>); 16] = [
        (&[], Status::Code(3), Reason::Crashed, Some(crash(Status::Code(3)))),
        (&[], Status::Code(0), Reason::SelfExit, Some(crash(Status::Code(0)))),
        (&[link_ended()], segv, Reason::Crashed, Some(crash(segv))),
        (&[Stop(Reason::Drained)], segv, Reason::Crashed, Some(crash(segv))),
        (
            &[SILENT],
            SIGKILL,
            Reason::Hung,
            Some(loses(platform_fault("the engine host did not answer any more and was killed".to_owned()))),
        ),
        (&[STARVED], SIGKILL, Reason::UnitOutOfMemory, Some(loses(starved))),
        (&[Cancel(cancel()), SILENT], SIGKILL, Reason::Cancelled, Some(ends(cancel()))),
        (&[Deadline], SIGKILL, Reason::Overdue, Some(ends(overdue(TIMEOUT_MS)))),
        (&[link_ended(), Deadline], SIGKILL, lost(), Some(fault("the link to the engine host was lost: bad frame"))),
        (&[declined(true)], SIGKILL, Reason::NotStarted("busy".into()), Some(ends(refusal()))),
        (&[Cancel(cancel()), Deadline], SIGKILL, Reason::Cancelled, Some(ends(cancel()))),
        (&[Cancel(cancel()), link_ended()], segv, Reason::Cancelled, Some(ends(cancel()))),
        (&[Cancel(cancel())], segv, Reason::Crashed, Some(ends(cancel()))),
        (&[link_ended(), Cancel(cancel())], segv, Reason::Cancelled, Some(ends(cancel()))),
        (&[Abandoned], SIGKILL, Reason::Abandoned, None),
        (&[Shutdown], SIGKILL, Reason::Shutdown, Some(ends(shutdown()))),
    ];
    for (events, status, reason, end) in cases {
        let all = [events, &[Exited(status)]].concat();
        assert_eq!(in_run(&all), dead(Phase::Running, reason, status, end), "{events:?}");
    }
}

#[test]
fn cancelling_asks_first_and_counts_once() {
    use super::Event::{Cancel, Deadline, Finished};
    assert_eq!(in_run(&[Cancel(cancel())]), [Action::AskToCancel(cancel()), within(CANCEL)]);
    assert_eq!(in_run(&[Cancel(cancel()), Cancel(overdue(1))]), []);
    assert_eq!(in_run(&[Cancel(cancel()), Finished]), [Action::AskToStop, within(STOP)]);
    assert_eq!(in_run(&[Cancel(cancel()), Deadline]), killed());
}

#[test]
fn the_end_of_a_run_does_not_wait_for_a_process_that_the_kernel_holds() {
    use super::Event::{Cancel, Deadline, Exited};
    let held = [Cancel(cancel()), Deadline, Deadline];
    assert_eq!(in_run(&held), [Action::SetDeadline(None), ends(cancel())]);
    let seen_at_last = [held.as_slice(), &[Exited(SIGKILL)]].concat();
    assert_eq!(in_run(&seen_at_last), dead(Phase::Running, Reason::Cancelled, SIGKILL, None), "told once");
}

#[test]
fn nothing_happens_to_the_dead_and_nothing_brings_back_the_dying() {
    let events = [
        Event::Connected,
        Event::Prepared,
        Event::Unfit(String::new()),
        Event::Finished,
        Event::Declined { why: String::new(), was_heard: true },
        Event::Declined { why: String::new(), was_heard: false },
        Event::Cancel(cancel()),
        Event::Abandoned,
        Event::LinkEnded(String::new()),
        Event::Stop(Reason::Retired),
        SILENT,
        STARVED,
        Event::Shutdown,
    ];
    for event in events {
        assert_eq!(in_run(&[Event::Exited(SIGKILL), event.clone()]), [], "{event:?}");
        assert_eq!(in_run(&[Event::Abandoned, event.clone()]), [], "{event:?}");
    }
}

#[test]
fn what_a_host_cannot_take_goes_back() {
    use super::Event::{Abandoned, Connected, Exited, Lend, Prepared};
    let ready = [Connected, Prepared];
    let cases: [&[Event]; 4] = [&[], &[run()], &[run(), Abandoned], &[Exited(SIGKILL)]];
    for events in cases {
        let begin = if events.is_empty() { &[] } else { ready.as_slice() };
        for (work, refused) in [(run(), Action::HandBack(())), (Lend(()), Action::BorrowAgain(()))] {
            assert_eq!(after(&[begin, events, &[work]].concat()), [refused], "{events:?}");
        }
    }
}
