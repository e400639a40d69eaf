//! The order of events, and what they refer to.

use super::*;
use crate::lightning::outbox::pushes::{WINDOW, WINDOW_BYTES};

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
        "run_id": RUN, "id": id, "step_id": step_id, "source": "JOB", "level": "info", "timestamp": "7",
        "message": ["within"],
    });
    assert_eq!(pushes[3].2, line);
    let clip = &pushes[4].2["output_dataclip_id"];
    let completed = json!({
        "step_id": step_id, "job_id": "job", "output_dataclip_id": clip, "output_dataclip": r#"{"a": "é\"\n"}"#,
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
    it.outbox.options.stringify = false;
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("[1]"))), 2);
    assert_eq!(it.pushes()[1].2["output_dataclip"], json!({"data": [1]}));
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
