//! What a request means, whichever way it came.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::ksuid;
use super::store::{Denied, EnsureLink, Found, Store, Written};

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: HashMap<String, String>,
    pub(super) data: Option<Value>,
}

/// The answer to one.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) data: Option<Value>,
    /// What to tell those who watch.
    pub(super) changes: Vec<(String, Value)>,
}

impl Answer {
    pub(super) fn bare(status: u16, headers: Vec<(String, String)>) -> Self {
        Self { status, headers, data: None, changes: Vec::new() }
    }
}

impl From<Denied> for Answer {
    fn from(denied: Denied) -> Self {
        let data = Some(json!({ "message": denied.message }));
        Self { status: denied.status, headers: denied.headers, data, changes: Vec::new() }
    }
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn token(&self) -> Result<&str, Denied> {
        let bearer = self.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        bearer.ok_or_else(|| Denied::new(401, "Unauthorized"))
    }
}

/// Answers all methods but the ones of watches.
pub(super) fn answer(store: &mut Store, request: &Request) -> Answer {
    try_answer(store, request).unwrap_or_else(Answer::from)
}

fn try_answer(store: &mut Store, request: &Request) -> Result<Answer, Denied> {
    let token = request.token()?;
    store.account(token)?;
    match request.method.as_str() {
        "head" => store.find(token, &request.path).map(|found| Answer::bare(200, found.headers)),
        "get" => store
            .find(token, &request.path)
            .map(|Found { data, headers, .. }| Answer { data: Some(data), ..Answer::bare(200, headers) }),
        "put" => write(store, token, request, request.path.trim_end_matches('/').to_owned()),
        "post" => {
            let path = format!("{}/{}", request.path.trim_end_matches('/'), ksuid::generate());
            write(store, token, request, path)
        }
        "delete" => store.delete(token, &request.path, request.header("if-match")).map(|written| done(204, written)),
        other => Err(Denied::new(405, format!("there is no method {other}"))),
    }
}

fn write(store: &mut Store, token: &str, request: &Request, path: String) -> Result<Answer, Denied> {
    let media_type = request.header("content-type").ok_or_else(|| Denied::new(400, "content-type is missing"))?;
    let data = request.data.clone().ok_or_else(|| Denied::new(400, "the body is missing"))?;
    let written = match request.header("x-oada-ensure-link") {
        None => store.put(token, &path, media_type, data, request.header("if-match"))?,
        Some("versioned") => store.put_linked(token, &path, media_type, data, EnsureLink::Versioned)?,
        Some("unversioned") => store.put_linked(token, &path, media_type, data, EnsureLink::Unversioned)?,
        Some(other) => return Err(Denied::new(400, format!("x-oada-ensure-link cannot be {other}"))),
    };
    Ok(done(201, written))
}

fn done(status: u16, written: Written) -> Answer {
    Answer { status, headers: written.headers, data: None, changes: written.changes }
}
