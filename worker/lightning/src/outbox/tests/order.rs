//! The order of events, and what they refer to.

use super::*;
use crate::outbox::pushes::{WINDOW, WINDOW_BYTES};

#[test]
fn a_run_in_order() {
    let mut it = fixture();
    it.outbox.run_started(Payload::object(&json!({"timestamp": "1"})));
    it.log("before");
    let step = it.start(0, StepInput::Run);
    it.log("within");
    let output = StepOutput::State(state(r#"{"a": "é\"\n"}"#));
    it.outbox.step_completed(step, StepEnd { webhook_response: Some(state("[1]")), ..end(output) }, 9);
    it.log("after");
    it.outbox.complete(success(0), 10);

    let pushes = it.pushes();
    let closing = "run:log";
    let expected = ["run:start", "run:log", "step:start", "run:log", "step:complete", "run:log", closing];
    assert_eq!(events(&pushes), expected, "run:complete waits for the dataclip");
    let step_id = &pushes[2].2["step_id"];
    assert_eq!(pushes[2].2, json!({"step_id": step_id, "job_id": "job", "input_dataclip_id": INPUT, "timestamp": "1"}));
    assert_eq!(pushes[1].2.get("step_id"), None);
    assert_eq!(&pushes[3].2["step_id"], step_id);
    assert_eq!(pushes[5].2.get("step_id"), None);
    let id = &pushes[3].2["id"];
    let line = json!({
        "run_id": RUN, "id": id, "step_id": step_id, "source": "JOB", "level": "info", "timestamp": "8",
        "message": ["within"],
    });
    assert_eq!(pushes[3].2, line);
    let clip = &pushes[4].2["output_dataclip_id"];
    let completed = json!({
        "step_id": step_id, "job_id": "job", "output_dataclip_id": clip, "output_dataclip": r#"{"a": "é\"\n"}"#,
        "dataclip_size_mb": "0.0000143",
        "reason": "success", "error_type": null, "error_message": null, "mem": {"job": 1, "system": 2},
        "duration": 5, "thread_id": "host-1", "timestamp": "9", "webhook_response": [1],
    });
    assert_eq!(pushes[4].2, completed);

    assert_eq!(it.accept(&pushes), Progress::Going);
    let pushes = it.pushes();
    let completed = json!({
        "reason": "success", "error_type": null, "error_message": null, "final_dataclip_id": clip,
        "final_state": {"n": 1}, "timestamp": "10",
    });
    assert_eq!((pushes[0].1, &pushes[0].2), ("run:complete", &completed));
    assert_eq!(it.accept(&pushes), Progress::Done);
    assert_eq!(it.outbox.unconfirmed(), 0);
}

#[test]
fn dataclips_are_referred_to_when_lightning_has_them() {
    let mut it = fixture();
    let clip = it.deliver_step(0);
    let step = it.start(1, StepInput::Step(0));
    it.outbox.step_completed(step, end(StepOutput::TooLarge(99)), 2);
    let pushes = it.pushes();
    assert_eq!(pushes[0].2["input_dataclip_id"], clip);
    assert_eq!(pushes[1].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
    assert_eq!(pushes[1].2["dataclip_size_mb"], "0.0000944");
    assert_eq!((pushes[1].2.get("output_dataclip"), pushes[1].2.get("output_dataclip_id")), (None, None));
    let step = it.start(2, StepInput::Step(1));
    assert_eq!(it.pushes(), [], "its input is still in flight");
    it.accept(&pushes);
    let pushes = it.pushes();
    assert_eq!((pushes[0].1, pushes[0].2.get("input_dataclip_id")), ("step:start", None), "it was withheld");
    it.outbox.step_completed(step, end(StepOutput::Unwanted), 2);
    let pushes = it.pushes();
    assert!(pushes[0].2["output_dataclip_id"].is_string() && pushes[0].2.get("output_dataclip").is_none());
}

#[test]
fn what_is_no_object_is_wrapped_and_raw_states_go_raw() {
    let mut it = fixture();
    it.outbox.options.server = Server::new(Form::Value, LIMIT);
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("[1]"))), 2);
    assert_eq!(it.pushes()[1].2["output_dataclip"], json!({"value": [1]}));
}

#[test]
fn a_window_bounds_what_is_in_flight() {
    let mut it = fixture();
    for _ in 0..200 {
        it.log("x");
    }
    let pushes = it.pushes();
    assert_eq!(pushes.len(), WINDOW);
    it.accept(&pushes[..10]);
    assert_eq!(it.pushes().len(), 10);
    let mut it = fixture();
    for _ in 0..10 {
        it.log(&"x".repeat(WINDOW_BYTES / 2));
    }
    assert_eq!(it.pushes().len(), 1);
}

#[test]
fn the_end_of_a_run_waits_for_everything_before_it() {
    let mut it = fixture();
    it.log("a");
    it.outbox.complete(success(0), 3);
    let pushes = it.pushes();
    assert_eq!(events(&pushes), ["run:log", "run:log"]);
    it.accept(&pushes[1..]);
    assert_eq!(it.pushes(), [], "the first line may have to go again");
    it.accept(&pushes[..1]);
    assert_eq!(events(&it.pushes()), ["run:complete"]);
}

#[test]
fn a_server_that_was_busy_gets_one_event_and_then_more_and_more() {
    let mut it = fixture();
    for n in 0..200 {
        it.log(&n.to_string());
    }
    let pushes = it.pushes();
    assert_eq!(pushes.len(), WINDOW);
    let busy = error(json!({"reason": "server busy"}));
    it.reply(pushes[0].0, &busy);
    it.accept(&pushes[1..]);
    let mut sent = Vec::new();
    for expected in [1, 1, 2, 4] {
        it.now = it.outbox.wake_at().unwrap_or(it.now);
        let pushes = it.pushes();
        assert_eq!(pushes.len(), expected);
        sent.push(pushes[0].2["message"][0].as_str().unwrap().to_owned());
        if sent.len() == 1 {
            it.reply(pushes[0].0, &busy);
        } else {
            it.accept(&pushes);
        }
    }
    assert_eq!(sent, ["0", "0", "64", "66"], "the refused one goes first, and alone");
}

#[test]
fn no_two_lines_have_the_same_time_and_times_grow() {
    let mut it = fixture();
    for time in [5, 5, 9, 3, 20] {
        it.outbox.log(LogSource::Job, LogLevel::Info, state("[]"), time);
    }
    let times: Vec<_> = it.pushes().iter().map(|push| push.2["timestamp"].as_str().unwrap().to_owned()).collect();
    assert_eq!(times, ["5", "6", "9", "10", "20"]);
}
