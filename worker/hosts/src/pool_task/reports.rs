//! What hosts report, taken in.

use base::metrics::metrics;
use protocol::backoff::jitter;
use protocol::message::OpsReport;
use tracing::{debug, error, warn};

use super::{HostCommand, PoolTask, Report, now};
use crate::death::{Death, Reason};
use crate::pool::{HostNumber, host_id};
use crate::status::{HostEvent, describe};
use crate::supervisor::Said;

/// What to do about a unit or a machine that is full.
const MORE_MEMORY: &str = "lower --capacity or --run-memory, or give the unit (MemoryMax=) or the machine more memory";

impl PoolTask {
    /// Takes in what a host reports.
    pub(super) fn hear(&mut self, host: HostNumber, report: Report) {
        // A run may outlive its host.
        if !self.pool.has(host) {
            return;
        }
        match report {
            Report::Started(pid) => {
                self.pool.spawned(host, pid);
                if let Some(pid) = pid {
                    let host = host_id(host);
                    debug!(host, pid, "host started");
                    self.publish(HostEvent::Started { host, pid });
                }
            }
            Report::Ready => self.hear_ready(host),
            Report::Unprepared(why) => {
                let wanted = self.pool.not_prepared(host, now()).as_ref().map(describe).unwrap_or_default();
                warn!(host = host_id(host), "engine host failed to prepare {wanted}: {why}");
            }
            Report::Measured(bytes) => self.pool.measured(host, bytes),
            Report::Running(run_id) => self.pool.running(host, run_id),
            Report::Heard => self.pool.heard(host),
            Report::Stopping => self.pool.leaving(host),
            Report::Said(Said::Message(message)) => self.publish(HostEvent::Message { host: host_id(host), message }),
            Report::Said(Said::Ops(report)) => self.hear_numbers(host, report),
            Report::EnvSet(is_set) => self.env_set(host, is_set),
            Report::Died(death) => self.died(host, death),
        }
    }

    fn hear_ready(&mut self, host: HostNumber) {
        if let Some(after) = self.pool.ready(host, now()) {
            let host = host_id(host);
            debug!(host, ?after, "host ready");
            metrics().host_ready(after);
            self.publish(HostEvent::Ready { host, after });
        }
        if self.pool.is_unmeasured(host) {
            self.command(host, HostCommand::Measure);
        }
    }

    fn hear_numbers(&mut self, host: HostNumber, report: OpsReport) {
        let dropped = self.ops.add(host, report.clone());
        let host = host_id(host);
        if dropped > 0 {
            debug!(host, dropped, "the host reports too many numbers, or none");
        }
        self.publish(HostEvent::Ops { host, report });
    }

    fn died(&mut self, host: HostNumber, death: Death) {
        let (id, pid) = (host_id(host), self.pool.pid(host));
        self.ops.forget(host);
        metrics().host_ended(death.phase.into(), (&death.reason).into());
        self.publish(if death.reason.is_wanted() {
            debug!(host = %id, pid, "host ended: it {death}");
            HostEvent::Ended { host: id.clone(), death: death.clone() }
        } else {
            warn!(host = %id, pid, "host died: it {death}");
            if death.reason == Reason::UnitOutOfMemory {
                error!(host = %id, "the worker's unit or the machine is out of memory: {MORE_MEMORY}");
            }
            HostEvent::Died { host: id.clone(), death: death.clone() }
        });
        if self.pool.died(host, death.is_failure(), now(), jitter()) {
            error!(
                pool = &*self.name,
                "circuit breaker open: engine hosts keep failing; no run is claimed until one becomes ready"
            );
            self.publish(HostEvent::CircuitOpened { death: death.clone() });
        }
        self.last_death = Some((id, death));
    }
}
