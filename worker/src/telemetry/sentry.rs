//! Reports of the worker's own errors to a Sentry, scrubbed: the text of the log line without addresses' queries and
//! tokens, and which run and host it is about. Never what a run logged or a host printed.
//!
//! The format is Sentry's envelope with one event in it.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::export::{Destination, Exporter};
use super::lines::Line;

/// Reports that may go in [`WINDOW`]; what is wrong is known by then.
const MOST: u32 = 30;
/// The time that [`MOST`] is about.
const WINDOW: Duration = Duration::from_secs(60);

/// A Sentry's data source name: where reports go, and with which key.
#[derive(derive_more::Debug, Clone)]
#[debug("Dsn({destination}/{project})")]
pub struct Dsn {
    destination: Destination,
    project: String,
    key: SecretString,
}

/// A text that is no data source name. It holds a key, so it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a DSN such as https://key@sentry.example.org/42: {0}")]
pub struct InvalidDsn(&'static str);

impl FromStr for Dsn {
    type Err = InvalidDsn;

    fn from_str(text: &str) -> Result<Self, InvalidDsn> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(InvalidDsn("it has no scheme"))?;
        let (key, rest) = rest.split_once('@').ok_or(InvalidDsn("it has no key"))?;
        // Old ones have a second, private part of the key.
        let key = key.split(':').next().unwrap_or_default();
        let (address, project) = rest.rsplit_once('/').ok_or(InvalidDsn("it has no project"))?;
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        if !is_word(key) || !is_word(project) {
            return Err(InvalidDsn("its key or its project is not valid"));
        }
        let destination =
            format!("{scheme}://{address}").parse().map_err(|_| InvalidDsn("its address is not valid"))?;
        Ok(Self { destination, project: project.to_owned(), key: key.into() })
    }
}

/// Reports the errors among `lines`, for ever.
pub async fn report_errors(dsn: Dsn, environment: String, mut lines: broadcast::Receiver<Arc<Line>>) {
    let path = format!("/api/{}/envelope/", dsn.project);
    let mut exporter = Exporter::new("errors", dsn.destination.clone(), &path, headers(&dsn));
    let mut allowance = Allowance { since: Instant::now(), used: 0 };
    loop {
        match lines.recv().await {
            Ok(line) if line.level != "ERROR" => {}
            Ok(line) if allowance.take(Instant::now()) => exporter.send(envelope(&line, &environment), 1).await,
            Ok(_) => exporter.missed(1),
            Err(RecvError::Lagged(missed)) => exporter.missed(missed),
            Err(RecvError::Closed) => return,
        }
    }
}

/// How many reports may go.
struct Allowance {
    since: Instant,
    used: u32,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self { since: now, used: 0 };
        }
        self.used += 1;
        self.used <= MOST
    }
}

fn headers(dsn: &Dsn) -> HeaderMap {
    let client = concat!("openfn-worker/", env!("CARGO_PKG_VERSION"));
    let key = dsn.key.expose_secret();
    let auth = format!("Sentry sentry_version=7, sentry_client={client}, sentry_key={key}");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-sentry-envelope"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(client));
    if let Ok(mut auth) = HeaderValue::from_str(&auth) {
        auth.set_sensitive(true);
        headers.insert("x-sentry-auth", auth);
    }
    headers
}

fn envelope(line: &Line, environment: &str) -> String {
    let id = Uuid::new_v4().simple().to_string();
    let mut tags = json!({});
    for (name, value) in [("run", &line.run), ("host", &line.host)] {
        if let Some(value) = value {
            tags[name] = json!(value);
        }
    }
    let event = json!({
        "event_id": id,
        "timestamp": line.at_us as f64 / 1e6,
        "platform": "native",
        "level": "error",
        "logger": line.target,
        "release": concat!("openfn-worker@", env!("CARGO_PKG_VERSION")),
        "environment": environment,
        "message": { "formatted": scrubbed(&line.text) },
        "tags": tags,
    });
    format!("{}\n{}\n{event}\n", json!({ "event_id": id }), json!({ "type": "event" }))
}

/// The text without what could let somebody in: tokens, and users, passwords and queries of addresses.
fn scrubbed(text: &str) -> String {
    text.split_inclusive(char::is_whitespace).map(scrubbed_word).collect()
}

fn scrubbed_word(word: &str) -> String {
    // A JSON Web Token begins so; other secrets are long and of one alphabet.
    let is_secret = |part: &&str| {
        part.starts_with("eyJ")
            || (part.len() >= 40 && part.bytes().all(|it| it.is_ascii_alphanumeric() || b"+/=_".contains(&it)))
    };
    let Some((scheme, address)) = word.split_once("://") else {
        let secret = word.split(|it: char| !(it.is_ascii_alphanumeric() || "+/=_.-".contains(it))).find(is_secret);
        return secret.map_or_else(|| word.to_owned(), |secret| word.replace(secret, "***"));
    };
    let space = &address[address.trim_end().len()..];
    let address = address.trim_end().split(['?', '#']).next().unwrap_or_default();
    let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
    format!("{scheme}://{host}{space}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_source_names() {
        let read: Dsn = "https://abc123@o1.ingest.sentry.io/42".parse().unwrap();
        assert_eq!(format!("{read:?}"), "Dsn(https://o1.ingest.sentry.io:443/42)");
        let below: Dsn = "http://key:private@localhost:9000/base/7".parse().unwrap();
        assert_eq!(format!("{below:?}"), "Dsn(http://localhost:9000/base/7)");
        for bad in ["", "https://sentry.io/42", "https://key@sentry.io", "https://@sentry.io/1", "x://key@host/1"] {
            assert!(bad.parse::<Dsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_could_let_somebody_in_is_taken_out() {
        let cases = [
            ("plain words stay, run 6f6f5d0c-1f0a-4c0e-9a3c-0d0f4f6b7a11 too", None),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJpZCI6MX0.c2ln refused", Some("token *** refused")),
            ("ws://ann:secret@host/worker?token=abc failed", Some("ws://host/worker failed")),
            ("key 9azNWW0lEM50UCxSWdKxPD8X9oEEBIi+3xP08SYy9+o= is bad", Some("key *** is bad")),
        ];
        for (text, expected) in cases {
            assert_eq!(scrubbed(text), expected.unwrap_or(text));
        }
    }

    #[test]
    fn a_flood_is_bounded() {
        let start = Instant::now();
        let mut it = Allowance { since: start, used: 0 };
        assert_eq!((0..100).filter(|_| it.take(start)).count(), MOST as usize);
        assert!(it.take(start + WINDOW));
    }
}
