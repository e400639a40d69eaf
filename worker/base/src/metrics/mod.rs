//! What the worker counts and measures, for Prometheus: every name, unit, label and help text.
//!
//! There is one set of metrics in a process, like there is one log. Labels take few values: queues as configured,
//! reasons and states from enums, error types from a list. Nothing of a run's data, and no id, becomes a label; exemplars, which
//! are not labels, name a run by its id.

mod format;
mod labels;
mod process;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use self::format::Format;
pub use self::labels::error_type;
use crate::processes;

/// Before every name but the ones that Prometheus gives to every process.
const PREFIX: &str = "openfn_worker";

/// Upper bounds, in seconds, for what takes from a millisecond to an hour.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
    1800.0, 3600.0,
];

/// Upper bounds, in seconds, for what takes from a second to six days.
const LONG_SECONDS: [f64; 20] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
    65536.0, 131_072.0, 262_144.0, 524_288.0,
];

/// Why engines are started that were to be forked.
const FORK_FALLBACKS: [&str; 8] =
    ["unwanted", "warming", "given_up", "starts_processes", "refused", "not_adopted", "died", "silent"];

/// Upper bounds, in seconds, for a fork.
const FORK_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 1.0];

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
/// Each bucket of it names the last run that fell into it.
type RunHistogram = HistogramWithExemplars<[(&'static str, String); 1]>;
type RunHistograms = Family<Labels<1>, RunHistogram, Buckets>;

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new().with_zeros());
    &METRICS
}

#[derive(Debug, Clone, Copy, Default)]
struct Buckets;

impl MetricConstructor<RunHistogram> for Buckets {
    fn new_metric(&self) -> RunHistogram {
        RunHistogram::new(SECONDS.iter().copied())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct LongBuckets;

impl MetricConstructor<Histogram> for LongBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LONG_SECONDS)
    }
}

/// A registry that hands out what it registers.
struct Registrar(Registry);

impl Registrar {
    fn plain<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.plain(name, help, M::default())
    }

    fn with_unit<M: Metric + Clone>(&mut self, name: &str, unit: Unit, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    /// A histogram of times.
    fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        self.with_unit(name, Unit::Seconds, help, Histogram::new(SECONDS.iter().copied()))
    }

    /// A gauge of memory.
    fn bytes(&mut self, name: &str, help: &str) -> Gauge {
        self.with_unit(name, Unit::Bytes, help, Gauge::default())
    }
}

