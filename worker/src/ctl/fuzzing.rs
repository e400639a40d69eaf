//! What the fuzz target drives: a request as it comes over the admin socket.

use futures_util::FutureExt;
use lightning::timeline::history;

use super::message::Request;
use super::server::{LONGEST_REQUEST, read};

/// Reads a request. What it means must not depend on how it is written, and looking for what it names must not fail.
pub fn read_request(bytes: &[u8]) {
    let read_now = |bytes| read(bytes).now_or_never().expect("bytes are there at once");
    let Ok((request, _)) = read_now(bytes) else { return };
    let length = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    assert!(length as u64 <= LONGEST_REQUEST, "a request of {length} bytes was read");
    let again = serde_json::to_vec(&request).expect("a request can be written");
    assert_eq!(read_now(&again).expect("it can be read again").0, request);
    let _ = request.changes_something();
    match &request {
        Request::Run { run } | Request::Cancel { run } => drop(history().find(run)),
        Request::History { most, .. } => assert_eq!(history().last(*most).count(), 0),
        _ => {}
    }
}
