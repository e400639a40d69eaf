//! Queues that are named in the store come, change and go while the service runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::{Client, JobError, ServiceBuilder, post_job};
use serde_json::{Value, json};
use tests::oada::Oada;
use tokio::sync::Notify;

use crate::support::{JSON, LONG, demo, job, quick, start, within};

const QUEUES: &str = "/bookmarks/services/demo/queues";
const LIST: &str = "/bookmarks/services/demo/jobs/pending";

/// Posts a job to the queue of this account, and waits for the end of it.
async fn run_in(oada: &Oada, token: &str) -> Value {
    let client = Client::connect(oada.url().parse().unwrap(), token.into(), quick());
    let paths = oada::Paths::new("demo", oada::Layout::V5).unwrap();
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
    let service = oada::Service::builder("demo", domain, "wrong".into()).options(|it| it.client = quick());
    let error = within("the error", &oada, service.start()).await.err().unwrap().to_string();
    assert!(error.contains("own queue cannot be served") && error.contains("401"), "{error}");
}

/// A service whose jobs of type `ok` are counted and end when `done` says so, and the counter.
fn counting(oada: &Oada, done: &Arc<Notify>) -> (ServiceBuilder, Arc<AtomicUsize>) {
    let (runs, done) = (Arc::<AtomicUsize>::default(), Arc::clone(done));
    let counter = Arc::clone(&runs);
    let service = demo(oada).on("ok", LONG, move |_, context| {
        let (counter, done) = (Arc::clone(&counter), Arc::clone(&done));
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            context.log.info("begun", None).await.map_err(|error| JobError::of(&error))?;
            done.notified().await;
            Ok::<_, JobError>(json!(context.queue()))
        }
    });
    (service, runs)
}

#[tokio::test]
async fn a_queue_whose_token_changes_while_its_job_runs_does_not_run_it_again() {
    let oada = Oada::start().await;
    oada.add_account("old-token", "ann");
    oada.add_token("new-token", "old-token");
    let done = Arc::new(Notify::new());
    let (service, runs) = counting(&oada, &done);
    let service = start(&oada, service).await;
    oada.until("the list of queues", |oada| oada.get(QUEUES)).await;
    oada.link(QUEUES, "anns", json!({ "domain": oada.url(), "token": "old-token" }));
    let client = Client::connect(oada.url().parse().unwrap(), "new-token".into(), quick());
    let paths = oada::Paths::new("demo", oada::Layout::V5).unwrap();
    within("the list", &oada, client.ensure(LIST, &paths.tree())).await.unwrap();
    let first = within("the post", &oada, post_job(&client, LIST, &job("ok", json!({})))).await.unwrap();
    let updates = format!("/{}/updates", first.id);
    let begun = |oada: &Oada| oada.get(&updates)?.as_object()?.values().find(|it| it["status"] == "begun").cloned();
    oada.until("the start", begun).await;

    let watched = oada.requests("watch", LIST).len();
    oada.link(QUEUES, "anns", json!({ "domain": oada.url(), "token": "new-token" }));
    oada.until("a watch with the new token", |oada| (oada.requests("watch", LIST).len() > watched).then_some(())).await;
    // What the new one has listed it has looked at when it runs what came later.
    let second = within("the post", &oada, post_job(&client, LIST, &job("ok", json!({})))).await.unwrap();
    oada.until("the second run", |oada| oada.get(&format!("/{}/updates", second.id))).await;
    oada.until("its handler", |_| (runs.load(Ordering::SeqCst) == 2).then_some(())).await;
    for posted in [&first, &second] {
        done.notify_one();
        oada.until("an end", |oada| oada.get_as("new-token", LIST)?.get(&posted.key).is_none().then_some(())).await;
    }
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2, "{}", oada.told());
}

#[tokio::test]
async fn two_queues_that_are_the_same_one_run_each_job_once() {
    let oada = Oada::start().await;
    oada.add_account("token-of-ann", "ann");
    let done = Arc::new(Notify::new());
    let (service, runs) = counting(&oada, &done);
    let service = start(&oada, service).await;
    oada.until("the list of queues", |oada| oada.get(QUEUES)).await;
    let watches = oada.watch_count();
    for name in ["one", "two"] {
        oada.link(QUEUES, name, json!({ "domain": oada.url(), "token": "token-of-ann" }));
    }
    oada.until("both watches", |oada| (oada.watch_count() >= watches + 2).then_some(())).await;
    for _ in 0..5 {
        done.notify_one();
        run_in(&oada, "token-of-ann").await;
    }
    service.stop(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 5, "{}", oada.told());
}

#[tokio::test]
async fn another_list_of_queues_at_the_same_path_is_noticed() {
    let oada = Oada::start().await;
    oada.add_account("token-of-ann", "ann");
    let service = demo(&oada).options(|options| options.verify_interval = Duration::from_millis(100)).on(
        "ok",
        LONG,
        |_, context| async move { Ok::<_, JobError>(json!([context.queue()])) },
    );
    let _service = start(&oada, service).await;
    oada.until("the list of queues", |oada| oada.get(QUEUES)).await;
    oada.put("/resources/OTHER", JSON, json!({ "anns": { "domain": oada.url(), "token": "token-of-ann" } }));
    oada.delete(QUEUES);
    oada.link("/bookmarks/services/demo", "queues", json!({ "_id": "resources/OTHER" }));
    assert_eq!(run_in(&oada, "token-of-ann").await, json!(["anns"]));
}
