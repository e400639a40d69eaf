//! Jobs of a type without a handler fail, stay, or wait for one; the service goes on in any case.

use oada::JobError;
use oada::service::{TypeOptions, UnknownType};
use serde_json::json;
use tests::oada::Oada;

use crate::support::{LONG, body, demo, finished, place, shelves, start, statuses};

#[tokio::test]
async fn they_fail_and_the_service_lives() {
    let oada = Oada::start().await;
    let service = start(&oada, demo(&oada).on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })).await;
    place(&oada, "ODD", body("odd", json!({})));
    let odd = finished(&oada, "ODD").await;
    assert_eq!(odd.result.as_ref().unwrap()["message"], "No worker registered for odd");
    assert_eq!((statuses(&odd), shelves(&oada, "ODD")), (vec!["failure"], vec!["failure".to_owned()]));
    place(&oada, "J", body("ok", json!({})));
    finished(&oada, "J").await;
    assert!(service.off("ok") && !service.off("ok") && !service.handles("ok"));
    place(&oada, "K", body("ok", json!({})));
    assert_eq!(finished(&oada, "K").await.status.as_deref(), Some("failure"));
    service.on("ok", TypeOptions::new(LONG), |_, _| async { Ok::<_, JobError>(json!(2)) });
    place(&oada, "L", body("ok", json!({})));
    assert_eq!(finished(&oada, "L").await.result, Some(json!(2)));
}

#[tokio::test]
async fn they_can_be_left_for_another_service() {
    for policy in [UnknownType::Leave, UnknownType::Requeue] {
        let oada = Oada::start().await;
        let service = demo(&oada)
            .options(|options| options.unknown_type = policy)
            .on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) });
        let _one = start(&oada, service).await;
        place(&oada, "ODD", body("odd", json!({})));
        place(&oada, "J", body("ok", json!({})));
        finished(&oada, "J").await;
        assert_eq!(oada.get("/resources/ODD/status"), None);
        let _other = start(&oada, demo(&oada).on("odd", LONG, |_, _| async { Ok::<_, JobError>(json!(2)) })).await;
        assert_eq!(finished(&oada, "ODD").await.result, Some(json!(2)));
    }
}

#[tokio::test]
async fn they_can_wait_for_a_handler_that_comes_later() {
    let oada = Oada::start().await;
    let service = demo(&oada).options(|options| options.unknown_type = UnknownType::Requeue);
    let service = start(&oada, service).await;
    place(&oada, "ODD", body("odd", json!({})));
    oada.until("a look at it", |oada| (!oada.requests("get", "/resources/ODD").is_empty()).then_some(())).await;
    service.on("odd", TypeOptions::new(LONG), |_, _| async { Ok::<_, JobError>(json!(2)) });
    assert_eq!(finished(&oada, "ODD").await.result, Some(json!(2)));
}
