//! The paths of the second generation.

use oada::{JobError, Layout};
use serde_json::{Value, json};
use tests::oada::Oada;

use crate::support::{JOB, LONG, body, demo, start};

#[tokio::test]
async fn jobs_are_found_and_filed_where_the_second_generation_keeps_them() {
    let oada = Oada::start().await;
    let service = demo(&oada)
        .options(|options| options.layout = Layout::V2)
        .on("ok", LONG, |_, context| async move { Ok::<_, JobError>(json!(context.job_id())) })
        .on("bad", LONG, |_, _| async { Err::<Value, _>(JobError::typed("bad", "kind")) });
    let _service = start(&oada, service).await;
    let root = "/bookmarks/services/demo";
    for (key, kind, shelf) in [("A", "ok", "jobs-success"), ("B", "bad", "jobs-failure")] {
        oada.put(&format!("/resources/{key}"), JOB, body(kind, json!({})));
        oada.link(&format!("{root}/jobs"), key, json!({ "_id": format!("resources/{key}") }));
        let days = oada.until("the filing", |oada| oada.get(&format!("{root}/{shelf}/day-index"))).await;
        let date = days.as_object().unwrap().keys().next().unwrap().clone();
        let day = oada.until("the link", |oada| {
            oada.get(&format!("{root}/{shelf}/day-index/{date}")).filter(|day| day.get(key).is_some())
        });
        assert_eq!(day.await[key], json!({ "_id": format!("resources/{key}") }));
        oada.until("the removal", |oada| oada.get(&format!("{root}/jobs"))?.get(key).is_none().then_some(())).await;
    }
    assert_eq!(oada.get("/resources/A/result"), Some(json!("A")), "handlers call the job by its key");
    assert_eq!(oada.get(&format!("{root}/jobs/typed-failure")), None);
}
