//! Who may connect, and what happens to connections and records when the server goes away.

use jsonwebtoken::{EncodingKey, Header};
use mock_lightning::{MockOptions, RunState, start};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client::{Client, claim, mock, plan, request, uuid};

fn token(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn worker_tokens_are_checked() {
    let mock = start(MockOptions { secret: Some("secret".into()), ..MockOptions::default() }).await.unwrap();
    let claims = json!({"worker_id": "w1", "iat": 1, "iss": "urn:openfn:worker"});
    for (query, status) in [
        (format!("vsn=2.0.0&token={}", token(&claims, "other")), 401),
        (format!("vsn=2.0.0&token={}", token(&json!({"worker_id": "w1"}), "secret")), 401),
        ("vsn=2.0.0&token=x".to_owned(), 401),
        ("vsn=2.0.0".to_owned(), 401),
        (format!("token={}", token(&claims, "secret")), 403),
    ] {
        assert_eq!(Client::try_connect(&mock, &query).await.err(), Some(Some(status)), "{query}");
    }
    assert_eq!(mock.violations().len(), 5);
    assert_eq!(mock.activity().connections.len(), 0);

    let query = format!("vsn=2.0.0&token={}&api_version=1.2&worker_version=0.1.0", token(&claims, "secret"));
    let mut client = Client::try_connect(&mock, &query).await.unwrap();
    client.join_queue().await;
    let connection = mock.activity().connections.pop().unwrap();
    assert_eq!(connection.worker_id.as_deref(), Some("w1"));
    assert_eq!(connection.api_version.as_deref(), Some("1.2"));
    assert_eq!(connection.worker_version.as_deref(), Some("0.1.0"));
    assert_eq!((connection.number, connection.closed_at), (1, None));
}

#[tokio::test]
async fn the_websocket_wants_an_upgrade() {
    let mock = mock().await;
    assert_eq!(request(&mock, "GET", "/worker/websocket?vsn=2.0.0&token=x", "").await.0, 426);
}

#[tokio::test]
async fn heartbeats_and_pings_are_answered_and_counted() {
    let mock = mock().await;
    let mut client = Client::connect(&mock).await;
    client.send_raw(Message::Ping("here".into())).await;
    assert_eq!(client.call("phoenix", "heartbeat", json!({})).await, Ok(json!({})));
    let activity = mock.activity();
    assert_eq!((activity.heartbeats, activity.pings), (1, 1));
}

#[tokio::test]
async fn frames_that_cannot_be_read_end_the_connection() {
    let mock = mock().await;
    for frame in [Message::text("{}"), Message::text(r#"["1","1","worker:queue"]"#), Message::binary(vec![0])] {
        let mut client = Client::connect(&mock).await;
        client.send_raw(frame).await;
        assert_eq!(client.next().await, None);
    }
    let reasons: Vec<String> = mock.violations().into_iter().map(|violation| violation.reason).collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[0].contains("V2 serializer") && reasons[2].contains("binary"), "{reasons:?}");
}

#[tokio::test]
async fn records_outlive_sockets_and_the_listener() {
    let mock = mock().await;
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    let run = format!("run:{id}");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    let step = uuid();
    let started = json!({"step_id": step, "job_id": "a", "timestamp": "1700000000000"});
    client.call(&run, "step:start", started.clone()).await.unwrap();

    mock.cut_sockets();
    assert_eq!(client.next().await, None);
    Client::connect(&mock).await.join_queue().await;

    mock.stop_listening().await;
    assert_eq!(Client::try_connect(&mock, "vsn=2.0.0&token=x").await.err(), Some(None));
    mock.cut_sockets();
    mock.listen_again().await.unwrap();

    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    assert_eq!(client.claim(1).await, []);
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    // It is there already.
    client.push(&run, "step:start", started).await;
    assert_eq!(client.next().await.unwrap().event, "phx_error");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    client.call(&run, "run:complete", json!({"reason": "success", "timestamp": "1700000000000"})).await.unwrap();
    assert_eq!(mock.run(&id).unwrap().state, RunState::Success);
    assert_eq!(mock.activity().connections.len(), 3);
}

#[tokio::test]
async fn a_message_that_is_too_long_closes_the_socket_with_1009() {
    let mock = start(MockOptions { max_message_bytes: Some(2_000), ..MockOptions::default() }).await.unwrap();
    let text = |bytes: usize| format!(r#"[null,"1","phoenix","heartbeat",{{"x":"{}"}}]"#, "y".repeat(bytes - 41));
    let frame =
        |text: &str, code, last| Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(code), last));
    let mut client = Client::connect(&mock).await;
    client.send_raw(Message::text(text(2_000))).await;
    assert_eq!(client.next().await.unwrap().event, "phx_reply");
    // The fragments of a message count together.
    let long = text(2_001);
    let (first, second) = long.split_at(1_500);
    client.send_raw(frame(first, Data::Text, false)).await;
    client.send_raw(frame(second, Data::Continue, true)).await;
    assert_eq!(client.close_code().await, Some(1009));
    let mut client = Client::connect(&mock).await;
    client.send_raw(Message::text(text(5_000))).await;
    assert_eq!(client.close_code().await, Some(1009));
    assert_eq!(mock.violations().len(), 2);
}

#[tokio::test]
async fn an_end_leaves_nothing_open() {
    let mock = mock().await;
    let address = mock.address();
    let mut client = Client::connect(&mock).await;
    client.call("worker:queue", "claim", claim(1)).await.unwrap_err();
    mock.stop().await;
    assert_eq!(client.next().await, None);
    let again = start(MockOptions { address, ..MockOptions::default() }).await.unwrap();
    assert_eq!(again.url(), format!("ws://{address}/worker"));
    let taken = start(MockOptions { address, ..MockOptions::default() }).await.unwrap_err();
    assert_eq!(taken.to_string(), format!("failed to listen on {address}"));
}
