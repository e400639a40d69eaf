//! One job in one host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hosts::{Asked, Hosts, LentHost, LentHostError};
use parking_lot::Mutex;
use protocol::Json;
use protocol::engine::EngineSpec;
use protocol::handler::{Abort, Handle, Handled, MOST_CALLS, Module, StoreAnswer, StoreCall};
use protocol::link::{Responder, WorkerSide};
use protocol::message::{Prepare, WorkerReply, WorkerRequest};
use protocol::queue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::WatchEvent;
use crate::job::{Failure, Job, JobError};
use crate::service::{Context, JobClientError, JobWatch, Outcome};
use crate::wire::{Method, Request, Response};

/// Watches that a job may have at the same time.
const MOST_WATCHES: u64 = 32;
/// How long a handler may go on after it was told to end, before its host is killed.
const ABORT_GRACE: Duration = Duration::from_secs(2);

/// Runs jobs with one version of one handler.
pub(super) struct Runner {
    hosts: Hosts,
    module: Module,
    memory_bytes: u64,
}

/// A host that is killed unless its handler has ended.
struct Borrowed(Option<LentHost>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(host) = self.0.take() {
            host.discard();
        }
    }
}

impl Runner {
    pub(super) fn new(hosts: Hosts, module: Module, memory_bytes: u64) -> Self {
        Self { hosts, module, memory_bytes }
    }

    /// What a host for it has loaded. The embedded engine is ready in no time.
    fn wanted(&self) -> Option<Prepare> {
        self.module.node.as_ref()?;
        let engine = EngineSpec::Handler(Box::new(self.module.clone()));
        Some(Prepare { engine, memory_bytes: self.memory_bytes })
    }

    /// Has a host load it before there is a job.
    pub(super) fn expect(&self) {
        if let Some(wanted) = self.wanted() {
            self.hosts.expect(wanted);
        }
    }

    pub(super) async fn run(self: Arc<Self>, job: Job, context: Context) -> Outcome {
        let host = match self.wanted() {
            Some(wanted) => self.hosts.lend_for(wanted).await,
            None => self.hosts.lend().await,
        };
        let mut host = host.map_err(|error| host_failed(error.to_string()))?;
        let requests = host.take_requests();
        let host = Borrowed(Some(host));
        let outcome = self.handle(&host, requests, &job, &context).await;
        match outcome {
            Some(outcome) => {
                give_back(host);
                outcome
            }
            None => Err(host_failed("the handler did not end when it was told to".to_owned())),
        }
    }

    /// The handler's end; none if it is not known to have ended.
    async fn handle(
        &self,
        host: &Borrowed,
        mut requests: Option<queue::Receiver<Asked>>,
        job: &Job,
        context: &Context,
    ) -> Option<Outcome> {
        let host = host.0.as_ref()?;
        let body = match Json::encode(&seen(job)) {
            Ok(body) => body,
            Err(error) => return Some(Err(Failure::new(error.to_string()))),
        };
        let job_id = context.job_id().to_owned();
        let handle = Handle { module: self.module.clone(), memory_bytes: self.memory_bytes, job: body, job_id };
        // The run's own time limit is kept by whoever runs this.
        let call = host.call(Box::new(handle), Duration::MAX);
        tokio::pin!(call);
        let watches = Arc::<Watches>::default();
        let mut told_to_end = false;
        let mut grace = std::pin::pin!(grace(context));
        let (mut busy, mut idle) = (JoinSet::new(), JoinSet::new());
        let mut handled = None;
        loop {
            // What the handler has begun is done, though it has ended.
            if let Some(handled) = handled.take_if(|_| busy.is_empty()) {
                return Some(outcome(handled, context));
            }
            let is_at_work = handled.is_none();
            tokio::select! {
                ended = &mut call, if is_at_work => handled = Some(ended),
                Some((request, responder)) = next(&mut requests), if busy.len().max(idle.len()) < MOST_CALLS => {
                    // Anything else is refused as the responder is dropped.
                    let WorkerRequest::Store(call) = request else { continue };
                    let tasks = if matches!(call, StoreCall::Next { .. }) { &mut idle } else { &mut busy };
                    tasks.spawn(serve(call, responder, context.clone(), Arc::clone(&watches)));
                }
                Some(_) = busy.join_next() => {}
                Some(_) = idle.join_next() => {}
                () = context.cancelled(), if !told_to_end => {
                    told_to_end = true;
                    // If it cannot be told, its host is killed.
                    let _ = host.call(Abort {}, ABORT_GRACE).await;
                }
                () = &mut grace => return None,
            }
        }
    }
}

