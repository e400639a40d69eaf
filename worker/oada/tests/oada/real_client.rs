//! The double does what the real `@oada/client` expects of a store, and a service does what it expects of one.

use oada::JobError;
use serde_json::{Value, json};
use tests::oada::{Oada, TOKEN, npm};

use crate::support::{LONG, demo, finished, shelves, start, statuses};

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_works_over_a_websocket() {
    let oada = Oada::start().await;
    let Some(printed) = npm::run("conformance.mjs", &[&oada.url(), TOKEN, "ws"]).await else { return };
    assert!(printed.contains("conforms"), "{printed}\n{}", oada.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_works_over_http() {
    let oada = Oada::start().await;
    let Some(printed) = npm::run("conformance.mjs", &[&oada.url(), TOKEN, "http"]).await else { return };
    assert!(printed.contains("conforms"), "{printed}\n{}", oada.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_real_client_is_run_by_a_handler_in_rust() {
    let oada = Oada::start().await;
    let service = demo(&oada).on("hello", LONG, |job, context| async move {
        for step in ["first", "second", "third"] {
            context.log.info(step, None).await.map_err(|error| JobError::of(&error))?;
        }
        Ok::<_, JobError>(json!({ "hello": job.config["who"], "id": context.job_id() }))
    });
    let _service = start(&oada, service).await;
    let arguments = [&oada.url(), TOKEN, "demo", "hello", r#"{"who":"world"}"#];
    let Some(printed) = npm::run("post_job.mjs", &arguments).await else { return };
    let job: Value = serde_json::from_str(printed.trim()).unwrap();
    let id = job["_id"].as_str().unwrap();
    assert_eq!(job["result"], json!({ "hello": "world", "id": id }));
    let key = id.trim_start_matches("resources/");
    assert_eq!(statuses(&finished(&oada, key).await), ["started", "first", "second", "third", "success"]);
    assert_eq!(shelves(&oada, key), ["success"]);
}
