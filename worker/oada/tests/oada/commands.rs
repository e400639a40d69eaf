//! `worker oada list`, `print`, `retry` and `post`.

use oada::{JobError, Layout, Paths};
use serde_json::{Value, json};
use tests::oada::Oada;
use tests::oada::program::run;

use crate::support::{LONG, PENDING, body, demo, finished, job, place, start};

fn text(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_printed_posted_and_tried_again() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .options(|options| options.unknown_type = oada::service::UnknownType::Leave)
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

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_posted_before_its_service_has_ever_been_there() {
    for (layout, generation) in [("v5", Layout::V5), ("v2", Layout::V2)] {
        let oada = Oada::start().await;
        let listed = text(&run(&oada, &["list", "--layout", layout]).await);
        assert_eq!(listed, "pending: 0\nsuccess: none\nfailure: none\n");
        let posted = run(&oada, &["post", "--layout", layout, "--type", "bad", "--config", r#"{"a":1}"#]).await;
        let id = text(&posted).trim().to_owned();
        let key = id.trim_start_matches("resources/");
        let pending = run(&oada, &["print", "pending", key, "--layout", layout]).await;
        assert_eq!(serde_json::from_str::<Value>(&text(&pending)).unwrap()["config"], json!({ "a": 1 }));

        let paths = Paths::new("demo", generation).unwrap();
        let service = demo(&oada)
            .options(|options| options.layout = paths.layout())
            .on("bad", LONG, |_, _| async { Err::<Value, _>(JobError::new("broken")) });
        let _service = start(&oada, service).await;
        let is_out = |oada: &Oada, key: &str| oada.get(&paths.pending())?.get(key).is_none().then_some(());
        oada.until("the end", |oada| is_out(oada, key)).await;
        let failed = run(&oada, &["print", "failure", key, "--layout", layout]).await;
        assert_eq!(serde_json::from_str::<Value>(&text(&failed)).unwrap()["status"], "failure");
        let retried = text(&run(&oada, &["retry", key, "--layout", layout]).await);
        let retried = retried.trim().trim_start_matches("resources/");
        oada.until("the other end", |oada| is_out(oada, retried)).await;
        assert_eq!(oada.get(&format!("/resources/{retried}/result/message")), Some(json!("broken")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_printed_and_not_posted_again() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada)).await;
    place(&oada, "ODD", json!({ "no": "job" }));
    oada.until("its end", |oada| oada.get(PENDING)?.get("ODD").is_none().then_some(())).await;
    let printed = text(&run(&oada, &["print", "failure", "ODD"]).await);
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["result"]["JobError"], "invalid-job");
    let retried = run(&oada, &["retry", "ODD"]).await;
    assert_eq!(retried.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&retried.stderr).contains("resources/ODD is not a job"));
}
