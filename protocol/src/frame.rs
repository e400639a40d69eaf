//! Frames: the pieces that a byte stream between worker and host is cut into.
//!
//! A frame is its payload's length (four bytes, big endian) and the payload, which is one message in MessagePack.
//! This module turns bytes into frames and messages into bytes; it does no I/O. Nothing is searched for and nothing
//! is skipped: after the first fault a stream has no next frame.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::json;

/// Length of the length that begins a frame, in bytes.
pub const HEADER: usize = 4;

/// Longest payload that is sent or taken where nothing else is set: 256 MiB.
pub const DEFAULT_MAX_FRAME: usize = 256 * 1024 * 1024;

/// What is read from a stream at once. A frame that is longer gets an allocation of its own.
const READ: usize = 64 * 1024;

/// How deep a message may be nested. Ours use less than half of it.
const MAX_DEPTH: usize = 32;

/// Why a stream has no next frame. Each of these ends the link.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FrameError {
    /// A header says that no payload follows.
    #[error("a frame of length zero, where every frame carries a message")]
    ZeroLength,
    /// A header says that a longer payload follows than is allowed.
    #[error("a frame of {length} bytes, where at most {limit} are allowed")]
    Oversize {
        /// Length in bytes, as the header says.
        length: usize,
        /// Greatest length allowed, in bytes.
        limit: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended within a frame, at least {missing} bytes before its end")]
    Truncated {
        /// How many bytes of the payload are missing, or of the header if that is not complete.
        missing: usize,
    },
    /// A payload is not one message of the kind that this direction has.
    #[error("a frame that does not hold a message: {0}")]
    Undecodable(Arc<rmp_serde::decode::Error>),
}

/// Why a message was not put into a frame. The link goes on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EncodeError {
    /// It would be longer than allowed.
    #[error("a message of {length} bytes, where at most {limit} are allowed")]
    Oversize {
        /// Length in bytes.
        length: usize,
        /// Greatest length allowed, in bytes.
        limit: usize,
    },
    /// MessagePack has no form for it.
    #[error("a message that cannot be encoded: {0}")]
    Unencodable(Arc<rmp_serde::encode::Error>),
}

/// Cuts a stream of bytes into frames, however the bytes come.
///
/// A header alone reserves nothing, whatever it says: room is made for bytes as they arrive, at most doubling.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
    fault: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder for payloads of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, fault: None }
    }

    /// Takes the bytes that come next in the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.fault.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The payload of the next frame; none until all of it has arrived. Once this failed it fails for ever.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        match self.announced() {
            Ok(Some(length)) if self.buffer.len() >= HEADER + length => Ok(Some(self.take(length))),
            Ok(_) => Ok(None),
            Err(fault) => {
                self.buffer = BytesMut::new();
                Err(self.fault.insert(fault).clone())
            }
        }
    }

    /// To be asked at the end of the stream, when all frames are taken: whether it ended between two of them.
    pub fn finish(&self) -> Result<(), FrameError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        match self.missing()? {
            missing if missing > 0 && !self.buffer.is_empty() => Err(FrameError::Truncated { missing }),
            _ => Ok(()),
        }
    }

    /// Room for the bytes that come next in the stream, so that they need not be copied by [`push`](Self::push).
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let missing = self.missing().unwrap_or(HEADER);
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < missing.min(READ / 16) {
            self.buffer.reserve(missing.clamp(READ, self.buffer.len().max(READ)));
        }
        &mut self.buffer
    }

    /// Length of the payload that the buffer begins with, once its header is there.
    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        // Addresses have 32 bits or more wherever there is an operating system with sockets.
        let length = u32::from_be_bytes(*header) as usize;
        match length {
            0 => Err(FrameError::ZeroLength),
            _ if length > self.limit => Err(FrameError::Oversize { length, limit: self.limit }),
            _ => Ok(Some(length)),
        }
    }

    /// How many bytes are known to be missing from the frame that the buffer begins with.
    pub(crate) fn missing(&self) -> Result<usize, FrameError> {
        let whole = self.announced()?.map_or(HEADER, |length| HEADER + length);
        Ok(whole.saturating_sub(self.buffer.len()))
    }

    fn take(&mut self, length: usize) -> Bytes {
        let frame = self.buffer.split_to(HEADER + length).freeze();
        if length >= READ && self.buffer.len() < READ {
            // Leave the allocation to the frame, else the decoder would keep it for as long as the link lives.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        frame.slice(HEADER..)
    }
}

/// Puts a message into a frame of its own: header and payload, ready to be written.
pub fn encode(message: &impl Serialize, limit: usize) -> Result<Bytes, EncodeError> {
    finish_frame(limit, |payload| rmp_serde::encode::write(payload, message))
}

/// As [`encode`], with the names of all fields, for messages that other versions must understand.
pub(crate) fn encode_named(message: &impl Serialize, limit: usize) -> Result<Bytes, EncodeError> {
    finish_frame(limit, |payload| rmp_serde::encode::write_named(payload, message))
}

fn finish_frame(
    limit: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), rmp_serde::encode::Error>,
) -> Result<Bytes, EncodeError> {
    let mut frame = vec![0; HEADER];
    write(&mut frame).map_err(|error| EncodeError::Unencodable(Arc::new(error)))?;
    let length = frame.len() - HEADER;
    let limit = limit.min(u32::MAX as usize);
    if length > limit {
        return Err(EncodeError::Oversize { length, limit });
    }
    (&mut frame[..HEADER]).put_u32(length as u32);
    Ok(frame.into())
}

/// Reads a frame's payload as one message. A large [`Json`](crate::Json) in it shares the payload's bytes.
pub fn decode<T: DeserializeOwned>(payload: &Bytes) -> Result<T, FrameError> {
    let read = || {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(payload.as_ref());
        deserializer.set_max_depth(MAX_DEPTH);
        let message = T::deserialize(&mut deserializer)?;
        // The deserializer does not tell its position. Only at the end is there no first byte of another value.
        match u8::deserialize(&mut deserializer) {
            Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
            _ => Err(rmp_serde::decode::Error::Syntax("there are bytes after the message".into())),
        }
    };
    json::sharing(payload, read).map_err(|error| FrameError::Undecodable(Arc::new(error)))
}
