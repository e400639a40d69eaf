//! A Node process and the channel to it.
//!
//! Two threads belong to it: one reads its frames (log lines go from there to the run's log, whose fullness holds them,
//! and thereby the job), the other shows what it prints. Both end with the process. Dropping a process kills it with
//! all its descendants.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::engine::TemplateAddress;
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::frame::{self, BadFrame, Frame};
use super::launch::Launch;
use super::template::{Forked, Parent, Unforked, fork, refused};
use crate::engine::{LogSink, line_kind};
use crate::sys::{self, Signals};
use hosting::guard::say;

/// A frame that is one line of the run's log.
const LOG: u8 = b'l';

/// Of a longer line of what Node prints the rest is left out. It is more than the worker shows, which cuts it so that no
/// part of a secret is left.
const LINE_BYTES: u64 = 16 * 1024;

/// So many of its last lines, but for frames of a stack, are kept for the message that it did not start.
const TAIL_LINES: usize = 8;

/// So many frames may wait. One command has one answer, so more is a process that misbehaves, which then waits.
const BACKLOG: usize = 4;

/// What Node may write before the host reads.
const PIPE_BYTES: usize = 256 * 1024;

/// So much of what Node writes is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A job that has written so many lines is likely to write more.
const MANY_LINES: usize = 16;

/// How long lines gather of a job that has written many. They are safe in the pipe: what ends the process does not end
/// that. To wake up for each would cost more than all else that is done for it.
const GATHERING: Duration = Duration::from_micros(300);

/// A template tells what it has loaded, and no values.
const TEMPLATE_FRAME_BYTES: usize = 1024 * 1024;

/// What a process that ended may still have to say.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long the last lines of a process that was killed may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long what it printed last may take to be shown.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// A process that runs the engine.
#[derive(Debug)]
pub(super) struct NodeProcess {
    child: Child,
    id: Pid,
    family: Family,
    commands: UnixStream,
    replies: mpsc::Receiver<Result<Frame, BadFrame>>,
    /// What it prints, to look whether all of it was shown.
    printed: PipeReader,
    tail: Tail,
}

/// How the process came to be.
#[derive(Debug)]
enum Child {
    /// The host has started it.
    Started(tokio::process::Child),
    /// A template was forked, and the worker has adopted it.
    Forked(Forked),
}

impl Child {
    /// Its process id, until its end was seen.
    fn id(&self) -> Option<Pid> {
        match self {
            Self::Started(child) => Pid::from_raw(i32::try_from(child.id()?).ok()?),
            Self::Forked(child) => child.id(),
        }
    }

    fn is_running(&mut self) -> bool {
        match self {
            Self::Started(child) => matches!(child.try_wait(), Ok(None)),
            Self::Forked(child) => child.try_wait().is_none(),
        }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Started(child) => child.wait().await,
            Self::Forked(child) => child.wait().await,
        }
    }
}

/// Which processes belong to one that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// It alone: it may start none.
    None,
    /// Those that descend from it or are in its group, in a host that has others, too.
    Own,
    /// All that the host has started or adopted.
    All,
}

impl Family {
    /// The process, and those that belong to it.
    pub(super) fn members(self, process: Pid) -> Vec<Pid> {
        match self {
            Self::None => vec![process],
            Self::Own => sys::family(process),
            Self::All => hosting::process::descent(),
        }
    }
}

/// The last lines that a process printed.
type Tail = Arc<Mutex<VecDeque<String>>>;

/// What came instead of an answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The process ended.
    Ended(ExitStatus),
    /// It sent what makes no sense.
    Bad(BadFrame),
    /// The system did not tell how it ended.
    Unknown(io::Error),
}

/// The host's ends of what connects it to a process.
struct Ends {
    commands: StdUnixStream,
    replies: PipeReader,
    output: PipeReader,
}

/// The process's ends.
struct ItsEnds {
    commands: StdUnixStream,
    replies: PipeWriter,
    output: PipeWriter,
}

fn ends() -> io::Result<(Ends, ItsEnds)> {
    let (commands, its_commands) = StdUnixStream::pair()?;
    // Unlike a socket's, the lines in a pipe take no more room than they are long.
    let (replies, its_replies) = io::pipe()?;
    // Without, a large state takes more turns.
    let _ = fcntl_setpipe_size(&replies, PIPE_BYTES);
    let (output, its_output) = io::pipe()?;
    let its = ItsEnds { commands: its_commands, replies: its_replies, output: its_output };
    Ok((Ends { commands, replies, output }, its))
}

