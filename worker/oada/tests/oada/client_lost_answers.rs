//! A request whose answer is lost is sent again if that does no harm, and reported if it may.

use std::time::Duration;

use oada::{ClientError, ClientOptions};
use serde_json::json;
use tests::oada::{Action, Fault, Oada};

use crate::support::{JSON, client, client_with, quick, within};

#[tokio::test]
async fn a_put_survives_a_lost_connection() {
    let oada = Oada::start().await;
    let client = client(&oada);
    oada.inject(Fault::new("before", Action::Disconnect).method("put"));
    oada.inject(Fault::new("after", Action::DisconnectAfter).method("put"));
    let put = client.put("/resources/X", JSON, json!({ "a": 1 }));
    within("the answer", &oada, put).await.unwrap();
    assert_eq!((oada.happened("before"), oada.happened("after")), (1, 1));
    assert_eq!(oada.get("/resources/X/a"), Some(json!(1)));
}

#[tokio::test]
async fn a_post_that_may_have_been_done_is_not_repeated() {
    let oada = Oada::start().await;
    let client = client(&oada);
    oada.put("/resources/X", JSON, json!({}));
    oada.inject(Fault::new("after", Action::DisconnectAfter).method("post"));
    let error = within("the error", &oada, client.post("/resources/X/list", JSON, json!(1))).await.unwrap_err();
    assert_eq!(error, ClientError::Interrupted { path: "/resources/X/list".to_owned() });
    assert_eq!(oada.get("/resources/X/list").unwrap().as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_asked_for_again() {
    let oada = Oada::start().await;
    let client = client_with(&oada, ClientOptions { request_timeout: Duration::from_millis(300), ..quick() });
    client.head("/bookmarks").await.unwrap();
    oada.inject(Fault::new("lost", Action::Swallow).method("put").times(2));
    within("the answer", &oada, client.put("/resources/X", JSON, json!({ "a": 1 }))).await.unwrap();
    assert_eq!(oada.happened("lost"), 2);
    oada.inject(Fault::new("never", Action::Ignore).method("post"));
    let error = within("the error", &oada, client.post("/resources/X/b", JSON, json!(1))).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn only_so_many_requests_are_on_their_way_at_once() {
    let oada = Oada::start().await;
    let client = client_with(&oada, ClientOptions { concurrency: 2, ..quick() });
    client.head("/bookmarks").await.unwrap();
    let before = oada.requests("get", "/bookmarks").len();
    oada.inject(Fault::new("slow", Action::Delay(Duration::from_millis(100))).method("get").times(2));
    let asking = (0..5).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("/bookmarks").await })
    });
    let asking: Vec<_> = asking.collect();
    oada.until("two requests", |oada| (oada.requests("get", "/bookmarks").len() == before + 2).then_some(())).await;
    assert_eq!(oada.requests("get", "/bookmarks").len(), before + 2);
    for answer in asking {
        within("an answer", &oada, answer).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_error_tells_what_was_asked_and_what_was_answered() {
    let oada = Oada::start().await;
    let client = client(&oada);
    let error = client.get("/bookmarks/nothing").await.unwrap_err();
    assert_eq!(error.to_string(), "get /bookmarks/nothing: the store answered 404: Not Found");
    assert!(error.is_missing() && client.ping().await.is_ok());
}
