//! Looking at jobs from outside: lists, single jobs, and posting failed ones again.

use std::fmt::Write as _;

use base::escape::one_line;
use serde_json::Value;

use super::client::{Client, ClientError, Posted, if_there};
use super::job::{InvalidJob, Job, NewJob};
use super::list::links;
use super::paths::{Paths, Shelf};
use super::request::post_job;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Listed {
    /// With those that are to be done.
    #[value(alias = "jobs")]
    Pending,
    /// With those that succeeded.
    #[value(alias = "jobs-success")]
    Success,
    /// With those that failed.
    #[value(alias = "jobs-failure")]
    Failure,
}

/// A job that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The store did not do its part.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is none.
    #[error("there is no job {0} there")]
    Missing(String),
    /// What is there is not a job.
    #[error(transparent)]
    Job(#[from] InvalidJob),
}

/// The jobs that are pending, and those of the newest day of each shelf: a line a job.
pub async fn list(client: &Client, paths: &Paths) -> Result<String, LookupError> {
    let mut text = String::new();
    for (name, listed) in [("pending", Listed::Pending), ("success", Listed::Success), ("failure", Listed::Failure)] {
        let newest = lists(client, paths, listed).await?.into_iter().next();
        let Some(path) = newest else {
            let _ = writeln!(text, "{name}: none");
            continue;
        };
        let jobs = read_links(client, &path).await?;
        let day = path.rsplit_once("/day-index/").map(|(_, day)| format!(" {day}")).unwrap_or_default();
        let _ = writeln!(text, "{name}{day}: {}", jobs.len());
        for (key, id) in jobs {
            let body = client.get(&format!("/{id}")).await?.data.unwrap_or_default();
            let word = |name: &str| one_line(body.get(name).and_then(Value::as_str).unwrap_or("-"));
            let _ = writeln!(text, "  {}  {}  {}", one_line(&key), word("type"), word("status"));
        }
    }
    Ok(text)
}

/// What is in a list, whether it is a job or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// `resources/<id>`.
    pub id: String,
    /// All of it.
    pub body: Value,
}

/// A job by its key or its id. On shelves the newest day is looked at first.
pub async fn find(client: &Client, paths: &Paths, listed: Listed, wanted: &str) -> Result<Found, LookupError> {
    let wanted = wanted.trim_start_matches('/');
    for path in lists(client, paths, listed).await? {
        let found = read_links(client, &path).await?.into_iter().find(|(key, id)| key == wanted || id == wanted);
        if let Some((key, id)) = found {
            let body = client.get(&format!("/{id}")).await?.data.unwrap_or_default();
            return Ok(Found { key, id, body });
        }
    }
    Err(LookupError::Missing(wanted.to_owned()))
}

/// Posts a job that failed as a new one.
pub async fn retry(client: &Client, paths: &Paths, wanted: &str) -> Result<Posted, LookupError> {
    let Found { key, id, body } = find(client, paths, Listed::Failure, wanted).await?;
    let failed = Job::parse(&key, &id, body)?;
    let job = NewJob { service: failed.service, kind: failed.kind, config: failed.config };
    Ok(post_job(client, &paths.pending(), &job).await?)
}

/// The paths of the lists: one, or one a day, the newest first.
async fn lists(client: &Client, paths: &Paths, listed: Listed) -> Result<Vec<String>, LookupError> {
    let shelf = match listed {
        Listed::Pending => return Ok(vec![paths.pending()]),
        Listed::Success => Shelf::Success,
        Listed::Failure => Shelf::Failure,
    };
    let Some(shelf) = paths.shelf(shelf) else { return Ok(Vec::new()) };
    let index = format!("{shelf}/day-index");
    let days = if_there(client.get(&index).await)?.and_then(|found| found.data).unwrap_or_default();
    let mut days: Vec<String> = days.as_object().into_iter().flat_map(|days| days.keys().cloned()).collect();
    days.retain(|day| !day.starts_with('_'));
    days.sort_unstable_by(|a, b| b.cmp(a));
    Ok(days.into_iter().map(|day| format!("{index}/{day}")).collect())
}

async fn read_links(client: &Client, path: &str) -> Result<Vec<(String, String)>, LookupError> {
    let list = if_there(client.get(path).await)?.and_then(|found| found.data).unwrap_or_default();
    Ok(list.as_object().map(links).unwrap_or_default().into_iter().collect())
}
