//! The double of an OADA store: resources, links, revisions and watches, over HTTP and websockets on one port, with
//! faults that tests inject and a recorder of all that was said.
//!
//! It shares nothing with the worker's client, which it judges.

mod connection;
mod faults;
mod http;
mod ksuid;
pub mod npm;
mod path;
pub mod program;
mod record;
mod requests;
mod resource;
mod store;
mod watches;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::faults::Faults;
pub use self::faults::{Action, Fault};
use self::record::Recorder;
pub use self::record::{Direction, Entry};
use self::store::{Account, Store};
use self::watches::Watches;
use crate::lightning::DEADLINE;

/// The token of the account that every double has.
pub const TOKEN: &str = "god";
/// The user behind [`TOKEN`].
pub const USER: &str = "users/default:users_sam_321";
/// The bookmarks of [`USER`].
pub const BOOKMARKS: &str = "resources/default:resources_bookmarks_321";

/// Everything that the double knows, shared by its connections.
struct Shared {
    store: Mutex<Store>,
    watches: Mutex<Watches>,
    faults: Mutex<Faults>,
    recorder: Mutex<Recorder>,
    changed: Notify,
    /// Grows to close all connections.
    disconnects: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running double. Dropping it closes its port and its connections.
pub struct Oada {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Oada {
    /// Starts a store with one account on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
        let address = listener.local_addr().expect("a listener has an address");
        let account = Account { user: USER.to_owned(), bookmarks: BOOKMARKS.to_owned() };
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(TOKEN, account)),
            watches: Mutex::default(),
            faults: Mutex::default(),
            recorder: Mutex::default(),
            changed: Notify::new(),
            disconnects: watch::channel(0).0,
        });
        let router = http::router(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Self { shared, address, server }
    }

    /// Where it is, for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a user with bookmarks of its own.
    pub fn add_account(&self, token: &str, name: &str) {
        let account = Account { user: format!("users/{name}"), bookmarks: format!("resources/{name}-bookmarks") };
        lock(&self.shared.store).add_account(token, account);
    }

    /// Adds a token for the account that has the other one.
    pub fn add_token(&self, token: &str, other: &str) {
        let mut store = lock(&self.shared.store);
        let account = store.account(other).unwrap_or_else(|_| panic!("nobody has the token {other}"));
        store.share_account(token, account);
    }

    /// Takes a token away.
    pub fn remove_account(&self, token: &str) {
        lock(&self.shared.store).remove_account(token);
    }

    /// What a GET with [`TOKEN`] would answer; none if there is nothing.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.get_as(TOKEN, path)
    }

    /// What a GET with this token would answer; none if there is nothing.
    pub fn get_as(&self, token: &str, path: &str) -> Option<Value> {
        lock(&self.shared.store).read(token, path)
    }

    /// Does what a PUT with [`TOKEN`] would; panics if it would be refused. Returns the resource's id.
    pub fn put(&self, path: &str, media_type: &str, body: Value) -> String {
        self.put_as(TOKEN, path, media_type, body)
    }

    /// Does what a PUT with this token would; panics if it would be refused. Returns the resource's id.
    pub fn put_as(&self, token: &str, path: &str, media_type: &str, body: Value) -> String {
        let written = lock(&self.shared.store).put(token, path, media_type, body, None);
        let written = written.unwrap_or_else(|error| panic!("PUT {path}: {} {}", error.status, error.message));
        self.announce(written.changes);
        written.resource
    }

    /// Does what a DELETE with [`TOKEN`] would; panics if it would be refused.
    pub fn delete(&self, path: &str) {
        let written = lock(&self.shared.store).delete(TOKEN, path, None);
        let written = written.unwrap_or_else(|error| panic!("DELETE {path}: {} {}", error.status, error.message));
        self.announce(written.changes);
    }

    /// Sets a link, whatever was there.
    pub fn link(&self, parent: &str, key: &str, link: Value) {
        let written = lock(&self.shared.store).set_key(TOKEN, parent, key, link);
        let written = written.unwrap_or_else(|error| panic!("link at {parent}: {} {}", error.status, error.message));
        self.announce(written.changes);
    }

    /// Forgets all changes of the resource at `path` so far: a watch cannot be resumed from before.
    pub fn forget_history(&self, path: &str) {
        lock(&self.shared.store).forget_history(TOKEN, path);
    }

    /// Sends a change message to those who watch the resource at `path`, as it is.
    pub fn announce_raw(&self, path: &str, change: Value) {
        let resource = lock(&self.shared.store).resource_at(TOKEN, path);
        let resource = resource.unwrap_or_else(|| panic!("there is nothing at {path}"));
        lock(&self.shared.watches).announce(&resource, &change, &self.shared);
    }

    fn announce(&self, changes: Vec<(String, Value)>) {
        self.shared.announce(changes);
    }

    /// Injects a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// How often an injected fault has happened, by its name.
    pub fn happened(&self, name: &str) -> usize {
        lock(&self.shared.faults).happened(name)
    }

    /// Withholds change messages (and goes on to keep history) until it is set again.
    pub fn withhold_changes(&self, withhold: bool) {
        lock(&self.shared.watches).withhold(withhold);
    }

    /// Sends every change message twice.
    pub fn duplicate_changes(&self, duplicate: bool) {
        lock(&self.shared.watches).duplicate(duplicate);
    }

    /// Holds change messages back in pairs and sends the second before the first.
    pub fn swap_changes(&self, swap: bool) {
        lock(&self.shared.watches).swap(swap);
    }

    /// Closes every connection without a word.
    pub fn disconnect_all(&self) {
        lock(&self.shared.watches).clear();
        self.shared.disconnects.send_modify(|number| *number += 1);
    }

    /// Watches that are set at this moment.
    pub fn watch_count(&self) -> usize {
        lock(&self.shared.watches).len()
    }

    /// All that was said so far.
    pub fn trace(&self) -> Vec<Entry> {
        lock(&self.shared.recorder).entries()
    }

    /// Requests so far whose method is this and whose path contains that.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Value> {
        let matches = |entry: &Entry| {
            entry.direction == Direction::FromClient
                && entry.message["method"] == method
                && entry.message["path"].as_str().is_some_and(|it| it.contains(path))
        };
        self.trace().into_iter().filter(matches).map(|entry| entry.message).collect()
    }

    /// Waits until this holds, and fails with the trace if it does not come to hold.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let changed = self.shared.changed.notified();
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < end, "{what} did not happen\n{}", self.told());
            // Faults and timers change things, too, without a message.
            let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
        }
    }

    /// The trace as text, a line a message.
    pub fn told(&self) -> String {
        self.trace().iter().map(|entry| format!("{entry}\n")).collect()
    }
}

impl Drop for Oada {
    fn drop(&mut self) {
        self.server.abort();
        self.disconnect_all();
    }
}

impl Shared {
    /// Tells those who watch.
    fn announce(&self, changes: Vec<(String, Value)>) {
        let mut watches = lock(&self.watches);
        for (resource, change) in changes {
            watches.announce(&resource, &change, self);
        }
        drop(watches);
        self.changed.notify_waiters();
    }

    fn record(&self, connection: u64, direction: Direction, message: &Value) {
        lock(&self.recorder).add(connection, direction, message);
        self.changed.notify_waiters();
    }
}
