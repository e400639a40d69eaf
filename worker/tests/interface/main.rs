//! What operators write: the command line, the environment, the configuration file, and the files of a deployment.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod command_line;
mod deploy;
mod options;
mod reference_command_line;
