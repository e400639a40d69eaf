//! One job in one host.

use std::sync::Arc;
use std::time::Duration;

use protocol::Json;
use protocol::handler::{Abort, Handle, Handled, Module, StoreAnswer, StoreCall};
use protocol::link::{Responder, WorkerSide};
use protocol::message::{WorkerReply, WorkerRequest};
use protocol::queue;
use serde_json::Value;

use crate::hosts::{Asked, Hosts, LentHost, LoanError};
use crate::oada::job::{Failure, Job, JobError};
use crate::oada::service::{Context, JobClientError, Outcome};
use crate::oada::wire::{Method, Request};

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

    pub(super) async fn run(self: Arc<Self>, job: Job, context: Context) -> Outcome {
        let mut host = self.hosts.lend().await.map_err(|error| host_failed(error.to_string()))?;
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
        let mut told_to_end = false;
        let mut grace = std::pin::pin!(grace(context));
        loop {
            tokio::select! {
                handled = &mut call => return Some(outcome(handled)),
                Some((request, responder)) = next(&mut requests) => serve(request, responder, context.clone()),
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

fn outcome(handled: Result<Handled, LoanError>) -> Outcome {
    match handled {
        Ok(Handled::Returned(None)) => Ok(Value::Null),
        Ok(Handled::Returned(Some(value))) => {
            value.decode().map_err(|error| Failure::new(format!("the handler's result: {error}")))
        }
        Ok(Handled::Threw(thrown)) => Err(Failure::read(thrown.decode().ok().as_ref())),
        Err(error) => Err(host_failed(error.to_string())),
    }
}

/// The failure of a job whose host let it down.
fn host_failed(why: String) -> Failure {
    JobError::typed(why, "host").named("HostError").into()
}

/// Does what a handler wants of the store, in the name of its job.
fn serve(request: WorkerRequest, responder: Responder<WorkerSide>, context: Context) {
    // Anything else is refused as the responder is dropped.
    let WorkerRequest::Store(call) = request else { return };
    tokio::spawn(async move {
        let answer = match call {
            StoreCall::Request { method, path, content_type, data } => {
                store_request(&context, &method, path, content_type, data).await
            }
            StoreCall::Update { level, status, meta } => update(&context, &level, &status, meta).await,
        };
        responder.reply(WorkerReply::Store(answer));
    });
}

async fn store_request(
    context: &Context,
    method: &str,
    path: String,
    content_type: Option<String>,
    data: Option<Json>,
) -> StoreAnswer {
    let methods = [Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete];
    let Some(method) = methods.into_iter().find(|known| known.name() == method) else {
        return refused(None, format!("there is no method `{method}`"));
    };
    let mut request = Request::new(method, path);
    if let Some(data) = data {
        let data: Value = match data.decode() {
            Ok(data) => data,
            Err(error) => return refused(None, error.to_string()),
        };
        request = request.body(content_type.as_deref().unwrap_or("application/json"), data);
    }
    match context.oada.send(request).await {
        Ok(response) => {
            let data = response.data.map(|data| Json::encode(&data)).transpose();
            match data {
                Ok(data) => {
                    StoreAnswer::Done { status: response.status, headers: response.headers.into_iter().collect(), data }
                }
                Err(error) => refused(None, error.to_string()),
            }
        }
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}

async fn update(context: &Context, level: &str, status: &str, meta: Option<Json>) -> StoreAnswer {
    let meta: Option<Value> = match meta.map(|meta| meta.decode()).transpose() {
        Ok(meta) => meta,
        Err(error) => return refused(None, error.to_string()),
    };
    let written = match level {
        "info" => context.log.info(status, meta).await,
        "error" => context.log.error(status, meta).await,
        "debug" => context.log.debug(status, meta).await,
        "trace" => context.log.trace(status, meta).await,
        other => return refused(None, format!("there is no level `{other}`")),
    };
    match written {
        Ok(()) => StoreAnswer::Done { status: 201, headers: Vec::new(), data: None },
        Err(error) => refused(status_of(&error), error.to_string()),
    }
}

fn refused(status: Option<u16>, message: String) -> StoreAnswer {
    StoreAnswer::Refused { status, message }
}

fn status_of(error: &JobClientError) -> Option<u16> {
    match error {
        JobClientError::Client(error) => error.status(),
        JobClientError::Over(_) => None,
    }
}
