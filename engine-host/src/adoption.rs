//! Engines that are forked for this host and adopted by the worker, which tells how they end.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::link::{HostSide, Link};
use protocol::message::{Adopt, CountUnnamed, EngineEnded, NotForked, WorkerNotice};
use tokio::sync::oneshot;

use crate::engine::node::{Adopting, Counting, Parent};

/// The worker, as the parent of engines. Clones are of the same.
#[derive(derive_more::Debug, Clone)]
#[debug("Adoption {{ worker: {:?}, .. }}", self.0.worker)]
pub struct Adoption(Arc<Shared>);

struct Shared {
    link: Link<HostSide>,
    worker: u32,
    /// Who waits for the end of which process.
    waiting: Mutex<HashMap<u32, oneshot::Sender<ExitStatus>>>,
}

impl Adoption {
    /// By the worker at the other end of `link`, with this process id.
    pub fn new(link: Link<HostSide>, worker: u32) -> Self {
        Self(Arc::new(Shared { link, worker, waiting: Mutex::default() }))
    }

    /// The worker told the end of one.
    pub fn ended(&self, EngineEnded { pid, status }: EngineEnded) {
        if let Some(waiting) = self.0.waiting().remove(&pid) {
            // Fails when nobody waits any more.
            let _ = waiting.send(ExitStatus::from_raw(status));
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<ExitStatus>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parent for Adoption {
    fn id(&self) -> u32 {
        self.0.worker
    }

    fn adopt(&self, adopt: Adopt) -> Adopting {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let (sender, end) = oneshot::channel();
            let pid = adopt.pid;
            // Before the worker is asked: it may end at once.
            shared.waiting().insert(pid, sender);
            match shared.link.call(adopt).await {
                Ok(_) => Ok(end),
                Err(error) => {
                    shared.waiting().remove(&pid);
                    Err(error.to_string())
                }
            }
        })
    }

    fn count_unnamed(&self) -> Counting {
        let link = self.0.link.clone();
        Box::pin(async move { link.call(CountUnnamed {}).await.map_err(|error| error.to_string()) })
    }

    fn not_forked(&self, told: NotForked) {
        let link = self.0.link.clone();
        // Fails when nobody is there to be told.
        tokio::spawn(async move { link.notify(WorkerNotice::NotForked(told)).await });
    }
}
