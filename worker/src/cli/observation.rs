//! Options of `worker start`: who gets to see what happens.

use std::time::Duration;

use clap::Args;

use super::values::{milliseconds, ratio};
use crate::telemetry::{Attributes, Destination, Dsn, Headers, Sampler};

/// Who gets to see what happens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observation")]
pub struct ObservationArgs {
    /// Serve a dashboard at /dashboard: to this machine alone, unless --host says where.
    #[arg(long, env = "WORKER_DASHBOARD")]
    pub dashboard: bool,

    /// Show steps by their ids, not by the names that users gave: dashboard, top, history, traces.
    #[arg(long, env = "WORKER_HIDE_NAMES")]
    pub hide_names: bool,

    /// Send traces of runs to this collector, as OTLP over HTTP in JSON, to /v1/traces below the address.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Destination>,

    /// Headers for that collector: `name=value,other=value`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "HEADERS")]
    pub otlp_headers: Option<Headers>,

    /// The name of the service in traces, instead of `openfn-worker`.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    pub otlp_service_name: Option<String>,

    /// What else traces say of where they come from: `key=value,other=value`.
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_name = "ATTRIBUTES")]
    pub otlp_attributes: Option<Attributes>,

    /// Which runs are sent.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "SAMPLER", value_enum, default_value = "always_on")]
    pub otlp_sampler: Sampler,

    /// The part of the runs that the sampler `traceidratio` takes, from 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", value_parser = ratio, default_value = "1")]
    pub otlp_sampler_arg: f64,

    /// Report the worker's own errors to this Sentry. No run's data is in them.
    #[arg(long, visible_alias = "dsn", env = "WORKER_SENTRY_DSN", hide_env_values = true, value_name = "DSN")]
    pub sentry_dsn: Option<Dsn>,

    /// The environment that the reports name.
    #[arg(long, env = "WORKER_SENTRY_ENV", value_name = "NAME", default_value = "dev")]
    pub sentry_env: String,

    /// Log the peak memory of each step.
    #[arg(long, env = "WORKER_PROFILE")]
    pub profile: bool,

    /// Time between looks at the memory, in milliseconds.
    #[arg(
        long,
        env = "WORKER_PROFILE_POLL_INTERVAL_MS",
        value_name = "MS",
        default_value = "10",
        value_parser = milliseconds
    )]
    pub profile_poll_interval_ms: Duration,
}
