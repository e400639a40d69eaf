//! `worker oada` as a child process.

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Oada, TOKEN};
use crate::binaries;
use crate::lightning::DEADLINE;
use crate::processes::{self, Process};
use crate::worker::{collect, send};

/// A service with handlers from a folder, started for a test. Killed when dropped.
pub struct OadaWorker {
    child: Child,
    output: Arc<Mutex<String>>,
    folder: TempDir,
}

impl OadaWorker {
    /// Starts the service `demo` with these handlers: type and source.
    pub async fn start(oada: &Oada, handlers: &[(&str, &str)], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir(folder.path().join("handlers")).expect("a folder can be made");
        for (kind, source) in handlers {
            write(folder.path(), kind, source);
        }
        Self::start_in(oada, folder, options).await
    }

    /// Starts the service `demo` with the handlers that are in this folder.
    pub async fn start_in(oada: &Oada, folder: TempDir, options: &[&str]) -> Self {
        let mut command = command(oada, folder.path());
        command
            .arg("--handlers")
            .arg(folder.path().join("handlers"))
            .args(["--log", "debug"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the worker was just built");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output));
        let worker = Self { child, output, folder };
        worker.printed("working off jobs").await;
        worker
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its hosts.
    pub fn hosts(&self) -> Vec<Process> {
        processes::descendants(self.pid())
    }

    /// Writes a handler.
    pub fn write(&self, kind: &str, source: &str) {
        write(self.folder.path(), kind, source);
    }

    /// Takes a handler away.
    pub fn remove(&self, kind: &str) {
        std::fs::remove_file(self.folder.path().join(format!("handlers/{kind}.js"))).expect("it is there");
    }

    /// Waits until it has printed this text.
    pub async fn printed(&self, text: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.output().contains(text) {
            assert!(Instant::now() < end, "it did not print {text:?}\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it with SIGKILL, and gives back its folder.
    pub async fn kill(mut self) -> TempDir {
        self.child.kill().await.expect("it lives");
        self.folder
    }

    /// Asks it to stop; it must exit with 0.
    pub async fn stop(mut self) {
        send(self.pid(), Signal::TERM);
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let code = status
            .unwrap_or_else(|_| panic!("it did not stop\n{}", self.output()))
            .expect("it can be waited for")
            .code();
        assert_eq!(code, Some(0), "{}", self.output());
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

fn write(folder: &Path, kind: &str, source: &str) {
    // In one step: half a handler is never seen.
    let draft = folder.join(format!("{kind}.draft"));
    std::fs::write(&draft, source).expect("the folder can be written");
    std::fs::rename(&draft, folder.join(format!("handlers/{kind}.js"))).expect("the folder can be written");
}
