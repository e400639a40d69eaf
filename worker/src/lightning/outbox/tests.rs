use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::pushes::{WINDOW, WINDOW_BYTES};
use super::replies::LARGE;
use super::*;
use crate::lightning::phoenix::{Loss, Reply, Response, Status};

const RUN: &str = "run";
const INPUT: &str = "input-clip";

struct Fixture {
    outbox: Outbox,
    now: Instant,
}

fn fixture() -> Fixture {
    with_batches(None)
}

fn with_batches(batch: Option<BatchOptions>) -> Fixture {
    let (run_id, input_dataclip_id) = (RUN.into(), Some(INPUT.into()));
    let options = OutboxOptions { run_id, input_dataclip_id, batch, stringify: true, line_bytes: 1024 };
    Fixture { outbox: Outbox::new(options, true), now: Instant::now() }
}

fn read(payload: &Payload) -> Value {
    serde_json::from_slice(&payload.to_vec()).unwrap()
}

fn ok() -> Reply {
    Reply { status: Status::Ok, response: Response::Json(Json::null()) }
}

fn error(response: Value) -> Reply {
    Reply { status: Status::Error, response: Response::Json(Json::encode(&response).unwrap()) }
}

fn state(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

fn end(output: StepOutput) -> StepEnd {
    StepEnd {
        exit: Exit::success(),
        output,
        webhook_response: None,
        duration_ms: 5,
        memory: StepMemory { job: 1, system: 2 },
        thread_id: "host-1".into(),
    }
}

fn success(final_step: StepIndex) -> RunOutcome {
    RunOutcome { exit: Exit::success(), final_state: Some(state("{\"n\":1}")), final_step: Some(final_step) }
}

impl Fixture {
    /// Everything that may go now, as `(tag, event, payload)`.
    fn pushes(&mut self) -> Vec<(u64, &'static str, Value)> {
        let pushes = std::iter::from_fn(|| self.outbox.next_push(self.now));
        pushes.map(|push| (push.tag, push.event, read(&push.payload))).collect()
    }

    fn reply(&mut self, tag: u64, reply: &Reply) -> Progress {
        self.outbox.replied(tag, reply, self.now, 0.0)
    }

    fn accept(&mut self, pushes: &[(u64, &'static str, Value)]) -> Progress {
        pushes.iter().fold(Progress::Going, |_, push| self.reply(push.0, &ok()))
    }

    fn log(&mut self, text: &str) -> bool {
        self.outbox.log(LogSource::Job, LogLevel::Info, Json::encode(&[text]).unwrap(), 7)
    }

    fn start(&mut self, index: StepIndex, input: StepInput) -> OpenStep {
        self.outbox.step_started(index, "job", input, 1)
    }

    /// Runs the step `index` and delivers all of it; its dataclip's id.
    fn deliver_step(&mut self, index: StepIndex) -> String {
        let step = self.start(index, StepInput::Run);
        self.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
        let pushes = self.pushes();
        self.accept(&pushes);
        pushes[1].2["output_dataclip_id"].as_str().unwrap().to_owned()
    }
}

fn events<'a>(pushes: &'a [(u64, &'static str, Value)]) -> Vec<&'a str> {
    pushes.iter().map(|push| push.1).collect()
}

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
    it.outbox.joined();
    let again = it.pushes();
    let messages: Vec<_> = again.iter().map(|push| push.2["message"][0].as_str().unwrap()).collect();
    assert_eq!(messages, ["2", "3", "4", "5"]);
    assert_eq!(again[0].2["id"], first[2].2["id"], "a server that knows ids drops the second");
    assert_eq!(it.reply(first[3].0, &ok()), Progress::Going, "a reply to the earlier push is nothing any more");
}

#[test]
fn already_is_success_on_a_resend_only() {
    let taken = error(json!({"id": ["has already been taken"]}));
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
    it.outbox.complete(success(0), 3);
    it.pushes();
    it.outbox.down(Loss::Link);
    it.outbox.joined();
    for push in it.pushes() {
        let reply = if push.1 == "run:log" { ok() } else { taken.clone() };
        it.reply(push.0, &reply);
    }
    let last = it.pushes();
    assert!(last[0].2["final_dataclip_id"].is_string(), "the first try had made the dataclip");
    it.outbox.down(Loss::Link);
    assert!(it.outbox.may_be_complete());
    it.outbox.joined();
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
    it.reply(pushes[1].0, &error(json!({"output_dataclip": ["is too large"]})));
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
    let pushes = it.pushes();
    it.accept(&pushes[..1]);
    let run = pushes.last().unwrap();
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
    assert_eq!(events(&rest), ["run:log", "run:log", "run:complete"]);
    assert_eq!(rest[2].2["reason"], "exception");
    assert_eq!(rest[2].2["error_message"], message);
    assert_eq!(it.accept(&rest), Progress::Done);
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
    assert_eq!(events(&it.pushes()), ["step:start", "run:log"]);
}

#[test]
fn a_large_state_that_kills_the_link_each_time_is_withheld() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(LARGE));
    it.outbox.step_completed(step, end(StepOutput::State(state(&large))), 2);
    let first = it.pushes();
    it.accept(&first[..1]);
    for _ in 0..5 {
        it.pushes();
        it.outbox.down(Loss::Link);
        it.outbox.joined();
    }
    let pushes = it.pushes();
    assert_eq!(pushes[0].2["output_dataclip_error"], "DATACLIP_TOO_LARGE");
}

#[test]
fn what_crashes_the_channel_each_time_is_degraded_or_taken_for_delivered() {
    let mut it = fixture();
    let crash = |it: &mut Fixture, event: &str| {
        for _ in 0..3 {
            assert_eq!(it.pushes()[0].1, event);
            assert_eq!(it.outbox.down(Loss::Channel), Progress::Going);
            it.outbox.joined();
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
    it.outbox.joined();
    let pushes = it.pushes();
    it.accept(&pushes);
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
        it.outbox.joined();
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
            it.outbox.joined();
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
    it.outbox.joined();
    let pushes = it.pushes();
    let odd = error(json!({"state": ["cannot mark run started from started"]}));
    assert_eq!(it.reply(pushes[0].0, &odd), Progress::Going);
    assert_eq!(it.outbox.unconfirmed(), 0);
}

#[test]
fn states_that_wait_for_delivery_make_the_host_wait() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_STATE_BYTES));
    it.outbox.step_completed(step, end(StepOutput::State(state(&large))), 2);
    assert!(it.outbox.is_congested());
    while let Some(push) = it.outbox.next_push(it.now) {
        it.reply(push.tag, &ok());
    }
    assert!(!it.outbox.is_congested());
}

#[test]
fn lines_past_the_bound_are_dropped_counted_and_told() {
    let mut it = fixture();
    it.outbox.down(Loss::Link);
    let line = "x".repeat(1024 * 1024);
    let taken = (0..40).filter(|_| it.log(&line)).count();
    assert!((31..=33).contains(&taken), "{taken}");
    assert_eq!(it.outbox.lines_dropped() as usize, 40 - taken);
    it.outbox.joined();
    let mut messages = Vec::new();
    loop {
        let pushes = it.pushes();
        if pushes.is_empty() {
            break;
        }
        messages.extend(pushes.iter().map(|push| push.2["message"][0].as_str().unwrap().to_owned()));
        it.accept(&pushes);
    }
    it.log("next");
    let told = it.pushes();
    let text = told[0].2["message"][0].as_str().unwrap();
    assert!(text.starts_with(&format!("{} log lines were dropped here", 40 - taken)), "{text}");
    assert_eq!(messages.len(), taken);
}

#[test]
fn lines_gather_while_a_batch_is_in_flight() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
    let mut it = with_batches(Some(batch));
    it.log("a");
    let first = it.pushes();
    assert_eq!((first[0].1, first[0].2["logs"].as_array().unwrap().len()), ("run:batch_logs", 1));
    assert_eq!(first[0].2["logs"][0].get("run_id"), None);
    it.log("b");
    assert_eq!(it.pushes(), []);
    it.now = it.outbox.wake_at().unwrap();
    let second = it.pushes();
    assert_eq!(second.len(), 1, "not longer than the interval");
    for text in ["c", "d", "e", "f"] {
        it.log(text);
    }
    assert_eq!(it.pushes().len(), 1, "three are enough");
    it.start(0, StepInput::Run);
    assert_eq!(events(&it.pushes()), ["run:batch_logs", "step:start"], "nothing is gained by waiting");
    it.accept(&first);
    let refused = it.reply(second[0].0, &error(json!("no")));
    assert_eq!(refused, Progress::Going);
}

