//! What is in the list and is no job: it is read more than once, then fails, once, and the service lives.

use oada::JobError;
use serde_json::json;
use tests::oada::Oada;

use crate::support::{JOB, LONG, PENDING, body, demo, finished, make_lists, place, shelves, start};

#[tokio::test]
async fn it_fails_once_and_the_service_lives() {
    let oada = Oada::start().await;
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    place(&oada, "ODD", json!({ "no": "job" }));
    oada.until("its end", |oada| oada.get(PENDING)?.get("ODD").is_none().then_some(())).await;
    let odd = oada.get("/resources/ODD").unwrap();
    assert_eq!((odd["status"].as_str(), odd["result"]["name"].as_str()), (Some("failure"), Some("InvalidJobError")));
    assert!(odd["result"]["message"].as_str().unwrap().contains("it has no `service`"), "{odd}");
    assert_eq!(odd["updates"].as_object().unwrap().len(), 1);
    assert_eq!(shelves(&oada, "ODD"), ["failure", "typed-failure/invalid-job"]);
    place(&oada, "J", body("ok", json!({})));
    finished(&oada, "J").await;
}

#[tokio::test]
async fn a_link_that_is_seen_before_its_job_is_written_is_read_again() {
    let oada = Oada::start().await;
    make_lists(&oada);
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    oada.put("/resources/J", JOB, json!({}));
    oada.link(PENDING, "J", json!({ "_id": "resources/J" }));
    oada.until("the first reading", |oada| (!oada.requests("get", "/resources/J").is_empty()).then_some(())).await;
    oada.put("/resources/J", JOB, body("ok", json!({})));
    assert_eq!(finished(&oada, "J").await.result, Some(json!(1)));
}
