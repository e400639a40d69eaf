//! Whatever frames a server sends, text or binary, the client neither panics nor waits for more than it asked.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frames: Vec<&[u8]>| lightning::feed_frames(frames));
