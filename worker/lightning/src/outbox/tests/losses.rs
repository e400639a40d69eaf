//! Links and channels that die.

use super::*;

#[test]
fn a_rejoin_sends_all_that_has_no_reply_again_in_order() {
    let mut it = fixture();
    for n in 0..5 {
        it.log(&n.to_string());
    }
    let first = it.pushes();
    it.accept(&first[..2]);
    it.log("5");
    it.outbox.down(Loss::Link);
    assert_eq!(it.pushes(), []);
    it.joined();
    let again = it.pushes();
    let messages: Vec<_> = again.iter().map(|push| push.2["message"][0].as_str().unwrap()).collect();
    assert_eq!(messages, ["2", "3", "4", "5"]);
    assert_eq!(again[0].2["id"], first[2].2["id"], "a server that knows ids drops the second");
    assert_eq!(it.reply(first[3].0, &ok()), Progress::Going, "a reply to the earlier push is nothing any more");
}

#[test]
fn a_state_that_kills_the_link_each_time_is_withheld() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{\"n\":1}"))), 2);
    let mut pushes = it.pushes();
    it.accept(&pushes[..1]);
    pushes.remove(0);
    for _ in 0..6 {
        assert_eq!(pushes[0].2["output_dataclip"], "{\"n\":1}");
        // What was in flight behind it is not the cause.
        it.log("behind");
        it.pushes();
        it.outbox.down(Loss::Longest { tag: pushes[0].0, bytes: 2_000_000, too_long: false });
        it.joined();
        pushes = it.pushes();
    }
    assert_eq!(pushes[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    assert_eq!(it.outbox.lines_dropped(), 0);
}

#[test]
fn a_link_that_dies_by_itself_costs_no_short_message_anything() {
    for bytes in [400, 60_000] {
        let mut it = fixture();
        let step = it.start(0, StepInput::Run);
        it.outbox.step_completed(step, end(StepOutput::State(state("{\"n\":1}"))), 2);
        for text in ["a", "b"] {
            it.log(text);
        }
        for _ in 0..40 {
            let pushes = it.pushes();
            assert_eq!(events(&pushes), ["step:start", "step:complete", "run:log", "run:log"]);
            it.outbox.down(Loss::Longest { tag: pushes[1].0, bytes, too_long: false });
            it.joined();
        }
        let pushes = it.deliver();
        assert_eq!((pushes[1].2["output_dataclip"].as_str(), it.outbox.lines_dropped()), (Some("{\"n\":1}"), 0));
        assert_eq!(pushes.len(), 4, "nothing is said of it");
    }
}

#[test]
fn what_is_suspected_goes_alone_so_that_what_others_cause_is_not_its_doing() {
    let loss = |tag| Loss::Longest { tag, bytes: 2_000_000, too_long: false };
    for (losses, how) in [(3, loss as fn(u64) -> Loss), (1, |_| Loss::Channel)] {
        let mut it = fixture();
        it.log("before");
        let step = it.start(0, StepInput::Run);
        it.outbox.step_completed(step, end(StepOutput::State(state("{\"n\":1}"))), 2);
        it.log("poison");
        let pushes = it.pushes();
        it.accept(&pushes[..2]);
        let mut suspect = pushes[2].0;
        for _ in 0..losses {
            it.outbox.down(how(suspect));
            it.joined();
            let pushes = it.pushes();
            suspect = pushes[0].0;
            assert_eq!(pushes[0].1, "step:complete");
        }
        it.log("behind");
        assert_eq!(it.pushes(), []);
        it.reply(suspect, &ok());
        assert_eq!(events(&it.pushes()), ["run:log", "run:log"], "the others go together again");
    }
}

#[test]
fn a_link_that_dies_each_time_drops_no_state_event() {
    let mut it = fixture();
    it.outbox.run_started(Payload::object(&json!({"x": "y".repeat(100_000)})));
    for _ in 0..20 {
        let pushes = it.pushes();
        assert_eq!(events(&pushes), ["run:start"]);
        let loss = Loss::Longest { tag: pushes[0].0, bytes: 100_200, too_long: false };
        assert_eq!(it.outbox.down(loss), Progress::Going);
        it.joined();
    }
}

#[test]
fn what_crashes_the_channel_each_time_is_degraded_or_taken_for_delivered() {
    let mut it = fixture();
    let crash = |it: &mut Fixture, event: &str| {
        for _ in 0..3 {
            assert_eq!(it.pushes()[0].1, event);
            assert_eq!(it.outbox.down(Loss::Channel), Progress::Going);
            it.joined();
        }
    };
    it.log("poison");
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    crash(&mut it, "run:log");
    assert_eq!(it.outbox.lines_dropped(), 1);
    crash(&mut it, "step:start");
    crash(&mut it, "step:complete");
    assert_eq!(it.pushes()[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    it.outbox.down(Loss::Channel);
    it.joined();
    it.deliver();
    it.outbox.complete(success(0), 3);
    let closing = it.pushes();
    it.accept(&closing[..1]);
    crash_run_complete(&mut it);
}

/// `run:complete` goes in every form that is left, and is never dropped without a word.
fn crash_run_complete(it: &mut Fixture) {
    let mut forms = Vec::new();
    for _ in 0..9 {
        it.outbox.down(Loss::Channel);
        it.joined();
        match it.pushes().pop() {
            Some(push) => forms.push((push.2.get("final_state").is_some(), push.2["reason"] == "success")),
            None => panic!("nothing is sent"),
        }
        if forms.last() == Some(&(false, false)) {
            break;
        }
    }
    assert!(forms.contains(&(true, true)) && forms.contains(&(false, true)), "{forms:?}");
    let ends: Vec<_> = (0..3)
        .map(|_| {
            it.joined();
            it.pushes();
            it.outbox.down(Loss::Channel)
        })
        .collect();
    assert!(matches!(ends.last(), Some(Progress::Gone(_))), "{ends:?}");
}

#[test]
fn a_run_start_that_came_twice_counts_as_taken() {
    let mut it = fixture();
    it.outbox.run_started(Payload::empty());
    it.pushes();
    it.outbox.down(Loss::Link);
    it.joined();
    let pushes = it.pushes();
    let odd = error(json!({"state": ["cannot mark run started from started"]}));
    assert_eq!(it.reply(pushes[0].0, &odd), Progress::Going);
    assert_eq!(it.outbox.unconfirmed(), 0);
}

#[test]
fn a_reply_that_later_ones_overtook_is_not_waited_for_long() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut it = fixture();
    for text in ["a", "b", "c"] {
        it.log(text);
    }
    let pushes = it.pushes();
    assert_eq!(it.outbox.stuck_at(PATIENCE), Some(it.now + STUCK * PATIENCE), "it may only be slow");
    it.now += PATIENCE;
    it.accept(&pushes[1..2]);
    assert_eq!(it.outbox.stuck_at(PATIENCE), Some(it.now + PATIENCE));
    it.accept(&pushes[..1]);
    assert_eq!(it.outbox.stuck_at(PATIENCE), Some(it.now + STUCK * PATIENCE), "others are answered");
    it.outbox.rejoining();
    assert_eq!((it.outbox.stuck_at(PATIENCE), it.pushes()), (None, vec![]));
    it.outbox.down(Loss::Channel);
    it.joined();
    assert_eq!(it.pushes()[0].2["message"], json!(["c"]));
}

#[test]
fn what_is_refused_behind_something_unanswered_is_not_judged() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    let pushes = it.pushes();
    let refused = it.reply(pushes[1].0, &error(json!({"step_id": ["not found"]})));
    assert_eq!(refused, Progress::Rejoin, "the server may never have seen the step's start");
    it.outbox.rejoining();
    it.outbox.down(Loss::Restart);
    it.joined();
    assert_eq!(events(&it.pushes()), ["step:start", "step:complete"]);
}

#[test]
fn a_dataclip_never_goes_twice_by_the_same_id() {
    let already = || error(json!({"step_id": ["already completed"]}));
    // Lightning takes it once more. A server that says instead that it has it has the first, or one of several.
    for (sendings, reply, expected) in
        [(2, ok(), Some(1)), (3, ok(), Some(2)), (2, already(), Some(0)), (3, already(), None)]
    {
        let mut it = fixture();
        let step = it.start(0, StepInput::Run);
        it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
        let pushes = it.pushes();
        it.accept(&pushes[..1]);
        let mut push = pushes[1].clone();
        let mut ids = vec![push.2["output_dataclip_id"].clone()];
        for _ in 1..sendings {
            it.outbox.down(Loss::Link);
            it.joined();
            push = it.pushes().remove(0);
            ids.push(push.2["output_dataclip_id"].clone());
        }
        let distinct: std::collections::BTreeSet<_> = ids.iter().map(Value::to_string).collect();
        assert_eq!((distinct.len(), &push.2["output_dataclip"]), (sendings, &json!("{}")));
        it.reply(push.0, &reply);
        it.start(1, StepInput::Step(0));
        assert_eq!(it.pushes()[0].2.get("input_dataclip_id"), expected.map(|at: usize| &ids[at]));
    }
}

#[test]
fn a_server_that_is_joined_anew_because_it_is_slow_loses_nothing() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    for _ in 0..5 {
        assert_eq!(events(&it.pushes()), ["step:start", "step:complete"]);
        it.outbox.rejoining();
        assert_eq!(it.outbox.down(Loss::Restart), Progress::Going);
        it.joined();
    }
    let pushes = it.pushes();
    assert_eq!(pushes[1].2["output_dataclip"], "{}");
    assert_eq!(it.accept(&pushes), Progress::Going);
}

