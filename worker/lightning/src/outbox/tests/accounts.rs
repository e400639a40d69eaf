//! What is counted, what takes room, and what the run's log says of its end.

use super::*;
use crate::outbox::pushes::WINDOW_BYTES;

#[test]
fn what_did_not_get_there_at_once_and_as_it_was_is_counted() {
    let mut it = fixture();
    it.log("a");
    it.log("b");
    it.pushes();
    it.outbox.down(Loss::Link);
    it.joined();
    let again = it.pushes();
    it.reply(again[0].0, &error(json!("no")));
    it.accept(&again[1..]);
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::TooLarge(9)), 2);
    let step = it.start(1, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::Unwanted), 2);
    it.outbox.complete(success(0), 3);
    it.deliver();
    let expected = Delivery { lines_dropped: 1, events_resent: 2, events_refused: 1, states_withheld: 1 };
    assert_eq!(it.outbox.delivery(), expected);
    assert_eq!((it.outbox.lines_dropped(), it.outbox.unconfirmed()), (1, 0));
}

#[test]
fn what_lightning_has_not_confirmed_is_what_waits_and_what_is_in_flight() {
    let mut it = with_batches(Some(BatchOptions { interval: Duration::ZERO, limit: 2 }));
    assert_eq!((it.outbox.unconfirmed(), it.outbox.oldest_push()), (0, None));
    for text in ["a", "b", "c"] {
        it.log(text);
    }
    assert_eq!((it.outbox.unconfirmed(), it.outbox.oldest_push()), (3, None));
    let began = it.now;
    let push = it.outbox.next_push(it.now).unwrap();
    it.now += Duration::from_secs(1);
    let rest = it.pushes();
    assert_eq!((it.outbox.unconfirmed(), it.outbox.oldest_push()), (3, Some(began)));
    it.reply(push.tag, &ok());
    assert_eq!((it.outbox.unconfirmed(), it.outbox.oldest_push()), (1, Some(it.now)));
    it.accept(&rest);
    assert_eq!((it.outbox.unconfirmed(), it.outbox.oldest_push()), (0, None));
}

#[test]
fn everything_but_lines_takes_room_until_lightning_has_it() {
    let large = || state(&format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_STATE_BYTES)));
    type Event = fn(&mut Fixture, Json);
    let events: [(&str, bool, Event); 6] = [
        ("the run's start", true, |it, large| {
            it.outbox.run_started(Payload::object(&large.decode::<Value>().unwrap()))
        }),
        ("a state", true, |it, large| {
            let step = it.start(0, StepInput::Run);
            it.outbox.step_completed(step, end(StepOutput::State(large)), 2);
        }),
        ("a webhook's response", true, |it, large| {
            let step = it.start(0, StepInput::Run);
            let end = StepEnd { webhook_response: Some(large), ..end(StepOutput::Unwanted) };
            it.outbox.step_completed(step, end, 2);
        }),
        ("a final state", true, |it, large| {
            let outcome = RunOutcome { exit: Exit::success(), final_state: Some(large), final_step: None };
            it.outbox.complete(outcome, 3);
        }),
        ("a line", false, |it, large| assert!(it.outbox.log(LogSource::Job, LogLevel::Info, large, 1))),
        ("a state that is not told", false, |it, _| {
            let step = it.start(0, StepInput::Run);
            it.outbox.step_completed(step, end(StepOutput::TooLarge(MAX_STATE_BYTES as u64 * 2)), 2);
        }),
    ];
    for (name, takes_room, event) in events {
        let mut it = fixture();
        event(&mut it, large());
        assert_eq!(it.outbox.is_congested(), takes_room, "{name}");
        it.pushes();
        assert_eq!(it.outbox.is_congested(), takes_room, "{name} in flight");
        it.outbox.down(Loss::Link);
        it.joined();
        assert_eq!(it.outbox.is_congested(), takes_room, "{name}, to be sent again");
        it.deliver();
        assert!(!it.outbox.is_congested(), "{name}, delivered");
    }
}

#[test]
fn a_run_that_ends_within_a_step_ends_outside_of_it() {
    let mut it = fixture();
    it.start(0, StepInput::Run);
    it.outbox.complete(success(0), 3);
    it.outbox.warn("too late");
    it.outbox.run_started(Payload::empty());
    it.start(1, StepInput::Run);
    let all = it.deliver();
    assert_eq!(events(&all), ["step:start", "run:log", "run:complete"]);
    assert_eq!(all[1].2.get("step_id"), None);
}

#[test]
fn the_log_ends_with_how_the_run_ended() {
    let odd = Exit { reason: ExitReason::Success, ..Exit::error(ExitReason::Fail, "Odd", "m") };
    for (exit, expected) in [
        (Exit::success(), vec!["Run complete with status: success"]),
        (odd, vec!["Run complete with status: success"]),
        (Exit::error(ExitReason::Fail, "JobError", "boom"), vec!["Run complete with status: fail", "JobError: boom"]),
        (Exit { error: None, ..Exit::error(ExitReason::Crash, "", "") }, vec!["Run complete with status: crash"]),
    ] {
        let mut it = fixture();
        it.outbox.complete(RunOutcome { exit, final_state: None, final_step: None }, 3);
        let all = it.deliver();
        let (last, lines) = all.split_last().unwrap();
        let texts: Vec<_> = lines.iter().map(|line| line.2["message"][0].as_str().unwrap()).collect();
        assert_eq!(texts, expected);
        assert!(lines.iter().all(|line| (&line.2["source"], &line.2["level"]) == (&json!("R/T"), &json!("info"))));
        let has_error = expected.len() > 1;
        assert_eq!((last.1, last.2["error_type"].is_string()), ("run:complete", has_error));
        assert_eq!((last.2.get("final_state"), last.2.get("final_dataclip_id")), (None, None));
    }
}

