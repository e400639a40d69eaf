//! Finds what a path leads to, across links.

use std::collections::HashMap;

use super::resource::{Resource, dig};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The last resource on the way.
    pub(super) resource: String,
    /// Whether the path went on into its meta document.
    pub(super) in_meta: bool,
    /// The keys from there on.
    pub(super) rest: Vec<String>,
    /// The link that was followed last: in which resource, in its meta document or not, at which keys.
    pub(super) link: Option<(String, bool, Vec<String>)>,
}

impl Place {
    /// The value for `content-location`.
    pub(super) fn location(&self) -> String {
        let mut location = format!("/{}", self.resource);
        if self.in_meta {
            location.push_str("/_meta");
        }
        for key in &self.rest {
            location.push('/');
            location.push_str(key);
        }
        location
    }
}

/// Follows `path`, which begins at `/bookmarks` or `/resources/<id>`. None if it begins elsewhere.
pub(super) fn resolve(resources: &HashMap<String, Resource>, bookmarks: &str, path: &str) -> Option<Place> {
    let mut keys = path.split('/').filter(|key| !key.is_empty()).map(ToOwned::to_owned);
    let resource = match keys.next()?.as_str() {
        "bookmarks" => bookmarks.to_owned(),
        "resources" => format!("resources/{}", keys.next()?),
        _ => return None,
    };
    let mut place = Place { resource, in_meta: false, rest: Vec::new(), link: None };
    for key in keys {
        if key == "_meta" && place.rest.is_empty() && !place.in_meta {
            place.in_meta = true;
            continue;
        }
        place.rest.push(key);
        let Some(resource) = resources.get(&place.resource) else { continue };
        let document = if place.in_meta { &resource.meta } else { &resource.body };
        let target = dig(document, &place.rest).and_then(|value| value.get("_id")).and_then(|id| id.as_str());
        if let Some(target) = target {
            let target = target.to_owned();
            let link = (place.resource, place.in_meta, place.rest);
            place = Place { resource: target, in_meta: false, rest: Vec::new(), link: Some(link) };
        }
    }
    Some(place)
}
