//! Programs that an installation runs: without input, with nothing in their environment that they were not given, and
//! gone when nobody waits for them.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

/// What a program left behind.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A program that works in `folder` and knows of its environment only this.
pub(super) fn command(
    program: &Path,
    folder: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .envs(environment)
        // npm would keep compiled code in the system's folder for temporary files, for ever.
        .env("NODE_DISABLE_COMPILE_CACHE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end. It is killed when the future is dropped.
pub(super) async fn output(mut command: Command) -> io::Result<Output> {
    let output = command.output().await?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
