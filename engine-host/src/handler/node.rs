//! A handler in a Node process of its own, which can be started before there is a job for it.
//!
//! The process dies with the host. It has Node's whole world: packages, files, network, processes. What it does not have
//! is the store's token: what it wants of the store goes to the worker as that of any handler.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use protocol::Json;
use protocol::handler::{Inspected, MOST_CALLS, Module, NodeHandler};
use protocol::link::{HostSide, Link};
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::script::Ending;
use crate::sys::{self, Signals};

const RUNNER: &str = include_str!("runner.mjs");
const HOOKS: &str = include_str!("hooks.mjs");
const CLIENT: &str = include_str!("client.js");

/// Longest line that Node may send, in bytes: a result, or something for the store.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;

/// Modules need not say in `package.json` that they are some, and what is still an experiment in old versions is no news.
const FLAGS: [&str; 3] =
    ["--disable-warning=ExperimentalWarning", "--experimental-detect-module", "--input-type=module"];

const MEGABYTE: u64 = 1024 * 1024;

/// Node, with a handler loaded or about to be.
pub(super) struct NodeProcess {
    child: Child,
    id: Pid,
    lines: BufReader<OwnedReadHalf>,
    /// The line that is being read.
    line: Vec<u8>,
    commands: OwnedWriteHalf,
    /// What it said of itself, once it has.
    inspected: Option<Inspected>,
}

impl NodeProcess {
    /// Starts it.
    pub(super) fn spawn(module: &Module, node: &NodeHandler, memory_bytes: u64) -> io::Result<Self> {
        let (ours, its) = StdUnixStream::pair()?;
        let host = std::env::current_exe()?;
        let told = json!({ "file": node.file, "host": host, "hooks": HOOKS, "client": CLIENT });
        let mut command = Command::new(&node.program);
        command
            .arg(format!("--max-old-space-size={}", (memory_bytes / MEGABYTE).max(1)))
            .args(FLAGS)
            .args(["-e", RUNNER, "--", &told.to_string()])
            .stdin(Stdio::null());
        if let Some(folder) = node.file.parent() {
            command.current_dir(folder);
        }
        sys::prepare_process(&mut command, vec![OwnedFd::from(its)], Signals::All)?;
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let child =
            child.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", node.program.display())))?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id =
            id.ok_or_else(|| io::Error::other(format!("{} of {} has no id", node.program.display(), module.name)))?;
        ours.set_nonblocking(true)?;
        let (lines, commands) = UnixStream::from_std(ours)?.into_split();
        Ok(Self { child, id, lines: BufReader::new(lines), line: Vec::new(), commands, inspected: None })
    }

    /// Waits until it has loaded the handler, or cannot.
    pub(super) async fn loaded(&mut self) -> Inspected {
        if let Some(inspected) = &self.inspected {
            return inspected.clone();
        }
        let inspected = match self.next().await {
            Ok(message) => match (message.get("ready"), message.get("unusable").and_then(Value::as_str)) {
                (Some(exports), _) => match Json::encode(exports) {
                    Ok(exports) => Inspected::Handler { exports, files: files_in(&message) },
                    Err(error) => Inspected::Unusable(error.to_string()),
                },
                (None, Some(why)) => Inspected::Unusable(why.to_owned()),
                // What it throws while it is loaded, and nobody catches.
                (None, None) => Inspected::Unusable(super::message_of(&message["threw"].to_string())),
            },
            Err(why) => Inspected::Unusable(why),
        };
        self.inspected = Some(inspected.clone());
        inspected
    }

    /// Works on a job to its end.
    pub(super) async fn handle(
        &mut self,
        job: &Json,
        job_id: &str,
        link: &Link<HostSide>,
        mut aborts: UnboundedReceiver<()>,
    ) -> Ending {
        if let Inspected::Unusable(why) = self.loaded().await {
            return Ending::NotLoaded(why);
        }
        let begin = format!("{{\"begin\":{{\"job\":{},\"jobId\":{}}}}}\n", job.as_str(), Value::from(job_id));
        let mut outgoing = vec![begin];
        let (mut calls, mut idle) = (JoinSet::new(), JoinSet::new());
        let told = |(id, answer): (Value, String)| format!("{}\n", json!({ "answer": [id, answer] }));
        let ending = loop {
            // Node goes on to read while it waits for an answer.
            for text in outgoing.drain(..) {
                if self.commands.write_all(text.as_bytes()).await.is_err() {
                    return Ending::lost(&self.end().await);
                }
            }
            tokio::select! {
                message = self.next(), if calls.len().max(idle.len()) < MOST_CALLS => {
                    let message = match message {
                        Ok(message) => message,
                        Err(why) => return Ending::lost(&why),
                    };
                    if let Some(call) = message.get("ask") {
                        let (id, link) = (call[0].clone(), link.clone());
                        let text = call[1].as_str().unwrap_or_default().to_owned();
                        let calls = if super::is_idle(&text) { &mut idle } else { &mut calls };
                        calls.spawn(async move { (id, super::ask(&link, &text).await) });
                    } else if let Some(threw) = message.get("threw") {
                        break Ending::Threw(threw.to_string());
                    } else {
                        break Ending::Returned(message.get("returned").map(ToString::to_string));
                    }
                }
                Some(answered) = calls.join_next() => outgoing.extend(answered.ok().map(told)),
                Some(answered) = idle.join_next() => outgoing.extend(answered.ok().map(told)),
                Some(()) = aborts.recv() => {
                    outgoing.push(format!("{}\n", json!({ "abort": "The run of the job is over" })));
                }
            }
        };
        // What it has begun is done, though nobody waits for the answer.
        while calls.join_next().await.is_some() {}
        ending
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        !hosting::process::has_ended(self.id)
    }

    /// What it says next. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Value, String> {
        match read_line(&mut self.lines, &mut self.line).await.and_then(|()| parse(&mut self.line)) {
            Ok(message) => Ok(message),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.end().await),
            Err(error) => Err(format!("Node sent what makes no sense: {error}")),
        }
    }

    /// How it ended, in words.
    async fn end(&mut self) -> String {
        match self.child.wait().await {
            // So ends V8 when there is no room left.
            Ok(status) if status.signal() == Some(libc::SIGABRT) => {
                format!("Node ended: {status}: most likely it needed more memory than it may use")
            }
            Ok(status) => format!("Node ended: {status}"),
            Err(error) => format!("Node ended, and how is not known: {error}"),
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // One that was reaped may have left its number to another.
        if self.child.id().is_some() {
            sys::kill_group(self.id);
        }
        hosting::process::kill_descent();
    }
}

/// The files that Node has loaded, as it tells.
fn files_in(message: &Value) -> Vec<PathBuf> {
    let files = message.get("files").and_then(Value::as_array);
    files.into_iter().flatten().filter_map(|file| file.as_str().map(PathBuf::from)).collect()
}

/// Reads a line to its end. What was read before the future was dropped stays in `line`.
async fn read_line(lines: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<()> {
    let room = LONGEST_LINE.saturating_sub(line.len() as u64);
    lines.take(room).read_until(b'\n', line).await?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ if line.len() as u64 >= LONGEST_LINE => {
            Err(io::Error::other(format!("a line of more than {LONGEST_LINE} bytes")))
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn parse(line: &mut Vec<u8>) -> io::Result<Value> {
    let message = serde_json::from_slice(line).map_err(io::Error::other);
    line.clear();
    message
}
