//! What hosts report, taken in.

use base::metrics::metrics;
use protocol::message::OpsReport;
use tracing::{debug, error, warn};

use super::{Command, Keeper, Report, chance, now};
use crate::death::{Death, Reason};
use crate::pool::HostNumber;
use crate::status::{HostEvent, HostState, describe};
use crate::supervisor::Said;

/// What to do about a unit or a machine that is full.
const MORE_MEMORY: &str = "lower --capacity or --run-memory, or give the unit (MemoryMax=) or the machine more memory";

impl Keeper {
    /// Takes in what a host reports.
    pub(super) fn hear(&mut self, host: HostNumber, report: Report) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        match report {
            Report::Started(pid) => {
                member.pid = pid;
                if let Some(pid) = pid {
                    debug!(host = %member.id, pid, "host started");
                    let host = member.id.clone();
                    self.publish(HostEvent::Started { host, pid });
                }
            }
            Report::Ready => self.hear_ready(host),
            Report::Unprepared(why) => {
                let wanted = member.prepared.take().map_or_else(String::new, |wanted| describe(&wanted));
                warn!(host = %member.id, "the host cannot prepare {wanted}: {why}");
                if member.state == HostState::Starting {
                    member.state = HostState::Ready;
                }
                self.pool.not_prepared(host, now());
            }
            Report::Measured(bytes) => {
                member.bytes = Some(bytes);
                self.pool.measured(host, bytes);
            }
            Report::Running(run_id) => {
                member.state = HostState::Running;
                member.run = Some(run_id);
                member.runs += 1;
            }
            Report::Heard => self.pool.heard(host),
            Report::Stopping => {
                if member.state == HostState::Running {
                    self.pool.finished_run();
                }
                member.state = HostState::Stopping;
                member.run = None;
                self.pool.leaving(host);
            }
            Report::Said(Said::Message(message)) => {
                let host = member.id.clone();
                self.publish(HostEvent::Message { host, message });
            }
            Report::Said(Said::Ops(report)) => self.hear_numbers(host, report),
            Report::EnvSet(is_set) => self.env_set(host, is_set),
            Report::Died(death) => self.bury(host, death),
        }
    }

    fn hear_ready(&mut self, host: HostNumber) {
        let Some(member) = self.hosts.get_mut(&host) else { return };
        if member.state == HostState::Starting {
            member.state = HostState::Ready;
            let (host, after) = (member.id.clone(), member.preparing_since.elapsed());
            debug!(%host, ?after, "host ready");
            metrics().host_ready(after);
            self.publish(HostEvent::Ready { host, after });
        }
        if self.pool.is_unmeasured(host)
            && let Some(member) = self.hosts.get(&host)
        {
            member.command(Command::Measure);
        }
        self.pool.ready(host, now());
    }

    fn hear_numbers(&mut self, host: HostNumber, report: OpsReport) {
        let dropped = self.ops.add(host, report.clone());
        let Some(member) = self.hosts.get(&host) else { return };
        if dropped > 0 {
            debug!(host = %member.id, dropped, "the host reports too many numbers, or none");
        }
        self.publish(HostEvent::Ops { host: member.id.clone(), report });
    }

    fn bury(&mut self, host: HostNumber, death: Death) {
        let Some(member) = self.hosts.remove(&host) else { return };
        let (id, pid) = (member.id, member.pid);
        self.ops.forget(host);
        metrics().host_ended(death.phase.as_str(), death.reason.label());
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
        if self.pool.died(host, death.is_failure(), now(), chance()) {
            error!(pool = &*self.name, "hosts fail one after the other; nobody waits for them until one gets ready");
            self.publish(HostEvent::CircuitOpened { death: death.clone() });
        }
        self.last_death = Some((id, death));
    }
}
