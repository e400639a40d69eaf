//! Whatever frames a server sends, text or binary, the client neither panics nor waits for more than it asked.

#![cfg_attr(fuzzing, no_main)]

// What it drives is there for cargo-fuzz only.
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|frames: Vec<&[u8]>| lightning::feed_frames(frames));

#[cfg(not(fuzzing))]
fn main() {}
