//! Handlers: what they are, and what they are given.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::Value;

use super::access::Ask;
use super::batch::Collector;
use super::lease::{Lease, RunOver};
use super::options::TypeOptions;
use super::queue::QueueEnv;
use crate::client::{Client, ClientError, Watch, WatchEvent};
use crate::job::{Failure, Job};
use crate::request::post_update;
use crate::wire::{Method, Request, Response};

/// What a handler made of its job. `Ok(Value::Null)` is success without a result.
pub type Outcome = Result<Value, Failure>;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Works on one job.
pub(super) type Work = Arc<dyn Fn(Job, Context) -> Running + Send + Sync>;

/// A function as a handler.
pub(super) fn work<H, F, E>(handler: H) -> Work
where
    H: Fn(Job, Context) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, E>> + Send + 'static,
    E: Into<Failure>,
{
    Arc::new(move |job, context| {
        let running = handler(job, context);
        Box::pin(async move { running.await.map_err(Into::into) })
    })
}

/// A job, as far as it is known from its list.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `resources/<id>`.
    pub(super) id: String,
    /// Its key in the list.
    pub(super) key: String,
    /// What handlers call it.
    pub(super) job_id: String,
}

/// What a type of jobs is given to.
pub(super) enum Handler {
    /// Each to this function.
    Single(Work),
    /// Several at once, when there are enough.
    Batch(Collector),
}

/// A type that the service handles.
pub(super) struct Registered {
    pub(super) options: TypeOptions,
    pub(super) handler: Handler,
}

/// What a handler is given beside its job. Clones are the same.
#[derive(Debug, Clone)]
pub struct Context {
    /// Writes updates of the job.
    pub log: JobLog,
    /// The store, with the token of the queue that the job came from.
    pub oada: JobClient,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    job_id: String,
    queue: String,
    lease: Arc<Lease>,
    links: Mutex<Vec<String>>,
    left: OnceLock<String>,
}

impl Context {
    /// For a run under `lease`. `rev` learns of the job's revisions.
    pub(super) fn new(target: &Target, lease: Arc<Lease>, env: &Arc<QueueEnv>, rev: Arc<AtomicU64>) -> Self {
        let log = JobLog { id: target.id.clone(), lease: Arc::clone(&lease), env: Arc::clone(env), rev };
        let oada = JobClient { lease: Arc::clone(&lease), client: env.client.clone() };
        let (job_id, queue) = (target.job_id.clone(), env.id.clone());
        let inner = Inner { job_id, queue, lease, links: Mutex::default(), left: OnceLock::new() };
        Self { log, oada, inner: Arc::new(inner) }
    }

    /// What handlers call the job: its resource's id, or, in the second generation, its key in the list.
    pub fn job_id(&self) -> &str {
        &self.inner.job_id
    }

    /// The queue that the job came from.
    pub fn queue(&self) -> &str {
        &self.inner.queue
    }

    /// Returns when the run is to end: its time is up, or its job was taken away. What the handler does from then on
    /// is refused.
    pub async fn cancelled(&self) {
        self.inner.lease.cancelled().await;
    }

    /// Whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.inner.lease.is_cancelled()
    }

    /// Has the resource at this absolute path link to the job when it is finished.
    pub fn link(&self, path: impl Into<String>) {
        self.inner.links.lock().push(path.into());
    }

    /// Has the job left for later instead of ended: its handler was not begun.
    pub(crate) fn leave(&self, why: String) {
        // The first reason is the reason.
        let _ = self.inner.left.set(why);
    }

    pub(super) fn why_left(&self) -> Option<&str> {
        self.inner.left.get().map(String::as_str)
    }

    pub(super) fn take_links(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.links.lock())
    }
}

