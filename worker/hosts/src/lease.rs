//! A host that is held for one run.

use std::sync::Arc;

use base::execution::ActiveRun;
use base::run_log::RunLog;
use protocol::run::RunSpec;
use tokio::sync::mpsc;

use super::lent_host::Claim;
use super::pool::host_id;
use super::pool_task::Returned;
use super::run::{Job, hand_back};
use super::supervisor::HostCommand;

/// The right to start one run on a host. Dropping it gives the host back.
#[derive(Debug)]
pub(super) struct Lease {
    claim: Claim,
    is_used: bool,
}

impl Lease {
    pub(super) fn new(claim: Claim) -> Self {
        Self { claim, is_used: false }
    }

    pub(super) fn host_id(&self) -> String {
        host_id(self.claim.host)
    }

    pub(super) fn start(self, spec: RunSpec, log: Arc<RunLog>) -> ActiveRun {
        let (job, run) = Job::new(spec, log);
        self.execute(job);
        run
    }

    /// Gives the run to the host, or back to the pool if the host has died.
    pub(super) fn execute(mut self, job: Job) {
        self.is_used = true;
        if let Err(mpsc::error::SendError(HostCommand::Run(job))) = self.claim.commands.send(HostCommand::Run(job)) {
            hand_back(job, &self.claim.pool);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_used {
            self.claim.give_back(Returned::Unused);
        }
    }
}