impl NodeProcess {
    /// Starts Node. The process dies with the thread that this is called on, so that has to live as long as the host.
    pub(super) fn spawn(launch: Launch<'_>, frame_bytes: usize, sink: Arc<dyn LogSink>) -> io::Result<Self> {
        let family = match (launch.needs().child_processes, launch.is_alone) {
            (false, _) => Family::None,
            (true, false) => Family::Own,
            (true, true) => Family::All,
        };
        let signals = if family == Family::None { Signals::Own } else { Signals::All };
        Self::spawn_with(launch, [], (family, signals), frame_bytes, sink)
    }

    /// Starts a Node that is to be a template, with these descriptors beyond those of any.
    pub(super) fn spawn_template(
        launch: Launch<'_>,
        [control, listener, library]: [OwnedFd; 3],
        sink: Arc<dyn LogSink>,
    ) -> io::Result<Self> {
        // Its children are not its own, and it starts nothing else.
        let kind = (Family::None, Signals::OfForks);
        Self::spawn_with(launch, [control, listener, library], kind, TEMPLATE_FRAME_BYTES, sink)
    }

    fn spawn_with<const N: usize>(
        launch: Launch<'_>,
        others: [OwnedFd; N],
        (family, signals): (Family, Signals),
        frame_bytes: usize,
        sink: Arc<dyn LogSink>,
    ) -> io::Result<Self> {
        let (ends, its) = ends()?;
        let mut command = launch.command();
        command.stdout(its.output.try_clone()?).stderr(its.output);
        let descriptors = [OwnedFd::from(its.commands), OwnedFd::from(its.replies)].into_iter().chain(others);
        sys::prepare_process(&mut command, descriptors.collect(), signals)?;
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        Self::with(Child::Started(child), family, ends, frame_bytes, sink)
    }

