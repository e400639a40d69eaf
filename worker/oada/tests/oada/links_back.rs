//! Resources that a job names link to it when it is finished.

use oada::JobError;
use oada::service::TypeOptions;
use serde_json::json;
use tests::oada::{Fault, Oada};

use crate::support::{JSON, LONG, body, demo, finished, place, start};

#[tokio::test]
async fn they_link_to_the_job_and_never_fail_it() {
    let oada = Oada::start().await;
    for id in ["DOC", "OUT", "ASKED"] {
        oada.put(&format!("/resources/{id}"), JSON, json!({}));
    }
    let pointers = ["/config/doc", "/config/gone", "/result/out"].map(ToOwned::to_owned).to_vec();
    let options = TypeOptions { links: pointers, ..TypeOptions::new(LONG) };
    let service = demo(&oada).on_with("ok", options, |_, context| async move {
        context.link("/resources/ASKED");
        Ok::<_, JobError>(json!({ "out": { "_id": "resources/OUT" } }))
    });
    let _service = start(&oada, service).await;
    oada.inject(Fault::status("refused", 403).method("put").path("/resources/GONE"));
    place(&oada, "J", body("ok", json!({ "doc": "resources/DOC", "gone": "resources/GONE" })));
    assert_eq!(finished(&oada, "J").await.status.as_deref(), Some("success"));
    let link = json!({ "_id": "resources/J" });
    for id in ["DOC", "OUT", "ASKED"] {
        let path = format!("/resources/{id}/_meta/services/demo/jobs");
        let found = oada.until("the link", |oada| oada.get(&path)).await;
        assert_eq!(found["J"], link, "{id}");
    }
    assert_eq!(oada.happened("refused"), 1);
}

#[tokio::test]
async fn a_resource_that_does_not_take_its_link_at_once_is_asked_again() {
    let oada = Oada::start().await;
    for id in ["DOC", "LATE"] {
        oada.put(&format!("/resources/{id}"), JSON, json!({}));
    }
    let options = TypeOptions { links: vec!["/config/doc".to_owned()], ..TypeOptions::new(LONG) };
    let service = demo(&oada).on_with("ok", options, |_, _| async { Ok::<_, JobError>(json!(1)) });
    let _service = start(&oada, service).await;
    oada.inject(Fault::status("busy", 500).method("put").path("/resources/DOC/_meta").times(2));
    place(&oada, "J", body("ok", json!({ "doc": "resources/DOC" })));
    finished(&oada, "J").await;
    assert_eq!(oada.get("/resources/DOC/_meta/services/demo/jobs/J"), oada.get("/resources/J"));
    assert_eq!(oada.happened("busy"), 2);

    // Its service was lost before it could.
    let mut job = body("ok", json!({ "doc": "resources/LATE" }));
    job["status"] = json!("success");
    place(&oada, "K", job);
    finished(&oada, "K").await;
    assert_eq!(oada.get("/resources/LATE/_meta/services/demo/jobs/K"), oada.get("/resources/K"));
}
