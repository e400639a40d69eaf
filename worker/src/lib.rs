//! The process that operators start: claims runs from OpenFn Lightning and has them executed by engine hosts.
//!
//! Runs no user code.

pub mod adaptors;
pub mod cli;
pub mod ctl;
pub mod demo;
pub mod doctor;
mod embedded;
pub mod engines;
mod forking;
pub mod health;
pub mod http;
pub mod keys;
mod lineage;
pub mod logging;
pub mod oada_command;
pub mod panics;
pub mod privacy;
pub mod reload;
pub mod start;
mod sys;
mod systemd;
pub mod telemetry;
pub mod top;
mod watchers;

pub use self::sys::give_memory_back;
