//! A connection is kept alive, and given up when nothing comes over it any more.

use std::time::Duration;

use oada::{Client, ClientOptions};
use serde_json::json;
use tests::oada::{Oada, TOKEN};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;

use crate::support::{client, quick, within};

#[tokio::test]
async fn the_store_is_asked_for_a_sign_of_life() {
    let oada = Oada::start().await;
    let client = client(&oada);
    within("the answer", &oada, client.ping()).await.unwrap();
    assert_eq!(oada.requests("ping", "").len(), 1);
}

#[tokio::test]
async fn a_store_that_says_nothing_any_more_is_connected_to_again() {
    let oada = Oada::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let options = ClientOptions { heartbeat: Duration::from_millis(50), ..quick() };
    let client = Client::connect(domain, TOKEN.into(), options);
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (stream, _) = within("a connection", &oada, listener.accept()).await.unwrap();
        // It is let in, and nothing is read or written from then on.
        silent.push(within("the handshake", &oada, accept_async(stream)).await.unwrap());
    }
    drop(client);
}

#[tokio::test]
async fn a_store_that_does_not_take_what_is_written_is_connected_to_again() {
    let oada = Oada::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let options = ClientOptions { heartbeat: Duration::from_millis(200), ..quick() };
    let client = Client::connect(domain, TOKEN.into(), options);
    let more_than_buffers_hold = json!("x".repeat(32 * 1024 * 1024));
    let writing = tokio::spawn(async move {
        client.put("/resources/large", "application/json", more_than_buffers_hold).await.map(drop)
    });
    let mut stuck = Vec::new();
    for _ in 0..2 {
        let (stream, _) = within("a connection", &oada, listener.accept()).await.unwrap();
        stuck.push(within("the handshake", &oada, accept_async(stream)).await.unwrap());
    }
    writing.abort();
}
