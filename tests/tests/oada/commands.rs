//! `worker oada list`, `print`, `retry` and `post`.

use serde_json::{Value, json};
use tests::oada::Oada;
use tests::oada::program::run;
use worker::oada::JobError;

use crate::support::{LONG, PENDING, body, demo, finished, job, place, start};

fn text(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_printed_posted_and_tried_again() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .options(|options| options.unknown_type = worker::oada::service::UnknownType::Leave)
        .on("ok", LONG, |job, _| async move { Ok::<_, JobError>(json!(job.config)) })
        .on("bad", LONG, |_, _| async { Err::<Value, _>(JobError::new("broken")) });
    let _service = start(&oada, service).await;
    for (key, kind) in [("LEFT", "odd"), ("GOOD", "ok"), ("BAD", "bad")] {
        place(&oada, key, body(kind, json!({ "a": 1 })));
    }
    finished(&oada, "GOOD").await;
    finished(&oada, "BAD").await;
    let listed = run(&oada, &["list"]).await;
    let lines = text(&listed);
    for line in ["pending: 1", "  LEFT  odd  -", "  GOOD  ok  success", "  BAD  bad  failure"] {
        assert!(lines.lines().any(|it| it == line), "{line}\n{lines}");
    }
    let printed = run(&oada, &["print", "success", "GOOD"]).await;
    assert_eq!(serde_json::from_str::<Value>(&text(&printed)).unwrap()["result"], json!({ "a": 1 }));
    let missing = run(&oada, &["print", "jobs", "GOOD"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no job GOOD there"));

    let retried = text(&run(&oada, &["retry", "resources/BAD"]).await);
    let key = retried.trim().trim_start_matches("resources/").to_owned();
    let again = finished(&oada, &key).await;
    assert_eq!(
        (again.kind.as_str(), again.config.get("a"), again.id == "resources/BAD"),
        ("bad", Some(&json!(1)), false)
    );

    let posted = run(&oada, &["post", "--type", "ok", "--config", r#"{"b":2}"#, "--wait"]).await;
    assert_eq!(posted.status.code(), Some(0));
    assert!(text(&posted).contains("success {\"b\":2}"), "{}", text(&posted));
    let failed = run(&oada, &["post", "--type", "bad", "--wait"]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(oada.get(PENDING).unwrap().get("LEFT").is_some() && job("ok", json!({})).service == "demo");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_is_told() {
    let oada = Oada::start().await;
    let cases = [
        (vec![], "--handlers (WORKER_OADA_HANDLERS) is missing"),
        (vec!["post", "--type", "ok", "--config", "7"], "--config must be a JSON object"),
        (vec!["--handlers", "/nowhere/at/all"], "the folder of handlers /nowhere/at/all cannot be read"),
        (vec!["--handlers", "/tmp", "--reports", "/nowhere/reports"], "cannot read /nowhere/reports (--reports)"),
        (vec!["list", "--service", "a/b"], "cannot be the name of a service"),
        (vec!["list", "--token-file", "/nowhere/token"], "cannot read /nowhere/token (--token-file)"),
    ];
    for (arguments, expected) in cases {
        let output = run(&oada, &arguments).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected) && output.status.code() != Some(0), "{arguments:?}: {told}");
    }
}