/// Something in the name of a job that was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobClientError {
    /// The run is over.
    #[error(transparent)]
    Over(#[from] RunOver),
    /// The store did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Writes updates of a job while its run lasts.
#[derive(Debug, Clone)]
pub struct JobLog {
    id: String,
    lease: Arc<Lease>,
    env: Arc<QueueEnv>,
    /// The job's revision as far as it is known.
    rev: Arc<AtomicU64>,
}

/// The environment variable that says which of the quieter updates are written: a text with `debug` or `trace` in it.
const LOGGING: &str = "OADA_JOBS_LOGGING";

impl JobLog {
    /// Writes an update: waits until the store takes it, or has refused it for good.
    pub async fn info(&self, status: &str, meta: impl Into<Option<Value>>) -> Result<(), JobClientError> {
        let meta = meta.into();
        let update = || post_update(&self.env.client, &self.id, status, meta.clone()).boxed();
        let rev = self.lease.while_open(self.env.persist(Ask::Write(&self.id), update)).await??;
        self.rev.fetch_max(rev, Ordering::AcqRel);
        Ok(())
    }

    /// Writes an update, too: what is wrong is for the job's readers as well.
    pub async fn error(&self, status: &str, meta: impl Into<Option<Value>>) -> Result<(), JobClientError> {
        self.info(status, meta).await
    }

    /// Writes an update, too.
    pub async fn warn(&self, status: &str, meta: impl Into<Option<Value>>) -> Result<(), JobClientError> {
        self.info(status, meta).await
    }

    /// Writes an update if `OADA_JOBS_LOGGING` has `debug` in it.
    pub async fn debug(&self, status: &str, meta: impl Into<Option<Value>>) -> Result<(), JobClientError> {
        self.quiet("debug", status, meta.into()).await
    }

    /// Writes an update if `OADA_JOBS_LOGGING` has `trace` in it.
    pub async fn trace(&self, status: &str, meta: impl Into<Option<Value>>) -> Result<(), JobClientError> {
        self.quiet("trace", status, meta.into()).await
    }

    async fn quiet(&self, level: &str, status: &str, meta: Option<Value>) -> Result<(), JobClientError> {
        match std::env::var(LOGGING) {
            Ok(levels) if levels.contains(level) => self.info(status, meta).await,
            _ => Ok(()),
        }
    }
}

/// A store, in the name of a job, while its run lasts.
#[derive(Debug, Clone)]
pub struct JobClient {
    lease: Arc<Lease>,
    client: Client,
}

impl JobClient {
    /// Reads headers.
    pub async fn head(&self, path: &str) -> Result<Response, JobClientError> {
        self.send(Request::new(Method::Head, path)).await
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Response, JobClientError> {
        self.send(Request::new(Method::Get, path)).await
    }

    /// Merges deeply into what is there, or creates it.
    pub async fn put(&self, path: &str, media_type: &str, data: Value) -> Result<Response, JobClientError> {
        self.send(Request::new(Method::Put, path).body(media_type, data)).await
    }

    /// Puts under a key that the store makes.
    pub async fn post(&self, path: &str, media_type: &str, data: Value) -> Result<Response, JobClientError> {
        self.send(Request::new(Method::Post, path).body(media_type, data)).await
    }

    /// Takes a link away.
    pub async fn delete(&self, path: &str) -> Result<Response, JobClientError> {
        self.send(Request::new(Method::Delete, path)).await
    }

    /// Watches the resource at `path`: hears of all changes after `rev`, or from now on.
    pub async fn watch(&self, path: &str, rev: Option<u64>) -> Result<JobWatch, JobClientError> {
        let watch = self.lease.while_open(self.client.watch(path, rev)).await??;
        Ok(JobWatch { lease: Arc::clone(&self.lease), watch })
    }

    /// Sends any request.
    pub async fn send(&self, request: Request) -> Result<Response, JobClientError> {
        Ok(self.lease.while_open(self.client.send(request)).await??)
    }
}

/// A watch in the name of a job.
#[derive(Debug)]
pub struct JobWatch {
    lease: Arc<Lease>,
    watch: Watch,
}

impl JobWatch {
    /// The next event; none when there will be no more. Fails when the run is over.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, JobClientError> {
        // Not something that the end of the run waits for.
        tokio::select! {
            biased;
            () = self.lease.over() => Err(JobClientError::Over(RunOver)),
            event = self.watch.next() => Ok(event),
        }
    }
}
