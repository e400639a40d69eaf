//! A finished job as the row of a report. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::job::{Job, Status};

/// What stands in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// What a JSON pointer into the job leads to.
    Pointer(String),
    /// How the job ended, in words.
    Ending,
}

/// Whether a report tells of a job.
pub type Filter = Arc<dyn Fn(&Job) -> bool + Send + Sync>;

/// Which jobs a report tells of, and what.
#[derive(Clone)]
pub struct Rows {
    /// Columns in their order.
    pub columns: Vec<(String, Column)>,
    /// Words for ways of failing.
    pub endings: BTreeMap<String, String>,
    /// Only jobs of this type.
    pub kind: Option<String>,
    /// Only jobs that this is true for.
    pub filter: Option<Filter>,
}

impl Rows {
    /// The row of a finished job; none if the report does not tell of it.
    pub(super) fn row(&self, job: &Job) -> Option<Map<String, Value>> {
        let status = job.finished()?;
        let wanted = self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            && self.filter.as_ref().is_none_or(|filter| filter(job));
        let value = |column: &Column| match column {
            Column::Pointer(pointer) => job.body.pointer(pointer).cloned().unwrap_or_else(|| Value::from("")),
            Column::Ending => Value::from(self.ending(job, status)),
        };
        wanted.then(|| self.columns.iter().map(|(name, column)| (name.clone(), value(column))).collect())
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    fn ending(&self, job: &Job, status: Status) -> &str {
        match status {
            Status::Success => "Success",
            Status::Failure => {
                let words = job.failure_type().and_then(|kind| self.endings.get(kind));
                words.map_or("Other Error", String::as_str)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_jobs() {
        let rows = Rows {
            columns: vec![
                ("Who".to_owned(), Column::Pointer("/config/who".to_owned())),
                ("End".to_owned(), Column::Ending),
            ],
            endings: BTreeMap::from([("bad".to_owned(), "Bad input".to_owned())]),
            kind: Some("t".to_owned()),
            filter: Some(Arc::new(|job| !job.config.contains_key("hidden"))),
        };
        let cases = [
            (json!({ "type": "t", "status": "success", "config": { "who": "x" } }), Some(["x", "Success"])),
            (json!({ "type": "t", "status": "failure", "result": { "JobError": "bad" } }), Some(["", "Bad input"])),
            (json!({ "type": "t", "status": "failure", "result": { "JobError": "odd" } }), Some(["", "Other Error"])),
            (json!({ "type": "t", "status": "failure" }), Some(["", "Other Error"])),
            (json!({ "type": "other", "status": "success" }), None),
            (json!({ "type": "t", "status": "success", "config": { "hidden": 1 } }), None),
            (json!({ "type": "t" }), None),
        ];
        assert_eq!(rows.names(), ["Who", "End"]);
        for (mut body, expected) in cases {
            body["service"] = json!("s");
            let row = rows.row(&Job::parse("k", "resources/k", body.clone()).unwrap());
            let row = row.map(|row| row.values().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>());
            assert_eq!(row, expected.map(|cells| cells.map(ToOwned::to_owned).to_vec()), "{body}");
        }
    }
}
