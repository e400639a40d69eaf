//! Who waits for a host, and how it gets one.

use base::execution::{Reservation, ReserveError};
use base::metrics::metrics;
use protocol::message::Prepare;
use tokio::sync::oneshot;

use super::{Command, HostState, Keeper, Returned, now};
use crate::host::platform_fault;
use crate::lease::Lease;
use crate::loan::{Borrower, Claim};
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

/// Who wants a host, found one.
enum Found {
    ForRun(Taken),
    ToLend(HostNumber),
}

impl Waiter {
    fn wanted(&self) -> Option<&Prepare> {
        match self {
            Self::Caller(wanted, _) => Some(wanted),
            Self::Run(job) => Some(job.wanted()),
            Self::Borrower(borrower) => borrower.wanted.as_ref(),
        }
    }

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

impl Keeper {
    /// Lends what there is to those who wait, in the order of asking. Who waits for an engine that nobody has does not
    /// hold up the others.
    pub(super) fn lend_all(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            let found = match &waiter {
                Waiter::Borrower(borrower) => {
                    self.pool.take_to_lend(borrower.wanted.as_ref(), now()).map(Found::ToLend)
                }
                Waiter::Caller(..) | Waiter::Run(_) => self.pool.take(waiter.wanted(), now()).map(Found::ForRun),
            };
            match found {
                Some(found) => self.lend(found, waiter),
                None => self.waiting.push_back(waiter),
            }
        }
    }

    fn lend(&mut self, found: Found, waiter: Waiter) {
        let (Found::ForRun(Taken { host, .. }) | Found::ToLend(host)) = found;
        let Some(member) = self.hosts.get_mut(&host) else { return };
        member.state = HostState::Reserved;
        let is_prepared = match found {
            Found::ForRun(Taken { is_prepared, .. }) => is_prepared,
            // Who borrows it says what is to be done, whatever it has prepared.
            Found::ToLend(_) => true,
        };
        if let Found::ForRun(_) = found {
            member.prepared = waiter.wanted().cloned();
        }
        if !is_prepared && let Some(wanted) = member.prepared.clone() {
            // Ahead of the run itself, which may have to wait for its data.
            member.command(Command::Prepare(wanted));
        }
        let (commands, pool) = (member.commands.clone(), self.sender.clone());
        match waiter {
            Waiter::Caller(_, caller) => {
                metrics().reservation(is_prepared);
                let lease = Lease::new(host, commands, pool);
                let reservation = Reservation::new(member.id.clone(), |spec, log| lease.start(spec, log));
                // Comes back here by the lease when nobody waits.
                let _ = caller.send(Ok(reservation));
            }
            Waiter::Run(job) => Lease::new(host, commands, pool).execute(job),
            Waiter::Borrower(borrower) => {
                member.runs += 1;
                let claim = Claim { host, commands, pool };
                if let Err(refused) = member.commands.send(Command::Lend(claim, borrower))
                    && let Command::Lend(_, borrower) = refused.0
                {
                    self.waiting.push_back(Waiter::Borrower(borrower));
                }
            }
        }
    }

    pub(super) fn take_back(&mut self, host: HostNumber, returned: Returned) {
        let Some(member) = self.hosts.get_mut(&host).filter(|member| member.state == HostState::Reserved) else {
            return;
        };
        match returned {
            Returned::Spent => {
                member.state = HostState::Stopping;
                self.pool.leaving(host);
            }
            Returned::Unused | Returned::Used => {
                member.state = HostState::Ready;
                if returned == Returned::Used {
                    member.prepared = None;
                }
                self.pool.give_back(host, returned == Returned::Used, now());
            }
        }
    }

    pub(super) fn refuse_all(&mut self, why: &str) {
        for waiter in self.waiting.drain(..) {
            waiter.refuse(why);
        }
    }
}
