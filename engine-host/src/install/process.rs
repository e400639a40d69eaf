//! Programs that an installation runs: without input, with nothing in their environment that they were not given, and
//! gone, with what they have started, when nobody waits for them or this process has died.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::Pid;
use tokio::process::Command;

use crate::sys::{self, Signals};

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

/// Runs it to its end. It is killed when the future is dropped. It dies with the thread that this is called on, so that
/// has to live as long as the host.
pub(super) async fn output(mut command: Command) -> io::Result<Output> {
    sys::prepare_process(command.as_std_mut(), Vec::new(), Signals::All)?;
    let child = command.spawn()?;
    let unfinished = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).map(Unfinished);
    let output = child.wait_with_output().await?;
    // It is reaped: its number may be another's.
    std::mem::forget(unfinished);
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A program that was not waited for yet. Killed with its group when this is dropped.
struct Unfinished(Pid);

impl Drop for Unfinished {
    fn drop(&mut self) {
        sys::kill_group(self.0);
    }
}
