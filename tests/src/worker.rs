//! The real worker as a child process.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mock_lightning::MockLightning;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::binaries;
use crate::lightning::DEADLINE;
use crate::processes::{self, Process};

/// Options that let adaptors start processes and load native code that nothing confines.
pub const UNCONFINED: [&str; 2] = ["--no-landlock", "--allow-unconfined-adaptors"];

/// Options for an engine with the adaptors of a workspace, and a repo in it.
pub fn local_adaptors(engine: &str, workspace: &Path) -> [String; 7] {
    let path = |path: &Path| path.display().to_string();
    let (repo, workspace) = (path(&workspace.join("repo")), path(workspace));
    let flag = str::to_owned;
    [flag("--engine"), flag(engine), flag("--repo-dir"), repo, flag("--monorepo-dir"), workspace, flag("--offline")]
}

/// A worker that was started for a test. Killed when dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Worker {
    /// Starts a worker on the double, with options beside the ones that every test needs.
    pub async fn start(lightning: &MockLightning, options: &[&str]) -> Self {
        Self::start_in(lightning, options, &std::env::temp_dir()).await
    }

    /// Starts a worker with these variables beside the ones that every test needs.
    pub async fn start_with(lightning: &MockLightning, options: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_at(&lightning.url(), options, environment).await
    }

    /// Starts a worker that keeps its socket in this folder.
    pub async fn start_in(lightning: &MockLightning, options: &[&str], runtime: &Path) -> Self {
        Self::start_at(&lightning.url(), options, &[("XDG_RUNTIME_DIR", runtime)]).await
    }

    /// Starts a worker with the adaptors of a workspace, which nothing confines.
    pub async fn start_unconfined(lightning: &MockLightning, workspace: &Path, runtime: &Path) -> Self {
        let local = local_adaptors("node", workspace);
        let options: Vec<&str> = local.iter().map(String::as_str).chain(UNCONFINED).collect();
        Self::start_in(lightning, &options, runtime).await
    }

    /// Starts a worker on an endpoint, with variables in its environment.
    pub async fn start_at<V: AsRef<OsStr>>(endpoint: &str, options: &[&str], variables: &[(&str, V)]) -> Self {
        let mut command = Command::new(binaries::worker());
        command
            .args(["--lightning", endpoint, "--port", "0", "--backoff", "0.05/0.2", "--log", "debug"])
            .args(options)
            .env("XDG_RUNTIME_DIR", std::env::temp_dir())
            .env("WORKER_SECRET", crate::lightning::SECRET)
            // What a test needs is not to depend on what is installed.
            .env("WORKER_ENGINE", "embedded")
            .envs(variables.iter().map(|(name, value)| (name, value)));
        Self::spawn(&mut command)
    }

    /// Starts the program as the command says, and collects what it prints.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the worker was just built");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output));
        Self { child, output }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the worker has not been waited for")
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its hosts.
    pub fn hosts(&self) -> Vec<Process> {
        processes::descendants(self.pid())
    }

    /// The host that executes a run, which bears its name while it does.
    pub fn host_of(&self, run_id: &str) -> Process {
        let name = format!("run {run_id}");
        let host = self.hosts().into_iter().find(|host| host.name.len() > 4 && name.starts_with(&host.name));
        host.unwrap_or_else(|| panic!("no host executes {run_id}\n{}", self.output()))
    }

    /// The engine of a host. Whoever is its parent, it works below its host's folder.
    pub fn engine_of(&self, host: u32) -> Option<Process> {
        let folder = processes::working_folder(host)?;
        let is_below = |pid| processes::working_folder(pid).is_some_and(|it| it.starts_with(&folder));
        self.hosts().into_iter().find(|process| process.pid != host && is_below(process.pid))
    }

    /// Waits until it has printed this text. That it did something, or printed something else, does not mean that the
    /// text has come through its pipe.
    pub async fn printed(&self, text: &str) {
        self.printed_times(text, 1).await;
    }

    /// Waits until it has printed this text so many times.
    pub async fn printed_times(&self, text: &str, times: usize) {
        let end = Instant::now() + DEADLINE;
        while self.output().matches(text).count() < times {
            assert!(Instant::now() < end, "it did not print {text:?} {times} times\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// One HTTP request to it: status and body.
    pub async fn http(&self, method: &str, path: &str) -> (u16, String) {
        self.http_with(method, path, "").await
    }

    /// The same with further headers, each with its end of line. One that says `host:` takes the place of the usual one.
    pub async fn http_with(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let port = self.port().await;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the worker listens");
        let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
        let request =
            format!("{method} {path} HTTP/1.1\r\n{host}content-length: 0\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("the worker reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the worker answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a head has a status");
        (status, body.to_owned())
    }

    /// The port that it listens on, which it prints.
    pub async fn port(&self) -> u16 {
        self.printed("port=").await;
        let output = self.output();
        let digits = output.split("port=").nth(1).unwrap_or_default();
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("it prints a number")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits until it exits, and gives back its exit code; none if a signal ended it.
    pub async fn exit(mut self, deadline: Duration) -> Option<i32> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for").code(),
            Err(_) => panic!("the worker did not exit in {deadline:?}\n{}", self.output()),
        }
    }

    /// Ends it with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it lives");
    }

    /// Asks it to stop; it must exit with 0.
    pub async fn stop(self) {
        self.signal(Signal::TERM);
        let output = Arc::clone(&self.output);
        let code = self.exit(DEADLINE).await;
        assert_eq!(code, Some(0), "{}", output.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Sends a signal to a process that lives.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is positive");
    kill_process(pid, signal).expect("the process lives");
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, output: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
    });
}
