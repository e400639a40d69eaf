//! The process that operators start: claims runs from OpenFn Lightning and has them executed by engine hosts.
//!
//! Runs no user code.

pub mod execution;
pub mod lightning;
pub mod mock_lightning;
pub mod redact;
