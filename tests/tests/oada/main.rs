//! OADA: the double, the client, the service and its faults, one behaviour a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod support;

mod client_conflicts;
mod client_links;
mod client_lost_answers;
mod client_rate_limits;
mod client_watches;
mod real_client;
