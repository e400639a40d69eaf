//! What client and store say to each other over the websocket, as types. Pure.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::IntoStaticStr;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Method {
    /// Reads headers.
    Head,
    /// Reads.
    Get,
    /// Merges deeply into what is there, or creates it.
    Put,
    /// Puts under a key that the store makes.
    Post,
    /// Takes a link away.
    Delete,
    /// Reads headers, and hears of changes from then on.
    Watch,
    /// Ends a watch.
    Unwatch,
    /// Asks for a sign of life.
    Ping,
}

impl Method {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether doing it twice is the same as doing it once. A POST makes a new key each time.
    pub fn is_idempotent(self) -> bool {
        self != Self::Post
    }
}

/// A request, without the token that it is sent with.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Where: an absolute path.
    pub path: String,
    /// Headers beside the ones that every request has; names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub data: Option<Value>,
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: BTreeMap::new(), data: None }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    /// With a body of this media type.
    #[must_use]
    pub fn body(mut self, media_type: &str, data: Value) -> Self {
        self.data = Some(data);
        self.header("content-type", media_type)
    }

    /// The frame's text. It holds the token: it is to be sent and forgotten.
    pub(super) fn frame(&self, id: &str, token: &SecretString, user_agent: &str) -> String {
        #[derive(Serialize)]
        struct Frame<'a> {
            #[serde(rename = "requestId")]
            id: &'a str,
            method: Method,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            watch: bool,
            path: &'a str,
            headers: BTreeMap<&'a str, &'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a Value>,
        }
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut headers: BTreeMap<&str, &str> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.insert("user-agent", user_agent);
        // An unwatch is known by the watch's id and needs no token.
        headers.insert("authorization", if self.method == Method::Unwatch { "" } else { &bearer });
        let watch = self.method == Method::Watch;
        let frame = Frame { id, method: self.method, watch, path: &self.path, headers, data: self.data.as_ref() };
        serde_json::to_string(&frame).expect("strings and JSON values can always be written")
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP's status.
    pub status: u16,
    /// Headers; names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub data: Option<Value>,
}

impl Response {
    /// Whether what was asked was done.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it says that there is nothing at the path: a store answers 403, too, where a resource does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self.status, 403 | 404)
    }

    /// The header `x-oada-rev`.
    pub fn rev(&self) -> Option<u64> {
        self.headers.get("x-oada-rev")?.parse().ok()
    }

    /// The header `etag`.
    pub fn etag(&self) -> Option<&str> {
        self.headers.get("etag").map(String::as_str)
    }

    /// The header `content-location`, less its first slash: `resources/<id>` and what follows.
    pub fn location(&self) -> Option<&str> {
        self.headers.get("content-location").map(|location| location.trim_start_matches('/'))
    }

    /// The resource that `content-location` names: `resources/<id>`.
    pub fn resource_id(&self) -> Option<String> {
        let mut parts = self.location()?.splitn(3, '/');
        match (parts.next()?, parts.next()?) {
            ("resources", id) if !id.is_empty() => Some(format!("resources/{id}")),
            _ => None,
        }
    }

    /// What the body of an error says.
    pub fn message(&self) -> &str {
        self.data.as_ref().and_then(|data| data.get("message")).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A change in a resource and in what it links to with versions.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet {
    /// The resource that is watched.
    pub resource_id: String,
    /// Its change first, then those below.
    pub changes: Vec<Change>,
}

impl ChangeSet {
    /// The watched resource's revision after it; none if the resource was deleted.
    pub fn rev(&self) -> Option<u64> {
        let own = self.changes.iter().find(|change| change.path.is_empty())?;
        rev_of(own.body.as_ref()?.get("_rev")?)
    }
}

fn rev_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A change in one resource.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Change {
    /// Whether keys were set or taken away.
    #[serde(rename = "type")]
    pub kind: ChangeKind,
    /// Where the resource is, seen from the one that is watched; empty for that one.
    #[serde(default)]
    pub path: String,
    /// Which resource.
    #[serde(default)]
    pub resource_id: String,
    /// The keys that were set, or, as null, taken away; none if the resource itself was deleted.
    #[serde(default)]
    pub body: Option<Map<String, Value>>,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Set keys.
    Merge,
    /// Took keys away.
    Delete,
}

/// What came from the store.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    /// An answer to these requests.
    Response(Vec<String>, Response),
    /// Something changed that these requests watch.
    Change(Vec<String>, ChangeSet),
}

