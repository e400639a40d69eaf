//! The worker's admin socket: what `worker ctl` asks a worker that runs, and the answers.
//!
//! The socket lies in the worker's private folder, and where the operator says. Only its user can connect. Each line is
//! a JSON document: one request, then one answer, or one for each line of output that is followed.

mod admin;
mod client;
mod find;
#[cfg(fuzzing)]
mod fuzzing;
mod message;
mod render;
mod server;

pub use self::admin::Admin;
pub use self::client::{CtlError, ask};
pub use self::find::{FindError, find};
#[cfg(fuzzing)]
pub use self::fuzzing::read_request;
pub use self::message::{
    Answer, HostReport, PastRun, PastStep, PoolReport, Request, RunReport, StatusReport, WholeRun,
};
pub use self::render::render;
pub(crate) use self::render::{duration, megabytes, precise, table};
pub use self::server::{AdminSocket, AdminSocketError};

/// Name of the socket in the worker's private folder.
const SOCKET: &str = "admin";
