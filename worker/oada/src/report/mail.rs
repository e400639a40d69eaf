//! Mails the rows of a report, whenever it is time.

use std::collections::HashSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use protocol::backoff::{Backoff, jitter};
use serde_json::{Map, Value, json};

use super::position::Position;
use super::{ReportEnv, csv};
use crate::client::{ClientError, if_there};
use crate::job::NewJob;
use crate::paths::{Layout, Paths, Shelf};
use crate::request::post_job;

/// The service that sends mails, and the type of its jobs.
const MAILER: (&str, &str) = ("abalonemail", "email");

/// Shortest and longest pause between attempts to learn where to go on.
const BEGIN_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Mails at each tick, for ever.
pub(super) async fn mail(env: ReportEnv) {
    let Some(shelf) = env.paths.shelf(Shelf::Success) else { return };
    let position = Position::new(env.client.clone(), &shelf, &format!("{}-mailed", env.report.name));
    let mut backoff = Backoff::new(BEGIN_AGAIN, 2.0);
    let since = loop {
        match begin(&position, today()).await {
            Ok(since) => break since,
            Err(error) => tracing::warn!(report = env.report.name, "a report cannot be mailed yet: {error}"),
        }
        tokio::time::sleep(backoff.next(jitter())).await;
    };
    let mut mailer = Mailer { since, position, sent: HashSet::new(), env };
    while let Some(pause) = mailer.env.report.frequency.until_next() {
        tokio::time::sleep(pause).await;
        match mailer.tick(today()).await {
            Ok(Some(rows)) => tracing::info!(report = mailer.env.report.name, rows, "report mailed"),
            Ok(None) => tracing::debug!(report = mailer.env.report.name, "nothing to mail"),
            Err(error) => tracing::warn!(report = mailer.env.report.name, "failed to mail a report: {error}"),
        }
    }
}

/// The first day that may have rows that were not mailed: for a report that is new, today.
async fn begin(position: &Position, today: Date) -> Result<Date, ClientError> {
    let kept = position.read().await?.and_then(|kept| kept.get("date")?.as_str()?.parse().ok());
    match kept {
        Some(date) => Ok(date),
        None => position.make(json!({ "date": today.to_string() })).await.map(|()| today),
    }
}

/// Jobs are filed by days of UTC.
fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

struct Mailer {
    env: ReportEnv,
    /// The first day that may have rows that were not mailed.
    since: Date,
    /// That day, in the store.
    position: Position,
    /// Rows of that day and later ones that were mailed here, whether that could be noted or not.
    sent: HashSet<(Date, String)>,
}

impl Mailer {
    /// Mails what has not been mailed, and says how many rows that were; none if there was nothing to mail.
    async fn tick(&mut self, today: Date) -> Result<Option<usize>, ClientError> {
        let mut rows = Vec::new();
        let mut taken = Vec::new();
        for date in days(self.since, today) {
            let (keys, new): (Vec<String>, Vec<_>) = self.rows_of(date).await?.into_iter().unzip();
            rows.extend(new);
            taken.push((date, keys));
        }
        let count = rows.len();
        if rows.is_empty() && !self.env.report.send_empty {
            return Ok(None);
        }
        self.post(&rows).await?;
        for (date, keys) in &taken {
            self.sent.extend(keys.iter().map(|key| (*date, key.clone())));
        }
        if let Err(error) = self.note(taken, today).await {
            tracing::warn!(report = self.env.report.name, "failed to record which rows were mailed: {error}");
        }
        Ok(Some(count))
    }

