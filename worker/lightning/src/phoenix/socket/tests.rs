//! The socket against a small server in the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::writer::FRAGMENT_BYTES;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response as Upgrade};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::*;
use crate::phoenix::{ChannelEvent, Loss, Response, Status};

const DEADLINE: Duration = Duration::from_secs(10);

struct Server(TcpListener);

type Connection = WebSocketStream<TcpStream>;

impl Server {
    async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A socket that connects here, whose tokens are counted.
    fn socket(&self, heartbeat: Duration) -> Socket {
        let endpoint = format!("ws://{}/worker", self.0.local_addr().unwrap()).parse().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let query = Box::new(move || format!("token={}", count.fetch_add(1, Ordering::Relaxed)).into());
        let reconnect = (Duration::from_millis(1), Duration::from_millis(20));
        let options = LightningOptions::new(endpoint, "secret".into());
        Socket::spawn(Arc::new(LightningOptions { heartbeat, reconnect, ..options }), query)
    }

    async fn accept(&self) -> (Connection, String) {
        let (stream, _) = timeout(DEADLINE, self.0.accept()).await.unwrap().unwrap();
        let mut path = String::new();
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let seen = |request: &Request, answer: Upgrade| -> Result<Upgrade, ErrorResponse> {
            path = request.uri().to_string();
            Ok(answer)
        };
        let connection = accept_hdr_async(stream, seen).await.unwrap();
        (connection, path)
    }
}

/// The next text frame.
async fn read(connection: &mut Connection) -> Value {
    loop {
        match timeout(DEADLINE, connection.next()).await.unwrap().unwrap().unwrap() {
            WsMessage::Text(text) => return serde_json::from_str(&text).unwrap(),
            WsMessage::Ping(_) | WsMessage::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn send(connection: &mut Connection, frame: Value) {
    connection.send(WsMessage::text(frame.to_string())).await.unwrap();
}

/// Takes the next frame and answers it with ok.
async fn answer(connection: &mut Connection, response: Value) -> Value {
    let frame = read(connection).await;
    let reply = json!({"status": "ok", "response": response});
    send(connection, json!([frame[0], frame[1], frame[2], "phx_reply", reply])).await;
    frame
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    timeout(DEADLINE, channel.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn joins_pushes_and_comes_back_with_a_fresh_token() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::object(&json!({"x": 1})));
    let (mut connection, path) = server.accept().await;
    assert_eq!(path, "/worker/websocket?token=0");
    let join = answer(&mut connection, json!({})).await;
    assert_eq!((&join[2], &join[3], &join[4]), (&json!("a"), &json!("phx_join"), &json!({"x": 1})));
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    channel.push(7, "event", Payload::empty());
    answer(&mut connection, json!([1])).await;
    let ChannelEvent::Replied(7, reply) = next(&mut channel).await else { panic!("no reply") };
    assert_eq!((reply.status, reply.response.into_json().as_str()), (Status::Ok, "[1]"));

    drop(connection);
    assert_eq!(next(&mut channel).await, ChannelEvent::Down(Loss::Link));
    let (mut connection, path) = server.accept().await;
    assert_eq!(path, "/worker/websocket?token=1");
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(2));
}

#[tokio::test]
async fn a_link_without_a_sign_of_life_is_given_up() {
    let server = Server::bind().await;
    let socket = server.socket(Duration::from_millis(50));
    let mut connected = socket.connected();
    // The server accepts and never says anything again: nothing answers the ping.
    let (silent, _) = server.accept().await;
    connected.wait_for(|up| *up).await.unwrap();
    let (mut alive, _) = server.accept().await;
    drop(silent);
    // One that only answers pings, as reading it does, is alive.
    for _ in 0..5 {
        assert_eq!(read(&mut alive).await[3], "heartbeat");
    }
    assert!(*connected.borrow());
}

#[tokio::test]
async fn large_frames_go_in_fragments_and_arrive_whole() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    let (mut connection, _) = server.accept().await;
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    let text = "é\"".repeat(FRAGMENT_BYTES);
    let state = protocol::Json::encode(&json!({ "x": text })).unwrap();
    channel.push(1, "state", Payload::empty().with_quoted("clip", state.clone()));
    let frame = read(&mut connection).await;
    assert!(frame[4]["clip"] == state.as_str());
}

#[tokio::test]
async fn frames_that_make_no_sense_do_not_end_the_link() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    let (mut connection, _) = server.accept().await;
    for text in ["", "{}", "[1,2,3,4,5]", r#"[null,"99","a","phx_reply",{"status":"ok"}]"#] {
        connection.send(WsMessage::text(text)).await.unwrap();
    }
    connection.send(WsMessage::binary(vec![9, 9, 9])).await.unwrap();
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    let mut reply = vec![1, 1, 1, 1, 2];
    channel.push(1, "event", Payload::empty());
    let frame = read(&mut connection).await;
    for field in [frame[0].as_str().unwrap(), frame[1].as_str().unwrap(), "a", "ok", "raw"] {
        reply.extend(field.bytes());
    }
    connection.send(WsMessage::binary(reply)).await.unwrap();
    let ChannelEvent::Replied(1, reply) = next(&mut channel).await else { panic!("no reply") };
    assert_eq!(reply.response, Response::Binary(Bytes::from_static(b"raw")));
}

#[tokio::test]
async fn leaving_and_closing_say_so_to_the_server() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    let (mut connection, _) = server.accept().await;
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    drop(channel);
    let closing = tokio::spawn(socket.close());
    assert_eq!(read(&mut connection).await[3], "phx_leave");
    assert!(matches!(connection.next().await, Some(Ok(WsMessage::Close(_)))));
    timeout(DEADLINE, closing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_link_before_it_is_read() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    let (mut connection, _) = server.accept().await;
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    // A binary frame of a terabyte, of which nothing but the header ever comes.
    let mut header = vec![0x82, 127];
    header.extend((1u64 << 40).to_be_bytes());
    connection.get_mut().write_all(&header).await.unwrap();
    assert_eq!(next(&mut channel).await, ChannelEvent::Down(Loss::Link));
    let (mut connection, _) = server.accept().await;
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(2));
}

#[tokio::test]
async fn a_thousand_reconnects_leave_nothing_behind() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    for link in 1..=1000 {
        let (mut connection, _) = server.accept().await;
        answer(&mut connection, json!({})).await;
        assert_eq!(next(&mut channel).await, ChannelEvent::Joined(link));
        drop(connection);
        assert_eq!(next(&mut channel).await, ChannelEvent::Down(Loss::Link));
    }
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 1, "the socket's own");
}

#[tokio::test]
async fn a_link_that_is_closed_with_1009_blames_the_longest_push() {
    let server = Server::bind().await;
    let socket = server.socket(DEADLINE);
    let mut channel = socket.open("a".into(), Payload::empty());
    let (mut connection, _) = server.accept().await;
    answer(&mut connection, json!({})).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Joined(1));
    // More than fits into the socket's buffers: the worker still writes when the server has closed.
    let state = protocol::Json::encode(&"x".repeat(30_000_000)).unwrap();
    channel.push(1, "small", Payload::empty());
    channel.push(2, "large", Payload::empty().with_value("x", state));
    assert_eq!(read(&mut connection).await[3], "small");
    connection.get_mut().write_all(&[0x88, 2, 0x03, 0xf1]).await.unwrap();
    drop(connection);
    let ChannelEvent::Down(Loss::Longest { tag: 2, bytes: 30_000_008, too_long: true }) = next(&mut channel).await
    else {
        panic!("the second push was too long");
    };
}
