//! The HTTP API.

use serde_json::json;

use crate::client::{Client, mock, plan, request};

#[tokio::test]
async fn a_run_is_queued_and_read() {
    let mock = mock().await;
    let (status, description) = request(&mock, "GET", "/", "").await;
    assert_eq!(status, 200);
    assert!(description.as_str().unwrap().contains("POST /run?wakeup"));
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;

    let body = json!({"plan": {"jobs": [{"id": "a"}], "dataclip_id": "d"}, "dataclips": {"d": {}}}).to_string();
    let (status, answer) = request(&mock, "POST", "/run?wakeup", &body).await;
    assert_eq!(status, 200);
    let id = answer["id"].as_str().unwrap();
    assert_eq!(client.next().await.unwrap().event, "work-available");

    let run = client.take_joined_run().await;
    assert_eq!(run, format!("run:{id}"));
    assert_eq!(client.call(&run, "fetch:dataclip", json!({"id": "d"})).await, Ok(json!("{}")));
    client.call(&run, "run:log", json!({})).await.unwrap_err();
    let log = json!({"run_id": id, "message": ["hi"], "source": "JOB", "level": "info", "timestamp": "1700000000000"});
    client.call(&run, "run:log", log.clone()).await.unwrap();
    let end = json!({"reason": "success", "final_state": {"data": 1}, "timestamp": "1700000000000"});
    client.call(&run, "run:complete", end.clone()).await.unwrap();

    let (status, record) = request(&mock, "GET", &format!("/run/{id}"), "").await;
    assert_eq!(status, 200);
    assert_eq!((&record["state"], &record["result"]), (&json!("success"), &json!({"data": 1})));
    assert_eq!(record["steps"], json!([]));
    assert_eq!(record["logs"][0]["message"], json!(["hi"]));
    assert_eq!(record["violations"][0]["reason"], json!(r#"{"run_id":["is invalid"]}"#));
    assert_eq!(record.get("events"), None);

    let (_, events) = request(&mock, "GET", &format!("/run/{id}/events"), "").await;
    let events: Vec<_> = events.as_array().unwrap().iter().map(|event| (&event["event"], &event["payload"])).collect();
    assert_eq!(
        events,
        [(&json!("fetch:dataclip"), &json!({"id": "d"})), (&json!("run:log"), &log), (&json!("run:complete"), &end)]
    );
    let (_, runs) = request(&mock, "GET", "/runs", "").await;
    assert_eq!(
        (runs.as_array().unwrap().len(), &runs[0]["id"], &runs[0]["reason"]),
        (1, &json!(id), &json!("success"))
    );
    let (_, violations) = request(&mock, "GET", "/violations", "").await;
    assert_eq!(violations[0]["event"], json!("run:log"));
}

#[tokio::test]
async fn dataclips_and_credentials_are_kept_as_they_came() {
    let mock = mock().await;
    assert_eq!(request(&mock, "POST", "/dataclip/d", r#"{"z": 1, "a": 2}"#).await, (200, json!({"id": "d"})));
    assert_eq!(request(&mock, "POST", "/credential/mine", r#"{"user": "me"}"#).await, (200, json!({"id": "mine"})));
    let mut plan = plan();
    plan["dataclip_id"] = "d".into();
    mock.queue_run(plan).unwrap();
    let mut client = Client::connect(&mock).await;
    let run = client.take_run().await;
    assert_eq!(client.call(&run, "fetch:dataclip", json!({"id": "d"})).await, Ok(json!(r#"{"z": 1, "a": 2}"#)));
    assert_eq!(client.call(&run, "fetch:credential", json!({"id": "mine"})).await, Ok(json!({"user": "me"})));
}

#[tokio::test]
async fn bad_input_is_named() {
    let mock = mock().await;
    let queued = mock.queue_run(plan()).unwrap();
    let known = json!({ "id": queued }).to_string();
    for (method, path, body, status, part) in [
        ("POST", "/run", "{", 400, "must be a JSON object: EOF while parsing an object at line 1 column 1"),
        ("POST", "/run", r#"{"jobs": {}}"#, 400, "jobs: must be a list"),
        ("POST", "/run", known.as_str(), 400, "there is a run"),
        ("POST", "/dataclip/d", "{]", 400, "the body must be JSON: key must be a string at line 1 column 2"),
        ("POST", "/credential/c", "[]", 400, "a credential must be a JSON object"),
        ("GET", "/run/none", "", 404, "there is no run none"),
        ("GET", "/run/none/events", "", 404, "there is no run none"),
        ("GET", "/nowhere", "", 404, "no such path"),
    ] {
        let (got, answer) = request(&mock, method, path, body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(part), "{method} {path}: {got} {answer}");
    }
    assert_eq!(request(&mock, "GET", "/run", "").await.0, 405);
}
