//! A host that is held for one run.

use std::sync::Arc;

use base::execution::ActiveRun;
use base::run_log::RunLog;
use protocol::run::RunSpec;
use tokio::sync::mpsc;

use super::keeper::{Message, Returned};
use super::pool::HostNumber;
use super::run::{Job, hand_back};
use super::supervisor::Command;

/// The right to start one run on a host. Dropping it gives the host back.
#[derive(Debug)]
pub(super) struct Lease {
    host: HostNumber,
    commands: mpsc::UnboundedSender<Command>,
    pool: mpsc::UnboundedSender<Message>,
    is_used: bool,
}

impl Lease {
    pub(super) fn new(
        host: HostNumber,
        commands: mpsc::UnboundedSender<Command>,
        pool: mpsc::UnboundedSender<Message>,
    ) -> Self {
        Self { host, commands, pool, is_used: false }
    }

    pub(super) fn start(self, spec: RunSpec, log: Arc<RunLog>) -> ActiveRun {
        let (job, run) = Job::new(spec, log);
        self.execute(job);
        run
    }

    /// Gives the run to the host, or back to the pool if the host has died.
    pub(super) fn execute(mut self, job: Job) {
        self.is_used = true;
        if let Err(mpsc::error::SendError(Command::Run(job))) = self.commands.send(Command::Run(job)) {
            hand_back(job, &self.pool);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_used {
            // Fails when the pool is gone, and the host with it.
            let _ = self.pool.send(Message::GiveBack(self.host, Returned::Unused));
        }
    }
}
