//! A watch tells each change once and in order, whatever happens to the connection, or says that it missed some.

use oada::client::{Watch, WatchEvent};
use serde_json::json;
use tests::oada::Oada;

use crate::support::{JOBS, client, within};

const LIST: &str = "/bookmarks/list";

/// A store with a list in it that is watched.
async fn watched() -> (Oada, Watch) {
    let oada = Oada::start().await;
    oada.put("/resources/LIST", JOBS, json!({}));
    oada.link("/bookmarks", "list", json!({ "_id": "resources/LIST" }));
    let client = client(&oada);
    let rev = client.get(LIST).await.unwrap().rev();
    let watch = client.watch(LIST, rev).await.unwrap();
    (oada, watch)
}

fn add(oada: &Oada, key: &str) {
    oada.link(LIST, key, json!({ "_id": format!("resources/{key}") }));
}

/// The keys that the next changes tell of; `?` for something missed.
async fn heard(oada: &Oada, watch: &mut Watch, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < count {
        match within("a change", oada, watch.next()).await.unwrap() {
            WatchEvent::Changed(set) => {
                let body = set.changes[0].body.clone().unwrap();
                keys.extend(body.keys().filter(|key| !key.starts_with('_')).cloned());
            }
            WatchEvent::Missed => keys.push("?".to_owned()),
            WatchEvent::Refused(response) => panic!("{response:?}"),
        }
    }
    keys
}

#[tokio::test]
async fn what_happens_while_the_connection_is_down_is_told_after_it() {
    let (oada, mut watch) = watched().await;
    add(&oada, "a");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["a"]);
    oada.disconnect_all();
    for key in ["b", "c"] {
        add(&oada, key);
    }
    assert_eq!(heard(&oada, &mut watch, 2).await, ["b", "c"]);
    let again = oada.requests("watch", LIST);
    // "a" counts as dealt with since "b" was asked for, or not yet if the connection went before.
    let rev: u64 = again.last().unwrap()["headers"]["x-oada-rev"].as_str().unwrap().parse().unwrap();
    assert!(again.len() >= 2 && rev <= watch.rev(), "{again:?}");
}

#[tokio::test]
async fn a_change_that_was_not_dealt_with_is_told_again_on_a_new_connection_but_only_once_to_its_owner() {
    let (oada, mut watch) = watched().await;
    oada.withhold_changes(true);
    for key in ["a", "b"] {
        add(&oada, key);
    }
    oada.withhold_changes(false);
    oada.disconnect_all();
    oada.until("a new watch", |oada| (oada.watch_count() == 1).then_some(())).await;
    add(&oada, "c");
    assert_eq!(heard(&oada, &mut watch, 3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn lost_history_is_noticed() {
    let (oada, mut watch) = watched().await;
    oada.withhold_changes(true);
    add(&oada, "a");
    oada.forget_history(LIST);
    oada.withhold_changes(false);
    oada.disconnect_all();
    assert_eq!(heard(&oada, &mut watch, 1).await, ["?"]);
    add(&oada, "b");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["b"]);
}

#[tokio::test]
async fn a_store_that_refuses_the_revision_is_asked_without_one() {
    let (oada, mut watch) = watched().await;
    oada.withhold_changes(true);
    add(&oada, "a");
    oada.withhold_changes(false);
    oada.inject(tests::oada::Fault::status("history is gone", 410).method("watch"));
    oada.disconnect_all();
    assert_eq!(heard(&oada, &mut watch, 1).await, ["?"]);
    add(&oada, "b");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["b"]);
    assert_eq!(oada.happened("history is gone"), 1);
}

#[tokio::test]
async fn changes_that_come_twice_are_told_once() {
    let (oada, mut watch) = watched().await;
    oada.duplicate_changes(true);
    for key in ["a", "b", "c"] {
        add(&oada, key);
    }
    assert_eq!(heard(&oada, &mut watch, 3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn changes_that_come_out_of_order_count_as_missed() {
    let (oada, mut watch) = watched().await;
    oada.swap_changes(true);
    add(&oada, "a");
    add(&oada, "b");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["?"]);
    oada.swap_changes(false);
    add(&oada, "c");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["c"]);
}

#[tokio::test]
async fn another_list_at_the_same_path_counts_as_missed() {
    let (oada, mut watch) = watched().await;
    add(&oada, "a");
    assert_eq!(heard(&oada, &mut watch, 1).await, ["a"]);
    assert_eq!(watch.resource(), Some("resources/LIST"));
    oada.put("/resources/OTHER", JOBS, json!({ "x": { "_id": "resources/x" } }));
    oada.link("/bookmarks", "list", json!({ "_id": "resources/OTHER" }));
    oada.disconnect_all();
    assert_eq!(heard(&oada, &mut watch, 1).await, ["?"]);
    assert_eq!(watch.resource(), Some("resources/OTHER"));
}

#[tokio::test]
async fn dropping_a_watch_ends_it() {
    let (oada, watch) = watched().await;
    let other = client(&oada);
    let _stays = other.watch(LIST, None).await.unwrap();
    assert_eq!(oada.watch_count(), 2);
    drop(watch);
    oada.until("the end of the watch", |oada| (oada.watch_count() == 1).then_some(())).await;
}

#[tokio::test]
async fn one_message_may_be_for_several_watches() {
    let (oada, mut first) = watched().await;
    let client = client(&oada);
    let mut second = client.watch(LIST, None).await.unwrap();
    let mut third = client.watch("/resources/LIST", None).await.unwrap();
    add(&oada, "a");
    for watch in [&mut first, &mut second, &mut third] {
        assert_eq!(heard(&oada, watch, 1).await, ["a"]);
    }
    let several = |message: &serde_json::Value| message["requestId"].as_array().is_some_and(|ids| ids.len() == 2);
    assert!(oada.trace().iter().any(|entry| several(&entry.message)), "{}", oada.told());
}
