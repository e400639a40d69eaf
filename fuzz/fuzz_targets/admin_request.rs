//! Whatever is sent to the admin socket, it is a request or refused with a reason, and each request means one thing.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| worker::ctl::read_request(bytes));