#[test]
fn a_full_log_takes_lines_again_once_half_of_it_is_delivered() {
    let mut it = fixture();
    it.outbox.down(Loss::Link);
    let line = "x".repeat(1024 * 1024);
    while it.log(&line) {}
    assert!(!it.log("short"), "nothing is taken");
    it.joined();
    // As soon as there is room they are taken again, and as soon as there is much room it is said, too.
    for (room, lines) in [(MAX_LOG_BYTES, 1), (MAX_LOG_BYTES / 2, 2)] {
        while it.outbox.log_bytes > room {
            let push = it.outbox.next_push(it.now).unwrap();
            it.reply(push.tag, &ok());
        }
        let before = it.outbox.unconfirmed();
        assert!(it.log("next"));
        assert_eq!(it.outbox.unconfirmed(), before + lines);
    }
    let all = it.deliver();
    let last: Vec<_> = all.iter().rev().take(2).map(|push| push.2["message"][0].as_str().unwrap()).collect();
    assert_eq!(last, ["next", "2 log lines were dropped here: they came faster than Lightning took them"]);
    it.log("more");
    assert_eq!(it.deliver().len(), 1, "it is told once");
    assert_eq!(it.outbox.lines_dropped(), 2);
}

#[test]
fn what_was_dropped_last_is_told_before_the_end() {
    let mut it = fixture();
    it.outbox.down(Loss::Link);
    while it.log(&"x".repeat(1024 * 1024)) {}
    it.outbox.complete(success(0), 3);
    it.joined();
    let all = it.deliver();
    let texts: Vec<_> = all.iter().filter_map(|push| push.2["message"][0].as_str()).rev().take(2).collect();
    assert_eq!(texts[0], "Run complete with status: success");
    assert!(texts[1].starts_with("1 log lines were dropped here"), "{}", texts[1]);
}

#[test]
fn what_is_in_flight_is_bounded_in_bytes_but_for_what_goes_alone() {
    let overhead = {
        let mut it = fixture();
        it.log("");
        it.outbox.log_bytes
    };
    let mut it = fixture();
    // With what stands around it, one is half of what may be in flight.
    let half = "x".repeat(WINDOW_BYTES / 2 - overhead);
    (0..4).for_each(|_| assert!(it.log(&half)));
    let pushes = it.pushes();
    assert_eq!(pushes.len(), 2, "exactly as much as may be");
    it.accept(&pushes[..1]);
    assert_eq!(it.pushes().len(), 1);
    let mut it = fixture();
    it.log(&format!("{half}y"));
    it.log(&half);
    assert_eq!(it.pushes().len(), 1, "a byte too much");
    let mut it = fixture();
    it.log(&"x".repeat(2 * WINDOW_BYTES));
    it.log("short");
    assert_eq!(it.pushes().len(), 1, "whatever its length, it goes if nothing else does");
}

#[test]
fn a_channel_that_is_silent_is_given_longer_than_one_that_overtakes() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut it = fixture();
    assert_eq!(it.outbox.stuck_at(PATIENCE), None, "nothing is in flight");
    it.log("a");
    let first = it.pushes();
    it.accept(&first);
    it.now += 10 * PATIENCE;
    it.log("b");
    it.pushes();
    assert_eq!(it.outbox.stuck_at(PATIENCE), Some(it.now + 4 * PATIENCE), "an old reply does not count");
}

#[test]
fn pauses_of_a_busy_server_are_bounded() {
    let mut it = fixture();
    it.log("a");
    let pauses: Vec<_> = (0..9)
        .map(|_| {
            let pushes = it.pushes();
            it.reply(pushes[0].0, &error(json!("busy")));
            let until = it.outbox.wake_at().unwrap();
            assert_eq!(
                (it.outbox.next_push(until - Duration::from_millis(1)).is_none(), it.outbox.wake_at()),
                (true, Some(until))
            );
            (until - std::mem::replace(&mut it.now, until)).as_millis()
        })
        .collect();
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    it.pushes();
    assert_eq!(it.outbox.wake_at(), None);
}

#[test]
fn nobody_wakes_for_what_cannot_go() {
    let mut it = with_batches(Some(BatchOptions { interval: Duration::from_secs(1), limit: 9 }));
    it.log("a");
    it.pushes();
    it.log("b");
    it.pushes();
    assert_eq!(it.outbox.wake_at(), Some(it.now + Duration::from_secs(1)), "lines gather");
    it.outbox.rejoining();
    assert_eq!(it.outbox.wake_at(), None, "there is no channel");
    it.outbox.down(Loss::Restart);
    assert_eq!(it.outbox.wake_at(), None);
    it.outbox.joined(it.now);
    let all = it.pushes();
    assert_eq!(all[0].2["logs"].as_array().map(Vec::len), Some(2));
    assert_eq!(it.outbox.wake_at(), None);
}
