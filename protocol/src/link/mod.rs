//! The link between a worker and one of its hosts, once they know each other: requests with replies in both
//! directions, and notices.
//!
//! Owns the numbers of requests, their deadlines, the order of what is sent and the cause of the link's end. Knows
//! nothing of what the messages mean.
//!
//! A link is two tasks, one that reads and one that writes, behind a [`Link`] to send with and an [`Inbox`] to
//! receive from. What one side sends arrives in the order in which it was handed over, whatever its kind.
//!
//! Memory is bounded in both directions. Who calls or notifies waits when [`LinkOptions::outgoing_bytes`] are queued;
//! replies do not wait, there are only as many as the other side asks for. What was read and not yet taken from the
//! inbox may add up to [`LinkOptions::inbox_bytes`], and only then does reading stop and with it the replies, so an
//! inbox must be emptied by a task that waits for no call of its own.
//!
//! A [`Json`](crate::Json) is copied once when it is sent (into its frame, which is then written as it is), and not
//! at all when it arrives, if it is long: it shares the bytes that were read.

mod inbox;
mod shared;
mod side;
mod tasks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smart_default::SmartDefault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use self::inbox::{Inbox, Incoming, Responder};
use self::shared::Shared;
pub use self::side::{Call, HostSide, Side, WorkerSide};
use self::tasks::{Envelope, Outgoing, RequestId};
use crate::frame::{self, EncodeError, FrameError};
use crate::message::Refusal;
use crate::queue;

/// Limits of a link. Both sides should have the same.
#[derive(Debug, Clone, SmartDefault)]
pub struct LinkOptions {
    /// Longest frame that is sent or taken, in bytes.
    #[default(frame::DEFAULT_MAX_FRAME)]
    pub max_frame: usize,
    /// How long [`Link::call`] waits.
    #[default(Duration::from_secs(60))]
    pub default_deadline: Duration,
    /// How many bytes may wait for being written before calls and notices wait themselves. One message may be larger.
    #[default(4 * 1024 * 1024)]
    pub outgoing_bytes: usize,
    /// How many bytes may wait in the inbox before reading stops. One message may be larger.
    #[default(4 * 1024 * 1024)]
    pub inbox_bytes: usize,
}

