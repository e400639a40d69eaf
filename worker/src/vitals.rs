//! How the worker is, in one look: what readiness, metrics and the dashboard are made from.

use serde::Serialize;

use crate::hosts::PoolStatus;
use crate::lightning::LightningStatus;

/// A look at the worker.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
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
    /// Hosts do not fail one after the other.
    pub circuit_closed: bool,
    /// Run tokens are not refused one after the other.
    pub tokens_accepted: bool,
    /// The worker was not asked to stop, nor to be without hosts for now.
    pub not_draining: bool,
    /// More about what is missing, where more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Vitals {
    /// What that means for who sends work.
    pub fn readiness(&self) -> Readiness {
        let engine_answered = self.pool.is_some();
        let queue_joined = self.lightning.as_ref().is_some_and(|it| it.joined);
        let circuit_closed = !self.pool.as_ref().is_some_and(|it| it.is_circuit_open);
        let not_draining = !self.draining && !self.pool.as_ref().is_some_and(|it| it.is_draining);
        let reason = self.lightning.as_ref().and_then(|it| it.token_fault.clone());
        let tokens_accepted = reason.is_none();
        let ready = engine_answered && queue_joined && circuit_closed && tokens_accepted && not_draining;
        Readiness { ready, engine_answered, queue_joined, circuit_closed, tokens_accepted, not_draining, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Vitals {
        let lightning = LightningStatus { joined: true, ..LightningStatus::default() };
        let pool = PoolStatus { started: 1, ..PoolStatus::default() };
        Vitals { draining: false, lightning: Some(lightning), pool: Some(pool) }
    }

    #[test]
    fn each_thing_that_is_missing_makes_it_unready_and_is_told() {
        type Change = fn(&mut Vitals);
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
            (|it| it.draining = true, |it| !it.not_draining),
            (|it| it.pool.as_mut().unwrap().is_draining = true, |it| !it.not_draining),
        ];
        assert!(well().readiness().ready);
        for (at, (change, told)) in cases.iter().enumerate() {
            let mut vitals = well();
            change(&mut vitals);
            let readiness = vitals.readiness();
            assert!(!readiness.ready && told(&readiness), "case {at}: {readiness:?}");
        }
    }
}
