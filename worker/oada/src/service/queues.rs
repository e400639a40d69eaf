//! The queues of a service: its own, and those that `queues` in the store names, which come, change and go while it
//! runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use protocol::backoff::{Backoff, jitter};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval_at};

use super::Shared;
use super::access::Access;
use super::queue::{self, Phase, QueueEnv, Ready, reached};
use crate::client::{Client, ClientError, Domain, WatchEvent};

/// The name of the service's own queue.
pub(super) const DEFAULT_QUEUE: &str = "default-service-queue";

/// Shortest and longest pause between attempts to watch the list of queues.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Where a queue is.
#[derive(Clone)]
struct QueueConfig {
    domain: Domain,
    token: SecretString,
}

impl PartialEq for QueueConfig {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain && self.token.expose_secret() == other.token.expose_secret()
    }
}

/// A queue that is not described as it should be.
#[derive(Debug, thiserror::Error)]
#[error("queue `{id}` is ignored: {why}; a queue has strings `domain` and `token`")]
struct InvalidQueue {
    id: String,
    why: String,
}

impl QueueConfig {
    fn parse(id: &str, body: &Value) -> Result<Self, InvalidQueue> {
        let invalid = |why: String| InvalidQueue { id: id.to_owned(), why };
        let text = |name: &str| {
            body.get(name).and_then(Value::as_str).ok_or_else(|| invalid(format!("it has no string `{name}`")))
        };
        let domain = text("domain")?.parse().map_err(|error| invalid(format!("{error}")))?;
        Ok(Self { domain, token: text("token")?.into() })
    }
}

/// A queue as the list names it: name, the path of the resource if it is one, and what it says.
type Named = (String, Option<String>, Value);

/// A queue that is served.
struct Served {
    config: QueueConfig,
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Kill);
    }
}

/// All queues of a service.
pub(super) struct Queues {
    shared: Arc<Shared>,
    /// With the service's own token.
    client: Client,
    own: QueueConfig,
    phase: watch::Receiver<Phase>,
    served: HashMap<String, Served>,
    /// Queues that were taken away and still have jobs under way.
    leaving: Vec<Served>,
}

impl Queues {
    /// Starts with the service's own queue. An error is why it cannot be served.
    pub(super) async fn start(
        shared: Arc<Shared>,
        client: Client,
        token: SecretString,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, ClientError> {
        let own = QueueConfig { domain: client.domain().clone(), token };
        let mut queues = Self {
            shared,
            client: client.clone(),
            own: own.clone(),
            phase,
            served: HashMap::new(),
            leaving: Vec::new(),
        };
        let (ready, is_ready) = oneshot::channel();
        queues.serve(DEFAULT_QUEUE, own, client, Some(ready));
        is_ready.await.map_err(|_| ClientError::Closed)??;
        Ok(queues)
    }

    /// Follows the list of queues until the service is to end and all queues have.
    pub(super) async fn run(mut self) {
        let mut phase = self.phase.clone();
        let mut backoff = Backoff::new(WATCH_AGAIN, 2.0);
        while *phase.borrow() == Phase::Run {
            tokio::select! {
                followed = self.follow(&mut backoff) => {
                    if let Err(error) = followed {
                        tracing::warn!("cannot watch the list of queues: {error}");
                    }
                }
                () = reached(&mut phase, Phase::Drain) => break,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(jitter())) => {}
                () = reached(&mut phase, Phase::Drain) => {}
            }
        }
        let mut ending: Vec<Served> = self.served.into_values().chain(self.leaving).collect();
        loop {
            let wanted = *phase.borrow_and_update();
            for served in &ending {
                served.phase.send_if_modified(|phase| {
                    let changes = *phase < wanted;
                    *phase = wanted.max(*phase);
                    changes
                });
            }
            tokio::select! {
                () = all(&mut ending) => return,
                Ok(()) = phase.changed() => {}
            }
        }
    }

