//! Creating a resource and linking it at a path.

use serde_json::{Value, json};

use super::{Client, ClientError};
use crate::ksuid::Ksuid;
use crate::wire::{Method, Request};

/// How a new resource is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsureLink {
    /// With its revision: what links to it changes with it.
    Versioned,
    /// Without.
    Unversioned,
}

impl EnsureLink {
    fn header(self) -> &'static str {
        match self {
            Self::Versioned => "versioned",
            Self::Unversioned => "unversioned",
        }
    }
}

/// A resource that was created and linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// `resources/<id>`.
    pub id: String,
    /// The link's key.
    pub key: String,
}

impl Client {
    /// Creates a resource, then links it below `list` without its revision, under a key that is also its id. May be
    /// given up at any moment and is then done in part; never done twice.
    pub async fn post_linked(&self, list: &str, media_type: &str, data: Value) -> Result<Posted, ClientError> {
        let key = Ksuid::generate().to_string();
        let id = format!("resources/{key}");
        self.put(&format!("/{id}"), media_type, data).await?;
        self.put(&format!("{list}/{key}"), media_type, json!({ "_id": id })).await?;
        Ok(Posted { id, key })
    }

    /// The same in one request, which the store must know (`X-OADA-Ensure-Link`): nobody sees the link before the
    /// resource is whole.
    pub async fn post_ensuring_link(
        &self,
        list: &str,
        media_type: &str,
        data: Value,
        link: EnsureLink,
    ) -> Result<Posted, ClientError> {
        let request = Request::new(Method::Post, list).body(media_type, data);
        let response = self.send(request.header("x-oada-ensure-link", link.header())).await?;
        let incomplete = |what| ClientError::Incomplete { path: list.to_owned(), what };
        let location = response.location().ok_or_else(|| incomplete("content-location"))?;
        let key = location.rsplit('/').next().unwrap_or_default().to_owned();
        // The link's own place leads on to the resource.
        let head = self.head(&format!("{list}/{key}")).await?;
        let id = head.resource_id().ok_or_else(|| incomplete("resource in its content-location"))?;
        Ok(Posted { id, key })
    }
}
