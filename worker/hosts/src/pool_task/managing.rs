//! What is changed while a pool lives, and how it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use super::{HostCommand, HostsOptions, ManageError, ManageResult, Order, PoolTask, Setup};
use crate::death::Reason;
use crate::pool::HostNumber;

/// How long killed hosts are waited for at the end. A process that the kernel holds may take longer.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Somebody who waits until something that was ordered is so.
#[derive(Debug)]
pub(super) struct Wait {
    until: Until,
    done: oneshot::Sender<ManageResult>,
}

#[derive(Debug)]
enum Until {
    /// These hosts are gone.
    Gone(BTreeSet<HostNumber>),
    /// These have said whether they go by other variables.
    EnvSet(BTreeSet<HostNumber>),
    /// There are no hosts.
    Empty,
    /// There are as many hosts as there are to be.
    Settled,
}

/// The end of the pool.
#[derive(Debug)]
pub(super) struct Closing {
    deadline: Instant,
    is_forced: bool,
    pub(super) done: Vec<oneshot::Sender<()>>,
}

impl Closing {
    fn next_deadline(&self) -> Instant {
        if self.is_forced { self.deadline + REAP_TIMEOUT } else { self.deadline }
    }
}

impl PoolTask {
    pub(super) fn manage(&mut self, order: Order, done: oneshot::Sender<ManageResult>) {
        if self.closing.is_some() {
            // Fails when nobody waits.
            let _ = done.send(Err(ManageError::Closed));
            return;
        }
        let pool = &*self.name;
        let until = match order {
            Order::Recycle => {
                info!(pool, "hosts are being replaced");
                Until::Gone(self.pool.recycle())
            }
            Order::Drain => {
                info!(pool, "hosts are being drained");
                self.pool.drain(true);
                Until::Empty
            }
            Order::Resume => {
                self.pool.drain(false);
                Until::Settled
            }
            Order::Resize(target) => {
                info!(pool, target, "resizing the pool");
                let size = self.setup.options.size.resized(target);
                self.reconfigure(HostsOptions { size, ..self.setup.options.clone() })
            }
            Order::Reconfigure(options) => self.reconfigure(*options),
        };
        self.waits.push(Wait { until, done });
    }

    fn reconfigure(&mut self, options: HostsOptions) -> Until {
        let starts_others = options.starts_others(&self.setup.options);
        let variables = options.changed_variables(&self.setup.options);
        self.pool.set_policy(options.policy());
        self.setup = Arc::new(Setup { runtime: Arc::clone(&self.setup.runtime), options });
        if !starts_others && variables.variables.is_empty() {
            return Until::Settled;
        }
        if !starts_others {
            info!(pool = &*self.name, "updating environment variables of running hosts");
            self.pool.start_afresh();
            self.command_all(|| HostCommand::SetEnv(variables.clone()));
            return Until::EnvSet(self.pool.hosts());
        }
        info!(pool = &*self.name, "hosts are being replaced: their settings have changed");
        self.pool.start_afresh();
        Until::Gone(self.pool.recycle())
    }

    /// A host has said whether it goes by other variables. One that does not is replaced.
    pub(super) fn env_set(&mut self, host: HostNumber, is_set: bool) {
        if !is_set {
            self.pool.outdate(host);
        }
        for wait in &mut self.waits {
            if let Until::EnvSet(hosts) = &mut wait.until {
                hosts.remove(&host);
            }
        }
    }

    /// Tells those who wait for something that is so by now, or will not be.
    pub(super) fn settle_waits(&mut self) {
        for mut wait in std::mem::take(&mut self.waits) {
            let is_draining = self.pool.is_draining();
            let result = match &wait.until {
                _ if self.closing.is_some() => Some(Err(ManageError::Closed)),
                Until::Gone(hosts) if !hosts.iter().any(|host| self.pool.has(*host)) => Some(Ok(())),
                Until::EnvSet(hosts) if !hosts.iter().any(|host| self.pool.has(*host)) => {
                    wait.until = Until::Settled;
                    None
                }
                Until::Empty if !is_draining => Some(Err(ManageError::Overtaken)),
                Until::Empty if self.pool.is_empty() => Some(Ok(())),
                Until::Settled if is_draining => Some(Err(ManageError::Overtaken)),
                Until::Settled if self.pool.is_settled() => match self.pool.leaving_hosts() {
                    leaving if leaving.is_empty() => Some(Ok(())),
                    leaving => {
                        // There are as many as there are to be when those that are too many are gone.
                        wait.until = Until::Gone(leaving);
                        None
                    }
                },
                Until::Gone(_) | Until::Settled if self.pool.is_open() => Some(Err(ManageError::Failing)),
                _ => None,
            };
            match result {
                // Fails when nobody waits.
                Some(result) => drop(wait.done.send(result)),
                None if wait.done.is_closed() => {}
                None => self.waits.push(wait),
            }
        }
    }

    pub(super) fn close(&mut self, deadline: Instant, done: Option<oneshot::Sender<()>>) {
        if let Some(closing) = &mut self.closing {
            closing.deadline = closing.deadline.min(deadline);
            closing.done.extend(done);
            return;
        }
        self.closing = Some(Closing { deadline, is_forced: false, done: done.into_iter().collect() });
        self.command_all(|| HostCommand::Stop(Reason::Retired));
    }

    /// Refuses who wants a host, and uses force when it is time. Returns when this is to be done again.
    pub(super) fn tend_to_closing(&mut self) -> Option<Instant> {
        self.refuse_all("the worker shuts down");
        let closing = self.closing.as_mut()?;
        let is_time = !closing.is_forced && Instant::now() >= closing.deadline;
        closing.is_forced |= is_time;
        let next = closing.next_deadline();
        if is_time {
            self.command_all(|| HostCommand::Shutdown);
        }
        Some(next)
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.is_forced && Instant::now() >= closing.next_deadline())
    }

    pub(super) fn command_all(&self, command: impl Fn() -> HostCommand) {
        for host in self.pool.handles() {
            // Fails when the host is dead, which is about to be reported.
            let _ = host.send(command());
        }
    }
}
