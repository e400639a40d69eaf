//! Engines that were forked for a host, and belong to it though they are children of the worker.
//!
//! A template hands its children to the worker, as any process does that has lost its parent. The host for which one was
//! made says so before that runs anything: from then on it is in the host's control group, dies with the host, and its end
//! is told to the host.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::processes::{parent, session, unnamed_files};
use protocol::link::{Link, Responder, WorkerSide};
use protocol::message::{Adopt, Adopted, EngineEnded, HostNotice, Refusal, RefusalCode, WorkerReply, WorkerRequest};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

use super::cgroup::Group;
use super::orphans::Orphans;
use super::sys::watch_readable;
use super::templates::Templates;

/// Engines that a host may have at a time: it has one, and another when that was of no use.
const MOST: usize = 4;

/// Counts of their files at a time: the one of each interval, and the one at a job's end.
const MOST_COUNTS: usize = 2;

/// How long those that were killed are waited for.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a process does not become a host's engine.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("that is no process")]
    NoProcess,
    #[error("no such process: {0}")]
    Gone(#[source] rustix::io::Errno),
    #[error("that process is no child of the worker")]
    NoChild,
    #[error("that process was not forked from a template just now")]
    NotForked,
    #[error("its end cannot be watched: {0}")]
    Unwatched(#[from] io::Error),
    #[error("the host gets no more engines")]
    TooMany,
    #[error("that process belongs to another host")]
    Taken,
}

/// Those of one host. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ForkedEngines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orphans: Arc<Orphans>,
    templates: Option<Templates>,
    group: Option<Arc<Group>>,
    state: Mutex<State>,
    /// One was reaped.
    reaped: Notify,
    counts: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// By process id.
    living: HashMap<u32, Arc<OwnedFd>>,
    /// Whether the host is gone, which gets no more.
    is_over: bool,
}

impl ForkedEngines {
    pub(super) fn new(orphans: Arc<Orphans>, templates: Option<Templates>, group: Option<Arc<Group>>) -> Self {
        let (state, reaped, counts) = (Mutex::default(), Notify::new(), Arc::new(Semaphore::new(MOST_COUNTS)));
        Self(Arc::new(Inner { orphans, templates, group, state, reaped, counts }))
    }

    /// Answers requests about them.
    pub(super) fn answer(
        &self,
        request: WorkerRequest,
        responder: Responder<WorkerSide>,
        link: &Link<WorkerSide>,
    ) -> Option<(WorkerRequest, Responder<WorkerSide>)> {
        match request {
            WorkerRequest::Adopt(adopt) => match self.adopt(&adopt, link) {
                Ok(()) => {
                    if let Some(templates) = &self.0.templates {
                        templates.forked(&adopt.template, Duration::from_nanos(adopt.fork_ns));
                    }
                    responder.reply(WorkerReply::Adopted(Adopted {}));
                }
                Err(why) => responder.refuse(Refusal::new(RefusalCode::WrongState, why.to_string())),
            },
            WorkerRequest::CountUnnamed(_) => self.count_unnamed(responder),
            other => return Some((other, responder)),
        }
        None
    }

    /// Counts their files that have no name: those that Landlock keeps apart do not see each other's, nor does their host.
    fn count_unnamed(&self, responder: Responder<WorkerSide>) {
        let Ok(permit) = Arc::clone(&self.0.counts).try_acquire_owned() else {
            return responder.refuse(Refusal::new(RefusalCode::WrongState, "they are being counted already"));
        };
        let processes: Vec<u32> = self.0.state().living.keys().copied().collect();
        tokio::task::spawn_blocking(move || {
            responder.reply(WorkerReply::Unnamed(unnamed_files(&processes)));
            drop(permit);
        });
    }

    fn adopt(&self, Adopt { pid, .. }: &Adopt, link: &Link<WorkerSide>) -> Result<(), AdoptError> {
        let pid = *pid;
        let id = Pid::from_raw(pid.cast_signed()).ok_or(AdoptError::NoProcess)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(AdoptError::Gone)?;
        // What a host says is not believed: it could name what belongs to another one.
        if parent(pid) != Some(std::process::id()) {
            return Err(AdoptError::NoChild);
        }
        if !session(pid).is_some_and(|template| template != pid && self.0.orphans.has(template)) {
            return Err(AdoptError::NotForked);
        }
        let watched = pidfd.try_clone().and_then(watch_readable)?;
        let pidfd = Arc::new(pidfd);
        {
            let mut state = self.0.state();
            if state.is_over || state.living.len() >= MOST {
                return Err(AdoptError::TooMany);
            }
            if !self.0.orphans.adopt_for_host(pid) {
                return Err(AdoptError::Taken);
            }
            state.living.insert(pid, pidfd);
        }
        if let Some(Err(error)) = self.0.group.as_ref().map(|group| group.enter(pid)) {
            warn!(pid, "failed to move a forked engine into the control group of its host: {error}");
        }
        let (inner, link) = (Arc::clone(&self.0), link.clone());
        tokio::spawn(async move {
            // On an error its end is not seen, but waited for just the same.
            let _ = watched.readable().await;
            let status = loop {
                match waitpid(Some(id), WaitOptions::NOHANG) {
                    Ok(Some((_, status))) => break Some(status.as_raw()),
                    Ok(None) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(error) => {
                        debug!(pid, "nobody knows how an engine ended: {error}");
                        break None;
                    }
                }
            };
            inner.orphans.disown(pid);
            inner.state().living.remove(&pid);
            inner.reaped.notify_waiters();
            if let Some(status) = status {
                // Fails when the host is gone.
                let _ = link.notify(HostNotice::EngineEnded(EngineEnded { pid, status })).await;
            }
        });
        Ok(())
    }

    /// Kills all that there are.
    pub(super) fn kill(&self) {
        for pidfd in self.0.state().living.values() {
            // Fails when it has ended.
            let _ = pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
        }
    }

    /// Kills all that there are, lets no more come, and waits until they are reaped.
    pub(super) async fn end(&self) {
        self.0.state().is_over = true;
        self.kill();
        let gone = async {
            loop {
                let reaped = self.0.reaped.notified();
                tokio::pin!(reaped);
                reaped.as_mut().enable();
                if self.0.state().living.is_empty() {
                    return;
                }
                reaped.await;
            }
        };
        if tokio::time::timeout(REAP_TIMEOUT, gone).await.is_err() {
            warn!("a forked engine has not exited after SIGKILL");
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
