//! One engine instance: takes one run at a time, compiles its jobs, walks the workflow, runs the steps in a
//! JavaScript engine, and reports.
//!
//! Knows nothing of Lightning, OADA or tokens.

pub mod compile;
pub mod engine;
