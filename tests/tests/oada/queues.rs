//! Queues that are named in the store come, change and go while the service runs.

use std::time::Duration;

use serde_json::{Value, json};
use tests::oada::Oada;
use worker::oada::{Client, JobError, post_job};

use crate::support::{JSON, LONG, demo, job, quick, start, within};

const QUEUES: &str = "/bookmarks/services/demo/queues";
const LIST: &str = "/bookmarks/services/demo/jobs/pending";

/// Posts a job to the queue of this account, and waits for the end of it.
async fn run_in(oada: &Oada, token: &str) -> Value {
    let client = Client::connect(oada.url().parse().unwrap(), token.into(), quick());
    let paths = worker::oada::Paths::new("demo", worker::oada::Layout::V5).unwrap();
    within("the list", oada, client.ensure(LIST, &paths.tree())).await.unwrap();
    let posted = within("the post", oada, post_job(&client, LIST, &job("ok", json!({})))).await.unwrap();
    oada.until("the end of the job", |oada| {
        let job = oada.get_as(token, &format!("/{}", posted.id))?;
        job.get("status").is_some().then(|| job["result"].clone())
    })
    .await
}

#[tokio::test]
async fn they_come_change_and_go() {
    let oada = Oada::start().await;
    for name in ["ann", "bob", "eve"] {
        oada.add_account(&format!("token-of-{name}"), name);
    }
    let service = demo(&oada).on("ok", LONG, |_, context| async move {
        // The handler's store is the one of the queue.
        let bookmarks = context.oada.get("/bookmarks").await.map_err(|error| JobError::of(&error))?;
        Ok::<_, JobError>(json!([context.queue(), bookmarks.data.unwrap()["_id"]]))
    });
    let service = start(&oada, service).await;
    oada.until("the list of queues", |oada| oada.get(QUEUES)).await;
    let config = |name: &str| json!({ "domain": oada.url(), "token": format!("token-of-{name}") });

    // One that is written into the list, and one that is a resource of its own.
    oada.link(QUEUES, "anns", config("ann"));
    oada.put("/resources/BOBS", JSON, config("bob"));
    oada.link(QUEUES, "bobs", json!({ "_id": "resources/BOBS" }));
    oada.link(QUEUES, "odd", json!({ "domain": 7 }));
    assert_eq!(run_in(&oada, "token-of-ann").await, json!(["anns", "resources/ann-bookmarks"]));
    assert_eq!(run_in(&oada, "token-of-bob").await, json!(["bobs", "resources/bob-bookmarks"]));
    assert_eq!(run_in(&oada, tests::oada::TOKEN).await[0], "default-service-queue");

    // It changes without the list's knowing.
    let watches = oada.watch_count();
    oada.put("/resources/BOBS", JSON, config("eve"));
    assert_eq!(run_in(&oada, "token-of-eve").await, json!(["bobs", "resources/eve-bookmarks"]));

    // It goes: its watch is ended and its jobs are left alone.
    oada.delete(&format!("{QUEUES}/anns"));
    oada.until("the end of the watch", |oada| (oada.watch_count() < watches).then_some(())).await;
    let ann = Client::connect(oada.url().parse().unwrap(), "token-of-ann".into(), quick());
    let left = post_job(&ann, LIST, &job("ok", json!({}))).await.unwrap();
    assert_eq!(run_in(&oada, "token-of-eve").await[0], "bobs");
    assert_eq!(oada.get(&format!("/{}/status", left.id)), None);
    service.stop(Duration::from_secs(60)).await;
    oada.until("the end of all watches", |oada| (oada.watch_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_service_whose_token_is_wrong_does_not_start() {
    let oada = Oada::start().await;
    let domain = oada.url().parse().unwrap();
    let service = worker::oada::Service::builder("demo", domain, "wrong".into()).options(|it| it.client = quick());
    let error = within("the error", &oada, service.start()).await.err().unwrap().to_string();
    assert!(error.contains("own queue cannot be served") && error.contains("401"), "{error}");
}
