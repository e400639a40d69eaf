//! What `worker oada` tells over HTTP: whether it lives, whether it can work off jobs, and what it has counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hosts::Hosts;
use oada::service::{Service, ServiceStatus};
use serde::Serialize;

use crate::health::Health;
use crate::http::Probed;

/// A service as the HTTP server sees it.
#[derive(Default)]
pub(super) struct Probes {
    /// Once the first host has answered.
    pub(super) hosts: OnceLock<Hosts>,
    /// Once its own queue is watched.
    pub(super) service: OnceLock<Arc<Service>>,
    draining: AtomicBool,
}

impl Probes {
    /// It was asked to stop.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Whether the service can work off jobs, and if not, why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Conditions {
    /// All of the others but the last.
    ready: bool,
    /// A host has answered.
    engine_answered: bool,
    /// There is a connection to the service's own store.
    store_connected: bool,
    /// The service's own queue is watched.
    queue_watched: bool,
    /// The store takes the service's own token.
    token_accepted: bool,
    /// Each file in the folder of handlers can be used, or one before it is used on.
    handlers_usable: bool,
    /// The circuit breaker of hosts is closed.
    circuit_closed: bool,
    /// The service was not asked to stop.
    not_draining: bool,
    /// Other queues that cannot be watched at present. One store that is away does not make the service unready.
    unwatched_queues: Vec<String>,
    /// Types whose jobs are left alone for now, and why.
    withheld_types: BTreeMap<String, String>,
}

fn conditions(health: &Health, service: Option<ServiceStatus>) -> Conditions {
    let of_hosts = health.readiness();
    let (engine_answered, circuit_closed) = (of_hosts.engine_answered, of_hosts.circuit_closed);
    let not_draining = of_hosts.not_draining;
    let store_connected = service.as_ref().is_some_and(|it| it.is_connected);
    let queue_watched = service.as_ref().is_some_and(|it| it.is_watched);
    let token_accepted = service.as_ref().is_some_and(|it| it.is_authorized);
    let (unwatched_queues, withheld_types) = service.map(|it| (it.unwatched, it.withheld)).unwrap_or_default();
    let handlers_usable = withheld_types.is_empty();
    let of_store = store_connected && queue_watched && token_accepted;
    let ready = engine_answered && of_store && handlers_usable && circuit_closed && not_draining;
    Conditions {
        ready,
        engine_answered,
        store_connected,
        queue_watched,
        token_accepted,
        handlers_usable,
        circuit_closed,
        not_draining,
        unwatched_queues,
        withheld_types,
    }
}

impl Probed for Probes {
    type Conditions = Conditions;

    async fn health(&self) -> Health {
        let pool = match self.hosts.get() {
            Some(hosts) => hosts.status().await,
            None => None,
        };
        Health { draining: self.draining.load(Ordering::Relaxed), lightning: None, pool }
    }

    async fn readiness(&self) -> (bool, Conditions) {
        let status = self.service.get().map(|service| service.status());
        let conditions = conditions(&self.health().await, status);
        (conditions.ready, conditions)
    }
}

#[cfg(test)]
mod tests {
    use hosts::PoolStatus;

    use super::*;

    #[test]
    fn each_thing_that_is_missing_makes_it_unready_and_is_told() {
        type Change = fn(&mut Health, &mut ServiceStatus);
        type Told = fn(&Conditions) -> bool;
        let well = || {
            let pool = PoolStatus { started: 1, ..PoolStatus::default() };
            let (unwatched, withheld) = Default::default();
            let service =
                ServiceStatus { is_connected: true, is_watched: true, is_authorized: true, unwatched, withheld };
            (Health { pool: Some(pool), ..Health::default() }, service)
        };
        let cases: &[(Change, Told)] = &[
            (|health, _| health.pool = None, |it| !it.engine_answered),
            (|_, service| service.is_connected = false, |it| !it.store_connected),
            (|_, service| service.is_watched = false, |it| !it.queue_watched),
            (|_, service| service.is_authorized = false, |it| !it.token_accepted),
            (|_, service| drop(service.withheld.insert("mail".into(), "why".into())), |it| !it.handlers_usable),
            (|health, _| health.pool.as_mut().unwrap().is_circuit_open = true, |it| !it.circuit_closed),
            (|health, _| health.draining = true, |it| !it.not_draining),
        ];
        for (at, (change, told)) in cases.iter().enumerate() {
            let (mut health, mut service) = well();
            change(&mut health, &mut service);
            let conditions = conditions(&health, Some(service));
            assert!(!conditions.ready && told(&conditions), "case {at}: {conditions:?}");
        }
        let (health, service) = well();
        assert!(!conditions(&health, None).ready, "a service that has not started is not ready");
        let elsewhere = ServiceStatus { unwatched: vec!["far".to_owned()], ..service };
        let conditions = conditions(&health, Some(elsewhere));
        assert!(conditions.ready && conditions.unwatched_queues == ["far"], "{conditions:?}");
    }
}
