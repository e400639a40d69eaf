//! Serves HTTP/1 to many who connect, without letting any of them use up what others need.
//!
//! There is a ceiling on connections: beyond it the one that has asked nothing for longest makes room for the new one, so
//! that who floods the port waits in his own line and a probe is answered. Who does not send a head, does not send the next
//! request or does not read is cut.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep};
use tracing::debug;

/// Most connections at once.
pub(crate) const MOST: usize = 64;
/// How long the head of a request may take, the first or the next on a connection.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take to read anything.
const WRITE: Duration = Duration::from_secs(30);

/// Serves for ever, at most `most` connections at once. Upgraded connections do not count.
pub(crate) async fn serve<L: Listener>(mut listener: L, router: Router, most: usize)
where
    L::Addr: Clone + Send + Sync + 'static,
{
    let mut connections = Connections::default();
    loop {
        // When descriptors run out, `accept` itself pauses and tries again.
        let (stream, peer) = listener.accept().await;
        connections.make_room(most);
        let asked = Arc::new(AtomicBool::new(false));
        let service = TowerToHyperService::new(router.clone());
        let has_asked = Arc::clone(&asked);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            hyper::service::Service::call(&service, request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(Impatient::new(stream)), service)
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
    open: VecDeque<(Arc<AtomicBool>, AbortHandle)>,
}

impl Connections {
    fn add(&mut self, asked: Arc<AtomicBool>, connection: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(connection);
        self.open.push_back((asked, handle));
    }

    /// Ends one if there are as many as there may be: the oldest that has asked nothing yet, else the oldest.
    fn make_room(&mut self, most: usize) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(_, handle)| !handle.is_finished());
        if self.open.len() >= most {
            let idle = self.open.iter().position(|(asked, _)| !asked.load(Ordering::Relaxed));
            if let Some((_, handle)) = self.open.remove(idle.unwrap_or(0)) {
                handle.abort();
            }
        }
    }
}

/// A stream that fails when its peer reads nothing for a while.
struct Impatient<S> {
    stream: S,
    /// Since when it takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S) -> Self {
        Self { stream, stuck: None }
    }

    fn patient<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stuck = None;
            return poll;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(WRITE)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patient(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.patient(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.patient(context, poll)
    }
}
