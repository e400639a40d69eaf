//! Writing below resources that may not exist yet: those that a tree names on the way are created and linked.

use protocol::backoff::jitter;
use serde_json::{Map, Value, json};

use super::retry::{CONFLICTS, conflict_pause};
use super::{Client, ClientError, if_there};
use crate::ksuid::Ksuid;
use crate::tree::{Node, Tree};
use crate::wire::{Method, Request, Response};

/// What came of making a way.
enum Way {
    /// All of it is there.
    Made,
    /// Another has made what was missing, or some of it.
    MadeByAnother,
}

impl Client {
    /// Makes sure that all resources of `tree` on the way to `path` exist, and writes `data` there.
    pub async fn put_tree(&self, path: &str, data: Value, tree: &Tree) -> Result<Response, ClientError> {
        self.make_way(path, tree).await?;
        let media_type = tree.node(path).map_or("application/json", |node| node.media_type);
        self.put(path, media_type, data).await
    }

    /// Writes an empty object at `path`, with all resources of `tree` on the way, if there is nothing yet.
    pub async fn ensure(&self, path: &str, tree: &Tree) -> Result<Response, ClientError> {
        match self.head(path).await {
            Err(error) if error.status() == Some(404) => self.put_tree(path, json!({}), tree).await,
            done => done,
        }
    }

    /// Creates what is missing on the way. Others may do the same at the same time.
    async fn make_way(&self, path: &str, tree: &Tree) -> Result<(), ClientError> {
        let mut failures = 0;
        loop {
            match self.try_make_way(path, tree).await {
                Ok(Way::Made) => return Ok(()),
                Ok(Way::MadeByAnother) => {}
                Err(error) if error.is_conflict() && failures + 1 < CONFLICTS => {
                    failures += 1;
                    tokio::time::sleep(conflict_pause(failures, jitter())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_make_way(&self, path: &str, tree: &Tree) -> Result<Way, ClientError> {
        // The link to what was created last, and where it belongs.
        let mut link: Option<(Value, String)> = None;
        for (place, node) in tree.way(path).into_iter().rev() {
            match self.head(&place).await {
                Ok(response) => {
                    let Some((value, at)) = link else { return Ok(Way::Made) };
                    // The etag does not tell of what came before it. A link that did would be lost with all behind it.
                    if if_there(self.head(&at).await)?.is_some() {
                        return Ok(Way::MadeByAnother);
                    }
                    let mut request = Request::new(Method::Put, at).body(node.media_type, value);
                    if let Some(etag) = response.etag() {
                        request = request.header("if-match", etag);
                    }
                    return self.send(request).await.map(|_| Way::Made);
                }
                Err(error) if error.is_missing() => {
                    let body = link.map_or_else(|| json!({}), |(value, at)| nested(value, &at[place.len()..]));
                    link = Some((self.create(node, body).await?, place));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Way::Made)
    }

    /// Creates a resource and gives back the link that belongs to it.
    async fn create(&self, node: Node, body: Value) -> Result<Value, ClientError> {
        let id = format!("resources/{}", Ksuid::generate());
        self.put(&format!("/{id}"), node.media_type, body).await?;
        Ok(if node.versioned { json!({ "_id": id, "_rev": 0 }) } else { json!({ "_id": id }) })
    }
}

/// `value` at this path below an object.
fn nested(value: Value, path: &str) -> Value {
    path.split('/').rev().filter(|key| !key.is_empty()).fold(value, |value, key| {
        let mut object = Map::new();
        object.insert(key.to_owned(), value);
        Value::Object(object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_put_into_the_resource_above_it() {
        assert_eq!(nested(json!(1), "/day-index/2026-11-21"), json!({ "day-index": { "2026-11-21": 1 } }));
        assert_eq!(nested(json!(1), ""), json!(1));
    }
}
