//! The worker's side of Lightning, against the double of Lightning, with hosts that are played by the tests.

mod delivery;
mod failures;
mod fake;
mod queue;
mod reconnect;
mod runs;
mod shutdown;
