//! A host's process: seen to end, signalled and reaped.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tracing::warn;

use super::cgroup::Group;
use super::death::Status;
use super::forked_engines::ForkedEngines;
use super::sys::watch_readable;

/// A process that was started and is not reaped yet. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Tells when the process has ended; none on a kernel without such descriptors.
    end: Option<AsyncFd<OwnedFd>>,
    group: Option<Arc<Group>>,
    /// What was forked for it.
    forked: ForkedEngines,
}

impl Process {
    /// Puts the process into `group`, if there is one. `forked` makes what may be forked for it.
    pub(super) fn new(
        child: Child,
        group: Option<Group>,
        forked: impl FnOnce(Option<Arc<Group>>) -> ForkedEngines,
    ) -> Self {
        let group = group.filter(|group| match child.id().map(|pid| group.enter(pid)) {
            Some(Err(error)) => {
                warn!("failed to move an engine host into its control group: {error}");
                false
            }
            // One that has ended already needs none.
            entered => entered.is_some(),
        });
        let descriptor = pid(&child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let end = descriptor.and_then(|descriptor| watch_readable(descriptor).ok());
        let group = group.map(Arc::new);
        let forked = forked(group.clone());
        Self { child, end, group, forked }
    }

    /// What was forked for it.
    pub(super) fn forked(&self) -> &ForkedEngines {
        &self.forked
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Bounds its memory, and that of all it starts, for an engine that may use so much. Without a control group the
    /// host does that as well as it can.
    pub(super) fn bound(&self, engine_bytes: u64) {
        self.group.iter().for_each(|group| group.bound(engine_bytes));
    }

    /// Its pipes, the first time.
    pub(super) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits until the process has ended. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) {
        // An error means that it cannot be known before the process is reaped.
        let seen = match &self.end {
            Some(end) => end.readable().await.map(drop),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        if seen.is_err() {
            // The status is kept, and is what `reap` returns.
            let _ = self.child.wait().await;
        }
    }

    /// Asks the process to exit.
    pub(super) fn terminate(&self) {
        if let Some(pid) = pid(&self.child) {
            // Fails when it has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Kills the process and what it has started.
    pub(super) fn kill(&self) {
        // The process is not reaped yet, so its number is still its own.
        if let Some(pid) = pid(&self.child) {
            // There is no such group before the host has become its own session.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
        self.group.iter().for_each(|group| group.kill());
        self.forked.kill();
    }

    /// Kills what the process has started and left behind, waits for its end and lets go of it.
    pub(super) async fn reap(&mut self) -> Status {
        if let Some(pid) = pid(&self.child) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.group.iter().for_each(|group| group.kill());
        self.forked.end().await;
        let status = self.child.wait().await.map_or(Status::Unknown, Status::from);
        self.group.take().map_or(status, |group| status.with_evidence(group.oom_counts()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.try_into().ok()?)
}
