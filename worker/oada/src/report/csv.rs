//! Tables as CSV. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use csv::Terminator;
use serde_json::{Map, Value};

/// A table with a first line of column names.
pub(super) fn write(columns: &[String], rows: &[Map<String, Value>]) -> String {
    let mut table = csv::WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let header = columns.iter().map(|column| harmless(column)).collect::<Vec<_>>();
    let rows = rows.iter().map(|row| columns.iter().map(|column| cell(row.get(column))).collect());
    for line in std::iter::once(header).chain(rows) {
        table.write_record(line).expect("lines are of one length and memory takes them");
    }
    String::from_utf8(table.into_inner().expect("memory takes what is flushed")).expect("cells are text")
}

/// The table as an attachment has it.
pub(super) fn attachment(columns: &[String], rows: &[Map<String, Value>]) -> String {
    STANDARD.encode(write(columns, rows))
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text),
        Some(value) => value.to_string(),
    }
}

/// A text that programs for tables do not take for a formula, which could do things where the table is opened.
fn harmless(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

/// An attachment that is no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attachment is not a CSV table in base64: {0}")]
pub struct InvalidAttachment(String);

/// The rows of a report's attachment, by the names of their columns.
pub fn parse_attachment(content: &str) -> Result<Vec<Map<String, Value>>, InvalidAttachment> {
    let invalid = |error: &dyn std::fmt::Display| InvalidAttachment(error.to_string());
    let bytes = STANDARD.decode(content.trim()).map_err(|error| invalid(&error))?;
    // The reader takes the end of the text for the end of a quote, too.
    if bytes.iter().filter(|byte| **byte == b'"').count() % 2 != 0 {
        return Err(invalid(&"a quote is not closed"));
    }
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(bytes.as_slice());
    let columns = table.headers().map_err(|error| invalid(&error))?.clone();
    let named =
        |cells: csv::StringRecord| columns.iter().map(ToOwned::to_owned).zip(cells.iter().map(Value::from)).collect();
    table.records().map(|cells| cells.map(named).map_err(|error| invalid(&error))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let columns = ["name".to_owned(), "with \"odd\", text".to_owned(), "number".to_owned()];
        let row = |name: &str, odd: &str, number: Value| {
            let values = [Value::from(name), Value::from(odd), number];
            columns.iter().cloned().zip(values).collect::<Map<_, _>>()
        };
        let rows = [row("a", "one\ntwo, \"three\"", json!(7)), row("", "x\r\ny", Value::Null)];
        let read = parse_attachment(&attachment(&columns, &rows)).unwrap();
        let expected = [row("a", "one\ntwo, \"three\"", json!("7")), row("", "x\r\ny", json!(""))];
        assert_eq!(read, expected);
        assert_eq!(write(&columns[..1], &[]), "name\r\n", "a table without rows is not empty");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            let row = Map::from_iter([(columns[0].clone(), Value::from(formula))]);
            let text = write(&columns[..1], &[row]);
            assert!(text.trim_start_matches("name\r\n").trim_start_matches('"').starts_with('\''), "{text}");
        }
        let negative = Map::from_iter([(columns[0].clone(), Value::from(-7))]);
        assert_eq!(write(&columns[..1], &[negative]), "name\r\n-7\r\n", "a number is no formula");
        assert_eq!(parse_attachment("").unwrap(), Vec::<Map<String, Value>>::new());
        for bad in ["!", "/w==", &STANDARD.encode("a\n\"open")] {
            assert!(parse_attachment(bad).is_err(), "{bad}");
        }
    }
}
