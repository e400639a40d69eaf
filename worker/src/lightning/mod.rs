//! The connection to OpenFn Lightning.

mod backoff;
mod claims;
pub mod phoenix;
mod plan;
mod token;
mod workloop;

pub use plan::Collections;
pub use token::{InvalidPublicKey, RunTokenKey};
pub use workloop::{InvalidWorkloops, Workloop, Workloops, parse_workloops};
