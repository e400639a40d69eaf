//! What the server refuses, and what becomes of it.

use super::*;

#[test]
fn already_is_success_on_a_resend_only() {
    let taken = error(json!({"id": ["has already been taken"]}));
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    it.outbox.complete(success(0), 3);
    it.pushes();
    it.outbox.down(Loss::Link);
    it.joined();
    for push in it.pushes() {
        let reply = if push.1 == "run:log" { ok() } else { taken.clone() };
        it.reply(push.0, &reply);
    }
    let last = it.pushes();
    assert!(last[0].2["final_dataclip_id"].is_string(), "the first try had made the dataclip");
    it.outbox.down(Loss::Link);
    assert!(it.outbox.may_be_complete());
    it.joined();
    let last = it.pushes();
    assert_eq!(it.reply(last[0].0, &error(json!({"state": ["already in completed state"]}))), Progress::Done);

    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    let pushes = it.pushes();
    it.reply(pushes[0].0, &ok());
    it.reply(pushes[1].0, &taken);
    assert_eq!(it.pushes()[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE", "a first try that is refused degrades");
}

#[test]
fn a_refused_dataclip_is_withheld_and_the_final_state_with_it() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{\"big\":1}"))), 2);
    let pushes = it.pushes();
    it.reply(pushes[0].0, &ok());
    let refused = error(json!({"output_dataclip": ["is too large"]}));
    it.reply(pushes[1].0, &refused);
    let as_value = it.pushes();
    it.reply(as_value[0].0, &refused);
    it.outbox.complete(success(0), 3);
    let pushes = it.pushes();
    assert_eq!(pushes[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    it.accept(&pushes);
    let last = it.pushes().pop().unwrap();
    assert_eq!((last.1, &last.2["final_state"]), ("run:complete", &json!({"data": "[REDACTED]"})));
    assert_eq!(last.2.get("final_dataclip_id"), None);
}

#[test]
fn a_refused_run_complete_degrades_step_by_step() {
    let no = error(json!({"final_state": ["is invalid"]}));
    let mut it = fixture();
    it.deliver_step(0);
    it.outbox.complete(success(0), 3);
    let closing_line = it.pushes();
    it.accept(&closing_line);
    let run = it.pushes().pop().unwrap();
    assert_eq!(it.reply(run.0, &no), Progress::Going);
    let run = it.pushes().pop().unwrap();
    assert_eq!((run.2.get("final_state"), run.2["reason"].as_str()), (None, Some("success")));
    assert_eq!(it.reply(run.0, &no), Progress::Going);
    let run = it.pushes().pop().unwrap();
    assert_eq!(run.2["reason"], "exception");
    assert_eq!(run.2["error_message"], "Lightning refused run:complete: final_state: is invalid");
    assert!(matches!(it.reply(run.0, &no), Progress::Gone(_)));
}

#[test]
fn a_refused_step_start_ends_the_run_as_an_exception() {
    let mut it = fixture();
    it.outbox.run_started(Payload::empty());
    let step = it.start(0, StepInput::Run);
    it.log("within");
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    let step = it.start(1, StepInput::Step(0));
    let pushes = it.pushes();
    it.accept(&pushes[..1]);
    let no = error(json!({"job_id": ["does not exist"]}));
    let message = "Lightning refused step:start: job_id: does not exist";
    assert_eq!(it.reply(pushes[1].0, &no), Progress::StopEngine(message.into()));
    it.outbox.step_completed(step, end(StepOutput::Unwanted), 3);
    it.log("too late");
    for push in &pushes[2..] {
        assert_eq!(
            it.reply(push.0, &error(json!({"step_id": ["not found"]}))),
            Progress::Going,
            "as was to be expected"
        );
    }
    let rest = it.pushes();
    assert_eq!(events(&rest), ["run:log", "run:log"]);
    it.accept(&rest);
    let last = it.pushes();
    assert_eq!(events(&last), ["run:complete"]);
    assert_eq!(last[0].2["reason"], "exception");
    assert_eq!(last[0].2["error_message"], message);
    assert_eq!(it.accept(&last), Progress::Done);
}

#[test]
fn gone_and_busy() {
    let mut it = fixture();
    it.log("a");
    it.log("b");
    let pushes = it.pushes();
    for push in &pushes {
        assert_eq!(it.reply(push.0, &error(json!({"reason": "busy"}))), Progress::Going);
    }
    assert_eq!(it.pushes(), []);
    it.now = it.outbox.wake_at().unwrap();
    let again = it.pushes();
    assert_eq!(again[0].2["message"], json!(["a"]));
    assert_eq!(it.outbox.wake_at(), None);
    let over = error(json!({"state": ["already in completed state"]}));
    assert!(matches!(it.reply(again[0].0, &over), Progress::Gone(_)));
}

#[test]
fn what_is_refused_because_the_server_was_busy_before_goes_again() {
    let mut it = fixture();
    it.start(0, StepInput::Run);
    it.log("within");
    let pushes = it.pushes();
    it.reply(pushes[0].0, &error(json!({"reason": "busy"})));
    it.reply(pushes[1].0, &error(json!({"step_id": ["does not exist"]})));
    it.now = it.outbox.wake_at().unwrap();
    let again = it.pushes();
    assert_eq!(events(&again), ["step:start"]);
    it.accept(&again);
    assert_eq!(events(&it.pushes()), ["run:log"]);
}

#[test]
fn a_line_is_cut_to_the_bytes_that_it_takes_as_json() {
    for (text, limit, expected) in [
        ("Error: no", 13, "Error: no"),
        ("Error: no", 12, "Error: n"),
        ("a\n\"b", 9, "a\n\""),
        ("a\u{1}b", 11, "a\u{1}"),
        ("a\u{1}b", 10, "a"),
        ("é😀", 6, "é"),
        ("é", 0, ""),
    ] {
        assert_eq!(cut(text, limit), expected, "{text:?} {limit}");
        let line = Json::encode(&[cut(text, limit)]).unwrap();
        assert!(line.len() as u64 <= limit.max(4), "{line:?}");
    }
}

#[test]
fn the_closing_line_is_no_longer_than_a_line_may_be() {
    let mut it = fixture();
    let exit = Exit::error(ExitReason::Crash, "RuntimeCrash", "\n".repeat(1024));
    it.outbox.complete(RunOutcome { exit, final_state: None, final_step: None }, 2);
    let closing = it.pushes().into_iter().filter(|(_, event, _)| *event == "run:log").nth(1).unwrap();
    let message = &closing.2["message"];
    assert!(message[0].as_str().unwrap().starts_with("RuntimeCrash: \n\n"));
    assert!(message.to_string().len() <= 1024, "{message}");
}

#[test]
fn the_log_says_that_the_last_dataclip_is_withheld() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    it.outbox.complete(success(0), 3);
    let pushes = it.pushes();
    it.accept(&pushes[..1]);
    it.accept(&pushes[2..]);
    let refused = error(json!({"output_dataclip": ["is too large"]}));
    it.reply(pushes[1].0, &refused);
    let as_value = it.pushes();
    it.reply(as_value[0].0, &refused);
    let rest = it.deliver();
    assert!(events(&rest).ends_with(&["run:log", "run:complete"]), "{rest:?}");
    let told = rest.iter().any(|push| push.2["message"][0].as_str().is_some_and(|it| it.contains("is withheld")));
    assert!(told, "{rest:?}");
}

