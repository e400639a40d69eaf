//! `worker oada` as a child process.

use std::ops::Deref;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::{Oada, TOKEN};
use crate::binaries;
use crate::lightning::DEADLINE;
use crate::worker::Worker;

/// A service with handlers from a folder, started for a test. Killed when dropped.
pub struct OadaWorker {
    worker: Worker,
    folder: TempDir,
}

impl Deref for OadaWorker {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl OadaWorker {
    /// Starts the service `demo` with these handlers: type and source.
    pub async fn start(oada: &Oada, handlers: &[(&str, &str)], options: &[&str]) -> Self {
        Self::start_with(oada, handlers, options, &[]).await
    }

    /// Starts the service `demo` with these handlers and these variables in its environment.
    pub async fn start_with(
        oada: &Oada,
        handlers: &[(&str, &str)],
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::spawn(oada, handlers_in(handlers), options, environment).await
    }

    /// Starts the service `demo` with the handlers that are in this folder.
    pub async fn start_in(oada: &Oada, folder: TempDir, options: &[&str]) -> Self {
        Self::spawn(oada, folder, options, &[]).await
    }

    async fn spawn(oada: &Oada, folder: TempDir, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let command = command(oada, folder.path());
        Self::spawn_as(command, folder, options, environment).await
    }

    /// Starts the service `demo` with these handlers, after this command of the shell.
    pub async fn start_limited(oada: &Oada, handlers: &[(&str, &str)], limit: &str) -> Self {
        let folder = handlers_in(handlers);
        let service = command(oada, folder.path());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")])
            .arg(service.as_std().get_program())
            .args(service.as_std().get_args());
        Self::spawn_as(command, folder, &[], &[]).await
    }

    async fn spawn_as(mut command: Command, folder: TempDir, options: &[&str], environment: &[(&str, &str)]) -> Self {
        command
            .arg("--handlers")
            .arg(folder.path().join("handlers"))
            .args(["--port", "0", "--log", "debug"])
            // Ready in no time; tests of the other engine say so.
            .args(if options.contains(&"--handler-engine") { &[][..] } else { &["--handler-engine", "embedded"][..] })
            .args(options)
            .envs(environment.iter().copied());
        let worker = Worker::spawn(&mut command);
        worker.printed("processing jobs").await;
        Self { worker, folder }
    }

    /// Writes a handler.
    pub fn write(&self, kind: &str, source: &str) {
        write(self.folder.path(), kind, source);
    }

    /// Writes a file below the folder of handlers.
    pub fn write_file(&self, name: &str, text: &str) {
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, text).expect("the folder can be written");
        std::fs::rename(&draft, self.folder.path().join("handlers").join(name)).expect("the folder can be written");
    }

    /// Takes a handler away.
    pub fn remove(&self, kind: &str) {
        std::fs::remove_file(self.folder.path().join(format!("handlers/{kind}.js"))).expect("it is there");
    }

    /// Ends it with SIGKILL, and gives back its folder.
    pub async fn kill(self) -> TempDir {
        self.worker.kill().await;
        self.folder
    }

    /// Waits for its end; none if a signal ended it.
    pub async fn exit(self, deadline: Duration) -> Option<i32> {
        self.worker.exit(deadline).await
    }

    /// Asks it to stop; it must exit with 0.
    pub async fn stop(self) {
        self.worker.stop().await;
    }
}

/// Runs `worker oada` with these arguments to its end.
pub async fn run(oada: &Oada, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut command = command(oada, folder.path());
    command.args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    output.expect("it ends").expect("it can be started")
}

fn command(oada: &Oada, folder: &Path) -> Command {
    let token = folder.join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("the folder can be written");
    let mut command = Command::new(binaries::worker());
    command
        .args(["oada", "--service", "demo", "--domain", &oada.url(), "--token-file"])
        .arg(token)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

/// A folder with handlers, by their types.
fn handlers_in(handlers: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::create_dir(folder.path().join("handlers")).expect("a folder can be made");
    for (kind, source) in handlers {
        write(folder.path(), kind, source);
    }
    folder
}

fn write(folder: &Path, kind: &str, source: &str) {
    // In one step: half a handler is never seen.
    let draft = folder.join(format!("{kind}.draft"));
    std::fs::write(&draft, source).expect("the folder can be written");
    std::fs::rename(&draft, folder.join(format!("handlers/{kind}.js"))).expect("the folder can be written");
}