    /// Reads the list and follows it. Returns when it cannot be watched any more.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), ClientError> {
        let (path, tree) = (self.shared.paths.queues(), self.shared.paths.tree());
        self.client.ensure(&path, &tree).await?;
        let mut watch = self.client.watch(&path, None).await?;
        let (changed, mut changes) = mpsc::unbounded_channel();
        let verify = self.shared.options.verify_interval;
        let mut verification = interval_at(Instant::now() + verify, verify);
        // One watch for each queue that is a resource of its own, whose changes the list does not tell.
        let mut watches = JoinSet::new();
        let mut watched = Vec::new();
        loop {
            let (list, queues) = self.read(&path).await?;
            if watch.resource().is_some() && watch.resource() != list.as_deref() {
                // There is another list at the path by now.
                return Ok(());
            }
            backoff.reset();
            for place in queues.iter().filter_map(|(_, place, _)| place.clone()) {
                if !watched.contains(&place) {
                    watched.push(place.clone());
                    watches.spawn(tell_of_changes(self.client.clone(), place, changed.clone()));
                }
            }
            self.reconcile(queues.into_iter().map(|(id, _, body)| (id, body)));
            tokio::select! {
                event = watch.next() => match event {
                    Some(WatchEvent::Changed(_) | WatchEvent::Missed) => {}
                    Some(WatchEvent::Refused(_)) | None => return Ok(()),
                },
                _ = changes.recv() => {}
                _ = verification.tick() => {}
            }
        }
    }

    /// The list's resource, and all queues in it.
    async fn read(&self, path: &str) -> Result<(Option<String>, Vec<Named>), ClientError> {
        let response = self.client.get(path).await?;
        let (resource, list) = (response.resource_id(), response.data.unwrap_or_default());
        let mut queues = Vec::new();
        let entries = list.as_object().into_iter().flatten().filter(|(key, _)| !key.starts_with('_'));
        for (id, value) in entries {
            let link = value.get("_id").and_then(Value::as_str).filter(|_| value.get("domain").is_none());
            match link {
                None => queues.push((id.clone(), None, value.clone())),
                Some(link) => {
                    let place = format!("/{link}");
                    match self.client.get(&place).await {
                        Ok(response) => queues.push((id.clone(), Some(place), response.data.unwrap_or_default())),
                        Err(error) if error.is_missing() => tracing::warn!("ignoring queue `{id}`: {error}"),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok((resource, queues))
    }

    /// Starts, changes and ends queues until those are served that are wanted.
    fn reconcile(&mut self, wanted: impl Iterator<Item = (String, Value)>) {
        let mut configs = HashMap::new();
        for (id, body) in wanted.filter(|(id, _)| id != DEFAULT_QUEUE) {
            match QueueConfig::parse(&id, &body) {
                // That one is served already.
                Ok(config) if config == self.own => {}
                Ok(config) => drop(configs.insert(id, config)),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let gone: Vec<String> = self
            .served
            .iter()
            .filter(|(id, served)| *id != DEFAULT_QUEUE && configs.get(*id) != Some(&served.config))
            .map(|(id, _)| id.clone())
            .collect();
        self.leaving.retain(|served| !served.task.is_finished());
        for (id, served) in gone.into_iter().filter_map(|id| self.served.remove_entry(&id)) {
            match configs.contains_key(&id) {
                true => tracing::info!(queue = id, "queue changed"),
                false => tracing::info!(queue = id, "queue removed: finishing its active jobs, starting no more"),
            }
            served.phase.send_replace(Phase::Drain);
            self.leaving.push(served);
        }
        for (id, config) in configs {
            if !self.served.contains_key(&id) {
                let options = self.shared.options.client.clone();
                let client = Client::connect(config.domain.clone(), config.token.clone(), options);
                tracing::info!(queue = id, domain = %config.domain, "queue added");
                self.serve(&id, config, client, None);
            }
        }
    }

    fn serve(&mut self, id: &str, config: QueueConfig, client: Client, ready: Option<Ready>) {
        let (phase, phase_seen) = watch::channel(Phase::Run);
        let (shared, list_is_watched) = (Arc::clone(&self.shared), AtomicBool::new(false));
        let access = Access::new(shared.paths.service(), id);
        let env = Arc::new(QueueEnv { shared, client, id: id.to_owned(), phase: phase_seen, list_is_watched, access });
        self.shared.queue_begins(&env);
        let task = tokio::spawn(queue::serve(env, ready));
        self.served.insert(id.to_owned(), Served { config, phase, task });
    }
}

/// Says that something changed at `place`, until it cannot be watched any more.
async fn tell_of_changes(client: Client, place: String, changed: mpsc::UnboundedSender<()>) {
    let Ok(mut watch) = client.watch(&place, None).await else { return };
    while let Some(WatchEvent::Changed(_) | WatchEvent::Missed) = watch.next().await {
        if changed.send(()).is_err() {
            return;
        }
    }
}

/// Waits until all have ended, and takes those out that have.
async fn all(ending: &mut Vec<Served>) {
    while let Some(served) = ending.last_mut() {
        if let Err(error) = (&mut served.task).await {
            tracing::error!("a queue task panicked: {error}");
        }
        ending.pop();
    }
}