#[test]
fn an_end_that_was_replaced_is_known() {
    let mut it = fixture();
    it.outbox.complete(RunOutcome { exit: Exit::success(), final_state: None, final_step: None }, 3);
    let line = it.pushes();
    it.accept(&line);
    let end = it.pushes();
    assert_eq!((end[0].1, it.outbox.replaced_exit()), ("run:complete", None));
    it.reply(end[0].0, &error(json!({"state": ["is invalid"]})));
    let pushes = it.pushes();
    assert_eq!(pushes[0].2["reason"], "exception");
    assert_eq!(it.accept(&pushes), Progress::Done);
    assert_eq!(it.outbox.replaced_exit().map(|exit| exit.reason), Some(ExitReason::Exception));
}

#[test]
fn a_refused_end_of_a_step_without_its_dataclip_ends_no_run() {
    let no = error(json!({"output_dataclip_id": ["can't be blank"]}));
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::TooLarge(99)), 2);
    it.start(1, StepInput::Step(0));
    let pushes = it.pushes();
    assert_eq!(it.reply(pushes[0].0, &ok()), Progress::Going);
    assert_eq!(it.reply(pushes[1].0, &no), Progress::Going);
    let mut rest = it.deliver();
    assert!(rest.iter().all(|push| push.1 != "step:complete"), "it goes no more: {rest:?}");
    it.outbox.complete(success(0), 3);
    rest.extend(it.deliver());
    let last = rest.last().unwrap();
    assert_eq!((last.1, &last.2["reason"]), ("run:complete", &json!("success")));
    let told =
        rest.iter().any(|push| push.2["message"][0].as_str().is_some_and(|it| it.contains("refused step:complete")));
    assert!(told, "{rest:?}");
}

