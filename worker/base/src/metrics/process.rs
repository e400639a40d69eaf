//! What Prometheus' clients tell of every process, by the names that dashboards look for.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use protocol::clock::since_epoch;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::processes;

/// The worker's own process.
#[derive(Debug)]
pub(super) struct Process {
    /// When it began, in seconds since the epoch, as near as it was looked at.
    started: f64,
}

impl Process {
    /// For a process that has just begun.
    pub(super) fn new() -> Self {
        Self { started: since_epoch().as_secs_f64() }
    }

    /// Writes what is so now. What the system does not tell is left out.
    pub(super) fn encode(&self, text: &mut impl Write) {
        let mut registry = Registry::with_prefix("process");
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        registry.register_with_unit("cpu", "Processor time of the worker", Unit::Seconds, ConstCounter::new(seconds));
        let started = ConstGauge::new(self.started);
        registry.register_with_unit("start_time", "When the worker began, since the epoch", Unit::Seconds, started);
        let resident = processes::resident(std::process::id());
        let mut count = |name: &str, help: &str, value: u64| {
            let gauge: Gauge<u64, AtomicU64> = Gauge::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        };
        count("resident_memory_bytes", "Resident memory of the worker", resident);
        if let Some(most) = getrlimit(Resource::Nofile).current {
            count("max_fds", "Descriptors that the worker may have open", most);
        }
        if let Some(open) = processes::open_descriptors() {
            count("open_fds", "Descriptors that the worker has open", open);
        }
        // Writing to a string does not fail.
        let _ = encode_registry(text, &registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_every_client_of_prometheus() {
        let mut text = String::new();
        Process::new().encode(&mut text);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
            let value = line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("{name} is missing in:\n{text}"))
        };
        assert!(value("process_cpu_seconds_total ") > 0.0);
        assert!(value("process_start_time_seconds ") > 1.7e9);
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!((3.0..value("process_max_fds ")).contains(&value("process_open_fds ")));
    }
}
