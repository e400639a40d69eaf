//! Who waits for a host, and how it gets one.

use base::execution::{Reservation, ReserveError};
use base::metrics::metrics;
use protocol::message::Prepare;
use tokio::sync::{mpsc, oneshot};

use super::{HostCommand, PoolTask, Returned, now};
use crate::host::platform_fault;
use crate::lease::Lease;
use crate::lent_host::{Borrower, Claim};
use crate::pool::{HostNumber, Taken};
use crate::run::Job;

/// Who wants a host for a run.
pub(crate) type Caller = oneshot::Sender<Result<Reservation, ReserveError>>;

/// Who waits for a host.
#[derive(Debug)]
pub(super) enum Waiter {
    Caller(Prepare, Caller),
    /// A run whose host died before anything was heard of it.
    Run(Job),
    Borrower(Borrower),
}

impl Waiter {
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Caller(_, caller) => caller.is_closed(),
            Self::Run(job) => job.is_abandoned(),
            Self::Borrower(borrower) => borrower.is_closed(),
        }
    }

    fn refuse(self, why: &str) {
        let error = ReserveError(why.to_owned());
        match self {
            // Both fail when nobody waits.
            Self::Caller(_, caller) => drop(caller.send(Err(error))),
            Self::Borrower(borrower) => drop(borrower.send(Err(error))),
            Self::Run(job) => job.give_up(platform_fault(error.to_string())),
        }
    }
}

impl PoolTask {
    /// Lends what there is to those who wait, in the order of asking. Who waits for an engine that nobody has does not
    /// hold up the others.
    pub(super) fn lend_all(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            let unserved = match waiter {
                Waiter::Caller(wanted, caller) => match self.hold_for(&wanted) {
                    Some((claim, is_prepared)) => {
                        metrics().reservation(is_prepared);
                        let lease = Lease::new(claim);
                        let reservation = Reservation::new(lease.host_id(), |spec, log| lease.start(spec, log));
                        // Comes back here by the lease when nobody waits.
                        let _ = caller.send(Ok(reservation));
                        None
                    }
                    None => Some(Waiter::Caller(wanted, caller)),
                },
                Waiter::Run(job) => match self.hold_for(job.wanted()) {
                    Some((claim, _)) => {
                        Lease::new(claim).execute(job);
                        None
                    }
                    None => Some(Waiter::Run(job)),
                },
                Waiter::Borrower(borrower) => self.lend_to(borrower).map(Waiter::Borrower),
            };
            self.waiting.extend(unserved);
        }
    }

    /// Holds a host for a run that wants this. Says, too, whether the host has prepared that.
    fn hold_for(&mut self, wanted: &Prepare) -> Option<(Claim, bool)> {
        let Taken { host, is_prepared } = self.pool.take(wanted, now())?;
        let claim = self.claim(host)?;
        if !is_prepared {
            // Ahead of the run itself, which may have to wait for its data.
            claim.command(HostCommand::Prepare(wanted.clone()));
        }
        Some((claim, is_prepared))
    }

    /// Returns the borrower if there is no host.
    fn lend_to(&mut self, borrower: Borrower) -> Option<Borrower> {
        let taken = self.pool.take_to_lend(borrower.wanted.as_ref());
        let Some(claim) = taken.and_then(|host| self.claim(host)) else { return Some(borrower) };
        let commands = claim.commands.clone();
        match commands.send(HostCommand::Lend((claim, borrower))) {
            Err(mpsc::error::SendError(HostCommand::Lend((_, borrower)))) => Some(borrower),
            _ => None,
        }
    }

    fn claim(&self, host: HostNumber) -> Option<Claim> {
        Some(Claim { host, commands: self.pool.handle(host)?.clone(), pool: self.sender.clone() })
    }

    pub(super) fn take_back(&mut self, host: HostNumber, returned: Returned) {
        match returned {
            Returned::Spent => self.pool.leaving(host),
            Returned::Unused | Returned::Used => self.pool.give_back(host, returned == Returned::Used, now()),
        }
    }

    pub(super) fn refuse_all(&mut self, why: &str) {
        for waiter in self.waiting.drain(..) {
            waiter.refuse(why);
        }
    }
}
