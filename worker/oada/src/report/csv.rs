//! Tables as CSV. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A table with a first line of column names.
pub(super) fn write(columns: &[String], rows: &[Map<String, Value>]) -> String {
    let line = |cells: Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n";
    let mut text = line(columns.iter().map(|column| harmless(column)).collect());
    for row in rows {
        text.push_str(&line(columns.iter().map(|column| cell(row.get(column))).collect()));
    }
    text
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

fn quoted(cell: &str) -> String {
    match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    }
}

/// An attachment that is no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attachment is not a CSV table in base64: {0}")]
pub struct InvalidAttachment(String);

/// The rows of a report's attachment, by the names of their columns.
pub fn parse_attachment(content: &str) -> Result<Vec<Map<String, Value>>, InvalidAttachment> {
    let bytes = STANDARD.decode(content.trim()).map_err(|error| InvalidAttachment(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| InvalidAttachment(error.to_string()))?;
    let mut lines = cells(&text)?.into_iter();
    let columns = lines.next().unwrap_or_default();
    let named = |cells: Vec<String>| columns.iter().cloned().zip(cells.into_iter().map(Value::from)).collect();
    Ok(lines.map(named).collect())
}

/// The cells of each line.
fn cells(text: &str) -> Result<Vec<Vec<String>>, InvalidAttachment> {
    let mut lines = Vec::new();
    let (mut line, mut cell) = (Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let mut in_quotes = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if in_quotes && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => line.push(std::mem::take(&mut cell)),
            '\n' if !in_quotes => {
                line.push(std::mem::take(&mut cell));
                lines.push(std::mem::take(&mut line));
            }
            '\r' if !in_quotes && characters.peek() == Some(&'\n') => {}
            other => cell.push(other),
        }
    }
    if in_quotes {
        return Err(InvalidAttachment("a quote is not closed".to_owned()));
    }
    if !cell.is_empty() || !line.is_empty() {
        line.push(cell);
        lines.push(line);
    }
    Ok(lines)
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
