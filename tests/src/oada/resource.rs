//! One resource: its body, its meta document, its revision and what changed in it.

use serde_json::{Map, Value, json};

/// A resource.
pub(super) struct Resource {
    /// `resources/…`.
    pub(super) id: String,
    pub(super) media_type: String,
    pub(super) rev: u64,
    /// The body without `_id`, `_type`, `_rev` and `_meta`.
    pub(super) body: Value,
    /// The meta document, without `_id` and `_rev`.
    pub(super) meta: Value,
    /// What watches of it were told, by revision.
    pub(super) history: Vec<(u64, Value)>,
}

impl Resource {
    pub(super) fn new(id: &str, media_type: &str) -> Self {
        let empty = || Value::Object(Map::new());
        let (id, media_type) = (id.to_owned(), media_type.to_owned());
        Self { id, media_type, rev: 0, body: empty(), meta: empty(), history: Vec::new() }
    }

    /// What a GET answers.
    pub(super) fn document(&self) -> Value {
        let mut document = json!({
            "_id": self.id,
            "_type": self.media_type,
            "_rev": self.rev,
            "_meta": { "_id": format!("{}/_meta", self.id), "_rev": self.rev },
        });
        merge(&mut document, &self.body);
        document
    }

    /// What a GET of the meta document answers.
    pub(super) fn meta_document(&self) -> Value {
        let mut document = json!({ "_id": format!("{}/_meta", self.id), "_type": self.media_type, "_rev": self.rev });
        merge(&mut document, &self.meta);
        document
    }

    /// What goes into an `etag`.
    pub(super) fn etag(&self) -> String {
        format!("\"{}/{}\"", self.id.trim_start_matches("resources/"), self.rev)
    }

    /// Whether an `if-match` lets a write through: the whole etag or the bare revision.
    pub(super) fn matches(&self, condition: &str) -> bool {
        let bare = self.rev.to_string();
        condition.split(',').map(str::trim).any(|it| it == self.etag() || it.trim_matches('"') == bare || it == "*")
    }
}

/// Merges `from` deeply into `into`.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(present) => merge(present, value),
                    None => {
                        into.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// `value` within objects, one for each of the keys.
pub(super) fn nest(keys: &[String], value: Value) -> Value {
    keys.iter().rev().fold(value, |value, key| {
        let mut object = Map::new();
        object.insert(key.clone(), value);
        Value::Object(object)
    })
}

/// What lies at the end of `keys`.
pub(super) fn dig<'a>(value: &'a Value, keys: &[String]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    })
}

/// Where in `value` a versioned link to `target` is.
pub(super) fn versioned_link(value: &Value, target: &str) -> Option<Vec<String>> {
    let object = value.as_object()?;
    if object.get("_id").is_some_and(|id| id == target) && object.contains_key("_rev") {
        return Some(Vec::new());
    }
    object.iter().find_map(|(key, value)| {
        let mut keys = versioned_link(value, target)?;
        keys.insert(0, key.clone());
        Some(keys)
    })
}
