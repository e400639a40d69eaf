//! What Lightning refuses, and how it says so.

use mock_lightning::{DataclipForm, MockLightning, MockOptions, RunState, start};
use serde_json::{Value, json};

use crate::client::{Client, claim, mock, plan, uuid};

const TIME: &str = "1700000000000000";

/// A claimed run whose channel is joined.
struct Fixture {
    mock: MockLightning,
    client: Client,
    run: String,
    id: String,
    token: String,
}

async fn fixture() -> Fixture {
    with_options(MockOptions::default()).await
}

async fn with_options(options: MockOptions) -> Fixture {
    let mock = start(options).await.unwrap();
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    let run = format!("run:{id}");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    Fixture { mock, client, run, id, token }
}

impl Fixture {
    async fn accepted(&mut self, event: &str, payload: Value) -> Value {
        self.client.call(&self.run, event, payload).await.unwrap()
    }

    /// Checks that a message is refused with this response, and that this was recorded.
    async fn refused(&mut self, event: &str, payload: Value, response: Value) {
        let before = self.mock.violations().len();
        assert_eq!(self.client.call(&self.run, event, payload.clone()).await, Err(response.clone()), "{payload}");
        let violations = self.mock.violations();
        assert_eq!(violations.len(), before + 1, "{payload}");
        let last = violations.last().unwrap();
        assert_eq!((last.event.as_str(), &*last.payload, &last.reason), (event, &payload, &response.to_string()));
        assert_eq!(last.run_id.as_ref(), Some(&self.id));
    }

    /// Checks that the channel crashes on a message.
    async fn crashes(&mut self, event: &str, payload: Value, why: &str) {
        self.client.crash(&self.run, event, payload, &self.token).await;
        let last = self.mock.violations().pop().unwrap();
        assert!(last.event == event && last.reason.contains(why), "{last:?}");
    }

    async fn rejoin(&mut self) {
        self.client.call(&self.run, "phx_join", json!({ "token": self.token })).await.unwrap();
    }

    async fn start_step(&mut self) -> String {
        let step = uuid();
        self.accepted("step:start", json!({"step_id": step, "job_id": "a", "timestamp": TIME})).await;
        step
    }
}

/// `base` with some fields changed.
fn with(base: &Value, changes: &Value) -> Value {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    changed
}

#[tokio::test]
async fn run_start() {
    let mut fixture = fixture().await;
    let good = json!({"timestamp": TIME, "versions": {}});
    for (changes, response) in [
        (json!({"timestamp": null}), json!({"timestamp": ["can't be blank"]})),
        (json!({"timestamp": 1700000000000000_u64}), json!({"timestamp": ["is invalid"]})),
        (json!({"timestamp": "now"}), json!({"timestamp": ["is invalid"]})),
        (json!({"versions": []}), json!({"versions": ["is invalid"]})),
        (json!({"more": 1}), json!("Unexpected keys: more")),
    ] {
        fixture.refused("run:start", with(&good, &changes), response).await;
    }
    fixture.accepted("run:start", good).await;
}

#[tokio::test]
async fn step_start() {
    let mut fixture = fixture().await;
    let good = json!({"step_id": uuid(), "job_id": "a", "input_dataclip_id": "in", "timestamp": TIME});
    for (changes, response) in [
        (json!({"step_id": null}), json!({"step_id": ["can't be blank"]})),
        (json!({"step_id": "1"}), json!({"step_id": ["is invalid"]})),
        (json!({"job_id": null}), json!({"errors": {"job_id": ["Job not found!"]}})),
        (json!({"job_id": "c"}), json!({"job_id": ["does not exist"]})),
        (json!({"input_dataclip_id": "no"}), json!({"input_dataclip": ["does not exist"]})),
        (json!({"timestamp": "x"}), json!({"timestamp": ["is invalid"]})),
        (json!({"run_id": "x", "x": 1}), json!("Unexpected keys: run_id,x")),
    ] {
        fixture.refused("step:start", with(&good, &changes), response).await;
    }
    let without_job = json!({"step_id": uuid(), "timestamp": TIME});
    let response = json!({"errors": {"job_id": ["This field can't be blank."]}});
    fixture.refused("step:start", without_job, response).await;
    fixture.accepted("step:start", good.clone()).await;
    fixture.crashes("step:start", good, "there is a step").await;
}

