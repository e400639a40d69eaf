//! Jobs from the side of those who post them.

use oada::request::JobRequestError;
use oada::{JobError, JobEvent, JobRequest, Layout, do_job, post_job, post_update};
use serde_json::{Value, json};
use tests::oada::Oada;

use crate::support::{LONG, PENDING, client, demo, finished, job, start, statuses, within};

#[tokio::test]
async fn a_job_is_done_and_its_end_comes_back() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .on("ok", LONG, |job, _| async move { Ok::<_, JobError>(json!({ "was": job.config })) })
        .on("bad", LONG, |_, _| async { Err::<Value, _>(JobError::typed("bad input", "bad-input")) });
    let _service = start(&oada, service).await;
    let client = client(&oada);
    // Its list of jobs, and the one of queues.
    oada.until("the service's watches", |oada| (oada.watch_count() == 2).then_some(())).await;
    let done = within("the end", &oada, do_job(&client, &job("ok", json!({ "a": 1 })))).await.unwrap();
    oada.until("the end of its watch", |oada| (oada.watch_count() == 2).then_some(())).await;
    assert_eq!(done.result, Some(json!({ "was": { "a": 1 } })));
    let error = within("the end", &oada, do_job(&client, &job("bad", json!({})))).await.unwrap_err();
    let JobRequestError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.kind(), failure.to_string().as_str()), (Some("bad-input"), "Error: bad input"));
    let elsewhere = oada::NewJob { service: "a/b".to_owned(), ..job("ok", json!({})) };
    assert!(matches!(do_job(&client, &elsewhere).await, Err(JobRequestError::Name(_))));
}

#[tokio::test]
async fn a_job_can_be_followed_across_lost_connections() {
    let oada = Oada::start().await;
    let service = demo(&oada).on("ok", LONG, |_, context| async move {
        for number in 0..3 {
            context.log.info(&format!("step {number}"), None).await.map_err(|error| JobError::of(&error))?;
        }
        Ok::<_, JobError>(json!(1))
    });
    let _service = start(&oada, service).await;
    let client = client(&oada);
    let mut request = JobRequest::start(&client, &job("ok", json!({})), Layout::V5).await.unwrap();
    let mut told = Vec::new();
    let end = loop {
        match within("an event", &oada, request.next()).await.unwrap() {
            JobEvent::Update(update) => {
                oada.disconnect_all();
                told.push(update.status);
            }
            JobEvent::Status(status) => assert_eq!(status, "success"),
            event => break event,
        }
    };
    assert!(matches!(&end, JobEvent::Success(job) if job.id == request.posted().id));
    told.truncate(4);
    assert_eq!(told, ["started", "step 0", "step 1", "step 2"]);
}

#[tokio::test]
async fn jobs_and_updates_are_posted_once_each_and_keep_their_order() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    let client = client(&oada);
    let posted = post_job(&client, PENDING, &job("ok", json!({}))).await.unwrap();
    let done = finished(&oada, &posted.key).await;
    assert_eq!(done.body["_type"], "application/vnd.oada.service.job.1+json");
    assert_eq!(statuses(&done), ["started", "success"]);
    for number in 0..20 {
        post_update(&client, &posted.id, &format!("{number}"), Some(json!(number))).await.unwrap();
    }
    let updates = oada.get(&format!("/{}/updates", posted.id)).unwrap();
    let mut keyed: Vec<(&String, &Value)> = updates.as_object().unwrap().iter().collect();
    keyed.sort_by_key(|(key, _)| *key);
    let order: Vec<&str> = keyed.iter().map(|(_, update)| update["status"].as_str().unwrap()).skip(2).collect();
    assert_eq!(order, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}