/// Why a link ended. The first cause stays.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkEnd {
    /// The other side closed it or died, between two frames.
    #[error("the other side closed the link")]
    PeerClosed,
    /// [`Link::close`] was called, or nobody was left to send.
    #[error("the link was closed on this side")]
    ClosedHere,
    /// The other side sent what cannot be read, or died within a frame.
    #[error("the link broke: {0}")]
    Frame(#[source] FrameError),
    /// A notice, which nobody waits for, could not be sent.
    #[error("the link was given up: {0}")]
    Unsendable(#[source] EncodeError),
    /// The operating system failed to read or write.
    #[error("the link failed: {0}")]
    Io(#[source] Arc<io::Error>),
}

impl From<FrameError> for LinkEnd {
    fn from(fault: FrameError) -> Self {
        Self::Frame(fault)
    }
}

impl From<io::Error> for LinkEnd {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// None came in time. The other side may still do what was asked.
    #[error("no answer to {request} within {after:?}")]
    Timeout {
        /// Which request.
        request: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The other side did not do it.
    #[error("refused: {0}")]
    Refused(#[source] Refusal),
    /// The link ended before the answer came.
    #[error(transparent)]
    Ended(LinkEnd),
    /// The answer was one to another kind of request.
    #[error("the answer belongs to another kind of request")]
    WrongReply,
    /// The request could not be put into a frame; it was not sent.
    #[error(transparent)]
    Unsendable(EncodeError),
}

/// What happened on a link that nobody was told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Replies to requests whose caller had given up.
    pub late_replies: u64,
    /// Replies to requests that were never made.
    pub unknown_replies: u64,
    /// Requests (each was refused) and notices that came when the inbox was gone.
    pub unserved: u64,
}

/// One side's handle to send with. Clones share the link.
///
/// The link closes when its last handle is gone, and the last [`Responder`].
#[derive(derive_more::Debug)]
#[debug("Link {{ stats: {:?}, .. }}", self.stats())]
pub struct Link<S: Side> {
    shared: Arc<Shared<S>>,
    queue: mpsc::UnboundedSender<Outgoing>,
}

impl<S: Side> Link<S> {
    /// Starts a link on a stream whose handshake is over. Must be called within a tokio runtime, which from then on
    /// runs the link's two tasks.
    pub fn start(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        options: LinkOptions,
    ) -> (Self, Inbox<S>) {
        let (queue, outgoing) = mpsc::unbounded_channel();
        let (arrived, arrivals) = queue::channel(options.inbox_bytes);
        let link = Self { shared: Arc::new(Shared::new(options)), queue };
        let (reading, writing) = tokio::io::split(stream);
        tokio::spawn(tasks::read(link.downgrade(), reading, arrived));
        tokio::spawn(tasks::write(Arc::clone(&link.shared), writing, outgoing));
        let inbox = Inbox::new(link.downgrade(), arrivals);
        (link, inbox)
    }

    /// Asks, and waits for the answer for the link's default deadline.
    ///
    /// Dropping the future gives up the answer, not what was asked.
    pub async fn call<C: Call<S>>(&self, call: C) -> Result<C::Answer, CallError> {
        self.call_within(call, self.shared.options.default_deadline).await
    }

    /// As [`call`](Self::call), with a deadline of its own. [`Duration::MAX`] is none.
    pub async fn call_within<C: Call<S>>(&self, call: C, deadline: Duration) -> Result<C::Answer, CallError> {
        match tokio::time::timeout(deadline, self.exchange(call)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout { request: C::NAME, after: deadline }),
        }
    }

    async fn exchange<C: Call<S>>(&self, call: C) -> Result<C::Answer, CallError> {
        let mut pending = self.shared.register().map_err(CallError::Ended)?;
        let frame = self.encode(Envelope::Request(pending.id(), call.into())).map_err(CallError::Unsendable)?;
        self.send(frame).await.map_err(CallError::Ended)?;
        let reply = pending.answer().await.map_err(CallError::Ended)?;
        C::answer(reply.map_err(CallError::Refused)?).ok_or(CallError::WrongReply)
    }

    /// Tells the other side something, when there is room in the queue. An error says why the link ended; a notice
    /// that does not fit into a frame ends it too, because nobody else would learn that it is missing.
    pub async fn notify(&self, notice: S::Notice) -> Result<(), LinkEnd> {
        match self.encode(Envelope::Notice(notice)) {
            Ok(frame) => self.send(frame).await,
            Err(error) => {
                self.shared.finish(LinkEnd::Unsendable(error));
                Err(self.shared.cause())
            }
        }
    }

    /// Waits for the end of the link and tells its cause.
    pub async fn ended(&self) -> LinkEnd {
        self.shared.ended().await
    }

    /// What happened so far that nobody was told of.
    pub fn stats(&self) -> LinkStats {
        self.shared.stats()
    }

    /// A number that grows whenever something comes from the other side: pieces of a message, whole ones, and messages
    /// that had to wait for room in the inbox.
    pub fn heard(&self) -> u64 {
        self.shared.heard()
    }

    /// Writes what is queued, then closes the stream. Returns when the link has ended, which a peer that does not
    /// read can put off for as long as it lives.
    pub async fn close(&self) {
        // Fails only when the link has ended already.
        let _ = self.queue.send(Outgoing::Close);
        self.ended().await;
    }

    fn encode(&self, envelope: Envelope<S>) -> Result<Bytes, EncodeError> {
        frame::encode(&envelope, self.shared.options.max_frame)
    }

    async fn send(&self, frame: Bytes) -> Result<(), LinkEnd> {
        let room = self.shared.outgoing.take(frame.len()).await.ok_or_else(|| self.shared.cause())?;
        self.queue.send(Outgoing::Frame(frame, Some(room))).map_err(|_| self.shared.cause())
    }

    /// Answers the other side. This does not wait: there are no more answers than it asked for.
    fn respond(&self, id: RequestId, answer: Result<S::Reply, Refusal>) {
        let frame = match answer {
            Ok(reply) => self.encode(Envelope::Reply(id, reply)).or_else(|error| {
                let refusal = Refusal::failed(&error);
                self.encode(Envelope::Refused(id, refusal))
            }),
            Err(refusal) => self.encode(Envelope::Refused(id, refusal)),
        };
        match frame {
            // Fails only when the link has ended.
            Ok(frame) => drop(self.queue.send(Outgoing::Frame(frame, None))),
            Err(error) => self.shared.finish(LinkEnd::Unsendable(error)),
        }
    }

    fn downgrade(&self) -> WeakLink<S> {
        WeakLink { shared: Arc::clone(&self.shared), queue: self.queue.downgrade() }
    }
}

impl<S: Side> Clone for Link<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), queue: self.queue.clone() }
    }
}

/// A handle that does not keep the link open.
struct WeakLink<S: Side> {
    shared: Arc<Shared<S>>,
    queue: mpsc::WeakUnboundedSender<Outgoing>,
}

impl<S: Side> WeakLink<S> {
    fn upgrade(&self) -> Option<Link<S>> {
        Some(Link { shared: Arc::clone(&self.shared), queue: self.queue.upgrade()? })
    }
}

#[cfg(test)]
mod tests;
