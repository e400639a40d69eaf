//! Reports as a file describes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Report;
use super::rows::{Column, Filter, Rows};
use crate::cron::{Cron, InvalidCron};

/// A file that does not describe reports.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReports {
    /// It has another form.
    #[error("it is not a JSON list of reports: {0}")]
    Form(#[from] serde_json::Error),
    /// A time is wrong.
    #[error("report `{name}`: {source}")]
    Frequency {
        /// The report.
        name: String,
        /// What is wrong.
        source: InvalidCron,
    },
    /// A name cannot be part of a path.
    #[error("report `{0}`: a name has one or more characters, none of them `/`, and does not begin with `_`")]
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Column to JSON pointer, or to `errorMappings`.
    job_mappings: Map<String, Value>,
    #[serde(default)]
    error_mappings: BTreeMap<String, String>,
    frequency: String,
    #[serde(default = "new_york")]
    zone: String,
    email: Map<String, Value>,
    #[serde(default)]
    send_empty: bool,
    /// JSON pointer to the value that must be there.
    #[serde(default)]
    only: BTreeMap<String, Value>,
}

fn new_york() -> String {
    "America/New_York".to_owned()
}

/// Reads a file of reports.
pub fn parse_reports(text: &str) -> Result<Vec<Report>, InvalidReports> {
    let described: Vec<Described> = serde_json::from_str(text)?;
    described.into_iter().map(report).collect()
}

fn report(described: Described) -> Result<Report, InvalidReports> {
    let Described { name, kind, job_mappings, error_mappings, frequency, zone, email, send_empty, only } = described;
    if name.is_empty() || name.contains('/') || name.starts_with('_') {
        return Err(InvalidReports::Name(name));
    }
    let column = |value: Value| match value.as_str() {
        Some("errorMappings") => Column::Ending,
        pointer => Column::Pointer(pointer.unwrap_or_default().to_owned()),
    };
    let columns = job_mappings.into_iter().map(|(name, value)| (name, column(value))).collect();
    let frequency =
        Cron::parse(&frequency, &zone).map_err(|source| InvalidReports::Frequency { name: name.clone(), source })?;
    let filter: Filter =
        Arc::new(move |job| only.iter().all(|(pointer, wanted)| job.body.pointer(pointer) == Some(wanted)));
    let rows = Rows { columns, endings: error_mappings, kind, filter: Some(filter) };
    Ok(Report { name, rows, frequency, email: Arc::new(move || email.clone()), send_empty })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[{ "name": "weekly", "type": "t", "frequency": "0 0 8 * * 1",
        "jobMappings": { "Who": "/config/who", "End": "errorMappings" }, "errorMappings": { "bad": "Bad input" },
        "email": { "from": "a@example.org", "to": "b@example.org" }, "only": { "/config/kind": "x" } }]"#;

    #[test]
    fn files_are_read() {
        let reports = parse_reports(GOOD).unwrap();
        let report = &reports[0];
        assert_eq!((reports.len(), report.name.as_str(), report.send_empty), (1, "weekly", false));
        assert_eq!(report.rows.columns[1], ("End".to_owned(), Column::Ending));
        assert_eq!((report.email)()["to"], "b@example.org");
        for (good, bad, told) in [
            ("0 0 8 * * 1", "sometimes", "report `weekly`"),
            ("\"weekly\"", "\"a/b\"", "report `a/b`"),
            ("jobMappings", "columns", "columns"),
        ] {
            let error = parse_reports(&GOOD.replace(good, bad)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
