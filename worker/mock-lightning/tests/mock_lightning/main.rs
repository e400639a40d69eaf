//! The double of Lightning, judged from outside: over its websocket and its HTTP API.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod client;

mod connecting;
mod faults;
mod http_api;
mod run_life;
mod validation;