/// A message from the store that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidMessage {
    #[error("it is not a JSON object of the expected form: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it has neither `status` nor `change`")]
    Unknown,
    #[error("its `status` {0} is not between 100 and 599")]
    Status(u64),
}

impl Incoming {
    /// Reads a text frame.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidMessage> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Ids {
            One(String),
            Many(Vec<String>),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Message {
            request_id: Ids,
            status: Option<u64>,
            #[serde(default)]
            headers: Map<String, Value>,
            data: Option<Value>,
            #[serde(default)]
            resource_id: String,
            change: Option<Vec<Change>>,
        }
        let message: Message = serde_json::from_str(text)?;
        let ids = match message.request_id {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        };
        match (message.status, message.change) {
            (Some(status), _) => {
                let valid = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
                let status = valid.ok_or(InvalidMessage::Status(status))?;
                let headers = message.headers.into_iter().filter_map(header).collect();
                Ok(Self::Response(ids, Response { status, headers, data: message.data }))
            }
            (None, Some(changes)) => Ok(Self::Change(ids, ChangeSet { resource_id: message.resource_id, changes })),
            (None, None) => Err(InvalidMessage::Unknown),
        }
    }
}

/// A header with a value of any simple type, as a string.
fn header((name, value): (String, Value)) -> Option<(String, String)> {
    let value = match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some((name.to_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_has_what_stores_require() {
        let request = Request::new(Method::Put, "/bookmarks").body("application/json", json!({ "a": 1 }));
        let frame: Value = serde_json::from_str(&request.frame("r1", &"secret".into(), "me/1")).unwrap();
        let headers =
            json!({ "authorization": "Bearer secret", "content-type": "application/json", "user-agent": "me/1" });
        let expected = json!({
            "requestId": "r1", "method": "put", "path": "/bookmarks", "headers": headers, "data": { "a": 1 },
        });
        assert_eq!(frame, expected);
        let unwatch = Request::new(Method::Unwatch, "").frame("w", &"secret".into(), "me/1");
        assert!(!unwatch.contains("secret"), "{unwatch}");
        assert!(Request::new(Method::Watch, "/x").frame("w", &"s".into(), "me").contains("\"watch\":true"));
    }

    #[test]
    fn methods_by_name() {
        use Method::{Delete, Get, Head, Ping, Post, Put, Unwatch, Watch};
        let names = ["head", "get", "put", "post", "delete", "watch", "unwatch", "ping"];
        for (method, name) in [Head, Get, Put, Post, Delete, Watch, Unwatch, Ping].into_iter().zip(names) {
            assert_eq!((method.name(), method.is_idempotent()), (name, name != "post"));
            let frame: Value = serde_json::from_str(&Request::new(method, "/x").frame("r", &"s".into(), "me")).unwrap();
            assert_eq!(frame["method"], name);
            assert_eq!(frame.get("watch"), (name == "watch").then_some(&json!(true)));
            assert_eq!(frame["headers"]["authorization"], if name == "unwatch" { "" } else { "Bearer s" });
            assert_eq!(frame.get("data"), None);
        }
    }

    #[test]
    fn what_answers_mean() {
        for (status, is_ok, is_missing) in [
            (100, false, false),
            (199, false, false),
            (200, true, false),
            (299, true, false),
            (300, false, false),
            (401, false, false),
            (403, false, true),
            (404, false, true),
            (405, false, false),
            (599, false, false),
        ] {
            let text = format!(r#"{{"requestId":"a","status":{status}}}"#);
            let Ok(Incoming::Response(_, response)) = Incoming::parse(&text) else { panic!("{status}") };
            assert_eq!((response.is_ok(), response.is_missing()), (is_ok, is_missing), "{status}");
        }
        for status in ["99", "600", "65736", "-1", "200.5", "\"200\""] {
            assert!(Incoming::parse(&format!(r#"{{"requestId":"a","status":{status}}}"#)).is_err(), "{status}");
        }
        let with = |name: &str, value: &str| {
            let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            Response { status: 200, headers, data: Some(json!({ "message": value })) }
        };
        for (location, id) in [
            ("/resources/X", Some("resources/X")),
            ("resources/X/a/b", Some("resources/X")),
            ("/resources/", None),
            ("/resources", None),
            ("/bookmarks/X", None),
        ] {
            assert_eq!(with("content-location", location).resource_id().as_deref(), id, "{location}");
        }
        assert_eq!((with("x-oada-rev", "7").rev(), with("x-oada-rev", "x").rev()), (Some(7), None));
        assert_eq!((with("etag", "e").etag(), with("etag", "e").message()), (Some("e"), "e"));
        assert_eq!((Response::default().message(), Response::default().rev()), ("", None));
    }

    #[test]
    fn headers_of_any_simple_type_are_texts() {
        let text = r#"{"requestId":"a","status":200,"headers":{"A":"x","B":1.5,"C":true,"D":null,"E":[],"F":{}}}"#;
        let Ok(Incoming::Response(_, response)) = Incoming::parse(text) else { panic!("it is an answer") };
        let headers: Vec<_> = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, [("a", "x"), ("b", "1.5"), ("c", "true")]);
    }

    #[test]
    fn the_revision_of_a_change_is_that_of_what_is_watched() {
        for (changes, expected) in [
            (
                json!([{"type": "merge", "path": "/J", "body": {"_rev": 9}}, {"type": "merge", "body": {"_rev": 3}}]),
                Some(3),
            ),
            (json!([{"type": "merge", "path": "/J", "body": {"_rev": 9}}]), None),
            (json!([{"type": "delete", "body": null}]), None),
            (json!([{"type": "merge", "body": {"_rev": "x"}}]), None),
            (json!([]), None),
        ] {
            let message = json!({"requestId": ["w"], "resourceId": "resources/P", "change": changes});
            let Ok(Incoming::Change(_, set)) = Incoming::parse(&message.to_string()) else { panic!("{message}") };
            assert_eq!((set.rev(), set.resource_id.as_str()), (expected, "resources/P"), "{message}");
        }
    }

    #[test]
    fn answers_are_read() {
        let text = r#"{"requestId":["a","b"],"status":201,
            "headers":{"Content-Location":"/resources/X/updates/K","X-OADA-Rev":7,"odd":null}}"#;
        let Ok(Incoming::Response(ids, response)) = Incoming::parse(text) else { panic!("it is an answer") };
        assert_eq!(ids, ["a", "b"]);
        assert_eq!((response.rev(), response.resource_id().as_deref()), (Some(7), Some("resources/X")));
        assert_eq!(response.location(), Some("resources/X/updates/K"));
        assert!(response.is_ok() && response.etag().is_none() && !response.headers.contains_key("odd"));
    }

    #[test]
    fn changes_are_read() {
        let text = r#"{"requestId":"w","resourceId":"resources/P","path_leftover":[""],"change":[
            {"type":"merge","path":"","resource_id":"resources/P","body":{"J":{"_id":"resources/J"},"_rev":3}},
            {"type":"delete","path":"/J","resource_id":"resources/J","body":null}]}"#;
        let Ok(Incoming::Change(ids, change)) = Incoming::parse(text) else { panic!("it is a change") };
        assert_eq!((ids.as_slice(), change.rev()), (["w".to_owned()].as_slice(), Some(3)));
        assert_eq!(change.changes[1].kind, ChangeKind::Delete);
        assert_eq!(change.changes[1].body, None);
        let old = r#"{"requestId":"w","change":[{"type":"merge","body":{"_rev":"12"}}]}"#;
        let Ok(Incoming::Change(_, change)) = Incoming::parse(old) else { panic!("it is a change") };
        assert_eq!(change.rev(), Some(12), "old stores write revisions as strings");
    }

    #[test]
    fn what_nests_deep_is_refused() {
        let (lists, objects) = ("[".repeat(1_000_000), r#"{"a":"#.repeat(1_000_000));
        for deep in [lists.clone(), objects, format!("{lists}{}", "]".repeat(1_000_000))] {
            for head in ["", r#"{"requestId":"#, r#"{"requestId":"a","status":200,"data":"#, r#"{"requestId":"a","x":"#]
            {
                assert!(Incoming::parse(&format!("{head}{deep}")).is_err(), "{head}");
            }
            let change = format!(r#"{{"requestId":"a","change":[{{"type":"merge","body":{deep}"#);
            assert!(Incoming::parse(&change).is_err());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "[]", "{}", r#"{"requestId":"a"}"#, r#"{"requestId":"a","status":7}"#, r#"{"status":200}"#] {
            assert!(Incoming::parse(text).is_err(), "{text}");
        }
    }
}
