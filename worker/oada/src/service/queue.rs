//! One queue: its lists, its watch, and the jobs that are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::optional::sleep_until;
use futures_util::future::BoxFuture;
use protocol::backoff::{Backoff, jitter};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::Shared;
use super::access::{Access, Ask};
use super::gauges::Backlog;
use super::pending::{Pending, Verdict};
use super::runner;
use crate::client::{Client, ClientError, Watch, WatchEvent};
use crate::list::{links, list_changes};
use crate::paths::Shelf;
use crate::wire::Request;

/// Shortest and longest pause between attempts to do what the store does not take.
pub(super) const PERSIST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Shortest and longest pause between attempts to watch a list.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What the jobs of one queue share.
#[derive(derive_more::Debug)]
#[debug("QueueEnv {{ id: {id:?}, .. }}")]
pub(super) struct QueueEnv {
    pub(super) shared: Arc<Shared>,
    /// With the queue's token.
    pub(super) client: Client,
    /// The queue's name.
    pub(super) id: String,
    pub(super) phase: watch::Receiver<Phase>,
    /// Whether its list is watched.
    pub(super) list_is_watched: AtomicBool,
    /// Whether its store takes its token.
    pub(super) access: Access,
}

/// What a queue is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Run jobs.
    Run,
    /// Begin none any more; end when those that run have ended.
    Drain,
    /// End those, too.
    Kill,
}

/// Returns when the phase is this one or a later one.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // Who decides about the phase says `Kill` before going away.
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

impl QueueEnv {
    /// Whether it hears of its jobs: it is connected and its list is watched.
    pub(super) fn is_watched(&self) -> bool {
        self.list_is_watched.load(Ordering::Relaxed) && self.client.is_connected()
    }

    /// Whether everything is to end at once.
    pub(super) fn is_killed(&self) -> bool {
        *self.phase.borrow() == Phase::Kill
    }

    /// Whether jobs are begun.
    pub(super) fn is_served(&self) -> bool {
        *self.phase.borrow() == Phase::Run
    }

    /// Repeats something until the store has taken it, has refused it for good, or the service is to end at once: then
    /// nothing more is waited for, and the outcome is that the client is closed.
    pub(super) async fn persist<'a, T>(
        &self,
        ask: Ask<'_>,
        what: impl Fn() -> BoxFuture<'a, Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let passing = |error: &ClientError| error.is_passing() || error.is_unauthorized();
        let heard = || async {
            let outcome = what().await;
            self.access.heard(ask, &outcome);
            outcome
        };
        self.repeat(u32::MAX, passing, heard).await
    }

    /// The same with what belongs to others, who may not let this service in: at most so many times.
    pub(super) async fn persist_within<'a, T>(
        &self,
        tries: u32,
        what: impl Fn() -> BoxFuture<'a, Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        self.repeat(tries, ClientError::is_passing, what).await
    }

    async fn repeat<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        tries: u32,
        is_passing: impl Fn(&ClientError) -> bool,
        what: impl Fn() -> F,
    ) -> Result<T, ClientError> {
        let mut backoff = Backoff::new(PERSIST, 2.0);
        let mut phase = self.phase.clone();
        let mut tried = 0;
        loop {
            tried += 1;
            let outcome = tokio::select! {
                outcome = what() => outcome,
                () = reached(&mut phase, Phase::Kill) => return Err(ClientError::Closed),
            };
            match outcome {
                Err(error) if tried < tries && is_passing(&error) => {
                    tokio::select! {
                        () = sleep(backoff.next(jitter())) => {}
                        () = reached(&mut phase, Phase::Kill) => return Err(ClientError::Closed),
                    }
                }
                done => return done,
            }
        }
    }

    /// The request, to be done only if the resource still has this revision. Without claims, nobody cares.
    pub(super) fn conditional(&self, request: Request, id: &str, rev: u64) -> Request {
        match self.shared.options.claim_lease {
            Some(_) if rev > 0 => {
                request.header("if-match", format!("\"{}/{rev}\"", id.trim_start_matches("resources/")))
            }
            _ => request,
        }
    }
}

/// Learns whether a queue can be served.
pub(super) type Ready = oneshot::Sender<Result<(), ClientError>>;