    /// Has a template fork one, whose files are subject to `rules`, and tells it what it is by `introduction`.
    pub(super) async fn fork(
        address: &TemplateAddress,
        parent: &dyn Parent,
        rules: OwnedFd,
        introduction: impl FnOnce(i32) -> Result<Vec<u8>, Unforked>,
        frame_bytes: usize,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, Unforked> {
        let (ends, its) = ends().map_err(refused)?;
        let descriptors = [its.commands.as_fd(), its.replies.as_fd(), its.output.as_fd(), rules.as_fd()];
        let newborn = fork(address, parent, descriptors).await?;
        drop((its, rules));
        // There is room for it, though the child may not read yet.
        (&ends.commands).write_all(&introduction(newborn.id())?).map_err(refused)?;
        let forked = newborn.adopted(&address.host, parent).await?;
        hosting::process::foster(forked.id());
        Self::with(Child::Forked(forked), Family::None, ends, frame_bytes, sink).map_err(refused)
    }

    fn with(
        child: Child,
        family: Family,
        Ends { commands, replies, output }: Ends,
        frame_bytes: usize,
        sink: Arc<dyn LogSink>,
    ) -> io::Result<Self> {
        let id = child.id().ok_or_else(|| io::Error::other("the process has no id"))?;
        commands.set_nonblocking(true)?;
        let (frames, answers) = mpsc::channel(BACKLOG);
        let tail = Tail::default();
        let shown = Arc::clone(&tail);
        let printed = output.try_clone()?;
        named("node-frames").spawn(move || read_frames(replies, frame_bytes, &*sink, &frames))?;
        named("node-output").spawn(move || show_output(output, &shown))?;
        let commands = UnixStream::from_std(commands)?;
        Ok(Self { child, id, family, commands, replies: answers, printed, tail })
    }

    /// Its process id.
    pub(super) fn id(&self) -> Pid {
        self.id
    }

    /// Which processes belong to it.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Whether it has ended, or is held so that it would answer nothing.
    pub(super) fn is_lost(&mut self) -> bool {
        let is_running = self.child.is_running();
        if !is_running && matches!(self.child, Child::Started(_)) {
            // What it has left in its group.
            sys::kill_group(self.id);
        }
        // One that was killed is not there to be waited for before all of its threads have ended.
        !is_running || sys::is_stopped_or_ended(self.id)
    }

    /// The last lines that it printed, in one line.
    pub(super) fn last_words(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }

    /// Sends bytes, and waits for the next frame that is no log line.
    pub(super) async fn exchange(&mut self, bytes: &[u8]) -> Result<Frame, NoAnswer> {
        let Self { child, id, commands, replies, .. } = self;
        // A process that does not take its command ends, and that is noticed below.
        let sending = async {
            let _ = commands.write_all(bytes).await;
            std::future::pending::<()>().await
        };
        let status = tokio::select! {
            biased;
            reply = replies.recv() => match reply {
                Some(reply) => return reply.map_err(NoAnswer::Bad),
                None => child.wait().await,
            },
            status = child.wait() => status,
            () = sending => unreachable!("it waits for ever"),
        };
        // Its descendants have the channel, too.
        if matches!(child, Child::Started(_)) {
            sys::kill_group(*id);
        }
        let last = tokio::time::timeout(FAREWELL, replies.recv()).await;
        match (last, status) {
            (Ok(Some(Ok(reply))), _) => Ok(reply),
            (_, Ok(status)) => Err(NoAnswer::Ended(status)),
            (_, Err(error)) => Err(NoAnswer::Unknown(error)),
        }
    }

    /// Waits for the next frame.
    pub(super) async fn next_frame(&mut self) -> Result<Frame, NoAnswer> {
        self.exchange(&[]).await
    }

    /// Waits until all is read that it wrote before it was killed.
    pub(super) async fn drain(&mut self) {
        let all = async { while self.replies.recv().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_LINES, all).await;
    }

    /// Waits until what it has printed is taken, but not for long: something that it started may print for ever. The host
    /// may exit right after, and nobody would see the last lines.
    fn show_rest(&self) {
        let deadline = Instant::now() + LAST_OUTPUT;
        while ioctl_fionread(&self.printed).is_ok_and(|bytes| bytes > 0) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it with its descendants. Those of one that has ended were killed then.
    pub(super) fn kill(&mut self) {
        if let Child::Forked(child) = &self.child {
            return child.kill();
        }
        if self.family == Family::All {
            hosting::process::kill_descent();
        }
        // It is reaped: its number may be another's.
        if self.child.id().is_none() {
            return;
        }
        // Those that left its group are found as long as their parents live.
        let others = if self.family == Family::Own { sys::family(self.id) } else { Vec::new() };
        sys::kill_group(self.id);
        for member in others {
            let _ = kill_process(member, Signal::KILL);
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        sys::engine_ends(self.child.id());
        self.kill();
        if matches!(self.child, Child::Forked(_)) {
            hosting::process::foster(None);
        }
        self.show_rest();
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024)
}

/// Passes log lines on to the sink and all other frames to who waits for them, until the stream ends.
fn read_frames(stream: PipeReader, limit: usize, sink: &dyn LogSink, frames: &mpsc::Sender<Result<Frame, BadFrame>>) {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let mut lines = 0;
    loop {
        if lines >= MANY_LINES && stream.buffer().is_empty() {
            thread::sleep(GATHERING);
        }
        let mut frame = match frame::read(&mut stream, limit) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(bad) => return drop(frames.blocking_send(Err(bad))),
        };
        if frame.kind != LOG {
            lines = 0;
            if frames.blocking_send(Ok(frame)).is_err() {
                return;
            }
            continue;
        }
        lines += 1;
        if let Err(bad) = write_line(&mut frame, sink) {
            return drop(frames.blocking_send(Err(bad)));
        }
    }
}

fn write_line(frame: &mut Frame, sink: &dyn LogSink) -> Result<(), BadFrame> {
    let (source, level, text) = (frame.bytes()?, frame.bytes()?, frame.needed()?);
    let word = |bytes| std::str::from_utf8(bytes).map_err(|_| BadFrame::NotText);
    if let Some((source, level)) = line_kind(word(&source)?, word(&level)?) {
        sink.write(source, level, text);
    }
    Ok(())
}

/// Shows what the process prints, line by line, on the host's stderr, until the last who has its output is gone.
fn show_output(output: PipeReader, tail: &Tail) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.len() as u64 == LINE_BYTES && !line.ends_with(b"\n") && output.skip_until(b'\n').is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        say(&format!("node: {text}"));
        if is_frame(text) {
            continue;
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.to_owned());
    }
}

/// Whether a line is one of a stack: `at …` of JavaScript, `4: 0x…` of native code.
fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    let native = line.split_once(": 0x").is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
    native || line.starts_with("at ")
}

#[cfg(test)]
mod tests {
    use super::is_frame;

    #[test]
    fn frames_are_no_reasons() {
        for (line, expected) in [
            ("    at f (/repo/a.cjs:1:2)", true),
            (" 4: 0xa2e4cc node::SnapshotBuilder::CreateSnapshot() [/usr/bin/node]", true),
            ("11: 0x7ef4fe _start", true),
            ("TypeError: no such thing", false),
            ("error at 0x4: 0x5", false),
        ] {
            assert_eq!(is_frame(line), expected, "{line}");
        }
    }
}
