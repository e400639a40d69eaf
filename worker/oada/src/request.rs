//! Jobs from the other side: posting one, following it, and telling about one.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Client, ClientError, Posted, Watch, WatchEvent};
use super::job::{Failure, InvalidJob, Job, NewJob, Status, Update, update};
use super::ksuid::Ksuid;
use super::paths::{InvalidName, Layout, Paths};

/// The media type that updates are written with.
const JOB_TYPE: &str = "application/vnd.oada.service.job.1+json";

/// Writes an update of the job with this id (`resources/…`). Safe to repeat when it is unknown whether it was done:
/// each has a key of its own, and keys of one process grow with time.
pub async fn post_update(client: &Client, id: &str, status: &str, meta: Option<Value>) -> Result<u64, ClientError> {
    let path = format!("/{id}/updates/{}", Ksuid::generate());
    let response = client.put(&path, JOB_TYPE, update(status, meta, Timestamp::now())).await?;
    Ok(response.rev().unwrap_or(0))
}

/// Creates a job and links it in a list, such as a service's pending jobs.
pub async fn post_job(client: &Client, list: &str, job: &NewJob) -> Result<Posted, ClientError> {
    client.post_linked(list, JOB_TYPE, job.body()).await
}

/// A job that could not be followed, or that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JobRequestError {
    /// The store did not do its part.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The service's name is impossible.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// What is there now is not a job.
    #[error(transparent)]
    Job(#[from] InvalidJob),
    /// The job failed.
    #[error("the job failed: {0}")]
    Failed(Failure),
    /// The job was taken away before it was finished.
    #[error("{0} cannot be followed any more: it was deleted, or the store does not let it be watched")]
    Lost(String),
}

/// Has a job done and waits for its end, which may be long in coming.
pub async fn do_job(client: &Client, job: &NewJob) -> Result<Job, JobRequestError> {
    let mut request = JobRequest::start(client, job, Layout::V5).await?;
    loop {
        match request.next().await? {
            JobEvent::Success(job) => return Ok(*job),
            JobEvent::Failure(job) => return Err(JobRequestError::Failed(Failure::read(job.result.as_ref()))),
            JobEvent::Update(_) | JobEvent::Status(_) => {}
        }
    }
}

/// Something that happened to a job that was posted.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// An update was written.
    Update(Update),
    /// It has another status.
    Status(String),
    /// It succeeded: the whole job, with its result.
    Success(Box<Job>),
    /// It failed: the whole job.
    Failure(Box<Job>),
}

/// A job that was posted, followed by watching it. Dropping it ends the watch, not the job.
#[derive(Debug)]
pub struct JobRequest {
    client: Client,
    posted: Posted,
    watch: Watch,
    due: VecDeque<JobEvent>,
    told_updates: usize,
    told_status: Option<String>,
}

impl JobRequest {
    /// Posts a job to its service and begins to follow it.
    pub async fn start(client: &Client, job: &NewJob, layout: Layout) -> Result<Self, JobRequestError> {
        let paths = Paths::new(&job.service, layout)?;
        let list = paths.pending();
        // Its service may never have been there.
        client.ensure(&list, &paths.tree()).await?;
        let key = Ksuid::generate().to_string();
        let id = format!("resources/{key}");
        client.put(&format!("/{id}"), JOB_TYPE, job.body()).await?;
        // Watched before the service can know of it.
        let watch = client.watch(&format!("/{id}"), None).await?;
        client.put(&format!("{list}/{key}"), JOB_TYPE, json!({ "_id": id })).await?;
        let posted = Posted { id, key };
        let (due, client) = (VecDeque::new(), client.clone());
        Ok(Self { client, posted, watch, due, told_updates: 0, told_status: None })
    }

    /// The job's id and key.
    pub fn posted(&self) -> &Posted {
        &self.posted
    }

    /// Reads the job as it is now.
    pub async fn job(&self) -> Result<Job, JobRequestError> {
        let response = self.client.get(&format!("/{}", self.posted.id)).await?;
        Ok(Job::parse(&self.posted.key, &self.posted.id, response.data.unwrap_or_default())?)
    }

    /// The next event. Nothing comes after [`JobEvent::Success`] or [`JobEvent::Failure`].
    pub async fn next(&mut self) -> Result<JobEvent, JobRequestError> {
        loop {
            if let Some(event) = self.due.pop_front() {
                return Ok(event);
            }
            match self.watch.next().await {
                Some(WatchEvent::Changed(set)) if set.rev().is_some() => {}
                Some(WatchEvent::Missed) => {}
                Some(WatchEvent::Changed(_) | WatchEvent::Refused(_)) => {
                    return Err(JobRequestError::Lost(self.posted.id.clone()));
                }
                None => return Err(ClientError::Closed.into()),
            }
            let job = self.job().await?;
            self.watch.caught_up(job.rev);
            self.note(job);
        }
    }

    /// What is new in the job as it is now.
    fn note(&mut self, job: Job) {
        let told = self.told_updates.min(job.updates.len());
        self.due.extend(job.updates[told..].iter().cloned().map(JobEvent::Update));
        self.told_updates = job.updates.len();
        if job.status == self.told_status {
            return;
        }
        self.told_status.clone_from(&job.status);
        let Some(status) = job.status.clone() else { return };
        let finished = job.finished();
        self.due.push_back(JobEvent::Status(status));
        match finished {
            Some(Status::Success) => self.due.push_back(JobEvent::Success(Box::new(job))),
            Some(Status::Failure) => self.due.push_back(JobEvent::Failure(Box::new(job))),
            None => {}
        }
    }
}
