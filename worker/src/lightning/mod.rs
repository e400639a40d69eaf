//! The connection to OpenFn Lightning.

mod backoff;
pub mod phoenix;
mod token;
mod workloop;

pub use token::{InvalidPublicKey, RunTokenKey};
pub use workloop::{InvalidWorkloops, Workloop, Workloops, parse_workloops};