/// Declares the metrics and registers them, in this order.
macro_rules! metrics {
    ($registrar:ident: $($(#[$doc:meta])* $visibility:vis $name:ident: $type:ty = $registered:expr;)*) => {
        /// Everything that is counted and measured.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            process: process::Process,
            $($(#[$doc])* $visibility $name: $type,)*
        }

        impl Metrics {
            fn new() -> Self {
                let mut $registrar = Registrar(Registry::with_prefix(PREFIX));
                let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                $registrar.0.register("build", "Version of the worker", version);
                $(let $name = $registered;)*
                Self { registry: $registrar.0, process: process::Process::new(), $($name,)* }
            }
        }
    };
}

metrics! {
    it:
    capacity: Family<Labels<1>, Gauge> = it.add("capacity", "Runs that each workloop may execute at once");
    active_runs: Family<Labels<1>, Gauge> = it.add("active_runs", "Runs of each workloop that have not ended");
    open_claims: Family<Labels<1>, Gauge> = it.add("open_claims", "Runs of each workloop that are claimed and not answered");
    claims: Family<Labels<1>, Counter> = it.add("claims", "Claims that were answered, by what they brought");
    claim_duration: Histogram = it.seconds("claim_duration", "Time from a claim to its answer");
    runs_claimed: Family<Labels<1>, Counter> = it.add("runs_claimed", "Runs that each workloop has got");
    /// Runs refused: their token is not valid, or they are more than were asked for.
    pub runs_refused: Counter = it.add("runs_refused", "Runs refused: token not valid, or more than were asked for");
    runs_ended: Family<Labels<2>, Counter> = it.add("runs_ended", "Runs that ended, by reason and type of error");
    /// Runs whose end Lightning did not confirm.
    pub runs_undelivered: Counter = it.add("runs_undelivered", "Runs whose end Lightning did not confirm");
    run_phase_duration: RunHistograms = it.with_unit(
        "run_phase_duration",
        Unit::Seconds,
        "Time that runs spent in a phase: prepare (claimed until a host has it), start (until the engine runs \
         it), execute (until its outcome), deliver (until Lightning has everything)",
        RunHistograms::new_with_constructor(Buckets),
    );
    run_duration: RunHistogram = it.with_unit("run_duration", Unit::Seconds, "Time from claim to end of a run", Buckets.new_metric());
    /// Events of active runs that Lightning has not confirmed.
    pub outbox_events: Gauge = it.add("outbox_events", "Events of active runs that Lightning has not confirmed");
    /// Events sent again after the link or a channel was lost.
    pub events_resent: Counter = it.add("events_resent", "Events sent again after the link or a channel was lost");
    /// Events that Lightning refused.
    pub events_rejected: Counter = it.add("events_rejected", "Events that Lightning refused");
    /// Log lines thrown away because Lightning took them too slowly.
    pub log_lines_dropped: Counter = it.add("log_lines_dropped", "Log lines thrown away as Lightning took them too slowly");
    /// Answers of Lightning that were late.
    pub replies_late: Counter = it.add("replies_late", "Answers of Lightning that took longer than --message-timeout");
    /// Whether there is a websocket to Lightning.
    pub connected: Gauge = it.add("lightning_connected", "Whether there is a websocket to Lightning");
    /// Whether Lightning's queue is joined.
    pub joined: Gauge = it.add("lightning_joined", "Whether Lightning's queue is joined");
    /// Websockets opened to Lightning.
    pub connections: Counter = it.add("lightning_connections", "Websockets opened to Lightning");
    /// Websockets lost.
    pub connections_lost: Counter = it.add("lightning_connections_lost", "Websockets to Lightning that were lost");
    /// Attempts to connect that failed.
    pub connect_failures: Counter = it.add("lightning_connect_failures", "Attempts to connect to Lightning that failed");
    hosts: Family<Labels<1>, Gauge> = it.add("hosts", "Engine hosts that live, by state");
    /// Runs that wait for a host.
    pub hosts_waiting: Gauge = it.add("runs_waiting_for_host", "Runs that wait for an engine host");
    hosts_started: Counter = it.add("hosts_started", "Engine hosts started");
    host_start_duration: Histogram = it.seconds("host_start_duration", "Time until an engine host is ready, from the decision to start it or to have it prepare another engine");
    host_ends: Family<Labels<2>, Counter> = it.add("host_ends", "Engine hosts that ended, by what they were doing and why they ended");
    reservations: Family<Labels<1>, Counter> = it.add("reservations", "Hosts lent to runs, by whether they had prepared what the run wants");
    /// Whether run tokens are refused one after the other.
    pub token_circuit_open: Gauge = it.add("token_circuit_open", "Whether run tokens are refused one after the other, so that runs are claimed only as probes");
    /// Whether hosts fail so often that no run can be executed.
    pub circuit_open: Gauge = it.add("circuit_open", "Whether hosts fail so often that no run can be executed");
    adaptor_installs: Family<Labels<1>, Counter> = it.add("adaptor_installs", "Installations of adaptors, by result");
    adaptor_install_duration: Histogram = it.seconds("adaptor_install_duration", "Time that the installation of an adaptor took");
    forks: Counter = it.add("forks", "Node engines that were forked from a template");
    fork_duration: Histogram = it.with_unit(
        "fork",
        Unit::Seconds,
        "Time that a template took to fork an engine",
        Histogram::new(FORK_SECONDS),
    );
    fork_fallbacks: Family<Labels<1>, Counter> = it.add("fork_fallbacks", "Node engines that were to be forked and are started, by reason");
    template_private: Gauge = it.bytes("template_private", "Memory that the templates had for themselves when they were ready");
    /// Resident memory of all hosts, in bytes.
    pub hosts_memory: Gauge = it.bytes("hosts_resident_memory", "Resident memory of all engine hosts with their engines; shared pages count once for each process");
    memory: Gauge = it.bytes("resident_memory", "Resident memory of the worker");
    event_loop_lag: Histogram = it.seconds("event_loop_lag", "How much too late the worker's timers fire");
    /// Panics of tasks and of request handlers.
    pub panics: Counter = it.add("panics", "Panics of tasks and of request handlers: each is a bug, and in the worker's log");
    /// Whether no work is taken, as somebody wants.
    pub draining: Gauge = it.add("draining", "Whether the worker was asked to stop, or to be without hosts for now");
    exports_dropped: Family<Labels<1>, Counter> = it.add("exports_dropped", "Traces and error reports that their collector did not take");
    oada_jobs: Family<Labels<3>, Gauge> = it.add("oada_jobs", "OADA jobs, by what they do (queued, running) or how they ended");
    oada_job_duration: Family<Labels<3>, Histogram, LongBuckets> = it.with_unit(
        "oada_job_duration",
        Unit::Seconds,
        "Time from the first look at an OADA job until it is filed",
        Family::new_with_constructor(LongBuckets),
    );
    /// What OADA handlers did after their run had ended.
    pub oada_late_updates: Counter = it.add("oada_late_updates", "What OADA handlers did after their run had ended");
    oada_queues_refused: Family<Labels<1>, Gauge> = it.add("oada_queues_refused", "OADA queues whose token their store refuses");
}

impl Metrics {
    /// Begins at zero what has few labels: a rate needs a first value.
    fn with_zeros(self) -> Self {
        let counters = [
            (&self.claims, "outcome", ["runs", "nothing"]),
            (&self.reservations, "warm", ["hit", "miss"]),
            (&self.adaptor_installs, "result", ["installed", "failed"]),
            (&self.exports_dropped, "kind", ["traces", "errors"]),
        ];
        for (counter, name, values) in counters {
            values.into_iter().for_each(|value| drop(counter.get_or_create(&label(name, value))));
        }
        for reason in FORK_FALLBACKS {
            drop(self.fork_fallbacks.get_or_create(&label("reason", reason)));
        }
        for phase in ["prepare", "start", "execute", "deliver"] {
            drop(self.run_phase_duration.get_or_create(&label("phase", phase)));
        }
        drop(self.runs_ended.get_or_create(&[("reason", "success".into()), ("error_type", "".into())]));
        drop(self.host_ends.get_or_create(&[("phase", "stopping".into()), ("reason", "retired".into())]));
        self
    }

    /// A claim was answered with so many runs.
    pub fn claim_answered(&self, took: Duration, runs: usize) {
        self.claim_duration.observe(took.as_secs_f64());
        let outcome = if runs > 0 { "runs" } else { "nothing" };
        self.claims.get_or_create(&label("outcome", outcome)).inc();
    }

    /// A workloop got a run.
    pub fn run_claimed(&self, workloop: &str) {
        self.runs_claimed.get_or_create(&[("workloop", workloop.to_owned().into())]).inc();
    }

    /// A run left one of its phases.
    pub fn run_phase(&self, run: &str, phase: &'static str, took: Duration) {
        self.run_phase_duration.get_or_create(&label("phase", phase)).observe(took.as_secs_f64(), exemplar(run), None);
    }

    /// A run ended; without an exit it was given up before it had one.
    pub fn run_ended(&self, run: &str, exit: Option<(&'static str, &'static str)>, took: Duration) {
        let (reason, error_type) = exit.unwrap_or(("lost", ""));
        let labels = [("reason", reason.into()), ("error_type", error_type.into())];
        self.runs_ended.get_or_create(&labels).inc();
        self.run_duration.observe(took.as_secs_f64(), exemplar(run), None);
    }

    /// A host's start was decided.
    pub fn host_started(&self) {
        self.hosts_started.inc();
    }

    /// A host is ready after so long.
    pub fn host_ready(&self, after: Duration) {
        self.host_start_duration.observe(after.as_secs_f64());
    }

    /// A host ended.
    pub fn host_ended(&self, phase: &'static str, reason: &'static str) {
        let labels = [("phase", phase.into()), ("reason", reason.into())];
        self.host_ends.get_or_create(&labels).inc();
    }

    /// A run got a host, which had prepared what the run wants or not.
    pub fn reservation(&self, warm: bool) {
        self.reservations.get_or_create(&label("warm", if warm { "hit" } else { "miss" })).inc();
    }

    /// An engine was forked.
    pub fn forked(&self, took: Duration) {
        self.forks.inc();
        self.fork_duration.observe(took.as_secs_f64());
    }

    /// An engine was to be forked, and is started for this reason.
    pub fn fork_fallback(&self, reason: &'static str) {
        self.fork_fallbacks.get_or_create(&label("reason", reason)).inc();
    }

    /// The templates that there are have so much memory, in bytes.
    pub fn templates(&self, bytes: u64) {
        self.template_private.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An adaptor was installed, or failed to be.
    pub fn adaptor_installed(&self, worked: bool, took: Duration) {
        self.adaptor_installs.get_or_create(&label("result", if worked { "installed" } else { "failed" })).inc();
        self.adaptor_install_duration.observe(took.as_secs_f64());
    }

    /// Something that was meant for a collector (`traces`, `errors`) was thrown away.
    pub fn export_dropped(&self, kind: &'static str) {
        self.exports_dropped.get_or_create(&label("kind", kind)).inc();
    }

    /// A timer fired so much too late.
    pub fn lagged(&self, lag: Duration) {
        self.event_loop_lag.observe(lag.as_secs_f64());
    }

    /// How many OADA jobs of a service and type are in this state; in an end they only grow.
    pub fn oada_jobs(&self, service: &str, kind: &str, state: &'static str) -> Gauge {
        self.oada_jobs.get_or_create(&oada_labels(service, kind, ("state", state))).clone()
    }

    /// An OADA job was filed.
    pub fn oada_job_finished(&self, service: &str, kind: &str, status: &'static str, took: Duration) {
        let labels = oada_labels(service, kind, ("status", status));
        self.oada_job_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// How many OADA queues of a service have a token that their store refuses.
    pub fn oada_queues_refused(&self, service: &str) -> Gauge {
        self.oada_queues_refused.get_or_create(&[("service", service.to_owned().into())]).clone()
    }

    /// What a workloop does at present.
    pub fn workloop(&self, name: &str, capacity: usize, active: usize, open: usize) {
        let labels = [("workloop", name.to_owned().into())];
        for (gauge, value) in [(&self.capacity, capacity), (&self.active_runs, active), (&self.open_claims, open)] {
            gauge.get_or_create(&labels).set(count(value));
        }
    }

    /// How many hosts are in a state at present.
    pub fn hosts(&self, state: &'static str, hosts: usize) {
        self.hosts.get_or_create(&label("state", state)).set(count(hosts));
    }

    /// All metrics in a format.
    pub fn render(&self, format: Format) -> String {
        self.memory.set(i64::try_from(processes::resident(std::process::id())).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        self.process.encode(&mut text);
        let _ = encode_eof(&mut text);
        format.of(text)
    }
}

/// Names a run, unless its id is longer than an exemplar may be.
fn exemplar(run: &str) -> Option<[(&'static str, String); 1]> {
    /// Of 128 characters for name and value.
    const LONGEST: usize = 100;
    (run.chars().count() <= LONGEST).then(|| [("run_id", run.to_owned())])
}

fn label(name: &'static str, value: &'static str) -> Labels<1> {
    [(name, value.into())]
}

fn oada_labels(service: &str, kind: &str, (name, value): (&'static str, &'static str)) -> Labels<3> {
    [("service", service.to_owned().into()), ("type", kind.to_owned().into()), (name, value.into())]
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered_with_units_and_labels() {
        let it = Metrics::new();
        it.run_ended("r1", Some(("fail", "TypeError")), Duration::from_millis(3));
        it.run_phase("r1", "prepare", Duration::from_millis(3));
        it.run_phase(&"x".repeat(200), "execute", Duration::from_millis(3));
        it.claim_answered(Duration::from_millis(7), 2);
        it.reservation(true);
        it.events_resent.inc();
        it.draining.set(1);
        it.hosts("ready", 0);
        let text = it.render(Format::OpenMetrics);
        for line in [
            "openfn_worker_runs_ended_total{reason=\"fail\",error_type=\"TypeError\"} 1",
            "openfn_worker_run_phase_duration_seconds_count{phase=\"prepare\"} 1",
            "openfn_worker_run_duration_seconds_bucket{le=\"0.005\"} 1 # {run_id=\"r1\"} 0.003",
            "openfn_worker_run_phase_duration_seconds_bucket{le=\"0.005\",phase=\"execute\"} 1",
            "openfn_worker_claims_total{outcome=\"runs\"} 1",
            "openfn_worker_reservations_total{warm=\"hit\"} 1",
            "openfn_worker_events_resent_total 1",
            "openfn_worker_draining 1",
            "openfn_worker_hosts{state=\"ready\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
        }
    }
}