#[test]
fn lines_of_a_refused_batch_go_one_by_one() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
    let mut it = with_batches(Some(batch));
    for text in ["a", "b", "c"] {
        it.log(text);
    }
    let pushes = it.pushes();
    it.reply(pushes[0].0, &error(json!("no")));
    let alone = it.pushes();
    assert_eq!(events(&alone), ["run:log", "run:log", "run:log"]);
    it.accept(&alone[..1]);
    it.reply(alone[1].0, &error(json!("no")));
    assert_eq!((it.pushes(), it.outbox.lines_dropped()), (Vec::new(), 1));
}

/// A server that takes each event once, as Lightning does, and may lose replies.
#[derive(Default)]
struct Server {
    lines: Vec<String>,
    ids: BTreeSet<String>,
    steps: BTreeMap<String, bool>,
    clips: BTreeSet<String>,
    state: Vec<String>,
    complete: bool,
}

impl Server {
    fn handle(&mut self, event: &str, payload: &Value) -> Result<(), Value> {
        let id = |key: &str| payload.get(key).and_then(Value::as_str).map(str::to_owned);
        if self.complete {
            return Err(json!({"state": ["already in completed state"]}));
        }
        match event {
            "run:log" => self.line(payload),
            "run:batch_logs" => payload["logs"].as_array().unwrap().iter().for_each(|line| self.line(line)),
            "step:start" => {
                if id("input_dataclip_id").is_some_and(|clip| clip != INPUT && !self.clips.contains(&clip)) {
                    return Err(json!({"input_dataclip_id": ["does not exist"]}));
                }
                let step = id("step_id").unwrap();
                if self.steps.contains_key(&step) {
                    return Err(json!({"id": ["has already been taken"]}));
                }
                self.steps.insert(step, false);
                self.state.push("start".into());
            }
            "step:complete" => {
                let done = self.steps.get_mut(&id("step_id").unwrap()).ok_or(json!({"step_id": ["not found"]}))?;
                if std::mem::replace(done, true) {
                    return Err(json!({"step_id": ["already completed"]}));
                }
                self.clips.extend(id("output_dataclip_id"));
                self.state.push("complete".into());
            }
            "run:complete" => {
                if id("final_dataclip_id").is_some_and(|clip| !self.clips.contains(&clip)) {
                    return Err(json!({"final_dataclip_id": ["does not exist"]}));
                }
                self.complete = true;
                self.state.push("end".into());
            }
            other => panic!("{other}"),
        }
        Ok(())
    }