#[test]
fn a_line_that_crashes_the_channel_each_time_is_dropped_with_batches_too() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 9 };
    for (batch, crashes) in [(None, 3), (Some(batch), 6)] {
        let mut it = with_batches(batch);
        it.log("a line that the server takes, in a batch if there are any");
        it.now += Duration::from_millis(20);
        assert_eq!(it.deliver().len(), 1);
        it.log("poison");
        it.now += Duration::from_millis(20);
        for crash in 0..crashes {
            assert_eq!(it.outbox.lines_dropped(), 0, "after {crash} crashes");
            assert_eq!(it.pushes().len(), 1, "after {crash} crashes");
            it.outbox.down(Loss::Channel);
            it.joined();
            it.now += Duration::from_millis(20);
        }
        assert_eq!((it.pushes(), it.outbox.lines_dropped(), it.outbox.unconfirmed()), (Vec::new(), 1, 0));
        it.log("next");
        it.now += Duration::from_millis(20);
        assert_eq!(it.deliver().len(), 1);
    }
}

#[test]
fn nothing_follows_the_end_of_a_run_whatever_goes_again() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    let mut outcome = success(0);
    outcome.final_state = Some(state(r#"{"n":"\u0000"}"#));
    it.outbox.complete(outcome, 9);
    let last = loop {
        let pushes = it.pushes();
        if pushes.iter().any(|push| push.1 == "run:complete") {
            break pushes;
        }
        it.accept(&pushes);
    };
    assert_eq!(last.len(), 1);
    it.outbox.down(Loss::Channel);
    it.joined();
    // A line says what was replaced, and its answer is lost.
    let told = it.pushes();
    assert_eq!(events(&told), ["run:log"]);
    it.log("too late");
    it.outbox.down(Loss::Link);
    it.joined();
    assert_eq!(events(&it.deliver()), ["run:log", "run:complete"]);
    assert_eq!(it.outbox.unconfirmed(), 0);
}

#[test]
fn a_run_may_be_complete_from_when_its_end_was_sent() {
    let mut it = fixture();
    assert!(!it.outbox.may_be_complete());
    it.outbox.complete(RunOutcome { exit: Exit::success(), final_state: None, final_step: None }, 9);
    assert!(!it.outbox.may_be_complete(), "it waits");
    let line = it.pushes();
    assert_eq!(events(&line), ["run:log"]);
    it.outbox.down(Loss::Link);
    assert!(!it.outbox.may_be_complete(), "a line was sent, the end was not");
    it.joined();
    let line = it.pushes();
    it.accept(&line);
    let last = it.pushes();
    assert_eq!(events(&last), ["run:complete"]);
    assert!(it.outbox.may_be_complete(), "it is in flight");
    it.outbox.down(Loss::Link);
    assert!(it.outbox.may_be_complete(), "its answer was lost");
    it.joined();
    assert_eq!(events(&it.deliver()), ["run:complete"]);
    assert!(!it.outbox.may_be_complete(), "it is");
}
