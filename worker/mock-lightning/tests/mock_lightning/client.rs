//! A raw Phoenix client and an HTTP client, just enough to test with.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use mock_lightning::{MockLightning, MockOptions, start};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);

/// A frame from the server.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    references: u64,
    joins: HashMap<String, String>,
    pushes: VecDeque<Frame>,
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

pub(crate) async fn mock() -> MockLightning {
    start(MockOptions::default()).await.unwrap()
}

impl Client {
    pub(crate) async fn connect(mock: &MockLightning) -> Self {
        Self::try_connect(mock, "vsn=2.0.0&token=any&api_version=1.2&worker_version=0.1.0").await.unwrap()
    }

    /// The status of the refusal, if there is an answer at all.
    pub(crate) async fn try_connect(mock: &MockLightning, query: &str) -> Result<Self, Option<u16>> {
        let url = format!("{}/websocket?{query}", mock.url());
        match within(tokio_tungstenite::connect_async(url)).await {
            Ok((socket, _)) => Ok(Self { socket, references: 0, joins: HashMap::new(), pushes: VecDeque::new() }),
            Err(Error::Http(response)) => Err(Some(response.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a message and gives its ref.
    pub(crate) async fn push(&mut self, topic: &str, event: &str, payload: Value) -> String {
        self.references += 1;
        let reference = self.references.to_string();
        if event == "phx_join" {
            self.joins.insert(topic.to_owned(), reference.clone());
        }
        let frame = json!([self.joins.get(topic), reference, topic, event, payload]);
        self.send_raw(Message::text(frame.to_string())).await;
        reference
    }

    /// The next frame; none when the socket has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.pushes.pop_front() {
            return Some(frame);
        }
        self.read().await
    }

    /// The code that the server closes the socket with.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            return match within(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let (join_ref, reference, topic, event, payload) = serde_json::from_str(&text).unwrap();
                    Some(Frame { join_ref, reference, topic, event, payload })
                }
                Some(Ok(Message::Binary(bytes))) => Some(binary_reply(&bytes)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_) | Message::Frame(_)) | Err(_)) | None => None,
            };
        }
    }

    /// Waits for the reply to a ref; what comes before it is kept for `next`.
    pub(crate) async fn reply(&mut self, reference: &str) -> Result<Value, Value> {
        loop {
            let mut frame = self.read().await.expect("a reply before the socket ends");
            if frame.reference == *reference && frame.event.contains("reply") {
                let response = frame.payload["response"].take();
                return if frame.payload["status"] == "ok" { Ok(response) } else { Err(response) };
            }
            self.pushes.push_back(frame);
        }
    }

    pub(crate) async fn call(&mut self, topic: &str, event: &str, payload: Value) -> Result<Value, Value> {
        let reference = self.push(topic, event, payload).await;
        self.reply(&reference).await
    }

    pub(crate) async fn join_queue(&mut self) {
        let payload = json!({"capacity": 5, "queues": {"manual>*": 5}});
        assert_eq!(self.call("worker:queue", "phx_join", payload).await, Ok(json!({})));
    }

    /// Sends an event on which the channel crashes, and joins it again.
    pub(crate) async fn crash(&mut self, topic: &str, event: &str, payload: Value, token: &str) {
        self.push(topic, event, payload).await;
        let crashed = self.next().await.unwrap();
        assert_eq!((crashed.topic.as_str(), crashed.event.as_str()), (topic, "phx_error"));
        self.call(topic, "phx_join", json!({ "token": token })).await.unwrap();
    }

    /// Claims runs and gives their ids and tokens.
    pub(crate) async fn claim(&mut self, demand: u64) -> Vec<(String, String)> {
        let reply = self.call("worker:queue", "claim", claim(demand)).await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        reply["runs"].as_array().unwrap().iter().map(|run| (text(&run["id"]), text(&run["token"]))).collect()
    }

    /// Claims the one queued run, joins its channel and gives the channel's topic.
    pub(crate) async fn take_run(&mut self) -> String {
        self.join_queue().await;
        self.take_joined_run().await
    }

    /// The same with the queue joined already.
    pub(crate) async fn take_joined_run(&mut self) -> String {
        let (id, token) = self.claim(1).await.pop().expect("a run");
        let topic = format!("run:{id}");
        assert_eq!(self.call(&topic, "phx_join", json!({ "token": token })).await, Ok(json!({})));
        topic
    }
}

pub(crate) fn claim(demand: u64) -> Value {
    json!({"demand": demand, "worker_name": "tester", "queues": ["manual", "*"]})
}

/// The binary form of a reply, its payload as text in `response`.
fn binary_reply(bytes: &[u8]) -> Frame {
    assert_eq!(bytes[0], 1, "the kind of a reply");
    let mut rest = &bytes[5..];
    let [join_ref, reference, topic, status] = [1, 2, 3, 4].map(|field| {
        let (text, more) = rest.split_at(usize::from(bytes[field]));
        rest = more;
        String::from_utf8(text.to_vec()).unwrap()
    });
    let response = String::from_utf8(rest.to_vec()).unwrap();
    Frame {
        join_ref: join_ref.into(),
        reference: reference.into(),
        topic,
        event: "phx_reply".into(),
        payload: json!({"status": status, "response": response}),
    }
}

pub(crate) fn uuid() -> String {
    Uuid::new_v4().to_string()
}

/// A plan of the jobs `a` and `b`.
pub(crate) fn plan() -> Value {
    json!({
        "dataclip_id": "in",
        "jobs": [{"id": "a", "adaptor": "common", "body": "fn(s => s)"}, {"id": "b", "body": ""}],
        "edges": [{"id": "a-b", "source_job_id": "a", "target_job_id": "b"}],
        "dataclips": {"in": {"data": {"x": 1}}},
        "credentials": {"c": {"password": "hush"}},
    })
}

/// A request on a connection of its own; gives the status and the body as JSON, or as a string if it is none.
pub(crate) async fn request(mock: &MockLightning, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(mock.address()).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {}", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}
