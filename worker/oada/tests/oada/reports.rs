//! Reports: rows of finished jobs, failures included, and the mail with the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oada::cron::Cron;
use oada::report::{Column, Report, Rows, parse_attachment};
use oada::{JobError, ServiceBuilder};
use serde_json::{Map, Value, json};
use tests::oada::Oada;

use crate::support::{LONG, body, demo, finished, place, start, within};

const MAILS: &str = "/bookmarks/services/abalonemail/jobs/pending";
const REPORTS: &str = "/bookmarks/services/demo/jobs/reports";

fn report(name: &str, frequency: &str, send_empty: bool) -> Report {
    let column = |name: &str, pointer: &str| (name.to_owned(), Column::Pointer(pointer.to_owned()));
    let email = json!({ "from": "a@example.org", "to": "b@example.org", "subject": name });
    let email: Map<String, Value> = email.as_object().cloned().unwrap();
    Report {
        name: name.to_owned(),
        rows: Rows {
            columns: vec![
                column("Who", "/config/who"),
                ("End".to_owned(), Column::Ending),
                column("None", "/config/no"),
            ],
            endings: BTreeMap::from([("bad-input".to_owned(), "Bad input".to_owned())]),
            kind: Some("told".to_owned()),
            filter: Some(Arc::new(|job| job.config["who"] != "nobody")),
        },
        frequency: Cron::parse(frequency, "UTC").unwrap(),
        email: Arc::new(move || email.clone()),
        send_empty,
    }
}

fn service(oada: &Oada) -> ServiceBuilder {
    demo(oada)
        .on("told", LONG, |job, _| async move {
            match job.config.get("fails") {
                None => Ok(json!(1)),
                Some(_) => Err(JobError::typed("bad", "bad-input")),
            }
        })
        .on("untold", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })
}

/// Frequencies that never come while a test runs.
const NEVER: &str = "0 0 0 29 2 *";

fn rows(oada: &Oada, name: &str) -> Map<String, Value> {
    let days = oada.get(&format!("{REPORTS}/{name}/day-index")).unwrap_or_default();
    let dates = days.as_object().into_iter().flat_map(Map::keys);
    let lists = dates.filter_map(|date| oada.get(&format!("{REPORTS}/{name}/day-index/{date}")));
    let entries = lists.flat_map(|list| list.as_object().cloned().unwrap_or_default());
    entries.filter(|(key, _)| !key.starts_with('_')).collect()
}

#[tokio::test]
async fn rows_are_written_for_successes_and_failures_and_only_for_jobs_that_are_wanted() {
    let oada = Oada::start().await;
    let _service = start(&oada, service(&oada).report(report("weekly", NEVER, false))).await;
    let position = "/bookmarks/services/demo/jobs/failure/_meta/oada-list-lib/weekly-failwatch";
    oada.until("the report's position", |oada| oada.get(position)).await;
    oada.until("the other one", |oada| oada.get(&position.replace("failure", "success").replace("fail", "success")))
        .await;
    place(&oada, "HIDDEN", body("told", json!({ "who": "nobody" })));
    place(&oada, "OTHER", body("untold", json!({ "who": "x" })));
    place(&oada, "GOOD", body("told", json!({ "who": "ann" })));
    place(&oada, "BAD", body("told", json!({ "who": "bob", "fails": true })));
    let found = oada.until("both rows", |oada| Some(rows(oada, "weekly")).filter(|rows| rows.len() == 2)).await;
    assert_eq!(found["GOOD"], json!({ "Who": "ann", "End": "Success", "None": "" }));
    assert_eq!(found["BAD"], json!({ "Who": "bob", "End": "Bad input", "None": "" }));
    for key in ["HIDDEN", "OTHER"] {
        finished(&oada, key).await;
    }
}

#[tokio::test]
async fn a_report_goes_on_where_it_was() {
    let oada = Oada::start().await;
    let first = start(&oada, service(&oada).report(report("weekly", NEVER, false))).await;
    let position = "/bookmarks/services/demo/jobs/success/_meta/oada-list-lib/weekly-successwatch";
    oada.until("the report's position", |oada| oada.get(position)).await;
    place(&oada, "A", body("told", json!({ "who": "a" })));
    oada.until("the first row", |oada| rows(oada, "weekly").get("A").map(drop)).await;
    first.stop(Duration::from_secs(60)).await;
    let between = start(&oada, service(&oada)).await;
    place(&oada, "B", body("told", json!({ "who": "b" })));
    finished(&oada, "B").await;
    between.stop(Duration::from_secs(60)).await;
    let _second = start(&oada, service(&oada).report(report("weekly", NEVER, false))).await;
    oada.until("the row from between", |oada| rows(oada, "weekly").get("B").map(drop)).await;
}

