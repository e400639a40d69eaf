//! How the worker is, in one look: what readiness, metrics and the dashboard are made from.

use serde::Serialize;

use base::metrics::Metrics;

use hosts::{HostState, HostStatus, PoolStatus};
use lightning::LightningStatus;

/// A look at the worker.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// It was asked to stop.
    pub draining: bool,
    /// Where runs come from; none before the first engine has answered.
    pub lightning: Option<LightningStatus>,
    /// What executes them; none before the first engine has answered, and at the very end.
    pub pool: Option<PoolStatus>,
}

/// Whether the worker can take runs, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// All of the others.
    pub ready: bool,
    /// An engine has answered.
    pub engine_answered: bool,
    /// Lightning's queue is joined.
    pub queue_joined: bool,
    /// The circuit breaker of hosts is closed.
    pub circuit_closed: bool,
    /// Run tokens are not refused one after the other.
    pub tokens_accepted: bool,
    /// The worker was not asked to stop, nor to be without hosts for now.
    pub not_draining: bool,
    /// More about what is missing, where more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Health {
    /// What that means for who sends work.
    pub fn readiness(&self) -> Readiness {
        let engine_answered = self.pool.is_some();
        let queue_joined = self.lightning.as_ref().is_some_and(|it| it.joined);
        let circuit_closed = !self.pool.as_ref().is_some_and(|it| it.is_circuit_open);
        let is_drained =
            self.lightning.as_ref().is_some_and(|it| it.paused) || self.pool.as_ref().is_some_and(|it| it.is_draining);
        let not_draining = !self.draining && !is_drained;
        let token_fault = self.lightning.as_ref().and_then(|it| it.token_fault.clone());
        let tokens_accepted = token_fault.is_none();
        let reason = match (self.draining, is_drained) {
            (true, _) => Some("draining: the worker was asked to stop".to_owned()),
            (_, true) => Some("draining: `worker ctl resume` ends that".to_owned()),
            _ => token_fault,
        };
        let ready = engine_answered && queue_joined && circuit_closed && tokens_accepted && not_draining;
        Readiness { ready, engine_answered, queue_joined, circuit_closed, tokens_accepted, not_draining, reason }
    }

    /// Sets the gauges to it.
    pub fn show(&self, metrics: &Metrics) {
        metrics.draining.set(i64::from(!self.readiness().not_draining));
        if let Some(lightning) = &self.lightning {
            metrics.connected.set(i64::from(lightning.connected));
            metrics.joined.set(i64::from(lightning.joined));
            metrics.token_circuit_open.set(i64::from(lightning.token_fault.is_some()));
            for it in &lightning.workloops {
                metrics.workloop(&it.name, it.capacity, it.active, it.open);
            }
        }
        let pool = self.pool.as_ref();
        let hosts = pool.map_or(&[][..], |pool| &pool.hosts);
        for state in HostState::ALL {
            metrics.hosts(state.as_str(), hosts.iter().filter(|host| host.state == *state).count());
        }
        let bytes = hosts.iter().map(HostStatus::resident_bytes).sum::<u64>();
        metrics.hosts_memory.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        metrics.hosts_waiting.set(pool.map_or(0, |pool| i64::try_from(pool.waiting).unwrap_or(i64::MAX)));
        metrics.circuit_open.set(pool.map_or(0, |pool| i64::from(pool.is_circuit_open)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Health {
        let lightning = LightningStatus { joined: true, ..LightningStatus::default() };
        let pool = PoolStatus { started: 1, ..PoolStatus::default() };
        Health { draining: false, lightning: Some(lightning), pool: Some(pool) }
    }

    fn says(readiness: &Readiness, what: &str) -> bool {
        readiness.reason.as_deref().is_some_and(|reason| reason.starts_with("draining") && reason.contains(what))
    }

    #[test]
    fn each_thing_that_is_missing_makes_it_unready_and_is_told() {
        type Change = fn(&mut Health);
        type Told = fn(&Readiness) -> bool;
        let cases: &[(Change, Told)] = &[
            (|it| it.pool = None, |it| !it.engine_answered),
            (|it| it.lightning = None, |it| !it.queue_joined),
            (|it| it.lightning.as_mut().unwrap().joined = false, |it| !it.queue_joined),
            (|it| it.pool.as_mut().unwrap().is_circuit_open = true, |it| !it.circuit_closed),
            (
                |it| it.lightning.as_mut().unwrap().token_fault = Some("why".into()),
                |it| !it.tokens_accepted && it.reason.as_deref() == Some("why"),
            ),
            (|it| it.draining = true, |it| !it.not_draining && says(it, "asked to stop")),
            (|it| it.lightning.as_mut().unwrap().paused = true, |it| !it.not_draining && says(it, "resume")),
            (|it| it.pool.as_mut().unwrap().is_draining = true, |it| !it.not_draining && says(it, "resume")),
        ];
        assert!(well().readiness().ready && well().readiness().reason.is_none());
        for (at, (change, told)) in cases.iter().enumerate() {
            let mut health = well();
            change(&mut health);
            let readiness = health.readiness();
            assert!(!readiness.ready && told(&readiness), "case {at}: {readiness:?}");
        }
    }
}
