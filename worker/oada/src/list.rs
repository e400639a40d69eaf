//! What a change means for a list of links. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::wire::{Change, ChangeKind, ChangeSet};

/// Something that happened to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListChange {
    /// This key links to this resource now.
    Linked { key: String, id: String },
    /// This key links to nothing any more.
    Unlinked { key: String },
    /// The list is gone.
    Deleted,
}

/// What a change of a list, or of something below it, means for its links. What is only a new revision of something
/// that is linked, or belongs to the store (`_meta`), means nothing.
pub(super) fn list_changes(set: &ChangeSet) -> Vec<ListChange> {
    set.changes.iter().filter(|change| change.path.is_empty()).flat_map(own_changes).collect()
}

fn own_changes(change: &Change) -> Vec<ListChange> {
    let Some(body) = &change.body else {
        return match change.kind {
            ChangeKind::Delete => vec![ListChange::Deleted],
            ChangeKind::Merge => Vec::new(),
        };
    };
    let own = body.iter().filter(|(key, _)| !key.starts_with('_'));
    own.filter_map(|(key, value)| match (change.kind, value) {
        (_, Value::Null) => Some(ListChange::Unlinked { key: key.clone() }),
        (ChangeKind::Merge, value) => Some(ListChange::Linked { key: key.clone(), id: link(value)?.to_owned() }),
        (ChangeKind::Delete, _) => None,
    })
    .collect()
}

/// All links of a list that was read.
pub(super) fn links(list: &Map<String, Value>) -> BTreeMap<String, String> {
    let own = list.iter().filter(|(key, _)| !key.starts_with('_'));
    own.filter_map(|(key, value)| Some((key.clone(), link(value)?.to_owned()))).collect()
}

fn link(value: &Value) -> Option<&str> {
    value.get("_id")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn linked(key: &str, id: &str) -> ListChange {
        ListChange::Linked { key: key.to_owned(), id: id.to_owned() }
    }

    fn unlinked(key: &str) -> ListChange {
        ListChange::Unlinked { key: key.to_owned() }
    }

    #[test]
    fn each_kind_of_change() {
        let cases = [
            (
                json!([{ "type": "merge", "path": "", "body": { "J": { "_id": "resources/J" }, "_rev": 3 } }]),
                vec![linked("J", "resources/J")],
            ),
            (
                // An entry without an id does not hide the ones behind it.
                json!([{ "type": "merge", "body": {
                    "A": { "_rev": 2 }, "B": { "_id": "resources/B", "_rev": 1 }, "C": "text", "D": { "_id": 7 },
                    "E": { "_id": "resources/E" }, "_meta": { "_id": "resources/P/_meta" }, "_rev": 9 } }]),
                vec![linked("B", "resources/B"), linked("E", "resources/E")],
            ),
            (
                // A versioned link tells of every change of its job.
                json!([
                    { "type": "merge", "path": "", "body": { "J": { "_rev": 2 }, "_rev": 40 } },
                    { "type": "merge", "path": "/J", "body": { "updates": { "U": { "_id": "x" } }, "_rev": 2 } },
                ]),
                vec![],
            ),
            (
                json!([{ "type": "delete", "path": "", "body": { "J": null, "_rev": 4, "_meta": {} } }]),
                vec![unlinked("J")],
            ),
            (json!([{ "type": "merge", "path": "", "body": { "J": null, "_rev": 4 } }]), vec![unlinked("J")]),
            (json!([{ "type": "delete", "path": "", "body": { "J": { "updates": null }, "_rev": 4 } }]), vec![]),
            (json!([{ "type": "delete", "path": "", "body": null }]), vec![ListChange::Deleted]),
            (json!([{ "type": "delete", "path": "/J", "body": null }]), vec![]),
            (json!([]), vec![]),
        ];
        for (changes, expected) in cases {
            let set = ChangeSet {
                resource_id: "resources/P".to_owned(),
                changes: serde_json::from_value(changes.clone()).unwrap(),
            };
            assert_eq!(list_changes(&set), expected, "{changes}");
        }
    }

    #[test]
    fn links_of_a_list() {
        let list = json!({ "_id": "resources/P", "_meta": { "_id": "m" }, "J": { "_id": "resources/J" }, "x": 1 });
        let links = links(list.as_object().unwrap());
        assert_eq!(links.into_iter().collect::<Vec<_>>(), [("J".to_owned(), "resources/J".to_owned())]);
    }
}
