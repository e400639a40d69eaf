//! Options of `worker start`: where Lightning is, and how the worker proves itself.

use clap::Args;
use lightning::{Endpoint, RunTokenKey};
use secrecy::SecretString;

use super::values::{endpoint, secret};

/// Where Lightning is, and how the worker proves itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Lightning")]
pub struct LightningArgs {
    /// Lightning's worker endpoint, or `mock` for ws://localhost:8888/worker.
    #[arg(
        short = 'l',
        long,
        visible_alias = "lightning-service-url",
        env = "WORKER_LIGHTNING_SERVICE_URL",
        default_value = "ws://localhost:4000/worker",
        value_name = "URL",
        value_parser = endpoint
    )]
    pub lightning: Endpoint,

    /// The secret that Lightning knows workers by. Required unless `-l mock`.
    #[arg(
        short = 's',
        long,
        env = "WORKER_SECRET",
        hide_env_values = true,
        value_parser = secret
    )]
    pub secret: Option<SecretString>,

    /// Lightning's public key, PEM in base64: the tokens of runs are verified when it is set.
    #[arg(
        long,
        env = "WORKER_LIGHTNING_PUBLIC_KEY",
        hide_env_values = true,
        value_name = "BASE64",
        value_parser = RunTokenKey::from_base64_pem
    )]
    pub lightning_public_key: Option<RunTokenKey>,
}
