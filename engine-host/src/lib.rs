//! One engine instance: takes one run at a time, compiles its jobs, walks the workflow, runs the steps in a
//! JavaScript engine, and reports.
//!
//! Knows nothing of Lightning, OADA or tokens.

pub mod adoption;
pub mod compile;
pub mod confine;
pub mod engine;
pub mod engines;
pub mod errors;
pub mod handler;
pub mod host;
pub mod install;
pub mod limits;
pub mod links;
pub mod log;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod walk;
mod webhook;
pub mod workflow;
