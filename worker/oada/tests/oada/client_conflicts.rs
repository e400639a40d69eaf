//! Writing below resources that do not exist yet makes them, also when others do the same.

use std::time::Duration;

use oada::paths::Shelf;
use oada::{Layout, Paths};
use serde_json::{Value, json};
use tests::oada::{Action, Fault, Oada};

use crate::support::{client, within};

#[tokio::test]
async fn the_way_is_made_as_the_tree_says() {
    let oada = Oada::start().await;
    let client = client(&oada);
    let paths = Paths::new("demo", Layout::V5).unwrap();
    within("the put", &oada, client.ensure(&paths.pending(), &paths.tree())).await.unwrap();
    let link = |path: &str, key: &str| oada.get(path).unwrap()[key].clone();
    let pending = link("/bookmarks/services/demo/jobs", "pending");
    assert_eq!(pending.as_object().unwrap().len(), 1, "{pending} has no revision");
    assert!(link("/bookmarks", "services")["_rev"].is_u64());
    assert!(link("/bookmarks/services/demo", "jobs").get("_rev").is_none());
    let list = oada.get(&paths.pending()).unwrap();
    assert_eq!(list["_type"], "application/vnd.oada.service.jobs.1+json");
    let writes = oada.requests("put", "").len();
    within("nothing more", &oada, client.ensure(&paths.pending(), &paths.tree())).await.unwrap();
    assert_eq!(oada.requests("put", "").len(), writes);
}

#[tokio::test]
async fn writers_that_meet_all_get_through() {
    let oada = Oada::start().await;
    let paths = Paths::new("demo", Layout::V5).unwrap();
    let first = client(&oada);
    within("the way", &oada, first.ensure(&paths.pending(), &paths.tree())).await.unwrap();
    let writing = (0..4).map(|number| {
        let (client, paths) = (client(&oada), paths.clone());
        tokio::spawn(async move {
            let day = paths.report_day(&format!("report-{number}"), "2026-11-21".parse().unwrap());
            client.put_tree(&day, json!({ "row": number }), &paths.tree()).await
        })
    });
    for (number, written) in writing.collect::<Vec<_>>().into_iter().enumerate() {
        within("the put", &oada, written).await.unwrap().unwrap();
        let row = oada.get(&format!("/bookmarks/services/demo/jobs/reports/report-{number}/day-index/2026-11-21/row"));
        assert_eq!(row, Some(json!(number)));
    }
}

#[tokio::test]
async fn a_link_that_another_writer_was_faster_to_make_is_kept() {
    let oada = Oada::start().await;
    let paths = Paths::new("demo", Layout::V5).unwrap();
    let (slow, fast) = (client(&oada), client(&oada));
    let shelf = paths.shelf(Shelf::Failure).unwrap();
    within("the way", &oada, fast.ensure(&shelf, &paths.tree())).await.unwrap();
    let day = paths.day(Shelf::Failure, "2026-11-21".parse().unwrap()).unwrap();
    // It has seen that there is no such day, and is about to make one.
    let delay = Action::Delay(Duration::from_millis(500));
    oada.inject(Fault::new("slow", delay).method("put").path("/resources/"));
    let writing = tokio::spawn({
        let (day, tree) = (day.clone(), paths.tree());
        async move { slow.put_tree(&day, json!({ "slow": 1 }), &tree).await }
    });
    oada.until("its writing", |oada| (oada.happened("slow") == 1).then_some(())).await;
    within("the faster put", &oada, fast.put_tree(&day, json!({ "fast": 1 }), &paths.tree())).await.unwrap();
    within("the slower put", &oada, writing).await.unwrap().unwrap();
    let day = oada.get(&day).unwrap();
    assert_eq!((&day["slow"], &day["fast"]), (&json!(1), &json!(1)), "{}", oada.told());
}

#[tokio::test]
async fn a_storm_of_conflicts_is_waited_out_or_told() {
    let oada = Oada::start().await;
    let client = client(&oada);
    let paths = Paths::new("demo", Layout::V5).unwrap();
    let storm = |times| Fault::status("conflict", 412).method("put").path("/bookmarks/services").times(times);
    oada.inject(storm(2));
    within("the put", &oada, client.ensure(&paths.pending(), &paths.tree())).await.unwrap();
    assert_eq!(oada.happened("conflict"), 2);
    let other = Paths::new("other", Layout::V5).unwrap();
    oada.inject(storm(5));
    let error = within("the error", &oada, client.ensure(&other.pending(), &other.tree())).await.unwrap_err();
    assert_eq!((error.status(), oada.happened("conflict")), (Some(412), 7));
    assert_eq!(oada.get(&other.root()).unwrap_or(Value::Null), Value::Null);
}
