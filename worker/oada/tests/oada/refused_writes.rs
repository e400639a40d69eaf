//! What the store does not take: a result, or the token. No job ends otherwise than its handler did without saying so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oada::service::{Retry, TypeOptions};
use oada::{JobError, ServiceBuilder};
use serde_json::{Value, json};
use tests::oada::program::OadaWorker;
use tests::oada::{Fault, Oada};

use crate::support::{LONG, body, demo, finished, place, read, shelves, start, statuses, within};

const TYPED: [&str; 2] = ["failure", "typed-failure/result-refused"];

/// A service whose jobs succeed, or fail if they are to.
fn service(oada: &Oada) -> ServiceBuilder {
    demo(oada).on("work", LONG, |job, _| async move {
        match job.config.get("fail") {
            Some(why) => Err(JobError::typed(why.as_str().unwrap_or_default(), "own-type")),
            None => Ok(json!({ "text": "long ".repeat(100) })),
        }
    })
}

#[tokio::test]
async fn a_result_that_is_refused_ends_its_job_as_a_failure_that_says_so() {
    for (number, status) in [400, 413, 415, 422].into_iter().enumerate() {
        let oada = Oada::start().await;
        let _service = start(&oada, service(&oada)).await;
        // The first PUT is the claim.
        oada.inject(Fault::status("no", status).method("put").path("/resources/JOB").skip(2));
        let key = place(&oada, "JOB", body("work", json!({})));
        let job = finished(&oada, &key).await;
        let result = job.result.clone().unwrap();
        let message = result["message"].as_str().unwrap();
        assert!(message.contains("refused the job's result") && message.contains(&status.to_string()), "{message}");
        assert_eq!((&result["name"], &result["status"]), (&json!("ResultRefusedError"), &json!("success")), "{number}");
        assert!(result["bytes"].as_u64().unwrap() > 500, "{result}");
        assert_eq!((job.status.as_deref(), statuses(&job)), (Some("failure"), vec!["started", "failure"]));
        assert_eq!(shelves(&oada, &key), TYPED, "{status}");
        assert_eq!(oada.happened("no"), 1);
    }
}

#[tokio::test]
async fn a_failure_that_is_refused_keeps_what_it_said_and_its_type() {
    let oada = Oada::start().await;
    let _service = start(&oada, service(&oada)).await;
    oada.inject(Fault::status("no", 413).method("put").path("/resources/JOB").skip(2));
    let key = place(&oada, "JOB", body("work", json!({ "fail": "no such person" })));
    let result = finished(&oada, &key).await.result.unwrap();
    assert!(result["message"].as_str().unwrap().ends_with("the job had failed: no such person"), "{result}");
    assert_eq!(shelves(&oada, &key), ["failure", "typed-failure/own-type"]);
}

#[tokio::test]
async fn less_and_less_is_written_and_no_success_without_its_result() {
    for (refusals, expected) in [(2, Some("The store refused the job's result (413)")), (3, None)] {
        let oada = Oada::start().await;
        let _service = start(&oada, service(&oada)).await;
        oada.inject(Fault::status("no", 413).method("put").path("/resources/JOB").skip(2).times(refusals));
        let key = place(&oada, "JOB", body("work", json!({})));
        let job = finished(&oada, &key).await;
        let message = job.result.as_ref().map(|result| result["message"].clone());
        assert_eq!(message, expected.map(Value::from), "{refusals}");
        assert_eq!((job.status.as_deref(), shelves(&oada, &key)), (Some("failure"), TYPED.map(String::from).to_vec()));
    }
    // Nothing at all is taken.
    let oada = Oada::start().await;
    let _service = start(&oada, service(&oada)).await;
    oada.inject(Fault::status("no", 413).method("put").path("/resources/JOB").skip(2).times(4));
    place(&oada, "JOB", body("work", json!({})));
    oada.until("the filing", |oada| (shelves(oada, "JOB") == TYPED).then_some(())).await;
    assert_eq!(statuses(&read(&oada, "JOB")), ["started", "failure"]);
}