#[tokio::test]
async fn step_complete() {
    let mut fixture = fixture().await;
    let step = fixture.start_step().await;
    let good = json!({"step_id": step, "job_id": "a", "output_dataclip_id": uuid(), "output_dataclip": "{}",
        "reason": "success", "error_type": null, "error_message": null, "timestamp": TIME});
    for (changes, response) in [
        (json!({"step_id": uuid()}), json!({"step_id": ["not found"]})),
        (json!({"step_id": "1"}), json!({"step_id": ["is invalid"]})),
        (json!({"output_dataclip_id": "1"}), json!({"output_dataclip_id": ["is invalid"]})),
        (json!({"output_dataclip_id": null}), json!({"output_dataclip_id": ["can't be blank"]})),
        (json!({"output_dataclip": null}), json!({"output_dataclip": ["can't be blank"]})),
        (json!({"output_dataclip": "[]"}), json!({"body": ["must be a map"]})),
        (json!({"output_dataclip": 1}), json!({"body": ["must be a map"]})),
        (json!({"reason": null}), json!({"reason": ["can't be blank"]})),
        (json!({"reason": "done"}), json!({"reason": ["is invalid"]})),
        (json!({"error_type": "JobError"}), json!("Inconsistent reason (success and error type or message)")),
        (json!({"timestamp": null}), json!({"timestamp": ["can't be blank"]})),
        (json!({"x": 1}), json!("Unexpected keys: x")),
    ] {
        fixture.refused("step:complete", with(&good, &changes), response).await;
    }
    for text in ["{", r#"{"a": "\ud800"}"#] {
        fixture.crashes("step:complete", with(&good, &json!({ "output_dataclip": text })), "no JSON").await;
    }
    fixture.accepted("step:complete", good.clone()).await;
    fixture.crashes("step:complete", good.clone(), "there is a dataclip").await;
    // Neither the job nor a second completion is looked at.
    let again = with(&good, &json!({"output_dataclip_id": uuid(), "job_id": "b"}));
    fixture.accepted("step:complete", again).await;

    // A withheld output has neither id nor body; one that is not made a string is taken as well.
    let withheld = fixture.start_step().await;
    let changes = json!({"step_id": withheld, "output_dataclip_id": null, "output_dataclip": null,
        "output_dataclip_error": "DATACLIP_TOO_LARGE"});
    fixture.accepted("step:complete", with(&good, &changes)).await;
    let plain = fixture.start_step().await;
    let changes = json!({"step_id": plain, "output_dataclip_id": uuid(), "output_dataclip": {"a": 1}});
    fixture.accepted("step:complete", with(&good, &changes)).await;
    let record = fixture.mock.run(&fixture.id).unwrap();
    assert_eq!(record.steps[1].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    let output = record.steps[2].output_dataclip_id.as_ref().unwrap();
    assert_eq!(fixture.mock.dataclip(output), Some(json!({"a": 1})));
}

#[tokio::test]
async fn logs() {
    let mut fixture = fixture().await;
    let line = json!({"message": ["hi"], "source": "JOB", "level": "info", "timestamp": TIME});
    let wrong = [
        (json!({"message": null}), json!({"message": ["can't be blank"]})),
        (json!({"message": []}), json!({"message": ["can't be blank"]})),
        (json!({"message": "hi"}), json!({"message": ["is invalid"]})),
        (json!({"source": null}), json!({"source": ["can't be blank"]})),
        (json!({"source": "NINE CHAR"}), json!({"source": ["should be at most 8 character(s)"]})),
        (json!({"level": "loud"}), json!({"level": ["is invalid"]})),
        (json!({"timestamp": 1}), json!({"timestamp": ["is invalid"]})),
        (json!({"step_id": uuid()}), json!({"step_id": ["must be associated with the run"]})),
        (json!({"id": "1"}), json!({"id": ["is invalid"]})),
        (json!({"x": 1}), json!("Unexpected keys: x")),
    ];
    let alone = with(&line, &json!({"run_id": fixture.id}));
    for (changes, response) in &wrong {
        fixture.refused("run:log", with(&alone, changes), response.clone()).await;
        let batch = json!({"logs": [line, with(&line, changes)]});
        fixture.refused("run:batch_logs", batch, response.clone()).await;
    }
    fixture.refused("run:log", line.clone(), json!({"run_id": ["is invalid"]})).await;
    assert!(fixture.mock.run(&fixture.id).unwrap().logs.is_empty());
    fixture.accepted("run:log", alone).await;
}

#[tokio::test]
async fn run_complete() {
    let mut fixture = fixture().await;
    let good = json!({"reason": "fail", "error_type": "JobError", "error_message": "no", "timestamp": TIME});
    for (changes, response) in [
        (json!({"reason": null}), json!({"state": ["can't be blank"]})),
        (json!({"reason": "failed"}), json!({"state": ["is invalid"]})),
        (json!({"reason": "success"}), json!("Inconsistent reason (success and error type or message)")),
        (json!({"final_dataclip_id": uuid()}), json!({"errors": {"final_dataclip_id": ["does not exist"]}})),
        (json!({"final_dataclip_id": "x"}), json!({"final_dataclip_id": ["is invalid"]})),
        (json!({"timestamp": ""}), json!({"timestamp": ["can't be blank"]})),
        (json!({"run_id": "x"}), json!("Unexpected keys: run_id")),
    ] {
        fixture.refused("run:complete", with(&good, &changes), response).await;
    }
    fixture.accepted("run:complete", good.clone()).await;
    fixture.refused("run:complete", good.clone(), json!({"state": ["already in completed state"]})).await;
    // A new channel knows that the run has ended, and only minds another end.
    fixture.rejoin().await;
    fixture.accepted("run:start", json!({"timestamp": TIME, "versions": {}})).await;
    fixture.start_step().await;
    assert_eq!(fixture.mock.run(&fixture.id).unwrap().state, RunState::Failed);
    fixture.rejoin().await;
    fixture.refused("run:complete", good, json!({"state": ["already in completed state"]})).await;
}

#[tokio::test]
async fn an_input_is_the_runs_own_whatever_id_is_asked_for() {
    let mut fixture = fixture().await;
    for payload in [json!({"id": "no"}), json!({})] {
        assert_eq!(fixture.accepted("fetch:dataclip", payload).await, json!(r#"{"data":{"x":1}}"#));
    }
    let no_credential = json!({"errors": {"id": ["Credential not found!"]}});
    assert_eq!(fixture.client.call(&fixture.run, "fetch:credential", json!({"id": "no"})).await, Err(no_credential));
    assert!(fixture.mock.violations().is_empty(), "a plan's mistake is no violation");
    fixture.refused("fetch:credential", json!({}), json!({"errors": {"id": ["This field can't be blank."]}})).await;
}

#[tokio::test]
async fn a_run_without_an_input_has_the_input_null() {
    let mock = mock().await;
    mock.queue_run(json!({"jobs": []})).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = client.take_run().await;
    assert_eq!(client.call(&run, "fetch:dataclip", json!({"id": "in"})).await, Ok(json!("null")));
}

#[tokio::test]
async fn nul_characters_crash_the_channel() {
    let mut fixture = fixture().await;
    let step = fixture.start_step().await;
    let line =
        json!({"run_id": fixture.id, "message": ["a\u{0}b"], "source": "JOB", "level": "info", "timestamp": TIME});
    let end = json!({"reason": "fail", "error_type": "E", "error_message": "a\u{0}", "timestamp": TIME});
    let state = |dataclip: Value| {
        json!({"step_id": step, "job_id": "a", "output_dataclip_id": uuid(), "output_dataclip": dataclip,
            "reason": "success", "timestamp": TIME})
    };
    let events = [
        ("run:log", line),
        ("run:complete", end),
        ("step:complete", state(json!(r#"{"a": "\u0000"}"#))),
        ("step:complete", state(json!({"a\u{0}": 1}))),
    ];
    for (event, payload) in events.clone() {
        fixture.crashes(event, payload, "NUL").await;
    }
    let mut fixture = with_options(MockOptions { crash_on_nul: false, ..MockOptions::default() }).await;
    fixture.accepted("run:log", with(&events[0].1, &json!({ "run_id": fixture.id }))).await;
}

#[tokio::test]
async fn older_and_newer_servers() {
    let batch = json!({"logs": []});
    let mut fixture = with_options(MockOptions { batch_logs: false, ..MockOptions::default() }).await;
    fixture.crashes("run:batch_logs", batch, "there is no event").await;
    for (dataclip_form, taken, refused) in
        [(DataclipForm::Strings, json!("{}"), json!({})), (DataclipForm::Values, json!({}), json!("{}"))]
    {
        let mut fixture = with_options(MockOptions { dataclip_form, ..MockOptions::default() }).await;
        let step = fixture.start_step().await;
        let good = json!({"step_id": step, "job_id": "a", "output_dataclip_id": uuid(), "output_dataclip": taken,
            "reason": "success", "timestamp": TIME});
        let other = with(&good, &json!({ "output_dataclip": refused }));
        fixture.refused("step:complete", other, json!({"output_dataclip": ["is invalid"]})).await;
        fixture.accepted("step:complete", good).await;
    }
    let taken = MockOptions { crash_on_duplicates: false, ..MockOptions::default() };
    let mut fixture = with_options(taken).await;
    let step = json!({"step_id": uuid(), "job_id": "a", "timestamp": TIME});
    fixture.accepted("step:start", step.clone()).await;
    fixture.refused("step:start", step, json!({"id": ["has already been taken"]})).await;
}

#[tokio::test]
async fn strict_ids() {
    let mock = start(MockOptions { strict_ids: true, ..MockOptions::default() }).await.unwrap();
    assert!(mock.queue_run(plan()).unwrap_err().to_string().contains("jobs[0].id: must be a UUID"));
    let job = uuid();
    mock.queue_run(json!({"jobs": [{"id": job}], "dataclips": {"in": {}}})).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = client.take_run().await;
    for (changes, response) in [
        (json!({"job_id": "a"}), Err(json!({"job_id": ["is invalid"]}))),
        (json!({"input_dataclip_id": "in"}), Err(json!({"input_dataclip_id": ["is invalid"]}))),
        (json!({"job_id": uuid()}), Err(json!({"job_id": ["does not exist"]}))),
        (json!({}), Ok(())),
    ] {
        let payload = with(&json!({"step_id": uuid(), "job_id": job, "timestamp": TIME}), &changes);
        assert_eq!(client.call(&run, "step:start", payload).await.map(|_| ()), response);
    }
}

#[tokio::test]
async fn joins() {
    let mock = mock().await;
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = format!("run:{id}");
    let unauthorized = Err(json!({"reason": "unauthorized"}));
    assert_eq!(client.call(&run, "phx_join", json!({"token": "guess"})).await, unauthorized);
    client.call("worker:queue", "phx_join", json!({"capacity": "5"})).await.unwrap_err();
    client.join_queue().await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    assert_eq!(client.call(&run, "phx_join", json!({})).await, unauthorized);
    let not_found = Err(json!({"reason": "not_found"}));
    assert_eq!(client.call("run:other", "phx_join", json!({ "token": token })).await, not_found);
    let unmatched = Err(json!({"reason": "unmatched topic"}));
    assert_eq!(client.call("other", "phx_join", json!({})).await, unmatched);
    assert_eq!(client.call(&run, "fetch:plan", json!({})).await, unmatched);
    assert_eq!(mock.violations().len(), 6);
    assert!(
        mock.violations().iter().filter(|violation| violation.event == "phx_join").all(|join| join.payload.is_null())
    );

    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    // A second join closes the first.
    let first = client.push(&run, "phx_join", json!({ "token": token })).await;
    client.reply(&first).await.unwrap();
    let closed = client.next().await.unwrap();
    assert_eq!((closed.topic, closed.event.as_str()), (run, "phx_close"));
    assert_ne!(closed.join_ref, json!(first));
}

#[tokio::test]
async fn what_no_handler_takes_crashes_the_channel() {
    let mock = mock().await;
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    let run = format!("run:{id}");
    let mut without_name = claim(1);
    without_name.as_object_mut().unwrap().remove("worker_name");
    for (topic, event, payload) in [
        (run.as_str(), "run:pause", json!({})),
        ("worker:queue", "claim", without_name),
        (&run, "run:batch_logs", json!({})),
    ] {
        if topic == run {
            client.call(topic, "phx_join", json!({ "token": token })).await.unwrap();
        }
        client.push(topic, event, payload.clone()).await;
        let crashed = client.next().await.unwrap();
        assert_eq!((crashed.topic.as_str(), crashed.event.as_str()), (topic, "phx_error"));
        assert_eq!(crashed.reference, crashed.join_ref);
        let violation = mock.violations().pop().unwrap();
        assert_eq!((violation.event.as_str(), &*violation.payload), (event, &payload));
        let unmatched = Err(json!({"reason": "unmatched topic"}));
        assert_eq!(client.call(topic, event, payload).await, unmatched);
    }
    client.join_queue().await;
    let mut bad = claim(1);
    bad["demand"] = json!(-1);
    let response = json!({"demand": ["must be a whole number of 1 or more"]});
    assert_eq!(client.call("worker:queue", "claim", bad).await, Err(response));
}
