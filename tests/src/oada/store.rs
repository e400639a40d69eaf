//! The resources, and what reading and writing them means. Without I/O.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::ksuid;
use super::path::{Place, resolve};
use super::resource::{Resource, dig, merge, nest, versioned_link};

/// Whose token a request bears.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) bookmarks: String,
}

/// A request that is refused, with what goes into its headers.
#[derive(Debug, Clone)]
pub(super) struct Denied {
    pub(super) status: u16,
    pub(super) message: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Denied {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) data: Value,
    pub(super) headers: Vec<(String, String)>,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) resource: String,
    pub(super) headers: Vec<(String, String)>,
    /// What to tell those who watch: resource and change.
    pub(super) changes: Vec<(String, Value)>,
}

/// How a resource is linked that a request wants created and linked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnsureLink {
    Versioned,
    Unversioned,
}

#[derive(Clone, Copy)]
enum Kind {
    Merge,
    Delete,
}

pub(super) struct Store {
    accounts: HashMap<String, Account>,
    resources: HashMap<String, Resource>,
}

impl Store {
    pub(super) fn new(token: &str, account: Account) -> Self {
        let mut store = Self { accounts: HashMap::new(), resources: HashMap::new() };
        store.add_account(token, account);
        store
    }

    pub(super) fn add_account(&mut self, token: &str, account: Account) {
        let mut bookmarks = Resource::new(&account.bookmarks, "application/vnd.oada.bookmarks.1+json");
        bookmarks.rev = 1;
        self.resources.insert(account.bookmarks.clone(), bookmarks);
        self.accounts.insert(token.to_owned(), account);
    }

    pub(super) fn share_account(&mut self, token: &str, account: Account) {
        self.accounts.insert(token.to_owned(), account);
    }

    pub(super) fn remove_account(&mut self, token: &str) {
        self.accounts.remove(token);
    }

    /// Whose token it is.
    pub(super) fn account(&self, token: &str) -> Result<Account, Denied> {
        self.accounts.get(token).cloned().ok_or_else(|| Denied::new(401, "Unauthorized"))
    }

    pub(super) fn read(&self, token: &str, path: &str) -> Option<Value> {
        self.find(token, path).ok().map(|found| found.data)
    }

    pub(super) fn resource_at(&self, token: &str, path: &str) -> Option<String> {
        self.find(token, path).ok().map(|found| found.place.resource)
    }

    pub(super) fn forget_history(&mut self, token: &str, path: &str) {
        let resource = self.resource_at(token, path).and_then(|id| self.resources.get_mut(&id));
        resource.expect("there is such a resource").history.clear();
    }

    /// What is at `path`.
    pub(super) fn find(&self, token: &str, path: &str) -> Result<Found, Denied> {
        let place = self.place(token, path)?;
        let resource = self.resources.get(&place.resource).ok_or_else(|| Denied::new(403, "Forbidden"))?;
        let document = if place.in_meta { resource.meta_document() } else { resource.document() };
        let headers = Self::headers(&place, resource);
        match dig(&document, &place.rest) {
            Some(data) => Ok(Found { data: data.clone(), headers, place }),
            None => Err(Denied { headers, ..Denied::new(404, "Not Found") }),
        }
    }

    /// The changes of a resource after this revision.
    pub(super) fn changes_since(&self, resource: &str, rev: u64) -> Vec<Value> {
        let history = self.resources.get(resource).map(|resource| resource.history.iter());
        history.into_iter().flatten().filter(|(at, _)| *at > rev).map(|(_, change)| change.clone()).collect()
    }

    /// PUT: merges deeply, and creates what is not there.
    pub(super) fn put(
        &mut self,
        token: &str,
        path: &str,
        media_type: &str,
        mut body: Value,
        condition: Option<&str>,
    ) -> Result<Written, Denied> {
        let account = self.account(token)?;
        let mut place = self.place(token, path)?;
        let target = body.get("_id").and_then(Value::as_str).map(ToOwned::to_owned);
        if let (Some((resource, in_meta, rest)), Some(target)) = (&place.link, &target)
            && place.rest.is_empty()
            && *target != place.resource
        {
            // Another link is to take the place of the one that is there.
            place = Place { resource: resource.clone(), in_meta: *in_meta, rest: rest.clone(), link: None };
        } else if place.rest.is_empty()
            && let Some(object) = body.as_object_mut()
        {
            for key in ["_id", "_rev", "_type", "_meta"] {
                object.remove(key);
            }
        }
        self.check(&place, condition)?;
        if !self.resources.contains_key(&place.resource) {
            self.resources.insert(place.resource.clone(), Resource::new(&place.resource, media_type));
        }
        Ok(self.write(&account, &place, body, Kind::Merge))
    }

    /// Creates a resource and links it at `path`.
    pub(super) fn put_linked(
        &mut self,
        token: &str,
        path: &str,
        media_type: &str,
        body: Value,
        link: EnsureLink,
    ) -> Result<Written, Denied> {
        let id = format!("resources/{}", ksuid::generate());
        self.put(token, &format!("/{id}"), media_type, body, None)?;
        let link = match link {
            EnsureLink::Versioned => json!({ "_id": id, "_rev": 0 }),
            EnsureLink::Unversioned => json!({ "_id": id }),
        };
        self.put(token, path, media_type, link, None)
    }

    /// Sets one key of what is at `parent`, whatever was there.
    pub(super) fn set_key(&mut self, token: &str, parent: &str, key: &str, value: Value) -> Result<Written, Denied> {
        let account = self.account(token)?;
        let mut place = self.place(token, parent)?;
        place.rest.push(key.to_owned());
        Ok(self.write(&account, &place, value, Kind::Merge))
    }

