//! Whatever is read below a websocket: the frames are the same however the bytes come, no message gets longer than what is
//! taken, and what was compressed comes out as it was.

#![no_main]

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use base::deflate::{Deflater, Inflater, InflatingStream};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that a message may have inflated, and on the wire.
const LIMIT: usize = 16 * 1024;
const WIRE_LIMIT: usize = 8 * 1024;

fuzz_target!(|input: (u8, bool, bool, &[u8])| {
    let (piece, keeps_context, is_message, bytes) = input;
    let piece = usize::from(piece).max(1);
    let inflater = Inflater::new(keeps_context, LIMIT).bounded_on_the_wire(WIRE_LIMIT);
    if is_message {
        let (read, error) = read(inflater, &compressed(bytes, piece), piece);
        match error {
            None => assert_eq!(messages(&read), [bytes]),
            Some(error) => assert!(bytes.len() > WIRE_LIMIT / 2, "{error}"),
        }
        return;
    }
    let (whole, error) = read(inflater, bytes, bytes.len().max(1));
    let inflater = Inflater::new(keeps_context, LIMIT).bounded_on_the_wire(WIRE_LIMIT);
    let (in_pieces, error_in_pieces) = read(inflater, bytes, piece);
    assert_eq!(error, error_in_pieces);
    // What came before an error is of no use to anybody.
    if error.is_none() {
        assert_eq!(messages(&whole), messages(&in_pieces));
    }
    for message in messages(&whole) {
        assert!(message.len() <= LIMIT + WIRE_LIMIT, "{}", message.len());
    }
});

/// A frame that holds the message compressed, which is added in pieces.
fn compressed(message: &[u8], piece: usize) -> Vec<u8> {
    let mut deflater = Deflater::default();
    let mut payload = Vec::new();
    deflater.begin();
    for piece in message.chunks(piece) {
        deflater.add(piece, false, &mut payload);
    }
    deflater.add(&[], true, &mut payload);
    let length = u16::try_from(payload.len()).expect("inputs are short");
    [&[0xc1, 126][..], &length.to_be_bytes(), &payload].concat()
}

/// What is read, and how it ends.
fn read(inflater: Inflater, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<String>) {
    let mut stream = InflatingStream::new(Pieces { bytes, piece }, Some(inflater));
    let mut read = Vec::new();
    let mut buffer = vec![0; piece * 7];
    loop {
        let mut to = ReadBuf::new(&mut buffer);
        match Pin::new(&mut stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut to) {
            Poll::Ready(Ok(())) if to.filled().is_empty() => return (read, None),
            Poll::Ready(Ok(())) => read.extend_from_slice(to.filled()),
            Poll::Ready(Err(error)) => return (read, Some(error.to_string())),
            Poll::Pending => unreachable!("nothing is waited for"),
        }
    }
}

/// The payloads of messages in the frames that were read, and of what is cut off at their end.
fn messages(mut frames: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    while let &[first, second, ref rest @ ..] = frames {
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => break,
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => break,
            },
            length => (length.into(), rest),
        };
        let rest = rest.get(if second & 0x80 == 0 { 0 } else { 4 }..).unwrap_or_default();
        let (payload, rest) =
            rest.split_at(usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len())));
        match first & 0x0f {
            0 if !messages.is_empty() => messages.last_mut().unwrap().extend_from_slice(payload),
            0..=2 => messages.push(payload.to_vec()),
            _ => {}
        }
        frames = rest;
    }
    messages
}

struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let count = self.piece.min(self.bytes.len()).min(to.remaining());
        let (now, rest) = self.bytes.split_at(count);
        to.put_slice(now);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}