/// What a handler sees of its job.
fn seen(job: &Job) -> Value {
    let mut body = job.body.clone();
    if let Some(object) = body.as_object_mut() {
        object.insert("oadaId".to_owned(), Value::from(job.id.as_str()));
    }
    body
}

/// Returns when the handler has had its time to end after it was told to.
async fn grace(context: &Context) {
    context.cancelled().await;
    tokio::time::sleep(ABORT_GRACE).await;
}

async fn next(requests: &mut Option<queue::Receiver<Asked>>) -> Option<Asked> {
    match requests {
        Some(requests) => requests.recv().await,
        None => None,
    }
}

fn give_back(mut host: Borrowed) {
    drop(host.0.take());
}

fn outcome(handled: Result<Handled, LentHostError>, context: &Context) -> Outcome {
    match handled {
        Ok(Handled::Returned(None)) => Ok(Value::Null),
        Ok(Handled::Returned(Some(value))) => {
            value.decode().map_err(|error| Failure::new(format!("the handler's result: {error}")))
        }
        Ok(Handled::Threw(thrown)) => Err(Failure::read(thrown.decode().ok().as_ref())),
        Ok(Handled::NotLoaded(why)) => {
            context.leave(why.clone());
            Err(Failure::new(why))
        }
        Err(error) => Err(host_failed(error.to_string())),
    }
}

/// The failure of a job whose host let it down.
fn host_failed(why: String) -> Failure {
    JobError::typed(why, "host").named("HostError").into()
}

/// Does what a handler wants of the store, in the name of its job.
async fn serve(call: StoreCall, responder: Responder<WorkerSide>, context: Context, watches: Arc<Watches>) {
    let answer = match call {
        StoreCall::Request { method, path, content_type, data, headers } => {
            match request_of(&method, path, content_type, data, headers) {
                Ok(request) => store_request(&context, request).await,
                Err(why) => refused(why),
            }
        }
        StoreCall::Watch { path, rev } => watches.begin(&context, &path, rev).await,
        StoreCall::Next { watch } => watches.next(watch).await,
        StoreCall::Unwatch { watch } => watches.end(watch),
        StoreCall::Update { level, status, meta } => update(&context, &level, &status, meta).await,
    };
    responder.reply(WorkerReply::Store(answer));
}

/// Headers that are not a handler's to set.
const OWN_HEADERS: [&str; 3] = ["authorization", "content-type", "user-agent"];

fn request_of(
    method: &str,
    path: String,
    content_type: Option<String>,
    data: Option<Json>,
    headers: BTreeMap<String, String>,
) -> Result<Request, String> {
    let methods = [Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete];
    let method = methods.into_iter().find(|known| known.name() == method);
    let mut request = Request::new(method.ok_or("there is no such method")?, path);
    if let Some(data) = data {
        let data: Value = data.decode().map_err(|error| error.to_string())?;
        request = request.body(content_type.as_deref().unwrap_or("application/json"), data);
    }
    let theirs = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let theirs = theirs.filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
    Ok(theirs.fold(request, |request, (name, value)| request.header(&name, value)))
}

async fn store_request(context: &Context, request: Request) -> StoreAnswer {
    match context.oada.send(request).await {
        Ok(response) => answer_of(response),
        Err(error) => not_done(&error),
    }
}

