//! How a run's log and Lightning are told what the run is executed with.

use protocol::Json;
use protocol::run::{LogLevel, LogSource, RunOptions, Versions};
use serde_json::{Map, Value, json};

use super::phoenix::Payload;

/// The payload of `run:start`.
pub(super) fn versions_payload(versions: &Versions, worker: &str, timestamp_us: u64) -> Payload {
    let (kind, version) = &versions.engine;
    let mut told = Map::new();
    told.insert("worker".into(), worker.into());
    if kind == "node" {
        told.insert("node".into(), version.clone().into());
    }
    told.insert("engine".into(), format!("{kind} {version}").into());
    for (adaptor, versions) in &versions.adaptors {
        told.insert(adaptor.clone(), versions.clone().into());
    }
    Payload::object(&json!({ "timestamp": timestamp_us.to_string(), "versions": Value::Object(told) }))
}

/// The first lines of a run's log, in order: versions, then limits.
pub(super) fn opening_lines(
    versions: &Versions,
    worker: &str,
    options: &RunOptions,
) -> Vec<(LogSource, LogLevel, Json)> {
    let mut table = vec![versions.engine.clone(), ("worker".to_owned(), worker.to_owned())];
    table.extend(versions.adaptors.iter().map(|(name, versions)| (name.clone(), versions.join(", "))));
    let width = table.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let rows: String = table.iter().map(|(name, version)| format!("\n    {name:width$}  {version}")).collect();
    let lines = [
        (LogSource::Versions, format!("Versions:{rows}")),
        (LogSource::Engine, format!("Payload limit: {}mb", megabytes(options.payload_bytes))),
        (LogSource::Engine, format!("Memory limit: {}mb", megabytes(options.memory_bytes))),
        (LogSource::Engine, format!("Timeout: {}s", options.timeout_ms as f64 / 1000.0)),
    ];
    lines
        .into_iter()
        .map(|(source, text)| (source, LogLevel::Info, Json::encode(&[text]).unwrap_or_else(|_| Json::null())))
        .collect()
}

fn megabytes(bytes: u64) -> f64 {
    let hundredths = (bytes as f64 / (1024.0 * 1024.0) * 100.0).round();
    hundredths / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(kind: &str) -> Versions {
        Versions {
            engine: (kind.into(), "1.2.3".into()),
            adaptors: vec![("@openfn/language-http".into(), vec!["7.2.0".into(), "6.0.0".into()])],
        }
    }

    #[test]
    fn versions_are_told() {
        let read =
            |kind| serde_json::from_slice::<Value>(&versions_payload(&versions(kind), "0.1.0", 5).to_vec()).unwrap();
        let expected = json!({"timestamp": "5", "versions": {
            "worker": "0.1.0", "engine": "quickjs 1.2.3", "@openfn/language-http": ["7.2.0", "6.0.0"],
        }});
        assert_eq!(read("quickjs"), expected);
        assert_eq!(read("node")["versions"]["node"], "1.2.3");
    }

    #[test]
    fn lines_in_order() {
        let options = RunOptions { timeout_ms: 1500, payload_bytes: 512 * 1024, ..RunOptions::default() };
        let lines = opening_lines(&versions("node"), "0.1.0", &options);
        let texts: Vec<(LogSource, Vec<String>)> =
            lines.iter().map(|line| (line.0, line.2.decode().unwrap())).collect();
        let table = "Versions:\n    node                   1.2.3\n    worker                 0.1.0\n    @openfn/language-http  7.2.0, 6.0.0";
        let expected = [
            (LogSource::Versions, vec![table.to_owned()]),
            (LogSource::Engine, vec!["Payload limit: 0.5mb".to_owned()]),
            (LogSource::Engine, vec!["Memory limit: 500mb".to_owned()]),
            (LogSource::Engine, vec!["Timeout: 1.5s".to_owned()]),
        ];
        assert_eq!(texts, expected);
    }
}