#[test]
fn a_dataclip_that_the_server_does_not_know_costs_its_reference_alone() {
    for response in
        [json!({"input_dataclip": ["does not exist"]}), json!({"errors": {"input_dataclip_id": ["is odd"]}})]
    {
        let mut it = fixture();
        it.start(0, StepInput::Run);
        let pushes = it.pushes();
        assert_eq!(pushes[0].2["input_dataclip_id"], INPUT);
        assert_eq!(it.reply(pushes[0].0, &error(response.clone())), Progress::Going);
        let pushes = it.pushes();
        assert_eq!((pushes[0].1, pushes[0].2.get("input_dataclip_id")), ("step:start", None));
        assert!(matches!(it.reply(pushes[0].0, &error(response)), Progress::StopEngine(_)), "there is nothing left");
    }

    let mut it = fixture();
    it.deliver_step(0);
    it.outbox.complete(success(0), 3);
    let closing = it.pushes();
    it.accept(&closing);
    let unknown = error(json!({"errors": {"final_dataclip_id": ["does not exist"]}}));
    let last = it.pushes().remove(0);
    assert!(last.2["final_dataclip_id"].is_string());
    it.reply(last.0, &unknown);
    let last = it.pushes().remove(0);
    assert_eq!((last.2.get("final_dataclip_id"), &last.2["final_state"]), (None, &json!({"n": 1})));
    assert_eq!(last.2["reason"], "success");
    assert_eq!(it.reply(last.0, &ok()), Progress::Done);
}

#[test]
fn a_withheld_dataclip_takes_no_room() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_STATE_BYTES));
    it.outbox.step_completed(step, end(StepOutput::State(state(&large))), 2);
    let started = it.pushes();
    it.accept(&started);
    let mut ended = it.pushes().remove(0);
    assert!(it.outbox.is_congested());
    while !ended.2["output_dataclip"].is_null() {
        it.reply(ended.0, &error(json!({"output_dataclip": ["is too large"]})));
        ended = it.pushes().remove(0);
    }
    assert!(!it.outbox.is_congested(), "it is still to be delivered, without what it had");
    assert_eq!(it.outbox.delivery().states_withheld, 1);
}

#[test]
fn pauses_grow_while_the_server_is_busy_and_begin_anew_once_it_takes_something() {
    let mut it = fixture();
    let busy = error(json!("server busy"));
    let pause = |it: &mut Fixture| {
        let pushes = it.pushes();
        it.reply(pushes[0].0, &busy);
        assert_eq!(it.pushes(), [], "it is left alone for a while");
        let until = it.outbox.wake_at().unwrap();
        let pause = until - it.now;
        it.now = until;
        pause
    };
    it.log("a");
    let (first, second) = (pause(&mut it), pause(&mut it));
    assert!(second > first, "{first:?} {second:?}");
    assert_eq!(it.deliver().len(), 1);
    it.log("b");
    assert_eq!(pause(&mut it), first);
}