    /// Notes in the store what was mailed.
    async fn note(&mut self, taken: Vec<(Date, Vec<String>)>, today: Date) -> Result<(), ClientError> {
        for (date, keys) in taken.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            let keys = keys.into_iter().map(|key| (key, true.into())).collect();
            self.env.client.put(&self.mailed(date), "application/json", Value::Object(keys)).await?;
        }
        // Rows of yesterday may still come.
        let since = today.checked_sub(1.day()).unwrap_or(today);
        if since > self.since {
            self.position.write(json!({ "date": since.to_string() })).await?;
            self.since = since;
            self.sent.retain(|(date, _)| *date >= since);
        }
        Ok(())
    }

    /// The rows of a day that were not mailed.
    async fn rows_of(&self, date: Date) -> Result<Vec<(String, Map<String, Value>)>, ClientError> {
        let rows = self.object(&self.env.paths.report_day(&self.env.report.name, date)).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mailed = self.object(&self.mailed(date)).await?;
        let is_new = |key: &String| !mailed.contains_key(key) && !self.sent.contains(&(date, key.clone()));
        let new = rows.into_iter().filter(|(key, _)| !key.starts_with('_') && is_new(key));
        Ok(new.filter_map(|(key, row)| Some((key, row.as_object()?.clone()))).collect())
    }

    /// Where it is noted which rows of a day were mailed.
    fn mailed(&self, date: Date) -> String {
        format!("{}/_meta/mailed", self.env.paths.report_day(&self.env.report.name, date))
    }

    async fn object(&self, path: &str) -> Result<Map<String, Value>, ClientError> {
        let found = if_there(self.env.client.get(path).await)?.and_then(|found| found.data);
        Ok(found.and_then(|data| data.as_object().cloned()).unwrap_or_default())
    }

    async fn post(&self, rows: &[Map<String, Value>]) -> Result<(), ClientError> {
        let report = &self.env.report;
        let content = csv::attachment(&report.rows.names(), rows);
        let config = with_attachment((report.email)(), &report.name, content);
        let (service, kind) = (MAILER.0.to_owned(), MAILER.1.to_owned());
        let list = Paths::new(&service, Layout::V5).map(|paths| (paths.pending(), paths.tree()));
        let (list, tree) = list.expect("the mailer's name is valid");
        self.env.client.ensure(&list, &tree).await?;
        post_job(&self.env.client, &list, &NewJob { service, kind, config }).await.map(drop)
    }
}

/// All days from one to another, both included.
fn days(from: Date, to: Date) -> impl Iterator<Item = Date> {
    std::iter::successors(Some(from), |date| date.checked_add(1.day()).ok()).take_while(move |date| *date <= to)
}

/// The mail's config with the table in its first attachment.
fn with_attachment(mut config: Map<String, Value>, name: &str, content: String) -> Map<String, Value> {
    let attachments = config.entry("attachments").or_insert_with(|| json!([]));
    if attachments.as_array().is_none_or(Vec::is_empty) {
        *attachments = json!([{}]);
    }
    if let Some(first) = attachments.get_mut(0).and_then(Value::as_object_mut) {
        first.entry("filename").or_insert_with(|| Value::from(format!("{name}.csv")));
        first.entry("type").or_insert_with(|| Value::from("text/csv"));
        first.insert("content".to_owned(), Value::from(content));
    }
    config
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_go_on_to_the_end() {
        let all: Vec<String> = days(date(2026, 12, 30), date(2027, 1, 2)).map(|date| date.to_string()).collect();
        assert_eq!(all, ["2026-12-30", "2026-12-31", "2027-01-01", "2027-01-02"]);
        assert_eq!(days(date(2027, 1, 2), date(2027, 1, 1)).count(), 0);
    }

    #[test]
    fn the_table_is_the_first_attachment() {
        let plain = with_attachment(Map::new(), "weekly", "eA==".to_owned());
        assert_eq!(plain["attachments"], json!([{ "filename": "weekly.csv", "type": "text/csv", "content": "eA==" }]));
        let own = json!({ "attachments": [{ "filename": "mine" }, { "content": "eQ==" }] });
        let own = with_attachment(own.as_object().cloned().unwrap(), "weekly", "eA==".to_owned());
        let expected = json!([{ "filename": "mine", "type": "text/csv", "content": "eA==" }, { "content": "eQ==" }]);
        assert_eq!(own["attachments"], expected);
    }
}
