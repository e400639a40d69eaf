//! Jobs that fail: what is stored, and where they are filed.

use oada::{Failure, JobError};
use serde_json::{Map, Value, json};
use tests::oada::Oada;

use crate::support::{LONG, body, demo, finished, place, shelves, start, statuses};

#[tokio::test]
async fn failures_are_stored_and_filed_by_their_type() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .on("typed", LONG, |_, _| async { Err::<Value, _>(JobError::typed("bad input", "bad-input")) })
        .on("rich", LONG, |_, _| async {
            let fields = Map::from_iter([("code".to_owned(), json!(7))]);
            let cause = Some(json!({ "name": "Error", "message": "why" }));
            Err::<Value, _>(JobError { cause, fields, stack: Some("at x".to_owned()), ..JobError::new("broken") })
        })
        .on("thrown", LONG, |_, _| async { Err::<Value, _>(Failure::Value(json!(["just", "this"]))) })
        .on("panics", LONG, |_, _| async {
            if true {
                panic!("oh no");
            }
            Ok::<_, JobError>(Value::Null)
        });
    let _service = start(&oada, service).await;
    let cases = [
        (
            "typed",
            json!({ "JobError": "bad-input", "name": "Error", "message": "bad input" }),
            vec!["failure", "typed-failure/bad-input"],
        ),
        (
            "rich",
            json!({ "name": "Error", "message": "broken", "stack": "at x",
                "cause": { "name": "Error", "message": "why" }, "code": 7 }),
            vec!["failure"],
        ),
        ("thrown", json!(["just", "this"]), vec!["failure"]),
        ("panics", json!({ "name": "PanicError", "message": "the handler panicked: oh no" }), vec!["failure"]),
    ];
    for (kind, result, expected) in cases {
        place(&oada, kind, body(kind, json!({})));
        let job = finished(&oada, kind).await;
        assert_eq!((job.status.as_deref(), job.result.as_ref()), (Some("failure"), Some(&result)), "{kind}");
        assert_eq!(statuses(&job), ["started", "failure"], "{kind}");
        assert_eq!(shelves(&oada, kind), expected, "{kind}");
    }
}

#[tokio::test]
async fn a_config_that_does_not_pass_its_check_never_gets_to_the_handler() {
    let oada = Oada::start().await;
    let mut options = oada::service::TypeOptions::new(LONG);
    options.check = Some(std::sync::Arc::new(|config| match config.get("to") {
        Some(_) => Ok(()),
        None => Err("`to` is missing".to_owned()),
    }));
    let service = demo(&oada).on_with("mail", options, |_, _| async { Ok::<_, JobError>(json!("sent")) });
    let _service = start(&oada, service).await;
    place(&oada, "BAD", body("mail", json!({})));
    place(&oada, "GOOD", body("mail", json!({ "to": "x" })));
    let bad = finished(&oada, "BAD").await;
    assert_eq!(bad.result.as_ref().unwrap()["message"], "The job's config is not valid: `to` is missing");
    assert_eq!(statuses(&bad), ["failure"]);
    assert_eq!(shelves(&oada, "BAD"), ["failure", "typed-failure/invalid-config"]);
    assert_eq!(finished(&oada, "GOOD").await.result, Some(json!("sent")));
}
