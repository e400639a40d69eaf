//! The tasks beside the worker: they look at it, tell others, and it never waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::metrics::metrics;
use hosts::Hosts;
use lightning::Lightning;
use lightning::timeline;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::StartOptions;
use crate::http::Dashboard;
use crate::systemd;
use crate::telemetry::{self, Sampling, export_traces, lines, profile_steps, report_errors};

/// How long the last traces may take to be sent.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// Time between looks at how late timers fire.
const LAG_CHECK: Duration = Duration::from_millis(500);

/// The tasks that watch the worker. They end when this is dropped.
pub(crate) struct Watchers {
    tasks: JoinSet<()>,
    /// If one is wanted.
    pub(crate) dashboard: Option<Arc<Dashboard>>,
    traces: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// When the worker is to have stopped, once it was asked to.
    end: watch::Sender<Option<Instant>>,
}

impl Watchers {
    /// Starts those that need nothing of the worker.
    pub(crate) fn start(options: &StartOptions) -> Self {
        let wanted = &options.observation;
        let (stop, stopped) = watch::channel(false);
        let (mut tasks, mut traces) = (JoinSet::new(), JoinSet::new());
        tasks.spawn(measure_lag());
        tasks.spawn(systemd::keep_watchdog());
        if let Some(collector) = wanted.otlp_endpoint.clone() {
            let (service, attributes) = (wanted.otlp_service_name.clone(), wanted.otlp_attributes.clone());
            let source = telemetry::Source::new(options.claiming.name.clone(), service, attributes);
            let sampling = Sampling { sampler: wanted.otlp_sampler, ratio: wanted.otlp_sampler_arg };
            let headers = wanted.otlp_headers.clone();
            traces.spawn(export_traces(source, collector, headers, sampling, timeline::subscribe(), stopped));
        }
        if let Some(dsn) = wanted.sentry_dsn.clone() {
            tasks.spawn(report_errors(dsn, wanted.sentry_env.clone(), lines().subscribe()));
        }
        let dashboard = wanted.dashboard.then(Arc::<Dashboard>::default);
        if let Some(dashboard) = dashboard.clone() {
            tasks.spawn(async move { dashboard.follow_runs().await });
        }
        Self { tasks, dashboard, traces, stop, end: watch::channel(None).0 }
    }

    /// Starts the others.
    pub(crate) fn watch(&mut self, hosts: &Arc<Hosts>, lightning: &Lightning, options: &StartOptions) {
        self.tasks.spawn(systemd::keep_status(lightning.watch(), self.end.subscribe()));
        if let Some(dashboard) = self.dashboard.clone() {
            let events = hosts.events();
            self.tasks.spawn(async move { dashboard.follow_hosts(events).await });
        }
        if options.observation.profile {
            let pause = options.observation.profile_poll_interval_ms;
            self.tasks.spawn(profile_steps(Arc::clone(hosts), pause, timeline::subscribe()));
        }
    }

    /// The worker stops, which takes `longest` at most.
    pub(crate) fn stopping(&self, longest: Duration) {
        self.end.send_replace(Instant::now().checked_add(longest).or(Some(far_future())));
    }

    /// Lets the last traces go.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        // What is not sent by then is lost.
        let _ = tokio::time::timeout(LAST_TRACES, self.traces.join_next()).await;
    }
}

/// A moment that no worker lives to see.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(10 * 365 * 24 * 60 * 60)
}

/// Measures for ever how much too late timers fire.
async fn measure_lag() {
    loop {
        let due = Instant::now() + LAG_CHECK;
        tokio::time::sleep(LAG_CHECK).await;
        metrics().lagged(due.elapsed());
    }
}
