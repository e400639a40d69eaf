//! The two tasks of a link: one reads and hands out, one writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::inbox::Content;
use super::shared::Shared;
use super::{LinkEnd, Side, WeakLink};
use crate::frame::{self, FrameDecoder};
use crate::message::{Refusal, RefusalCode};
use crate::queue;

/// A request's number, given out by the side that asks, from 0.
pub(super) type RequestId = u64;

/// What a frame holds that `S` sent.
#[derive(Serialize, Deserialize)]
#[serde(bound = "S: Side")]
pub(super) enum Envelope<S: Side> {
    Request(RequestId, S::Request),
    Reply(RequestId, S::Reply),
    Refused(RequestId, Refusal),
    Notice(S::Notice),
}

/// What the writing task is asked to do.
pub(super) enum Outgoing {
    /// Write a frame, and give back its room when it is written.
    Frame(Bytes, Option<OwnedSemaphorePermit>),
    /// End the link.
    Close,
}

/// Reads until the link ends, on either side.
pub(super) async fn read<S: Side>(
    link: WeakLink<S>,
    stream: impl AsyncRead + Unpin,
    arrived: queue::Sender<Content<S>>,
) {
    tokio::select! {
        biased;
        _ = link.shared.ended() => {}
        end = read_frames(&link, stream, &arrived) => link.shared.finish(end.err().unwrap_or(LinkEnd::PeerClosed)),
    }
}

/// Reads to the end of the stream.
async fn read_frames<S: Side>(
    link: &WeakLink<S>,
    mut stream: impl AsyncRead + Unpin,
    arrived: &queue::Sender<Content<S>>,
) -> Result<(), LinkEnd> {
    let mut decoder = FrameDecoder::new(link.shared.options.max_frame);
    loop {
        while let Some(payload) = decoder.next_frame()? {
            link.shared.count_heard();
            let length = payload.len();
            let content = match decode::<S>(payload).await? {
                Envelope::Reply(id, reply) => {
                    link.shared.resolve(id, Ok(reply));
                    continue;
                }
                Envelope::Refused(id, refusal) => {
                    link.shared.resolve(id, Err(refusal));
                    continue;
                }
                Envelope::Request(id, request) => Content::Request(id, request),
                Envelope::Notice(notice) => Content::Notice(notice),
            };
            if let Err(queue::Closed(unserved)) = arrived.send(content, length).await {
                turn_away(link, unserved);
            }
        }
        let read = match stream.read_buf(decoder.room()).await {
            // So ends a peer that dies with something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        if read == 0 {
            return Ok(decoder.finish()?);
        }
        link.shared.count_heard();
    }
}

/// Long payloads are decoded apart, because their JSON is checked and that would hold up everything else.
async fn decode<S: Side>(payload: Bytes) -> Result<Envelope<S::Peer>, LinkEnd> {
    const LONG: usize = 1024 * 1024;
    if payload.len() < LONG {
        return Ok(frame::decode(&payload)?);
    }
    match tokio::task::spawn_blocking(move || frame::decode(&payload)).await {
        Ok(decoded) => Ok(decoded?),
        // The runtime shuts down.
        Err(_) => Err(LinkEnd::ClosedHere),
    }
}

/// The inbox is gone.
fn turn_away<S: Side>(link: &WeakLink<S>, content: Content<S>) {
    link.shared.count_unserved();
    if let (Content::Request(id, _), Some(link)) = (content, link.upgrade()) {
        link.respond(id, Err(Refusal::new(RefusalCode::WrongState, "Requests are no longer served.")));
    }
}

/// Writes until the link ends, on either side.
pub(super) async fn write<S: Side>(
    shared: Arc<Shared<S>>,
    mut stream: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) {
    tokio::select! {
        biased;
        _ = shared.ended() => {}
        written = write_frames(&mut queue, &mut stream) => {
            let end = match written {
                Ok(()) => LinkEnd::ClosedHere,
                Err(error) => {
                    // What the other side sent before it went is still to be read, and tells more.
                    let _ = tokio::time::timeout(LAST_WORDS, shared.ended()).await;
                    LinkEnd::Io(Arc::new(error))
                }
            };
            shared.finish(end);
        }
    }
}

/// How long reading may go on when writing has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes what is queued until it is told to close, or nobody is left who could queue anything. What is queued at
/// the same time is written at once; nothing is waited for.
async fn write_frames(
    queue: &mut mpsc::UnboundedReceiver<Outgoing>,
    stream: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    const AT_ONCE: usize = 64 * 1024;
    let mut entries = Vec::new();
    let mut batch = BytesMut::new();
    let mut open = true;
    while open && queue.recv_many(&mut entries, 256).await > 0 {
        for entry in entries.drain(..) {
            let Outgoing::Frame(frame, _room) = entry else {
                open = false;
                break;
            };
            if batch.len() + frame.len() > AT_ONCE {
                stream.write_all(&batch).await?;
                batch.clear();
            }
            if frame.len() > AT_ONCE {
                stream.write_all(&frame).await?;
            } else {
                batch.extend_from_slice(&frame);
            }
        }
        stream.write_all(&batch).await?;
        stream.flush().await?;
        batch.clear();
    }
    stream.shutdown().await
}
