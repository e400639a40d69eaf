//! Follows the finished jobs of a shelf and writes their rows.

use std::time::{Duration, Instant};

use jiff::civil::Date;
use protocol::backoff::{Backoff, jitter};
use serde_json::{Map, Value, json};

use super::ReportEnv;
use super::position::Position;
use crate::client::{ClientError, WatchEvent, if_there};
use crate::job::Job;
use crate::list::links;
use crate::paths::Shelf;
use crate::wire::{ChangeKind, ChangeSet};

/// Shortest and longest pause between attempts to watch a shelf.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often the position is written at most.
const POSITION_EVERY: Duration = Duration::from_secs(1);

/// Follows a shelf for ever.
pub(super) async fn follow(env: ReportEnv, shelf: Shelf<'static>, position: &'static str) {
    let Some(path) = env.paths.shelf(shelf) else { return };
    let position = Position::new(env.client.clone(), &path, &format!("{}-{position}", env.report.name));
    let mut follower = Follower { env, path, position, written: None };
    let mut backoff = Backoff::new(WATCH_AGAIN, 2.0);
    loop {
        if let Err(error) = follower.run(&mut backoff).await {
            tracing::warn!(report = follower.env.report.name, "cannot follow finished jobs: {error}");
        }
        tokio::time::sleep(backoff.next(jitter())).await;
    }
}

struct Follower {
    env: ReportEnv,
    path: String,
    /// The last revision whose rows are written.
    position: Position,
    /// When it was written last.
    written: Option<Instant>,
}

impl Follower {
    async fn run(&mut self, backoff: &mut Backoff) -> Result<(), ClientError> {
        self.env.client.ensure(&self.path, &self.env.paths.tree()).await?;
        let mut watch = match self.position.read().await?.and_then(|kept| kept.get("rev")?.as_u64()) {
            Some(rev) => self.env.client.watch(&self.path, Some(rev)).await?,
            None => {
                // What was finished before the report was there is not in it.
                let rev = self.env.client.head(&self.path).await?.rev().unwrap_or(1);
                self.position.make(json!({ "rev": rev })).await?;
                self.env.client.watch(&self.path, Some(rev)).await?
            }
        };
        backoff.reset();
        loop {
            let event = match self.written {
                // A position that waits to be written is written when nothing happens.
                Some(_) => match tokio::time::timeout(POSITION_EVERY, watch.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.position.write(json!({ "rev": watch.rev() })).await?;
                        self.written = None;
                        continue;
                    }
                },
                None => watch.next().await,
            };
            match event {
                Some(WatchEvent::Changed(set)) => {
                    for (date, jobs) in filed(&set) {
                        self.take(date, jobs).await?;
                    }
                }
                Some(WatchEvent::Missed) => self.take_all().await?,
                Some(WatchEvent::Refused(_)) | None => return Ok(()),
            }
            let written = *self.written.get_or_insert_with(Instant::now);
            if written.elapsed() >= POSITION_EVERY {
                self.position.write(json!({ "rev": watch.rev() })).await?;
                self.written = Some(Instant::now());
            }
        }
    }

    /// Writes the rows of jobs that were filed on this day.
    async fn take(&self, date: Date, jobs: Vec<(String, String)>) -> Result<(), ClientError> {
        let mut rows = Map::new();
        for (key, id) in jobs {
            let Some(found) = if_there(self.env.client.get(&format!("/{id}")).await)? else { continue };
            let row = Job::parse(&key, &id, found.data.unwrap_or_default())
                .ok()
                .and_then(|job| self.env.report.rows.row(&job));
            if let Some(row) = row {
                rows.insert(key, Value::Object(row));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let day = self.env.paths.report_day(&self.env.report.name, date);
        self.env.client.put_tree(&day, Value::Object(rows), &self.env.paths.tree()).await.map(drop)
    }

    /// Takes all days again: rows that are there already are only written once more.
    async fn take_all(&self) -> Result<(), ClientError> {
        let index = format!("{}/day-index", self.path);
        let days = if_there(self.env.client.get(&index).await)?.and_then(|found| found.data).unwrap_or_default();
        let dates = days.as_object().into_iter().flat_map(Map::keys).filter_map(|date| date.parse::<Date>().ok());
        for date in dates {
            let list = self.env.client.get(&format!("{index}/{date}")).await?.data.unwrap_or_default();
            let jobs = list.as_object().map(links).unwrap_or_default();
            self.take(date, jobs.into_iter().collect()).await?;
        }
        Ok(())
    }
}

/// The jobs that a change of a shelf says were filed, by day: key and id.
fn filed(set: &ChangeSet) -> Vec<(Date, Vec<(String, String)>)> {
    let days = set.changes.iter().filter(|change| change.kind == ChangeKind::Merge);
    days.filter_map(|change| {
        let date = change.path.strip_prefix("/day-index/")?.parse().ok()?;
        let jobs: Vec<(String, String)> = links(change.body.as_ref()?).into_iter().collect();
        (!jobs.is_empty()).then_some((date, jobs))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_were_filed_are_found_in_changes() {
        let changes = json!([
            { "type": "merge", "path": "", "body": { "day-index": { "2026-11-21": { "_rev": 2 } }, "_rev": 9 } },
            { "type": "merge", "path": "/day-index/2026-11-21",
              "body": { "J": { "_id": "resources/J", "_rev": 0 }, "_rev": 2 } },
            { "type": "merge", "path": "/day-index/2026-11-20/K", "body": { "updates": {}, "_rev": 2 } },
            { "type": "merge", "path": "/day-index/2026-11-20", "body": { "K": { "_rev": 2 }, "_rev": 2 } },
            { "type": "delete", "path": "/day-index/2026-11-19", "body": { "L": null, "_rev": 2 } },
        ]);
        let set = ChangeSet { resource_id: String::new(), changes: serde_json::from_value(changes).unwrap() };
        let expected = vec![("J".to_owned(), "resources/J".to_owned())];
        assert_eq!(filed(&set), [("2026-11-21".parse().unwrap(), expected)]);
    }
}