#[tokio::test]
async fn the_table_is_mailed_once_and_the_days_come_to_an_end() {
    let oada = Oada::start().await;
    let service = service(&oada).report(report("often", "* * * * * *", false));
    let service = start(&oada, service).await;
    let position = "/bookmarks/services/demo/jobs/success/_meta/oada-list-lib/often-successwatch";
    oada.until("the report's position", |oada| oada.get(position)).await;
    place(&oada, "A", body("told", json!({ "who": "ann, \"the first\"" })));
    let mails = |oada: &Oada| {
        let list = oada.get(MAILS)?;
        let keys: Vec<String> = list.as_object()?.keys().filter(|key| !key.starts_with('_')).cloned().collect();
        (!keys.is_empty()).then_some(keys)
    };
    let keys = oada.until("the mail", mails).await;
    let mail = oada.get(&format!("{MAILS}/{}", keys[0])).unwrap();
    assert_eq!((mail["service"].as_str(), mail["type"].as_str()), (Some("abalonemail"), Some("email")));
    assert_eq!((&mail["config"]["to"], &mail["config"]["subject"]), (&json!("b@example.org"), &json!("often")));
    let attachment = &mail["config"]["attachments"][0];
    assert_eq!(attachment["filename"], "often.csv");
    let table = parse_attachment(attachment["content"].as_str().unwrap()).unwrap();
    let expected = json!({ "Who": "ann, \"the first\"", "End": "Success", "None": "" });
    assert_eq!(table, [expected.as_object().cloned().unwrap()]);
    // Two ticks later it has not been mailed again, and each tick has asked for a day or two.
    place(&oada, "B", body("told", json!({ "who": "b" })));
    let keys = oada.until("the second mail", |oada| mails(oada).filter(|keys| keys.len() == 2)).await;
    let tables: Vec<usize> = keys
        .iter()
        .map(|key| oada.get(&format!("{MAILS}/{key}")).unwrap()["config"]["attachments"][0]["content"].clone())
        .map(|content| parse_attachment(content.as_str().unwrap()).unwrap().len())
        .collect();
    assert_eq!(tables, [1, 1]);
    assert!(oada.requests("get", "/reports/").len() < 500);
    service.stop(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_report_without_rows_is_mailed_if_it_is_to_be() {
    let oada = Oada::start().await;
    let _service = start(&oada, service(&oada).report(report("empty", "* * * * * *", true))).await;
    let list = oada.until("the mail", |oada| {
        oada.get(MAILS).filter(|list| list.as_object().is_some_and(|list| list.keys().any(|key| !key.starts_with('_'))))
    });
    let list = list.await;
    let key = list.as_object().unwrap().keys().find(|key| !key.starts_with('_')).unwrap().clone();
    let content = oada.get(&format!("{MAILS}/{key}")).unwrap()["config"]["attachments"][0]["content"].clone();
    assert_eq!(content, "V2hvLEVuZCxOb25lDQo=", "the names of the columns, not nothing");
}

/// The names in each table that was mailed.
fn tables(oada: &Oada) -> Vec<Vec<String>> {
    let list = oada.get(MAILS).unwrap_or_default();
    let keys = list.as_object().into_iter().flat_map(Map::keys).filter(|key| !key.starts_with('_'));
    let contents = keys
        .filter_map(|key| Some(oada.get(&format!("{MAILS}/{key}"))?["config"]["attachments"][0]["content"].clone()));
    let tables = contents.map(|content| parse_attachment(content.as_str().unwrap()).unwrap());
    tables.map(|rows| rows.iter().map(|row| row["Who"].as_str().unwrap().to_owned()).collect()).collect()
}

#[tokio::test]
async fn a_restart_mails_each_row_once_whatever_day_it_is_of() {
    let oada = Oada::start().await;
    let position = "/bookmarks/services/demo/jobs/success/_meta/oada-list-lib/often-mailed";
    let begun = "/bookmarks/services/demo/jobs/success/_meta/oada-list-lib/often-successwatch";
    let first = start(&oada, service(&oada).report(report("often", "* * * * * *", false))).await;
    oada.until("the report's position", |oada| oada.get(begun)).await;
    place(&oada, "A", body("told", json!({ "who": "a" })));
    oada.until("the first mail", |_| (tables(&oada) == [["a"]]).then_some(())).await;
    let days = oada.get(&format!("{REPORTS}/often/day-index")).unwrap();
    let day = days.as_object().unwrap().keys().next().unwrap().clone();
    oada.until("the note of it", |oada| oada.get(&format!("{REPORTS}/often/day-index/{day}/_meta/mailed/A"))).await;
    first.stop(Duration::from_secs(60)).await;

    // What came when nobody mailed, and some days ago.
    let resource = oada.get(position).unwrap()["_id"].as_str().unwrap().to_owned();
    oada.put(&format!("/{resource}"), "application/json", json!({ "date": "2026-01-30" }));
    oada.put("/resources/DAY", "application/json", json!({ "OLD": { "Who": "old", "End": "Success", "None": "" } }));
    oada.link(&format!("{REPORTS}/often/day-index"), "2026-01-31", json!({ "_id": "resources/DAY" }));
    let second = start(&oada, service(&oada).report(report("often", "* * * * * *", false))).await;
    oada.until("the second mail", |_| (tables(&oada).len() == 2).then_some(())).await;
    place(&oada, "B", body("told", json!({ "who": "b" })));
    oada.until("the third mail", |_| (tables(&oada).len() == 3).then_some(())).await;
    assert_eq!(tables(&oada), [["a"], ["old"], ["b"]]);
    second.stop(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_service_with_reports_stops() {
    let oada = Oada::start().await;
    let service = service(&oada).report(report("one", NEVER, false)).report(report("two", "* * * * * *", true));
    let service = start(&oada, service).await;
    oada.until("both watches of both", |oada| (oada.watch_count() >= 5).then_some(())).await;
    within("the stop", &oada, service.stop(Duration::from_secs(60))).await;
    drop(service);
    oada.until("the end of all watches", |oada| (oada.watch_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_second_generation_has_no_place_for_them() {
    let oada = Oada::start().await;
    let service = service(&oada).options(|options| options.layout = oada::Layout::V2);
    let error = service.report(report("weekly", NEVER, false)).start().await.err().unwrap();
    assert!(error.to_string().contains("reports need the paths of the present generation"), "{error}");
}