    /// DELETE: takes the link away from the parent, or the resource itself if no link led there.
    pub(super) fn delete(&mut self, token: &str, path: &str, condition: Option<&str>) -> Result<Written, Denied> {
        let account = self.account(token)?;
        let mut place = self.place(token, path)?;
        if !self.resources.contains_key(&place.resource) && place.link.is_none() {
            return Err(Denied::new(403, "Forbidden"));
        }
        if let Some((resource, in_meta, rest)) = place.link.take_if(|_| place.rest.is_empty()) {
            place = Place { resource, in_meta, rest, link: None };
        }
        self.check(&place, condition)?;
        if !place.rest.is_empty() {
            return Ok(self.write(&account, &place, Value::Null, Kind::Delete));
        }
        let rev = self.resources.remove(&place.resource).map_or(0, |resource| resource.rev);
        let change = json!([{ "resource_id": place.resource, "path": "", "body": null, "type": "delete" }]);
        let headers =
            vec![("content-location".to_owned(), place.location()), ("x-oada-rev".to_owned(), (rev + 1).to_string())];
        Ok(Written { changes: vec![(place.resource.clone(), change)], resource: place.resource, headers })
    }

    fn place(&self, token: &str, path: &str) -> Result<Place, Denied> {
        let account = self.account(token)?;
        resolve(&self.resources, &account.bookmarks, path).ok_or_else(|| Denied::new(404, "Not Found"))
    }

    fn check(&self, place: &Place, condition: Option<&str>) -> Result<(), Denied> {
        let Some(condition) = condition else { return Ok(()) };
        match self.resources.get(&place.resource) {
            Some(resource) if resource.matches(condition) => Ok(()),
            _ => Err(Denied::new(412, "If-Match does not match")),
        }
    }

    fn headers(place: &Place, resource: &Resource) -> Vec<(String, String)> {
        vec![
            ("content-location".to_owned(), place.location()),
            ("x-oada-rev".to_owned(), resource.rev.to_string()),
            ("etag".to_owned(), resource.etag()),
            ("content-type".to_owned(), resource.media_type.clone()),
        ]
    }

    /// Writes, and follows versioned links up to all parents.
    fn write(&mut self, account: &Account, place: &Place, body: Value, kind: Kind) -> Written {
        let resource = self.resources.get_mut(&place.resource).expect("the caller has seen it");
        let document = if place.in_meta { &mut resource.meta } else { &mut resource.body };
        let nested = nest(&place.rest, body);
        match kind {
            Kind::Merge => merge(document, &nested),
            Kind::Delete => remove(document, &place.rest),
        }
        resource.rev += 1;
        let shown = if place.in_meta { json!({ "_meta": nested }) } else { nested };
        let change = entry(resource, "", shown, kind, account);
        let headers = Self::headers(place, resource);
        let mut changes = Vec::new();
        self.bubble(&place.resource, vec![change], account, &mut HashSet::new(), &mut changes);
        Written { resource: place.resource.clone(), headers, changes }
    }

    /// Tells of a change in a resource, and writes its new revision into those that link to it with versions.
    fn bubble(
        &mut self,
        id: &str,
        change: Vec<Value>,
        account: &Account,
        visited: &mut HashSet<String>,
        changes: &mut Vec<(String, Value)>,
    ) {
        visited.insert(id.to_owned());
        let resource = self.resources.get_mut(id).expect("it was just written");
        let rev = resource.rev;
        resource.history.push((rev, Value::Array(change.clone())));
        changes.push((id.to_owned(), Value::Array(change.clone())));
        let parents: Vec<(String, Vec<String>)> = self
            .resources
            .values()
            .filter(|parent| !visited.contains(&parent.id))
            .filter_map(|parent| Some((parent.id.clone(), versioned_link(&parent.body, id)?)))
            .collect();
        for (parent_id, keys) in parents {
            let parent = self.resources.get_mut(&parent_id).expect("it was just found");
            let body = nest(&keys, json!({ "_rev": rev }));
            merge(&mut parent.body, &body);
            parent.rev += 1;
            let mut above = vec![entry(parent, "", body, Kind::Merge, account)];
            let prefix: String = keys.iter().map(|key| format!("/{key}")).collect();
            above.extend(change.iter().cloned().map(|mut below| {
                let path = below["path"].as_str().unwrap_or_default();
                below["path"] = Value::from(format!("{prefix}{path}"));
                below
            }));
            self.bubble(&parent_id, above, account, visited, changes);
        }
    }
}

/// One element of a change.
fn entry(resource: &Resource, path: &str, mut body: Value, kind: Kind, account: &Account) -> Value {
    if !body.is_object() {
        body = Value::Object(Map::new());
    }
    let modified = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let meta = json!({ "_rev": resource.rev, "modified": modified, "modifiedBy": account.user });
    merge(&mut body, &json!({ "_rev": resource.rev, "_meta": meta }));
    let kind = match kind {
        Kind::Merge => "merge",
        Kind::Delete => "delete",
    };
    json!({ "resource_id": resource.id, "path": path, "body": body, "type": kind })
}

fn remove(document: &mut Value, keys: &[String]) {
    let Some((last, above)) = keys.split_last() else { return };
    let parent = above.iter().try_fold(document, |value, key| value.get_mut(key));
    if let Some(object) = parent.and_then(Value::as_object_mut) {
        object.shift_remove(last);
    }
}
