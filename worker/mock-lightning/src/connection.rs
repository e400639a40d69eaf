//! The websocket: who may connect, and one connection's life with its channels.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use protocol::clock::now_us;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use base::deflate::{self, Deflater, InflateError, Inflater, InflatingStream};

use super::Shared;
use super::channel::Channel;
use super::frame::ClientMessage;
use super::record::{ConnectionRecord, RunState};
use super::store::Origin;
use super::token::verify_worker_token;

/// Phoenix closes a socket that sent nothing for this long.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a connection that fell silent stays open.
const HALF_OPEN_LIMIT: Duration = Duration::from_secs(600);
/// How long a client may take to read why it is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Frames that may wait for a client that reads slowly, before its channels wait too.
const OUTGOING_FRAMES: usize = 256;

/// What becomes of a connection.
#[derive(Debug)]
pub(super) struct Control(watch::Sender<Course>);

#[derive(Debug, Clone, Copy)]
enum Course {
    /// Reads on, with this pause between frames.
    Serve(Duration),
    /// Stays open, and nothing comes through.
    Silent,
    /// Ends without a close frame.
    Cut,
}

impl Control {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Course::Serve(Duration::ZERO)))
    }

    /// Ends the connection without a close frame.
    pub(super) fn cut(&self) {
        self.0.send_replace(Course::Cut);
    }

    /// Lets nothing through any more.
    pub(super) fn fall_silent(&self) {
        self.0.send_replace(Course::Silent);
    }

    /// Pauses that long between frames that are read.
    pub(super) fn read_slowly(&self, pace: Duration) {
        // What is silent or cut stays so.
        self.0.send_if_modified(|course| {
            let serves = matches!(course, Course::Serve(_));
            if serves {
                *course = Course::Serve(pace);
            }
            serves
        });
    }

    /// Whether the connection has ended.
    pub(super) fn is_cut(&self) -> bool {
        matches!(*self.0.borrow(), Course::Cut)
    }

    fn pace(&self) -> Duration {
        if let Course::Serve(pace) = *self.0.borrow() { pace } else { Duration::ZERO }
    }

    /// Resolves when nothing is read any more.
    async fn stop_reading(&self) {
        // It cannot fail: the sender is here.
        let _ = self.0.subscribe().wait_for(|course| !matches!(course, Course::Serve(_))).await;
    }

    /// Waits as long as a connection stays half open.
    async fn bear_silence(&self) {
        let cut = async {
            let _ = self.0.subscribe().wait_for(|course| matches!(course, Course::Cut)).await;
        };
        let _ = tokio::time::timeout(HALF_OPEN_LIMIT, cut).await;
    }
}

type Socket = WebSocketStream<InflatingStream<TokioIo<Upgraded>>>;

#[derive(Deserialize)]
pub(super) struct Parameters {
    vsn: Option<String>,
    token: Option<String>,
    api_version: Option<String>,
    worker_version: Option<String>,
}

/// Upgrades a worker's connection, or refuses it.
pub(super) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
    mut request: Request,
) -> Response {
    let Some(key) = websocket_key(request.headers()) else {
        return (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")], "this is a websocket\n")
            .into_response();
    };
    let accept = derive_accept_key(key.as_bytes());
    let worker_id = match authorize(&shared, &parameters) {
        Ok(worker_id) => worker_id,
        Err((status, reason)) => {
            let origin = Origin { topic: "", event: "connect", payload: Arc::new(Value::Null) };
            shared.store.lock().record_violation(&origin, reason);
            return status.into_response();
        }
    };
    if !shared.is_listening() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let number = shared.store.lock().open_connection(ConnectionRecord {
        number: 0,
        worker_id,
        api_version: parameters.api_version,
        worker_version: parameters.worker_version,
        opened_at: now_us(),
        closed_at: None,
    });
    let compression = shared.options.compression && deflate::is_offered(request.headers());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(shared, number, upgraded, compression));
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
    if compression {
        let extension = HeaderValue::from_static(deflate::EXTENSION);
        response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    response
}

fn websocket_key(headers: &HeaderMap) -> Option<String> {
    let is = |name, expected: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(expected))
    };
    let upgrade = is(header::CONNECTION, "upgrade") && is(header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    (upgrade && is(header::SEC_WEBSOCKET_VERSION, "13")).then(|| key.to_owned())
}

/// The worker's id, if its token is checked. Lightning's WorkerSocket answers 401 to a token that is not good, and Phoenix
/// 403 to all else.
fn authorize(shared: &Shared, parameters: &Parameters) -> Result<Option<String>, (StatusCode, String)> {
    if parameters.vsn.as_deref() != Some("2.0.0") {
        return Err((StatusCode::FORBIDDEN, format!("vsn must be 2.0.0, it is {:?}", parameters.vsn)));
    }
    let Some(token) = &parameters.token else {
        return Err((StatusCode::UNAUTHORIZED, "there is no worker token".to_owned()));
    };
    let Some(secret) = &shared.options.secret else { return Ok(None) };
    verify_worker_token(token, secret).map(Some).map_err(|reason| (StatusCode::UNAUTHORIZED, reason))
}

/// Marks the connection closed in whatever way it ends.
struct Opened {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.store.lock().close_connection(self.number);
    }
}

