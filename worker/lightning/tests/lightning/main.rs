//! The worker's side of Lightning, against the double of Lightning, with hosts that are played by the tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cancel;
mod compression;
mod delivery;
mod failures;
mod fake;
mod journal;
mod known_failures;
mod long_messages;
mod network;
mod overdue;
mod queue;
mod random_scripts;
mod reconnect;
mod runs;
mod shutdown;
mod silence;
mod workload;
mod wrong_key;
