//! What differs from server to server: how long a message may be, in which form dataclips go, what is known at all.

use super::*;

/// A state whose JSON has about so many bytes, and twice as many within a string.
fn quotes(bytes: usize) -> Json {
    Json::encode(&json!({ "x": "\"".repeat(bytes / 2) })).unwrap()
}

/// Starts a step that ends with this, and what is pushed of its end.
fn end_step(it: &mut Fixture, output: Json) -> (u64, &'static str, Value) {
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(output)), 2);
    let mut pushes = it.pushes();
    it.accept(&pushes[..1]);
    // A large one is not sent beside others.
    pushes.extend(it.pushes());
    pushes.swap_remove(1)
}

/// What the lines of a run's log say that are among these.
fn said(pushes: &[(u64, &'static str, Value)]) -> String {
    pushes.iter().filter_map(|push| push.2["message"][0].as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_dataclip_goes_in_the_form_that_fits() {
    for (bytes, expected) in [(4_000_000, Some("string")), (6_000_000, Some("value")), (10_000_000, None)] {
        let mut it = fixture();
        let step = it.start(0, StepInput::Run);
        it.outbox.step_completed(step, end(StepOutput::State(quotes(bytes))), 2);
        it.outbox.complete(success(0), 3);
        let all = it.deliver();
        let payload = &all.iter().find(|push| push.1 == "step:complete").unwrap().2;
        let clip = &payload["output_dataclip"];
        let form = [(clip.is_string(), "string"), (clip.is_object(), "value")];
        let form = form.iter().find_map(|(is, form)| is.then_some(*form));
        assert_eq!(form, expected, "{bytes}");
        assert!(payload.to_string().len() < LIMIT);
        let text = said(&all);
        if expected.is_none() {
            assert_eq!(payload["output_dataclip_error"], "DATACLIP_TOO_LARGE");
            assert!(text.contains("10000000") && text.contains("--max-message-mb"), "{text}");
        }
        assert_eq!(text.contains("is withheld"), expected.is_none());
    }
}

#[test]
fn whatever_is_too_long_is_left_out_and_said() {
    let mut it = fixture();
    it.outbox.log(LogSource::Job, LogLevel::Info, quotes(12_000_000), 1);
    let step = it.start(0, StepInput::Run);
    let exit = Exit::error(ExitReason::Fail, "k".repeat(5_000_000), "\n".repeat(6_000_000));
    let webhook_response = Some(quotes(11_000_000));
    let end = StepEnd { exit: exit.clone(), webhook_response, ..end(StepOutput::State(quotes(12_000_000))) };
    it.outbox.step_completed(step, end, 2);
    it.outbox.complete(RunOutcome { exit, final_state: Some(quotes(11_000_000)), final_step: None }, 3);
    let mut all = Vec::new();
    while let Some(push) = it.outbox.next_push(it.now) {
        assert!(push.payload.len() < LIMIT, "{}", push.event);
        all.push((push.tag, push.event, read(&push.payload)));
        it.reply(push.tag, &ok());
    }
    let text = said(&all);
    for part in [
        "A line of the log is left out",
        "dataclip is withheld",
        "webhook response is left out",
        "final state is left out",
        "error's text is cut",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, event, last) = all.last().unwrap();
    assert_eq!(
        (*event, &last["reason"], &last["final_state"]),
        ("run:complete", &json!("fail"), &json!({"data": "[REDACTED]"}))
    );
    let (kept, longest) = (last["error_message"].as_str().unwrap().len(), LIMIT / 16);
    assert!((longest / 4..=longest).contains(&kept), "{kept} of {longest} bytes are kept");
    assert_eq!(it.outbox.unconfirmed(), 0);
    assert!(!it.outbox.is_congested());
}

#[test]
fn a_form_that_is_refused_is_tried_once_for_all_runs() {
    let invalid = error(json!({"output_dataclip": ["is invalid"]}));
    for (first, other) in [(Form::String, json!({"n": 1})), (Form::Value, json!("{\"n\":1}"))] {
        let mut it = fixture();
        it.outbox.options.server = Server::new(first, LIMIT);
        let push = end_step(&mut it, state("{\"n\":1}"));
        assert_ne!(push.2["output_dataclip"], other);
        it.reply(push.0, &invalid);
        let again = it.pushes();
        assert_eq!((again[0].1, &again[0].2["output_dataclip"]), ("step:complete", &other));
        it.accept(&again);
        let mut next = fixture();
        next.outbox.options.server = it.outbox.options.server.clone();
        assert_eq!(end_step(&mut next, state("{\"n\":1}")).2["output_dataclip"], other);
    }
    // A dataclip that is refused in both is withheld, and nothing learned.
    let mut it = fixture();
    let push = end_step(&mut it, state("{}"));
    it.reply(push.0, &invalid);
    let again = it.pushes();
    it.reply(again[0].0, &invalid);
    assert_eq!(it.pushes()[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    assert_eq!(it.outbox.options.server.forms().count(), 2);
}

#[test]
fn a_message_that_closed_the_connection_for_its_length_goes_shorter_at_once() {
    let mut it = fixture();
    let push = end_step(&mut it, quotes(1_000_000));
    it.log("a line in flight");
    let line = it.pushes();
    it.outbox.down(Loss::Longest { tag: push.0, bytes: 2_000_400, too_long: true });
    it.joined();
    let again = it.pushes();
    assert_eq!(again[0].2["output_dataclip"]["x"].as_str().map(str::len), Some(500_000), "as a value");
    assert_eq!(again[1].2["id"], line[0].2["id"], "what was in flight beside it stays as it was");
    it.outbox.down(Loss::Longest { tag: again[0].0, bytes: 1_000_400, too_long: true });
    it.joined();
    let withheld = it.pushes();
    assert_eq!(withheld[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    assert_eq!(it.outbox.options.server.limit(), 1_000_399, "for all runs");
}

#[test]
fn links_that_die_by_themselves_degrade_nothing() {
    let mut it = fixture();
    let mut push = end_step(&mut it, state("{\"n\":1}"));
    for _ in 0..40 {
        it.outbox.down(Loss::Longest { tag: push.0, bytes: 3_000_000, too_long: false });
        it.outbox.joined(it.now);
        if let Some(probation) = it.outbox.wake_at() {
            // It dies again while nothing of this run is on it.
            assert_eq!(it.pushes(), []);
            it.outbox.down(Loss::Link);
            it.outbox.joined(probation);
            it.now = probation;
        }
        push = it.pushes().remove(0);
        assert_eq!(push.2["output_dataclip"], "{\"n\":1}");
    }
    // Nor do those that somebody else's message is the longest on.
    for _ in 0..40 {
        it.outbox.down(Loss::Link);
        it.joined();
        push = it.pushes().remove(0);
    }
    assert_eq!(push.2["output_dataclip"], "{\"n\":1}");
}

#[test]
fn nul_characters_are_replaced_where_the_server_cannot_store_them() {
    let mut it = fixture();
    let nul = state(r#"{"a":"\u0000"}"#);
    let push = end_step(&mut it, nul.clone());
    assert_eq!(push.2["output_dataclip"], r#"{"a":"\u0000"}"#, "some can");
    it.outbox.down(Loss::Channel);
    it.joined();
    let again = it.pushes();
    assert_eq!(again[0].2["output_dataclip"], r#"{"a":"\ufffd"}"#, "at once");
    assert!(said(&again).contains("NUL"), "{again:?}");
    assert_eq!(again.iter().find(|push| push.1 == "run:log").unwrap().2["level"], "warn");
    it.accept(&again);
    // From now on before it goes.
    let exit = Exit::error(ExitReason::Fail, "Odd\0", "a\0b");
    it.outbox.complete(RunOutcome { exit, final_state: Some(nul), final_step: None }, 3);
    let rest = it.deliver();
    let (_, _, last) = rest.last().unwrap();
    assert_eq!((&last["final_state"], &last["error_message"]), (&json!({"a": "\u{fffd}"}), &json!("a\u{fffd}b")));
    assert!(!rest.iter().any(|push| push.2.to_string().contains("\\u0000")), "{rest:?}");
    assert!(!said(&rest).contains("NUL"), "it is told once");
}

#[test]
fn an_end_that_crashes_for_a_nul_character_goes_without_it() {
    let mut it = fixture();
    let exit = Exit::success();
    it.outbox.complete(RunOutcome { exit, final_state: Some(state(r#"{"a":"\u0000"}"#)), final_step: None }, 3);
    let lines = it.pushes();
    it.accept(&lines);
    assert_eq!(events(&it.pushes()), ["run:complete"]);
    it.outbox.down(Loss::Channel);
    it.joined();
    let rest = it.deliver();
    assert_eq!(events(&rest), ["run:log", "run:complete"]);
    assert!(said(&rest).contains("NUL"));
    assert_eq!(rest[1].2["final_state"], json!({"a": "\u{fffd}"}));
    assert_eq!(it.outbox.unconfirmed(), 0);
}

#[test]
fn lines_without_a_value_and_with_nul_characters_are_taken() {
    let mut it = fixture();
    for message in ["[]", " [ ] ", r#"["a\u0000"]"#] {
        it.outbox.log(LogSource::Job, LogLevel::Info, state(message), 1);
    }
    let messages: Vec<_> = it.pushes().into_iter().map(|push| push.2["message"].clone()).collect();
    assert_eq!(messages, [json!([""]), json!([""]), json!(["a\u{fffd}"])]);
}

#[test]
fn a_server_that_does_not_know_batches_gets_single_lines() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
    let mut it = with_batches(Some(batch));
    it.log("a");
    for _ in 0..2 {
        assert_eq!(events(&it.pushes()), ["run:batch_logs"]);
        it.outbox.down(Loss::Channel);
        it.joined();
    }
    it.log("b");
    let alone = it.pushes();
    assert_eq!(events(&alone), ["run:log", "run:log"]);
    it.accept(&alone);
    assert_eq!(it.outbox.lines_dropped(), 0);
    it.outbox.options.server.reached_over(2);
    it.log("c");
    assert_eq!(events(&it.pushes()), ["run:batch_logs"], "another connection may lead to another server");
}

#[test]
fn a_step_does_not_stay_open_behind_a_refused_run_start() {
    let mut it = fixture();
    it.outbox.run_started(Payload::empty());
    let step = it.start(0, StepInput::Run);
    it.log("within");
    let pushes = it.pushes();
    assert_eq!(events(&pushes), ["run:start", "step:start", "run:log"]);
    let refused = it.reply(pushes[0].0, &error(json!({"state": ["is invalid"]})));
    assert!(matches!(refused, Progress::StopEngine(_)));
    it.accept(&pushes[1..]);
    it.outbox.step_completed(step, end(StepOutput::Unwanted), 3);
    let rest = it.deliver();
    assert_eq!(events(&rest), ["step:complete", "run:log", "run:log", "run:complete"]);
    let (step_end, run_end) = (&rest[0].2, &rest[3].2);
    assert_eq!((&step_end["step_id"], &step_end["reason"]), (&pushes[1].2["step_id"], &json!("exception")));
    assert_eq!((step_end.get("output_dataclip_id"), step_end.get("output_dataclip_error")), (None, None));
    assert_eq!(run_end["reason"], "exception");
}
