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
    Undecodable(#[source] Arc<rmp_serde::decode::Error>),
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
    Unencodable(#[source] Arc<rmp_serde::encode::Error>),
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{HostReply, HostRequest, WorkerNotice, WorkerReply, WorkerRequest};

    const LIMIT: usize = 300_000;

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
    }

    fn take_all(decoder: &mut FrameDecoder, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(())
    }

    /// Gives `stream` to a decoder in pieces of these lengths, over and over, as the link does if `read` is set.
    fn in_pieces(stream: &[u8], lengths: &[usize], read: bool) -> (Vec<Bytes>, Result<(), FrameError>) {
        let mut decoder = FrameDecoder::new(LIMIT);
        let mut frames = Vec::new();
        let mut rest = stream;
        for length in lengths.iter().cycle() {
            let (piece, behind) = rest.split_at((*length).min(rest.len()));
            let mut piece = piece;
            while !piece.is_empty() {
                if read {
                    let room = decoder.room();
                    let fits = piece.len().min(room.capacity() - room.len());
                    assert!(fits > 0);
                    room.extend_from_slice(&piece[..fits]);
                    piece = &piece[fits..];
                } else {
                    decoder.push(piece);
                    piece = &[];
                }
                if let Err(fault) = take_all(&mut decoder, &mut frames) {
                    return (frames, Err(fault));
                }
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        (frames, decoder.finish())
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            sizes in vec(prop_oneof![8 => 1..200_usize, 1 => 60_000..LIMIT], 0..12),
            lengths in vec(prop_oneof![4 => 1..20_usize, 4 => 20..5000_usize, 1 => 5000..400_000_usize], 1..8),
            read: bool,
        ) {
            let payloads: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(number, size)| vec![number as u8; *size]).collect();
            let stream = payloads.iter().flat_map(|payload| frame(payload)).collect::<Vec<_>>();
            let (frames, end) = in_pieces(&stream, &lengths, read);
            prop_assert_eq!(frames, payloads);
            prop_assert!(end.is_ok());
        }

        #[test]
        fn a_stream_cut_anywhere_gives_the_whole_frames_and_is_truncated(
            sizes in vec(1..50_usize, 1..6),
            cut: prop::sample::Index,
        ) {
            let stream = sizes.iter().flat_map(|size| frame(&vec![7; *size])).collect::<Vec<_>>();
            let cut = cut.index(stream.len());
            let ends = sizes.iter().scan(0, |end, size| { *end += HEADER + size; Some(*end) }).collect::<Vec<_>>();
            let (frames, end) = in_pieces(&stream[..cut], &[3], true);
            prop_assert_eq!(frames.len(), ends.iter().filter(|end| **end <= cut).count());
            let between = cut == 0 || ends.contains(&cut);
            let truncated = matches!(end, Err(FrameError::Truncated { .. }));
            prop_assert_eq!((end.is_ok(), truncated), (between, !between));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_split_alike(stream in vec(prop_oneof![2 => Just(0), 1 => any::<u8>()], 0..400)) {
            let (frames, end) = in_pieces(&stream, &[stream.len().max(1)], false);
            let (again, end_again) = in_pieces(&stream, &[1], true);
            prop_assert_eq!(frames, again);
            prop_assert_eq!(end.map_err(|fault| fault.to_string()), end_again.map_err(|fault| fault.to_string()));
        }

        #[test]
        fn arbitrary_payloads_never_panic(payload in vec(any::<u8>(), 1..300)) {
            decode_as_all(payload);
        }

        #[test]
        fn spoilt_messages_never_panic(at: prop::sample::Index, with: u8, cut: prop::sample::Index) {
            let message = HostRequest::Run(Box::new(crate::run::RunSpec {
                run_id: "r".into(),
                steps: Vec::new(),
                start: Some("a".into()),
                input: crate::Json::empty_object(),
                globals: None,
                meta: crate::Json::empty_object(),
                configuration: None,
                engine: crate::engine::EngineSpec::Embedded,
                options: crate::run::RunOptions::default(),
            }));
            let mut payload = encode(&message, LIMIT).unwrap().slice(HEADER..).to_vec();
            let length = payload.len();
            payload[at.index(length)] = with;
            decode_as_all(payload.clone());
            payload.truncate(cut.index(length));
            decode_as_all(payload);
        }
    }

    fn decode_as_all(payload: Vec<u8>) {
        let payload = Bytes::from(payload);
        let _ = decode::<HostRequest>(&payload);
        let _ = decode::<HostReply>(&payload);
        let _ = decode::<WorkerRequest>(&payload);
        let _ = decode::<WorkerReply>(&payload);
        let _ = decode::<WorkerNotice>(&payload);
    }

    #[test]
    fn each_fault_is_told_and_stays() {
        let cases: [(&str, &[u8], &str); 4] = [
            ("zero", &[0, 0, 0, 0], "ZeroLength"),
            ("one too long", &[0, 4, 0x93, 0xe1], "Oversize { length: 300001, limit: 300000 }"),
            ("after a good frame", &[0, 0, 0, 1, 9, 0, 0, 0, 0], "ZeroLength"),
            ("longest", &[0xff; 4], "Oversize { length: 4294967295, limit: 300000 }"),
        ];
        for (name, bytes, expected) in cases {
            let mut decoder = FrameDecoder::new(LIMIT);
            decoder.push(bytes);
            let first = take_all(&mut decoder, &mut Vec::new()).unwrap_err();
            assert_eq!(format!("{first:?}"), expected, "{name}");
            decoder.push(&frame(b"good"));
            for later in [decoder.next_frame().map(|_| ()), decoder.finish()] {
                assert_eq!(format!("{:?}", later.unwrap_err()), expected, "{name}");
            }
        }
    }

    #[test]
    fn the_end_within_a_frame_is_told_with_what_is_missing() {
        let cases: [(&[u8], Option<usize>); 5] = [
            (&[], None),
            (&[0, 0, 0], Some(1)),
            (&[0, 0, 0, 8], Some(8)),
            (&[0, 0, 0, 8, 1, 2, 3], Some(5)),
            (&[0, 0, 0, 1, 1], None),
        ];
        for (bytes, expected) in cases {
            let (_, end) = in_pieces(bytes, &[2], true);
            let missing = end.err().map(|fault| match fault {
                FrameError::Truncated { missing } => missing,
                other => panic!("{other}"),
            });
            assert_eq!(missing, expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_header_alone_reserves_nothing() {
        let mut decoder = FrameDecoder::new(DEFAULT_MAX_FRAME);
        decoder.push(&(DEFAULT_MAX_FRAME as u32).to_be_bytes());
        assert!(decoder.next_frame().unwrap().is_none());
        assert!(decoder.room().capacity() <= 2 * READ);
        decoder.push(&vec![0; 10 * READ]);
        assert!(decoder.room().capacity() <= 32 * READ);
    }

    #[test]
    fn a_long_frame_leaves_no_large_buffer_behind() {
        let (long, short) = (frame(&vec![1; LIMIT]), frame(&[2; 10]));
        let mut decoder = FrameDecoder::new(LIMIT);
        decoder.push(&[&long[..], &short[..]].concat());
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), LIMIT);
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), 10);
        assert!(decoder.room().capacity() <= 2 * READ);
    }

    #[test]
    fn a_payload_is_one_message_and_nothing_more() {
        let good = encode(&7_u64, LIMIT).unwrap().slice(HEADER..);
        assert_eq!(decode::<u64>(&good).unwrap(), 7);
        // The last ones look as if the end was reached within what is too much.
        for behind in [&[7][..], &[0xc0], &[0x91], &[0xcc]] {
            let error = decode::<u64>(&Bytes::from([&good[..], behind].concat())).unwrap_err();
            assert!(matches!(error, FrameError::Undecodable(_)) && error.to_string().contains("after the message"));
        }
        let nested = |depth: usize| Bytes::from([vec![0x91; depth], vec![7]].concat());
        assert!(decode::<serde_json::Value>(&nested(MAX_DEPTH / 2)).is_ok());
        assert!(decode::<serde_json::Value>(&nested(MAX_DEPTH + 1)).is_err());
        let deep = nested(10_000);
        assert!(matches!(decode::<serde_json::Value>(&deep), Err(FrameError::Undecodable(_))));
        // An announced length reserves nothing either.
        let huge = Bytes::from_static(b"\xdd\xff\xff\xff\xff");
        assert!(matches!(decode::<Vec<u64>>(&huge), Err(FrameError::Undecodable(_))));
    }

    #[test]
    fn a_frame_of_the_greatest_length_is_taken() {
        for (length, is_taken) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let mut decoder = FrameDecoder::new(LIMIT);
            decoder.push(&frame(&vec![1; length]));
            assert_eq!(decoder.next_frame().is_ok_and(|frame| frame.is_some()), is_taken, "{length}");
        }
        let encoded = encode(&"abc", LIMIT).unwrap();
        assert_eq!(encoded[..], [0, 0, 0, 4, 0xa3, b'a', b'b', b'c']);
        #[derive(serde::Serialize)]
        struct Named {
            key: u8,
        }
        assert_eq!(encode_named(&Named { key: 1 }, LIMIT).unwrap()[HEADER..], *b"\x81\xa3key\x01");
        assert_eq!(encode(&Named { key: 1 }, LIMIT).unwrap()[HEADER..], *b"\x91\x01");
    }

    #[test]
    fn a_message_over_the_limit_is_not_encoded() {
        let text = "x".repeat(100);
        assert_eq!(encode(&text, 102).unwrap().len(), HEADER + 102);
        let error = encode(&text, 101).unwrap_err();
        assert!(matches!(error, EncodeError::Oversize { length: 102, limit: 101 }), "{error}");
    }
}
