//! The process that operators start: claims runs from OpenFn Lightning and has them executed by engine hosts.
//!
//! Runs no user code.

pub mod adaptors;
mod aside;
mod backoff;
pub mod cli;
pub mod ctl;
mod deflate;
pub mod demo;
mod dial;
pub mod doctor;
pub mod engines;
mod escape;
pub mod execution;
mod folders;
mod forking;
pub mod hosts;
pub mod http;
pub mod keys;
pub mod lightning;
mod lineage;
pub mod logging;
pub mod metrics;
pub mod mock_lightning;
pub mod oada;
pub mod panics;
pub mod privacy;
mod processes;
pub mod redact;
pub mod reload;
pub mod room;
pub mod run_log;
pub mod start;
mod sys;
mod systemd;
pub mod telemetry;
pub mod top;
pub mod vitals;
mod watchers;
mod writer;
