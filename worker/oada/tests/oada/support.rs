//! What the tests share.

use std::time::Duration;

use oada::client::RetryPolicy;
use oada::{Client, ClientOptions, Job, NewJob, Service, ServiceBuilder};
use serde_json::{Value, json};
use tests::lightning::DEADLINE;
use tests::oada::{Oada, TOKEN};

/// The media type that tests write with when it does not matter.
pub(crate) const JSON: &str = "application/json";
/// The media type of lists of jobs.
pub(crate) const JOBS: &str = "application/vnd.oada.service.jobs.1+json";

/// Options of a client that is patient enough for a slow machine, and does not make tests wait.
pub(crate) fn quick() -> ClientOptions {
    ClientOptions {
        reconnect: (Duration::from_millis(5), Duration::from_millis(50)),
        retry: RetryPolicy { tries: 8, pause: Duration::from_millis(5), ..RetryPolicy::default() },
        ..ClientOptions::default()
    }
}

/// A client with the double's own token.
pub(crate) fn client(oada: &Oada) -> Client {
    client_with(oada, quick())
}

/// A client with these options.
pub(crate) fn client_with(oada: &Oada, options: ClientOptions) -> Client {
    Client::connect(oada.url().parse().unwrap(), TOKEN.into(), options)
}

/// Waits for something, within the deadline.
pub(crate) async fn within<T>(what: &str, oada: &Oada, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen\n{}", oada.told()),
    }
}

/// The media type of jobs.
pub(crate) const JOB: &str = "application/vnd.oada.service.job.1+json";
/// How long handlers in tests may take when that does not matter.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// A service called `demo` that does not make tests wait.
pub(crate) fn demo(oada: &Oada) -> ServiceBuilder {
    Service::builder("demo", oada.url().parse().unwrap(), TOKEN.into())
        .concurrency(4)
        .options(|options| options.client = quick())
}

/// Starts a service, within the deadline.
pub(crate) async fn start(oada: &Oada, builder: ServiceBuilder) -> Service {
    within("the start of the service", oada, builder.start()).await.unwrap()
}

/// A job of the service `demo`.
pub(crate) fn job(kind: &str, config: Value) -> NewJob {
    NewJob {
        service: "demo".to_owned(),
        kind: kind.to_owned(),
        config: config.as_object().cloned().unwrap_or_default(),
    }
}

/// Where `demo` keeps its pending jobs.
pub(crate) const PENDING: &str = "/bookmarks/services/demo/jobs/pending";

/// Puts a job into the store's list directly. Returns its key.
pub(crate) fn place(oada: &Oada, key: &str, body: Value) -> String {
    oada.put(&format!("/resources/{key}"), JOB, body);
    if oada.get(PENDING).is_none() {
        make_lists(oada);
    }
    oada.link(PENDING, key, json!({ "_id": format!("resources/{key}") }));
    key.to_owned()
}

/// Makes the list of pending jobs, as a service would.
pub(crate) fn make_lists(oada: &Oada) {
    oada.put("/resources/PENDING", JOBS, json!({}));
    oada.put("/resources/JOBS", JOBS, json!({ "pending": { "_id": "resources/PENDING" } }));
    oada.put("/resources/DEMO", JSON, json!({ "jobs": { "_id": "resources/JOBS" } }));
    oada.put("/resources/SERVICES", JSON, json!({ "demo": { "_id": "resources/DEMO", "_rev": 0 } }));
    oada.link("/bookmarks", "services", json!({ "_id": "resources/SERVICES", "_rev": 0 }));
}

/// A job's body.
pub(crate) fn body(kind: &str, config: Value) -> Value {
    json!({ "service": "demo", "type": kind, "config": config })
}

/// Waits until a job is out of the list, and reads it.
pub(crate) async fn finished(oada: &Oada, key: &str) -> Job {
    oada.until("the end of the job", |oada| {
        let job = oada.get(&format!("/resources/{key}"))?;
        let pending = oada.get(PENDING)?;
        (pending.get(key).is_none() && matches!(job["status"].as_str(), Some("success" | "failure"))).then_some(())
    })
    .await;
    read(oada, key)
}

/// Reads a job as it is.
pub(crate) fn read(oada: &Oada, key: &str) -> Job {
    let id = format!("resources/{key}");
    Job::parse(key, &id, oada.get(&format!("/{id}")).unwrap()).unwrap()
}

/// The statuses of a job's updates, in order.
pub(crate) fn statuses(job: &Job) -> Vec<&str> {
    job.updates.iter().map(|update| update.status.as_str()).collect()
}

/// The shelves of `demo` that a job is filed on, such as `success`.
pub(crate) fn shelves(oada: &Oada, key: &str) -> Vec<String> {
    let jobs = "/bookmarks/services/demo/jobs";
    let has = |shelf: &String| {
        let days = oada.get(&format!("{jobs}/{shelf}/day-index")).unwrap_or_default();
        let dates: Vec<String> = days.as_object().into_iter().flatten().map(|(date, _)| date.clone()).collect();
        dates.iter().any(|date| oada.get(&format!("{jobs}/{shelf}/day-index/{date}/{key}")).is_some())
    };
    let typed = oada.get(&format!("{jobs}/typed-failure")).unwrap_or_default();
    let typed = typed.as_object().into_iter().flatten().filter(|(kind, _)| !kind.starts_with('_'));
    let typed: Vec<String> = typed.map(|(kind, _)| format!("typed-failure/{kind}")).collect();
    let shelves = ["success", "failure", "dead-letter"].map(ToOwned::to_owned).into_iter().chain(typed);
    shelves.filter(has).collect()
}