#[tokio::test]
async fn a_retry_that_cannot_tell_of_the_failure_tells_of_itself() {
    let oada = Oada::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let options =
        TypeOptions { retry: Retry { attempts: 2, pause: Duration::from_millis(1) }, ..TypeOptions::new(LONG) };
    let counter = Arc::clone(&runs);
    let service = demo(&oada).on_with("work", options, move |_, _| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(JobError::new("the first time")) } else { Ok(json!(1)) } }
    });
    let _service = start(&oada, service).await;
    oada.inject(Fault::status("no", 413).method("put").path("/resources/JOB/updates").skip(1));
    let key = place(&oada, "JOB", body("work", json!({})));
    let job = finished(&oada, &key).await;
    assert_eq!(statuses(&job), ["started", "retry", "started", "success"]);
    let meta = job.updates[1].meta.clone().unwrap();
    assert_eq!(meta, json!({ "attempt": 1, "pause_ms": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_makes_the_service_unready_until_it_is_valid_again() {
    for status in [401, 403] {
        let oada = Oada::start().await;
        let wait = "export default () => new Promise((resolve) => setTimeout(() => resolve('done'), 50));";
        let worker = OadaWorker::start(&oada, &[("wait", wait)], &[]).await;
        // From the status of the job on.
        oada.inject(Fault::status("no", status).method("put").path("/resources/JOB").skip(2).times(5));
        place(&oada, "JOB", body("wait", json!({})));
        let unready = async {
            loop {
                let (status, text) = worker.http("GET", "/readyz").await;
                if status == 503 {
                    break serde_json::from_str::<Value>(&text).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let unready = within("the refusal", &oada, unready).await;
        assert_eq!((&unready["token_accepted"], &unready["queue_watched"]), (&json!(false), &json!(true)), "{unready}");
        let (_, metrics) = worker.http("GET", "/metrics").await;
        let line = r#"openfn_worker_oada_queues_refused{service="demo"} 1"#;
        assert!(metrics.lines().any(|it| it == line), "{metrics}");
        let job = finished(&oada, "JOB").await;
        assert_eq!((job.status.as_deref(), job.result), (Some("success"), Some(json!("done"))), "{status}");
        assert_eq!(oada.happened("no"), 5);
        worker.printed("accepts the queue's token again").await;
        assert_eq!(worker.output().matches("refuses the queue's token").count(), 1, "{}", worker.output());
        assert_eq!(worker.http("GET", "/readyz").await.0, 200);
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_run_goes_on_while_its_claim_cannot_be_renewed() {
    let oada = Oada::start().await;
    let (runs, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (counter, end) = (Arc::clone(&runs), Arc::clone(&ended));
    let service = demo(&oada).options(|it| it.claim_lease = Some(Duration::from_millis(60)));
    let service = service.on("work", LONG, move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let end = Arc::clone(&end);
        async move {
            end.notified().await;
            Ok::<_, JobError>(json!("kept"))
        }
    });
    let _service = start(&oada, service).await;
    // The first GET is the reading of the job.
    oada.inject(Fault::status("no", 401).method("get").path("/resources/JOB").skip(1).times(20));
    place(&oada, "JOB", body("work", json!({})));
    oada.until("the renewals", |oada| (oada.happened("no") >= 10).then_some(())).await;
    ended.notify_one();
    assert_eq!(finished(&oada, "JOB").await.result, Some(json!("kept")));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_alone_is_refused_is_told_once_and_others_go_on() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[("quick", "export default () => 'done';")], &[]).await;
    oada.inject(Fault::status("no", 403).method("put").path("/resources/ONE").skip(2).times(1000));
    place(&oada, "ONE", body("quick", json!({})));
    worker.printed("refuses the queue's token").await;
    place(&oada, "A", body("quick", json!({})));
    finished(&oada, "A").await;
    worker.printed("but not here: put /resources/ONE").await;
    let before = oada.happened("no");
    for key in ["B", "C"] {
        place(&oada, key, body("quick", json!({})));
        finished(&oada, key).await;
    }
    oada.until("more attempts", |oada| (oada.happened("no") > before + 1).then_some(())).await;
    assert_eq!(worker.http("GET", "/readyz").await.0, 200, "{}", worker.output());
    for line in ["refuses the queue's token", "accepts the queue's token again", "but not here"] {
        assert_eq!(worker.output().matches(line).count(), 1, "{line}\n{}", worker.output());
    }
    worker.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_updates_wait_for_a_token_that_is_taken() {
    let oada = Oada::start().await;
    let tells = "export const timeout = 500; export default async (job, { log }) => { await log.info('told'); return 'done'; };";
    let worker = OadaWorker::start(&oada, &[("tells", tells)], &[]).await;
    oada.inject(Fault::status("no", 401).method("put").path("/resources/JOB/updates").skip(1).times(3));
    place(&oada, "JOB", body("tells", json!({})));
    let job = finished(&oada, "JOB").await;
    assert_eq!((job.result.clone(), statuses(&job)), (Some(json!("done")), vec!["started", "told", "success"]));
    assert_eq!(oada.happened("no"), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_filed_or_unlinked_stays_in_its_list_until_it_can() {
    let oada = Oada::start().await;
    let _service = start(&oada, service(&oada)).await;
    oada.inject(Fault::status("unlinking", 403).method("delete").path("/jobs/pending/JOB").times(2));
    oada.inject(Fault::status("filing", 400).method("put").path("/jobs/success/day-index"));
    let key = place(&oada, "JOB", body("work", json!({})));
    let job = finished(&oada, &key).await;
    assert_eq!((shelves(&oada, &key), statuses(&job)), (vec!["success".to_owned()], vec!["started", "success"]));
    assert_eq!((oada.happened("filing"), oada.happened("unlinking")), (1, 2));
}
