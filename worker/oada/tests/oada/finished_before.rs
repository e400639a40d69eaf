//! A job that is finished already when it is found is filed under the day on which it was.

use oada::JobError;
use serde_json::json;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;

use crate::support::{LONG, demo, finished, place, start, statuses};

const JOBS: &str = "/bookmarks/services/demo/jobs";

#[tokio::test]
async fn it_is_filed_under_its_own_day_with_its_own_result() {
    let oada = Oada::start().await;
    let update = |status: &str| json!({ "U": { "status": status, "time": "2018-11-14T23:59:59.000Z" } });
    let _service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!("again")) })).await;
    let body = json!({ "service": "demo", "type": "ok", "status": "success", "result": { "old": 1 },
        "updates": update("success") });
    place(&oada, "OLD", body);
    let job = finished(&oada, "OLD").await;
    assert_eq!((job.result.as_ref(), statuses(&job)), (Some(&json!({ "old": 1 })), vec!["success"]));
    assert!(oada.get(&format!("{JOBS}/success/day-index/2018-11-14/OLD")).is_some());

    let body = json!({ "service": "demo", "type": "gone", "status": "failure", "updates": update("failure"),
        "result": { "JobError": "bad-input", "message": "bad" } });
    place(&oada, "FAILED", body);
    finished(&oada, "FAILED").await;
    assert!(oada.get(&format!("{JOBS}/failure/day-index/2018-11-14/FAILED")).is_some());
    assert!(oada.get(&format!("{JOBS}/typed-failure/bad-input/day-index/2018-11-14/FAILED")).is_some());

    // Its service was lost between status and last update.
    let body = json!({ "service": "demo", "type": "ok", "status": "success",
        "updates": update("started") });
    place(&oada, "HALF", body);
    let job = finished(&oada, "HALF").await;
    oada.until("the last update", |_| (statuses(&crate::support::read(&oada, "HALF")).len() == 2).then_some(())).await;
    assert_eq!(job.result, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_those_of_utc_wherever_the_service_is() {
    let update = json!({ "U": { "status": "success", "time": "2018-11-14T23:59:59.000Z" } });
    for zone in ["Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let oada = Oada::start().await;
        place(&oada, "OLD", json!({ "service": "demo", "type": "ok", "status": "success", "updates": update }));
        let worker = OadaWorker::start_with(&oada, &[], &[], &[("TZ", zone)]).await;
        finished(&oada, "OLD").await;
        assert!(oada.get(&format!("{JOBS}/success/day-index/2018-11-14/OLD")).is_some(), "{zone}");
        worker.stop().await;
    }
}
