//! Reports: a row for each finished job, kept in the store, and mailed as a table at certain times.

mod csv;
mod file;
mod follow;
mod mail;
mod position;
mod rows;

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::task::JoinSet;

pub use self::csv::{InvalidAttachment, parse_attachment};
pub use self::file::{InvalidReports, parse_reports};
pub use self::rows::{Column, Filter, Rows};
use super::client::Client;
use super::cron::Cron;
use super::paths::{Paths, Shelf};

/// A report of a service. It needs the paths of the present generation.
#[derive(derive_more::Debug, Clone)]
#[debug("Report({name})")]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Which jobs, and what of them.
    pub rows: Rows,
    /// When it is mailed.
    pub frequency: Cron,
    /// Makes the `config` of the mail's job, which gets the table as its first attachment.
    pub email: Arc<dyn Fn() -> Map<String, Value> + Send + Sync>,
    /// Whether it is mailed without rows, too.
    pub send_empty: bool,
}

/// What the tasks of a report share.
#[derive(Clone)]
pub(super) struct ReportEnv {
    report: Arc<Report>,
    client: Client,
    paths: Paths,
}

/// Runs a report for as long as `tasks` lives.
pub(super) fn start(report: Report, client: Client, paths: Paths, tasks: &mut JoinSet<()>) {
    let env = ReportEnv { report: Arc::new(report), client, paths };
    tasks.spawn(follow::follow(env.clone(), Shelf::Success, "successwatch"));
    tasks.spawn(follow::follow(env.clone(), Shelf::Failure, "failwatch"));
    tasks.spawn(mail::mail(env));
}
