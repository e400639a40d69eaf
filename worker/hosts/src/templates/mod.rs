//! Templates: processes that have an engine's adaptors loaded, and that engines are forked from.
//!
//! `shelf.rs` decides which there are to be. Around it here are the hosts that look after them, one each, and the files
//! that they were loaded from.

mod shelf;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use base::metrics::metrics;
use parking_lot::Mutex;
use protocol::engine::{EngineSpec, NodeSpec, TemplateAddress};
use protocol::message::{BeTemplate, NotForked, Prepare, Template};
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};

pub(super) use self::shelf::Demand;
use self::shelf::{Action, Number, Print, Shelf};
pub use self::shelf::{TemplatePolicy, TemplateState};
use super::handle::WeakHosts;
use super::status::describe;
use super::watch::version;
use super::{Hosts, HostsOptions, ManageError};

/// How often it is looked whether templates are too old, and their files still the same.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a template may take to load everything and to prove itself.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The templates of a worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Templates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: WeakHosts,
    shelf: Mutex<Shelf>,
    /// What lets a template go.
    retiring: Mutex<HashMap<Number, oneshot::Sender<()>>>,
    /// There may be something to do.
    nudge: Notify,
}

/// A look at what is known of engines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateStatus {
    /// The engines.
    pub engine: String,
    /// Their template.
    pub state: TemplateState,
}

impl Templates {
    pub(super) fn start(hosts: Hosts, policy: TemplatePolicy) -> Self {
        let hosts = hosts.downgrade();
        let shelf = Mutex::new(Shelf::new(policy));
        let inner = Arc::new(Inner { hosts, shelf, retiring: Mutex::default(), nudge: Notify::new() });
        tokio::spawn(tend(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// What an engine that somebody is to get can be forked from, if there is something.
    pub(super) fn offer(&self, spec: &NodeSpec, memory_bytes: u64, demand: Demand) -> Option<TemplateAddress> {
        // Whether there is a snapshot by now makes no difference.
        let spec = NodeSpec { snapshot: None, ..spec.clone() };
        let key = Prepare { engine: EngineSpec::Node(spec), memory_bytes };
        let offered = self.0.shelf.lock().wanted(&key, demand, Instant::now()).cloned();
        if demand == Demand::New {
            if let Err(lacking) = offered {
                metrics().fork_fallback(lacking.into());
            }
            self.0.nudge.notify_one();
        }
        offered.ok()
    }

    /// An engine was forked and adopted.
    pub(super) fn forked(&self, host: &str, took: Duration) {
        metrics().forked(took);
        self.0.shelf.lock().forked(host);
    }

    /// A template was of no use.
    pub(super) fn not_forked(&self, NotForked { template, fault, why }: &NotForked) {
        metrics().fork_fallback(fault.into());
        debug!(host = %template, "an engine was not forked: {why}");
        let (actions, given_up) = {
            let mut shelf = self.0.shelf.lock();
            let (actions, given_up) = shelf.fault(template, why, Instant::now());
            (actions, given_up.map(describe))
        };
        if let Some(engine) = given_up {
            warn!("forking is off for an hour for {engine}: the last fork failed: {why}");
        }
        self.0.perform(actions);
        self.0.nudge.notify_one();
    }

    /// What is known of engines, those of templates first.
    pub fn status(&self) -> Vec<TemplateStatus> {
        let looks = self.0.shelf.lock().looks(Instant::now());
        let status = looks.into_iter().map(|(key, state)| TemplateStatus { engine: describe(&key), state });
        let mut status: Vec<_> = status.filter(|it| it.state != TemplateState::Unwanted).collect();
        status.sort_by_key(|it| (!matches!(it.state, TemplateState::Ready { .. }), it.engine.clone()));
        status
    }

    /// Lets all templates go. Others are started as engines are wanted.
    pub fn start_afresh(&self) {
        let actions = self.0.shelf.lock().start_afresh();
        self.0.perform(actions);
    }

    /// Goes by these options from now on, with so much memory for all templates. They are started anew.
    pub async fn reconfigure(&self, options: HostsOptions, memory_bytes: u64) -> Result<(), ManageError> {
        self.0.shelf.lock().set_memory(memory_bytes);
        self.start_afresh();
        self.0.hosts.upgrade().ok_or(ManageError::Closed)?.reconfigure(options).await
    }
}

/// Sees to it that there are the templates that are to be, for as long as there is a pool for them.
async fn tend(inner: Weak<Inner>) {
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        let Some(inner) = inner.upgrade().filter(|inner| inner.hosts.upgrade().is_some()) else { return };
        let pause = look_at.saturating_duration_since(Instant::now());
        if tokio::time::timeout(pause, inner.nudge.notified()).await.is_err() {
            look_at = Instant::now() + LOOK_EVERY;
            // A few files for each.
            let actions = inner.shelf.lock().look(print_of);
            inner.perform(actions);
        }
        let actions = inner.shelf.lock().plan(Instant::now());
        inner.perform(actions);
    }
}

impl Inner {
    fn perform(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(number, key) => {
                    let (retire, retired) = oneshot::channel();
                    self.retiring.lock().insert(number, retire);
                    tokio::spawn(Arc::clone(self).keep(number, *key, retired));
                }
                // Fails when it has ended.
                Action::Drop(number) => drop(self.retiring.lock().remove(&number).map(|retire| retire.send(()))),
            }
        }
        metrics().templates(self.shelf.lock().bytes());
    }

