//! Serves HTTP/1 to many who connect, without letting any of them use up what others need.
//!
//! There is a ceiling on connections: beyond it the one that has asked nothing for longest makes room for the new one, so
//! that who floods the port waits in his own line and a probe is answered. Who does not send a head, does not send the next
//! request or does not read is cut.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_io_timeout::TimeoutStream;
use tracing::debug;

/// Most connections at once.
pub const MOST: usize = 256;
/// Connections that wait to be taken. A flood is to wait here, and not to keep others from knocking.
pub const BACKLOG: u32 = 4096;
/// How long each connection has at least to ask something, however many others come.
const CHANCE: Duration = Duration::from_millis(20);
/// How long the head of a request may take, the first or the next on a connection.
const HEAD: Duration = Duration::from_secs(10);
/// How long the body of a request may take, all of it.
const BODY: Duration = Duration::from_secs(30);
/// How long a client may take to read anything.
const WRITE: Duration = Duration::from_secs(30);

/// Serves for ever, at most `most` connections at once. Upgraded connections do not count.
pub async fn serve<L: Listener>(mut listener: L, router: Router, most: usize)
where
    L::Addr: Clone + Send + Sync + 'static,
{
    let mut connections = Connections::default();
    loop {
        // When descriptors run out, `accept` itself pauses and tries again.
        let (stream, peer) = listener.accept().await;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE));
        connections.make_room(most).await;
        let asked = Arc::new(AtomicBool::new(false));
        let service = TowerToHyperService::new(router.clone());
        let has_asked = Arc::clone(&asked);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let mut request = request.map(|body| Body::new(Prompt::new(body)));
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            hyper::service::Service::call(&service, request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
            .with_upgrades();
        connections.add(asked, async move {
            if let Err(error) = connection.await {
                debug!("an HTTP connection ended: {error}");
            }
        });
    }
}

/// Connections, the oldest first. They end when this is dropped.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<Connection>,
}

struct Connection {
    since: Instant,
    /// Whether it has asked something.
    asked: Arc<AtomicBool>,
    handle: AbortHandle,
}

impl Connections {
    fn add(&mut self, asked: Arc<AtomicBool>, connection: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(connection);
        self.open.push_back(Connection { since: Instant::now(), asked, handle });
    }

    /// Ends one if there are as many as there may be: the oldest that has asked nothing yet, else the oldest. Returns when
    /// there are fewer.
    async fn make_room(&mut self, most: usize) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.open.retain(|connection| !connection.handle.is_finished());
            if self.tasks.len() < most {
                return;
            }
            let idle = self.open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed));
            let Some(next) = self.open.get(idle.unwrap_or(0)) else { return };
            let has_chance_until = next.since + CHANCE;
            if Instant::now() < has_chance_until {
                tokio::select! {
                    _ = self.tasks.join_next() => {}
                    () = sleep_until(has_chance_until) => {}
                }
            } else {
                next.handle.abort();
                // It is still open until its task has ended.
                self.tasks.join_next().await;
            }
        }
    }
}

/// A body that fails when it takes too long.
struct Prompt {
    body: Incoming,
    /// From when it is asked for.
    end: Option<Pin<Box<Sleep>>>,
}

impl Prompt {
    fn new(body: Incoming) -> Self {
        Self { body, end: None }
    }
}

impl hyper::body::Body for Prompt {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(BODY)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Some(Err("the request's body takes too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn served(most: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(listener, router, most));
        address
    }

    async fn asked(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is cut may be reset.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_cut() {
        let address = served(4).await;
        let cases = [
            ("", ""),
            ("POST / HTTP/1.1\r\nhost: x\r\n", ""),
            ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx", "HTTP/1.1 400"),
            ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", "HTTP/1.1 400"),
            // The next request does not come.
            ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx", "HTTP/1.1 200"),
        ];
        for (text, expected) in cases {
            let answer = asked(&mut TcpStream::connect(address).await.unwrap(), text).await;
            assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{text:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn one_more_takes_the_place_of_the_oldest_that_asks_nothing_and_each_has_its_chance() {
        const MOST: usize = 4;
        let address = served(MOST).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n").await.unwrap();
        let mut idle = Vec::new();
        for _ in 0..10 * MOST {
            idle.push(TcpStream::connect(address).await.unwrap());
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nxy";
            let answer = asked(&mut stream, request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        }
        let mut cut = 0;
        for mut stream in idle {
            let end = tokio::time::timeout(Duration::from_millis(1), stream.read_u8()).await;
            cut += usize::from(end.is_ok());
        }
        assert!(cut >= 9 * MOST, "{cut} were cut");
        assert!(asked(&mut busy, "z").await.starts_with("HTTP/1.1 200"), "it had asked");
    }
}
