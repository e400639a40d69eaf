//! A run's whole life, as a worker without faults has it.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mock_lightning::{DataclipReply, Dialect, MockOptions, RunState, WaitError, start};
use serde_json::{Value, json};

use crate::client::{Client, claim, mock, plan, uuid, within};

const TIME: &str = "1700000000000000";

#[tokio::test]
async fn a_run_from_queue_to_end() {
    let mock = mock().await;
    let mut events = mock.subscribe();
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = client.take_run().await;
    assert_eq!(mock.run(&id).unwrap().state, RunState::Claimed);
    assert_eq!(client.claim(1).await, []);

    let fetched = client.call(&run, "fetch:plan", json!({})).await.unwrap();
    assert_eq!(fetched["id"], *id);
    assert_eq!(fetched["jobs"], plan()["jobs"]);
    assert_eq!(fetched.get("credentials"), None);
    assert_eq!(client.call(&run, "fetch:credential", json!({"id": "c"})).await, Ok(json!({"password": "hush"})));
    assert_eq!(client.call(&run, "fetch:dataclip", json!({"id": "in"})).await, Ok(json!(r#"{"data":{"x":1}}"#)));

    let versions = json!({"worker": "0.1.0", "node": "24", "engine": "e", "@openfn/language-common": ["3.0.0"]});
    let start = json!({"timestamp": TIME, "versions": versions});
    assert_eq!(client.call(&run, "run:start", start).await, Ok(Value::Null));
    assert_eq!(mock.run(&id).unwrap().state, RunState::Started);

    let (step, output, line) = (uuid(), uuid(), uuid());
    let started = json!({"step_id": step, "job_id": "a", "input_dataclip_id": "in", "timestamp": TIME});
    assert_eq!(client.call(&run, "step:start", started).await, Ok(json!({"step_id": step})));
    let log = json!({"run_id": id, "message": ["hi", {"a": 1}], "source": "JOB", "level": "info", "timestamp": TIME,
        "step_id": step, "id": line});
    assert_eq!(client.call(&run, "run:log", log).await, Ok(json!({"log_line_id": line})));
    let again = json!({"message": ["hi"], "source": "JOB", "level": "info", "timestamp": TIME, "id": line});
    let other = json!({"message": ["ho"], "source": "R/T", "level": "debug", "timestamp": TIME});
    let batch = json!({"logs": [again, other]});
    assert_eq!(client.call(&run, "run:batch_logs", batch).await, Ok(json!({})));
    let completed = json!({"step_id": step, "job_id": "a", "output_dataclip_id": output,
        "output_dataclip": r#"{"data":{"x":2}}"#, "reason": "success", "error_type": null, "error_message": null,
        "mem": {"job": 1, "system": 2}, "duration": 3, "thread_id": "1", "timestamp": TIME});
    assert_eq!(client.call(&run, "step:complete", completed).await, Ok(json!({"step_id": step})));
    let complete = json!({"reason": "success", "final_dataclip_id": output, "final_state": {"data": {"x": 2}},
        "timestamp": TIME});
    assert_eq!(client.call(&run, "run:complete", complete).await, Ok(Value::Null));
    assert_eq!(client.call(&run, "phx_leave", json!({})).await, Ok(json!({})));
    assert_eq!(client.next().await.unwrap().event, "phx_close");

    let record = mock.wait_for_end(&id, Duration::from_secs(5)).await.unwrap();
    assert_eq!(record.state, RunState::Success);
    assert_eq!(record.final_state, Some(json!({"data": {"x": 2}})));
    assert_eq!(record.worker_name.as_deref(), Some("tester"));
    assert_eq!(record.steps[0].output_dataclip_id.as_ref(), Some(&output));
    assert_eq!(mock.dataclip(&output), Some(json!({"data": {"x": 2}})));
    let lines: Vec<&Value> = record.logs.iter().map(|log| &log.line["message"]).collect();
    assert_eq!(lines, [&json!(["hi", {"a": 1}]), &json!(["ho"])]);
    let names: Vec<&str> = record.events.iter().map(|event| event.event.as_str()).collect();
    let expected = [
        "fetch:plan",
        "fetch:credential",
        "fetch:dataclip",
        "run:start",
        "step:start",
        "run:log",
        "run:batch_logs",
        "step:complete",
        "run:complete",
    ];
    assert_eq!(names, expected);
    for name in expected {
        let event = events.recv().await.unwrap();
        assert_eq!((event.event.as_str(), &*event.run_id), (name, id.as_str()));
    }
    assert!(mock.violations().is_empty(), "{:?}", mock.violations());
}

#[tokio::test]
async fn every_exit_reason_has_its_state() {
    let mock = mock().await;
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    for (reason, state) in [
        ("success", RunState::Success),
        ("fail", RunState::Failed),
        ("crash", RunState::Crashed),
        ("cancel", RunState::Cancelled),
        ("kill", RunState::Killed),
        ("exception", RunState::Exception),
    ] {
        let id = mock.queue_run(plan()).unwrap();
        let (_, token) = client.claim(1).await.pop().unwrap();
        let run = format!("run:{id}");
        client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
        client.call(&run, "run:complete", json!({"reason": reason, "timestamp": TIME})).await.unwrap();
        assert_eq!(mock.run(&id).unwrap().state, state);
    }
}

#[tokio::test]
async fn a_plan_may_keep_its_outputs_with_the_worker() {
    let mock = mock().await;
    let mut plan = plan();
    plan["options"] = json!({"output_dataclips": false});
    mock.queue_run(plan).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = client.take_run().await;
    let (step, output) = (uuid(), uuid());
    client.call(&run, "step:start", json!({"step_id": step, "job_id": "a", "timestamp": TIME})).await.unwrap();
    let mut completed = json!({"step_id": step, "job_id": "a", "output_dataclip_id": output, "output_dataclip": "{}",
        "reason": "success", "timestamp": TIME});
    let refused = json!({"output_dataclip": ["must be left out, as the run's options say"]});
    assert_eq!(client.call(&run, "step:complete", completed.clone()).await, Err(refused));
    completed.as_object_mut().unwrap().remove("output_dataclip");
    assert_eq!(client.call(&run, "step:complete", completed).await, Ok(json!({"step_id": step})));
    assert_eq!(mock.dataclip(&output), Some(Value::Null));
}

#[tokio::test]
async fn dataclips_can_come_as_the_reference_mock_sends_them() {
    let options = MockOptions {
        dataclip_reply: DataclipReply::ByteArray,
        dialect: Dialect::ReferenceMock,
        ..MockOptions::default()
    };
    let mock = start(options).await.unwrap();
    mock.queue_run(json!({"jobs": [], "dataclips": {"in": {}}})).unwrap();
    let mut client = Client::connect(&mock).await;
    let joined = client.call("worker:queue", "phx_join", json!({"capacity": 1, "queues": {"*": 1}})).await;
    assert_eq!(joined, Ok(json!("ok")));

    // A heartbeat has no answer: the push comes first of all that follows.
    client.push("phoenix", "heartbeat", json!({})).await;
    mock.wake();
    let pushed = client.next().await.unwrap();
    assert_eq!((pushed.event.as_str(), &pushed.payload), ("work-available", &json!("{}")));
    assert_eq!((&pushed.join_ref, &pushed.reference), (&Value::Null, &json!("")));

    let (id, token) = client.claim(1).await.pop().unwrap();
    let run = format!("run:{id}");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    let reference = client.push(&run, "fetch:dataclip", json!({"id": "in"})).await;
    let reply = client.next().await.unwrap();
    assert_eq!(reply.event, format!("chan_reply_{reference}"));
    assert_eq!(reply.payload, json!({"status": "ok", "response": [123, 125]}));
    assert!(client.call(&run, "phx_leave", json!({})).await.is_err());
    assert_eq!(mock.activity().heartbeats, 1);
    assert!(mock.violations().is_empty(), "{:?}", mock.violations());
}

#[tokio::test]
async fn run_tokens_are_signed_with_the_private_key() {
    let options = MockOptions { private_key: Some(include_str!("key.pem").into()), ..MockOptions::default() };
    let mock = start(options).await.unwrap();
    let mut plan = plan();
    plan["options"] = json!({"run_timeout_ms": 10_000});
    let id = mock.queue_run(plan).unwrap();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    let key = DecodingKey::from_rsa_pem(include_bytes!("public.pem")).unwrap();
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &Validation::new(Algorithm::RS256)).unwrap().claims;
    assert_eq!((&claims["iss"], &claims["id"]), (&json!("Lightning"), &json!(id)));
    assert_eq!(claims["sub"], json!(format!("run:{id}")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 70);
    client.call(&format!("run:{id}"), "phx_join", json!({ "token": token })).await.unwrap();

    let options = MockOptions { private_key: Some("no key".into()), ..MockOptions::default() };
    assert!(start(options).await.unwrap_err().to_string().contains("RSA key in PEM"));
}

#[tokio::test]
async fn a_claim_gives_as_many_runs_as_it_asks_for() {
    let mock = mock().await;
    let ids: Vec<String> = (0..4).map(|_| mock.queue_run(plan()).unwrap()).collect();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    let claimed: Vec<String> = client.claim(3).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(claimed, ids[..3]);
    assert_eq!(client.claim(3).await.len(), 1);
    let activity = mock.activity();
    assert_eq!(
        activity.claims.iter().map(|claim| (claim.demand, claim.runs.len())).collect::<Vec<_>>(),
        [(3, 3), (3, 1)]
    );
    assert_eq!(activity.queue_joins, [json!({"capacity": 5, "queues": {"manual>*": 5}})]);
}

#[tokio::test]
async fn waking_reaches_joined_queue_channels_only() {
    let mock = mock().await;
    let mut joined = Client::connect(&mock).await;
    let mut other = Client::connect(&mock).await;
    joined.join_queue().await;
    other.call("worker:queue", "claim", claim(1)).await.unwrap_err();
    mock.wake();
    let pushed = joined.next().await.unwrap();
    assert_eq!((pushed.topic.as_str(), pushed.event.as_str()), ("worker:queue", "work-available"));
    assert_eq!((pushed.join_ref, pushed.reference, pushed.payload), (json!("1"), Value::Null, json!({})));
    mock.cut_sockets();
    assert_eq!(other.next().await, None);
}

#[tokio::test]
async fn waiting_for_an_end_has_a_deadline() {
    let mock = mock().await;
    let id = mock.queue_run(plan()).unwrap();
    let error = within(mock.wait_for_end(&id, Duration::from_millis(1))).await.unwrap_err();
    assert!(matches!(error, WaitError::Deadline { state: RunState::Available, .. }), "{error}");
    let error = mock.wait_for_end("nothing", Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no run nothing");
}