    /// Starts a template, and stays with it to its end.
    async fn keep(self: Arc<Self>, number: Number, key: Prepare, mut retired: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.live(number, &key) => {}
            _ = &mut retired => debug!("the template of {} is let go", describe(&key)),
        }
        self.retiring.lock().remove(&number);
        self.nudge.notify_one();
    }

    async fn live(self: &Arc<Self>, number: Number, key: &Prepare) {
        let print = print_of(key);
        let begun = Instant::now();
        let Some(hosts) = self.hosts.upgrade() else { return };
        // It is given to nobody else, and ends when this does.
        let lent = match hosts.lend().await {
            Ok(lent) => lent.killed_when_dropped(),
            // That there is none says nothing of the template.
            Err(error) => {
                debug!("no host becomes the template of {}: {error}", describe(key));
                drop(hosts);
                tokio::time::sleep(LOOK_EVERY).await;
                return self.shelf.lock().ended(number);
            }
        };
        drop(hosts);
        let variables = self.shelf.lock().variables();
        let wanted = BeTemplate { engine: key.engine.clone(), memory_bytes: key.memory_bytes, variables };
        match lent.call(wanted, READY_WITHIN).await {
            Ok(Template { address, private_bytes }) => {
                let host = address.host.clone();
                if !self.shelf.lock().ready(number, address, private_bytes, print, Instant::now()) {
                    return;
                }
                metrics().templates(self.shelf.lock().bytes());
                info!(host = %host, after = ?begun.elapsed(), "template ready: {} is forked from now on", describe(key));
                let death =
                    lent.died().await.map_or_else(|| "was in a pool that is gone".to_owned(), |it| it.to_string());
                info!(host = %host, "the template of {} has ended: it {death}", describe(key));
                self.shelf.lock().ended(number);
            }
            Err(why) => self.failed(number, key, why.to_string(), print),
        }
    }

    fn failed(&self, number: Number, key: &Prepare, why: String, print: Option<Print>) {
        let told = why.clone();
        if self.shelf.lock().failed(number, why, print, Instant::now()) {
            warn!("forking is off for an hour for {}: {told}", describe(key));
        }
    }
}

/// What the files are like that an engine loads; none if one is missing.
fn print_of(key: &Prepare) -> Option<Print> {
    let EngineSpec::Node(spec) = &key.engine else { return None };
    let mut hasher = DefaultHasher::new();
    let of_adaptors = spec.adaptors.iter().map(|it| match &it.bundle {
        Some(bundle) => bundle.clone(),
        None => it.folder.join("package.json"),
    });
    for file in [spec.program.clone()].into_iter().chain(of_adaptors) {
        version(&file)?.hash(&mut hasher);
    }
    Some(hasher.finish())
}
