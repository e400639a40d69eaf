//! What a report keeps in the store to go on from after a restart.

use serde_json::{Value, json};

use crate::client::{Client, ClientError, if_there};
use crate::ksuid::Ksuid;

/// The media type that it is written with.
const JSON: &str = "application/json";

/// A small object in a resource of its own, so that writing it changes nothing that is watched.
pub(super) struct Position {
    client: Client,
    path: String,
}

impl Position {
    /// The one that belongs to `name` and to what is at `shelf`.
    pub(super) fn new(client: Client, shelf: &str, name: &str) -> Self {
        Self { client, path: format!("{shelf}/_meta/oada-list-lib/{name}") }
    }

    /// What was kept; none if nothing was.
    pub(super) async fn read(&self) -> Result<Option<Value>, ClientError> {
        Ok(if_there(self.client.get(&self.path).await)?.and_then(|found| found.data))
    }

    /// Keeps something for the first time.
    pub(super) async fn make(&self, value: Value) -> Result<(), ClientError> {
        let id = format!("resources/{}", Ksuid::generate());
        self.client.put(&format!("/{id}"), JSON, value).await?;
        self.client.put(&self.path, JSON, json!({ "_id": id })).await.map(drop)
    }

    /// Keeps something else.
    pub(super) async fn write(&self, value: Value) -> Result<(), ClientError> {
        self.client.put(&self.path, JSON, value).await.map(drop)
    }
}
