//! Feeds arbitrary bytes to the decoder, whole and in pieces. Nothing may panic, both ways must give the same frames
//! and the same end, and no payload may make a message's decoder panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::frame::{self, FrameDecoder};
use protocol::message::{HostReply, HostRequest, WorkerNotice, WorkerReply, WorkerRequest};

const LIMIT: usize = 64 * 1024;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    let (frames, end) = decode(stream.chunks(usize::from(piece).max(1)));
    assert_eq!((frames.clone(), end), decode([stream].into_iter()));

    for payload in frames.into_iter().map(Into::into) {
        let _ = frame::decode::<HostRequest>(&payload);
        let _ = frame::decode::<HostReply>(&payload);
        let _ = frame::decode::<WorkerRequest>(&payload);
        let _ = frame::decode::<WorkerReply>(&payload);
        let _ = frame::decode::<WorkerNotice>(&payload);
    }
});

/// The payloads in a stream, and the fault that it ends with.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => frames.push(payload.to_vec()),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault.to_string())),
            }
        }
    }
    (frames, decoder.finish().err().map(|fault| fault.to_string()))
}