    fn line(&mut self, line: &Value) {
        if self.ids.insert(line["id"].as_str().unwrap().to_owned()) {
            self.lines.push(line["message"][0].as_str().unwrap().to_owned());
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_link_does_everything_arrives_once_and_in_order(
        script in proptest::collection::vec(0u8..6, 0..40),
        faults in proptest::collection::vec((0usize..8, 0usize..8), 0..6),
        batched in any::<bool>(),
    ) {
        let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
        let mut it = with_batches(batched.then_some(batch));
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        let mut open: Option<OpenStep> = None;
        let mut last = None;
        let mut index = 0;
        let mut server = Server::default();
        let mut faults = faults.into_iter();
        let mut wire: VecDeque<(u64, &'static str, Value)> = VecDeque::new();
        let mut steps = script.into_iter();
        let mut ended = false;
        let mut progress = Progress::Going;
        while progress == Progress::Going {
            // The run goes on.
            match (steps.next(), open.take()) {
                (Some(0 | 1), None) => {
                    open = Some(it.start(index, last.map_or(StepInput::Run, StepInput::Step)));
                    expected.push("start");
                }
                (Some(0 | 1), Some(step)) => {
                    let output = if index % 3 == 2 { StepOutput::TooLarge(1) } else { StepOutput::State(state("{}")) };
                    it.outbox.step_completed(step, end(output), 1);
                    last = Some(index);
                    index += 1;
                    expected.push("complete");
                }
                (Some(2..=4), still) => {
                    open = still;
                    let text = format!("line {}", lines.len());
                    it.log(&text);
                    lines.push(text);
                }
                (Some(_), still) => open = still,
                (None, Some(step)) => {
                    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 1);
                    expected.push("complete");
                }
                (None, None) if !ended => {
                    ended = true;
                    let exit = Exit::success();
                    it.outbox.complete(RunOutcome { exit, final_state: Some(state("{}")), final_step: last }, 2);
                    lines.push("Run complete with status: success".into());
                    expected.push("end");
                }
                (None, None) => {}
            }
            wire.extend(it.pushes());
            it.now = it.outbox.wake_at().unwrap_or(it.now);
            // The server takes some, and some of its replies arrive before the link dies.
            if let Some((handled, replied)) = faults.next().filter(|_| !wire.is_empty()) {
                for (at, (tag, event, payload)) in wire.drain(..).take(handled).enumerate() {
                    let reply = server.handle(event, &payload).map_or_else(error, |()| ok());
                    if at < replied {
                        progress = it.reply(tag, &reply);
                        prop_assert!(matches!(progress, Progress::Going | Progress::Done), "{progress:?}");
                        if progress == Progress::Done {
                            break;
                        }
                    }
                }
                wire.clear();
                it.outbox.down(Loss::Link);
                it.outbox.joined();
            } else if let Some((tag, event, payload)) = wire.pop_front() {
                let reply = server.handle(event, &payload).map_or_else(error, |()| ok());
                progress = it.reply(tag, &reply);
                prop_assert!(matches!(progress, Progress::Going | Progress::Done), "{progress:?}");
            }
        }
        prop_assert_eq!(server.lines, lines);
        prop_assert_eq!(server.state, expected);
        prop_assert!(server.complete);
    }
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