async fn serve(shared: Arc<Shared>, number: u64, upgraded: OnUpgrade, compression: bool) {
    let mut cut_all = shared.cut.subscribe();
    let opened = Opened { shared, number };
    let Ok(stream) = upgraded.await else { return };
    // Cowboy's `max_frame_size` bounds a frame, and a message with all of its fragments; from 2.13 on also what a
    // compressed message inflates to, which the websocket sees as fragments.
    let limit = opened.shared.options.max_message_bytes;
    let inflater = compression.then(|| Inflater::new(false, usize::MAX));
    let (limit, inflater) = match (limit, inflater) {
        (Some(limit), Some(inflater)) if !opened.shared.options.bounds_inflated => {
            (None, Some(inflater.bounded_on_the_wire(limit)))
        }
        both => both,
    };
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
    let stream = InflatingStream::new(TokioIo::new(stream), inflater);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (sink, mut stream) = socket.split();
    let (out, outgoing) = mpsc::channel(OUTGOING_FRAMES);
    let control = Arc::new(Control::new());
    let mut connection =
        Connection { opened, control: control.clone(), out, tasks: JoinSet::new(), channels: HashMap::new() };
    let silenced = control.clone();
    connection.tasks.spawn(async move {
        tokio::select! {
            () = write(sink, outgoing, compression.then(Deflater::default)) => {}
            () = silenced.stop_reading() => {}
        }
    });
    let read = async {
        tokio::select! {
            () = connection.read(&mut stream) => {}
            () = control.stop_reading() => control.bear_silence().await,
        }
    };
    tokio::select! {
        // Channels that are at something find the socket dead when they are done with it.
        () = read => control.cut(),
        _ = cut_all.changed() => {}
    }
    // What is open is given up before the client can see the end.
    connection.tasks.shutdown().await;
}

/// Writes what there is in one go.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut outgoing: mpsc::Receiver<Message>,
    mut deflater: Option<Deflater>,
) {
    let mut encode = |message| match &mut deflater {
        Some(deflater) => compressed(message, deflater),
        None => message,
    };
    while let Some(message) = outgoing.recv().await {
        let is_last = message.is_close();
        let mut written = sink.feed(encode(message)).await;
        while !is_last
            && written.is_ok()
            && let Ok(message) = outgoing.try_recv()
        {
            written = sink.feed(encode(message)).await;
        }
        if written.is_err() || sink.flush().await.is_err() || is_last {
            return;
        }
    }
}

/// As Cowboy does, every message is compressed.
fn compressed(message: Message, deflater: &mut Deflater) -> Message {
    match &message {
        Message::Text(text) => Message::Frame(deflater.frame(text.as_bytes(), Data::Text)),
        Message::Binary(bytes) => Message::Frame(deflater.frame(bytes, Data::Binary)),
        _ => message,
    }
}

struct Connection {
    opened: Opened,
    control: Arc<Control>,
    out: mpsc::Sender<Message>,
    /// The writer and the channels.
    tasks: JoinSet<()>,
    /// Inboxes of the channels, by topic.
    channels: HashMap<String, mpsc::UnboundedSender<ClientMessage>>,
}

impl Connection {
    /// Gives each message to its channel, until the client closes, breaks the protocol or falls silent.
    async fn read(&mut self, stream: &mut SplitStream<Socket>) {
        while let Ok(Some(message)) = tokio::time::timeout(IDLE_LIMIT, stream.next()).await {
            let message = match message {
                Ok(message) => message,
                Err(WsError::Capacity(error)) => return self.refuse_length(error.to_string()).await,
                Err(WsError::Io(error)) if error.get_ref().is_some_and(|it| it.is::<InflateError>()) => {
                    return self.refuse_length(error.to_string()).await;
                }
                Err(_) => return,
            };
            match message {
                Message::Text(text) => match ClientMessage::parse(&text) {
                    Ok(message) => self.deliver(message),
                    Err(error) => {
                        return self.violation(format!("no frame of the V2 serializer: {error}"));
                    }
                },
                Message::Binary(_) => return self.violation("no event takes a binary payload".to_owned()),
                Message::Ping(_) => self.opened.shared.store.lock().activity.pings += 1,
                Message::Close(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
            let pace = self.control.pace();
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
        }
    }

    /// Closes the socket as Cowboy does on a message that is too long, and waits until the client can know.
    async fn refuse_length(&self, why: String) {
        self.violation(why);
        let close = CloseFrame { code: CloseCode::Size, reason: "".into() };
        let told = async {
            // It fails when the connection has ended already.
            let _ = self.out.send(Message::Close(Some(close))).await;
            self.out.closed().await;
        };
        let _ = tokio::time::timeout(CLOSE_LIMIT, told).await;
    }

    fn deliver(&mut self, message: ClientMessage) {
        // Channels that the client left are finished; their results are of no interest.
        while self.tasks.try_join_next().is_some() {}
        let leaving = message.event == "phx_leave";
        let topic = message.topic.clone();
        let inbox = match self.channels.entry(topic.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let (inbox, messages) = mpsc::unbounded_channel();
                let channel = Channel {
                    shared: self.opened.shared.clone(),
                    connection: self.opened.number,
                    topic: topic.clone(),
                    out: self.out.clone(),
                    control: self.control.clone(),
                    joined: None,
                    run_state: RunState::Available,
                    hangs: false,
                };
                self.tasks.spawn(channel.serve(messages));
                entry.insert(inbox)
            }
        };
        // A channel takes messages for as long as its inbox is here.
        let _ = inbox.send(message);
        if leaving {
            self.channels.remove(&topic);
        }
    }

    fn violation(&self, reason: String) {
        let origin = Origin { topic: "", event: "", payload: Arc::new(Value::Null) };
        self.opened.shared.store.lock().record_violation(&origin, reason);
    }
}
