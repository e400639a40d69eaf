//! What a worker and its engine hosts say to each other, and the local link that they say it over.
//!
//! Owns the messages, their framing, deadlines and the local socket. Knows nothing of Lightning, OADA, Node or
//! processes.

pub mod backoff;
pub mod clock;
pub mod confinement;
pub mod engine;
pub mod frame;
pub mod handler;
pub mod handshake;
pub mod install;
mod json;
pub mod link;
pub mod message;
pub mod queue;
pub mod run;
pub mod signal;
pub mod socket;
pub mod specifier;

pub use json::{InvalidJson, Json};
