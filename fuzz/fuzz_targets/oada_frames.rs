//! Whatever a store sends, the client neither panics nor remembers more than what it asked.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frames: Vec<&str>| oada::feed_frames(frames));