fn answer_of(response: Response) -> StoreAnswer {
    match response.data.map(|data| Json::encode(&data)).transpose() {
        Ok(data) => {
            StoreAnswer::Done { status: response.status, headers: response.headers.into_iter().collect(), data }
        }
        Err(error) => refused(error.to_string()),
    }
}

/// The watches of one job. They end with it.
#[derive(Default)]
struct Watches {
    begun: AtomicU64,
    watches: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<JobWatch>>>>,
}

impl Watches {
    async fn begin(&self, context: &Context, path: &str, rev: Option<u64>) -> StoreAnswer {
        if self.watches.lock().len() as u64 >= MOST_WATCHES {
            return refused(format!("a job may have {MOST_WATCHES} watches at the same time"));
        }
        match context.oada.watch(path, rev).await {
            Ok(watch) => {
                let number = self.begun.fetch_add(1, Ordering::Relaxed);
                self.watches.lock().insert(number, Arc::new(tokio::sync::Mutex::new(watch)));
                done(json!({ "watch": number }))
            }
            Err(error) => not_done(&error),
        }
    }

    async fn next(&self, number: u64) -> StoreAnswer {
        let Some(watch) = self.watches.lock().get(&number).cloned() else { return done(Value::Null) };
        let event = watch.lock().await.next().await;
        match event {
            Ok(Some(WatchEvent::Changed(changes))) => match serde_json::to_value(&changes.changes) {
                Ok(changes) => done(changes),
                Err(error) => refused(error.to_string()),
            },
            Ok(Some(WatchEvent::Missed)) => {
                refused("changes were missed: read the resource again, and watch it".to_owned())
            }
            Ok(Some(WatchEvent::Refused(response))) => StoreAnswer::Refused {
                status: Some(response.status),
                message: format!("the store does not let it be watched any more: {}", response.status),
                headers: response.headers.into_iter().collect(),
                data: response.data.and_then(|data| Json::encode(&data).ok()),
            },
            Ok(None) => done(Value::Null),
            Err(error) => not_done(&error),
        }
    }

    fn end(&self, number: u64) -> StoreAnswer {
        // One whose next change is waited for ends with that.
        self.watches.lock().remove(&number);
        done(Value::Null)
    }
}

fn done(data: Value) -> StoreAnswer {
    match Json::encode(&data) {
        Ok(data) => StoreAnswer::Done { status: 200, headers: Vec::new(), data: Some(data) },
        Err(error) => refused(error.to_string()),
    }
}

async fn update(context: &Context, level: &str, status: &str, meta: Option<Json>) -> StoreAnswer {
    let meta: Option<Value> = match meta.map(|meta| meta.decode()).transpose() {
        Ok(meta) => meta,
        Err(error) => return refused(error.to_string()),
    };
    let written = match level {
        "warn" => context.log.warn(status, meta).await,
        "info" => context.log.info(status, meta).await,
        "error" => context.log.error(status, meta).await,
        "debug" => context.log.debug(status, meta).await,
        "trace" => context.log.trace(status, meta).await,
        other => return refused(format!("there is no level `{other}`")),
    };
    match written {
        Ok(()) => StoreAnswer::Done { status: 201, headers: Vec::new(), data: None },
        Err(error) => not_done(&error),
    }
}

fn refused(message: String) -> StoreAnswer {
    StoreAnswer::Refused { status: None, message, headers: Vec::new(), data: None }
}

/// What the store, or the end of the run, has to say against it.
fn not_done(error: &JobClientError) -> StoreAnswer {
    let answer = match error {
        JobClientError::Client(error) => error.answer(),
        JobClientError::Over(_) => None,
    };
    let headers = answer.map(|answer| answer.headers.clone().into_iter().collect()).unwrap_or_default();
    let data = answer.and_then(|answer| Json::encode(answer.data.as_ref()?).ok());
    StoreAnswer::Refused { status: answer.map(|answer| answer.status), message: error.to_string(), headers, data }
}