/// Serves a queue until it is told to end. With `ready` a first attempt to watch it that fails is the last one.
pub(super) async fn serve(env: Arc<QueueEnv>, mut ready: Option<Ready>) {
    let backlog = Backlog::new(env.shared.paths.service());
    let (pending, jobs) = Default::default();
    let mut queue = Queue { pending, backlog, jobs, is_first: true, list_is_gone: false, env };
    let mut backoff = Backoff::new(WATCH_AGAIN, 2.0);
    let mut phase = queue.env.phase.clone();
    while *phase.borrow() == Phase::Run {
        let watching = tokio::select! {
            watching = queue.watch() => watching,
            () = reached(&mut phase, Phase::Drain) => break,
        };
        queue.env.access.heard(Ask::Ensure(&queue.env.shared.paths.pending()), &watching);
        match watching {
            Ok(watch) => {
                queue.env.list_is_watched.store(true, Ordering::Relaxed);
                if let Some(ready) = ready.take() {
                    // Fails when nobody waits.
                    let _ = ready.send(Ok(()));
                }
                backoff.reset();
                queue.follow(watch).await;
                queue.env.list_is_watched.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !error.is_unauthorized() {
                    tracing::error!(queue = queue.env.id, "cannot watch the queue: {error}");
                }
                if let Some(ready) = ready.take() {
                    let _ = ready.send(Err(error));
                    return;
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next(jitter())) => {}
            () = reached(&mut phase, Phase::Drain) => {}
        }
    }
    queue.finish().await;
}

struct Queue {
    env: Arc<QueueEnv>,
    pending: Pending,
    /// How much of it waits.
    backlog: Backlog,
    jobs: JoinSet<(String, Verdict)>,
    /// Whether the list has not been read yet.
    is_first: bool,
    /// Whether the store has said that the list itself is gone, to which a link may still lead.
    list_is_gone: bool,
}

impl Queue {
    /// Makes sure that the lists exist, reads the pending one, and watches it from there.
    async fn watch(&mut self) -> Result<Watch, ClientError> {
        let (paths, client) = (&self.env.shared.paths, &self.env.client);
        let tree = paths.tree();
        match std::mem::take(&mut self.list_is_gone) {
            true => client.put_tree(&paths.pending(), json!({}), &tree).await?,
            false => client.ensure(&paths.pending(), &tree).await?,
        };
        for shelf in [Shelf::Failure, Shelf::Success].into_iter().filter_map(|shelf| paths.shelf(shelf)) {
            client.ensure(&shelf, &tree).await?;
        }
        let list = client.get(&paths.pending()).await?;
        let watch = client.watch(&paths.pending(), list.rev()).await?;
        self.listed(list.data.as_ref());
        Ok(watch)
    }

    fn listed(&mut self, list: Option<&serde_json::Value>) {
        let list = list.and_then(serde_json::Value::as_object).map(links).unwrap_or_default();
        self.pending.list(list);
        if std::mem::take(&mut self.is_first) && self.env.shared.options.skip_queue_on_startup {
            self.pending.skip_waiting();
        }
    }

    /// Works off the list until it cannot be watched any more or the queue is to end.
    async fn follow(&mut self, mut watch: Watch) {
        let mut phase = self.env.phase.clone();
        let verify = self.env.shared.options.verify_interval;
        let mut verification = interval_at(tokio::time::Instant::now() + verify, verify);
        verification.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.backlog.set(self.pending.waiting());
            self.env.access.keep_jobs(|id| self.pending.has(id));
            let slots = Arc::clone(&self.env.shared.slots);
            tokio::select! {
                event = watch.next() => match event {
                    Some(WatchEvent::Changed(set)) => {
                        if !list_changes(&set).into_iter().all(|change| self.pending.apply(change)) {
                            self.lose_list();
                            return self.pending.list(Default::default());
                        }
                    }
                    Some(WatchEvent::Missed) => {
                        if !self.read_again(&mut watch, &mut phase).await {
                            return;
                        }
                    }
                    Some(WatchEvent::Refused(answer)) => {
                        if answer.is_missing() {
                            self.lose_list();
                        }
                        return;
                    }
                    None => return,
                },
                permit = slots.acquire_owned(), if self.pending.waiting() > 0 => {
                    if let Ok(permit) = permit {
                        self.start_next(permit);
                    }
                }
                Some(done) = self.jobs.join_next() => self.done(done),
                () = sleep_until(self.pending.next_due()) => self.pending.wake(Instant::now()),
                _ = verification.tick() => {
                    if !self.read_again(&mut watch, &mut phase).await {
                        return;
                    }
                }
                () = reached(&mut phase, Phase::Drain) => return,
            }
        }
    }

    /// Reads the list again. False if it is another one by now, cannot be read, or no more jobs are to be begun.
    async fn read_again(&mut self, watch: &mut Watch, phase: &mut watch::Receiver<Phase>) -> bool {
        let pending = self.env.shared.paths.pending();
        let list = tokio::select! {
            list = self.env.client.get(&pending) => list,
            () = reached(phase, Phase::Drain) => return false,
        };
        self.env.access.heard(Ask::Read, &list);
        let list = match list {
            Ok(list) => list,
            Err(error) if error.is_unauthorized() => return false,
            Err(error) if error.is_missing() => {
                self.lose_list();
                return false;
            }
            Err(error) => {
                tracing::warn!(queue = self.env.id, "cannot read the list of pending jobs: {error}");
                return false;
            }
        };
        self.listed(list.data.as_ref());
        if let Some(rev) = list.rev() {
            watch.caught_up(rev);
        }
        match (watch.resource(), list.resource_id()) {
            (Some(watched), Some(read)) if watched != read => {
                tracing::warn!(queue = self.env.id, "the list of pending jobs was replaced: switching to the new one");
                false
            }
            _ => true,
        }
    }

    /// Notes that the list was deleted. It is made again before it is watched again.
    fn lose_list(&mut self) {
        tracing::warn!(queue = self.env.id, "the list of pending jobs was deleted: making a new one");
        self.list_is_gone = true;
    }

    fn start_next(&mut self, permit: OwnedSemaphorePermit) {
        if let Some(due) = self.pending.take() {
            let (key, env) = (due.key.clone(), Arc::clone(&self.env));
            self.jobs.spawn(async move { (key, runner::run(env, due, permit).await) });
        }
    }

    fn done(&mut self, done: Result<(String, Verdict), tokio::task::JoinError>) {
        match done {
            Ok((key, verdict)) => self.pending.done(&key, verdict, Instant::now()),
            Err(error) => tracing::error!(queue = self.env.id, "a job task panicked: {error}"),
        }
    }

    /// Lets what runs end, or ends it.
    async fn finish(&mut self) {
        self.backlog.set(0);
        let mut phase = self.env.phase.clone();
        loop {
            tokio::select! {
                done = self.jobs.join_next() => match done {
                    Some(done) => self.done(done),
                    None => return,
                },
                () = reached(&mut phase, Phase::Kill) => break,
            }
        }
        self.pending.cancel_all();
        while let Some(done) = self.jobs.join_next().await {
            self.done(done);
        }
    }
}
