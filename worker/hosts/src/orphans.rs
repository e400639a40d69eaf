//! Processes that hosts have started and left behind.
//!
//! A host dies with its process group. What has left the group, and lost its parent, is handed to the host by the system as
//! long as that lives: so it is known whose it is. When the host has died, all of it is handed to the worker, if the
//! worker asked for that (or is the first process of a container), and is killed and reaped here. Children of the
//! worker's own session are none of them: they are whatever else the worker starts. Those of a living host's session
//! belong to it, and so do engines that were forked for one (`forked_engines.rs`).

use std::collections::HashSet;
use std::io;

use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use tracing::{debug, warn};

use base::processes::{children_of_main_thread, session};

/// Pause between two looks at processes that were killed.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks before what does not die is left to the next time.
const MOST_LOOKS: u32 = 50;

/// The hosts that live, by which others are known to be orphans.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    hosts: Mutex<HashSet<u32>>,
    /// Children that were handed to this process and belong to a host: others wait for their ends.
    adopted: Mutex<HashSet<u32>>,
    adopts: std::sync::atomic::AtomicBool,
}

impl Orphans {
    /// Has the system hand orphans to this process.
    pub(super) fn adopt(&self) -> io::Result<()> {
        set_child_subreaper(Some(getpid()))?;
        self.adopts.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// Starts a host by `spawn`, which returns its process id.
    pub(super) fn start<T>(&self, spawn: impl FnOnce() -> io::Result<(u32, T)>) -> io::Result<T> {
        // Locked meanwhile, so that nobody takes the host for an orphan.
        let mut hosts = self.hosts.lock();
        let (pid, host) = spawn()?;
        hosts.insert(pid);
        Ok(host)
    }

    /// Whether a process is a host that was started, and not reaped yet.
    pub(super) fn has(&self, pid: u32) -> bool {
        self.hosts.lock().contains(&pid)
    }

    /// A host was reaped.
    pub(super) fn reaped(&self, pid: u32) {
        self.hosts.lock().remove(&pid);
    }

    /// A child belongs to a host from now on; false if it does already.
    pub(super) fn adopt_for_host(&self, pid: u32) -> bool {
        // While nobody sweeps.
        let _hosts = self.hosts.lock();
        self.adopted.lock().insert(pid)
    }

    /// A child that belonged to a host was reaped.
    pub(super) fn disown(&self, pid: u32) {
        self.adopted.lock().remove(&pid);
    }

    /// Kills and reaps the orphans that there are.
    pub(super) async fn sweep(&self) {
        if !self.adopts.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        for _ in 0..MOST_LOOKS {
            if self.sweep_once() == 0 {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        warn!("processes that engine hosts left behind have not exited after SIGKILL");
    }

    /// Kills what there is, and reaps those of living hosts that are dead. Returns how many are not reaped yet.
    fn sweep_once(&self) -> usize {
        let hosts = self.hosts.lock();
        let mut unknown = children_of_main_thread();
        let adopted = self.adopted.lock();
        unknown.retain(|pid| !hosts.contains(pid) && !adopted.contains(pid));
        if unknown.is_empty() {
            return 0;
        }
        let own = session(std::process::id());
        let unreaped = unknown.into_iter().filter(|pid| {
            let (its, Some(pid)) = (session(*pid), Pid::from_raw(pid.cast_signed())) else { return false };
            match its {
                its if its == own => false,
                Some(host) if hosts.contains(&host) => {
                    is_gone(pid);
                    false
                }
                _ => {
                    // Fails when it has ended.
                    let _ = kill_process(pid, Signal::KILL);
                    !is_gone(pid)
                }
            }
        });
        unreaped.count()
    }
}

/// Whether a child has ended, which then is reaped.
fn is_gone(pid: Pid) -> bool {
    let is_gone = !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None));
    if is_gone {
        debug!(pid = pid.as_raw_nonzero().get(), "reaped a process that a host had left behind");
    }
    is_gone
}
