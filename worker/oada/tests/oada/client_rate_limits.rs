//! A store that refuses for now is asked again when it says so, and not before.

use std::time::{Duration, Instant};

use oada::ClientOptions;
use oada::client::RetryPolicy;
use serde_json::json;
use tests::oada::{Action, Fault, Oada};

use crate::support::{JSON, client, client_with, quick, within};

fn refusal(status: u16, seconds: &str) -> Action {
    Action::Answer(status, vec![("Retry-After".to_owned(), seconds.to_owned())])
}

#[tokio::test]
async fn retry_after_is_kept_to() {
    let oada = Oada::start().await;
    let client = client(&oada);
    for status in [429, 503] {
        oada.inject(Fault::new("limit", refusal(status, "0.2")).method("post"));
        let begin = Instant::now();
        let posted = client.post("/resources", JSON, json!({ "a": 1 }));
        within("the answer", &oada, posted).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(200), "it was asked again too early");
    }
    assert_eq!(oada.happened("limit"), 2);
}

#[tokio::test]
async fn without_a_time_the_client_has_its_own() {
    let oada = Oada::start().await;
    let retry = RetryPolicy { rate_limit_pause: Duration::from_millis(10), ..quick().retry };
    let client = client_with(&oada, ClientOptions { retry, ..quick() });
    oada.inject(Fault::status("limit", 429).method("get").times(20));
    within("the answer", &oada, client.get("/bookmarks")).await.unwrap();
    assert_eq!(oada.happened("limit"), 20, "a refusal for now is no failure, however often it comes");
}

#[tokio::test]
async fn a_gateway_that_fails_is_asked_again_a_few_times() {
    let oada = Oada::start().await;
    let retry = RetryPolicy { tries: 2, ..quick().retry };
    let client = client_with(&oada, ClientOptions { retry, ..quick() });
    oada.inject(Fault::status("gateway", 502).method("get").times(3));
    let error = within("the error", &oada, client.get("/bookmarks")).await.unwrap_err();
    assert_eq!((error.status(), error.is_passing(), oada.happened("gateway")), (Some(502), true, 3));
}
