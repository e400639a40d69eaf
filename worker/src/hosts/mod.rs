//! Engine hosts: processes that are started ahead of need, lent for one run each, watched, and always buried.

mod death;
mod host;
mod output;
mod pool;
mod program;
mod sys;

pub use program::{HostProgram, ProgramError};
