//! The end of a job: its status, its last update, where it is filed, and out of the list. In this order, each step
//! repeated until the store has taken it, so that whoever comes after a crash finds where to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use base::metrics::metrics;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::access::Ask;
use super::claim::{Claim, KEYS};
use super::handler::{Outcome, Target};
use super::pending::{CancelSignal, Cancelled, Verdict};
use super::queue::QueueEnv;
use super::reporters::Finished;
use super::runner::LOOK_AGAIN;
use crate::client::ClientError;
use crate::job::{Failure, Job, JobError, Status};
use crate::paths::Shelf;
use crate::request::post_update;
use crate::wire::{Method, Request};

/// How often filing is tried that meets the writes of others, each time for as long as the client tries by itself.
const FILE_TRIES: u32 = 10;
/// How often a link to a finished job is tried that its resource does not take.
const LINK_TRIES: u32 = 4;
/// What the last update says, in the words that clients know.
const FINISHED: &str = "Runner finshed";

/// How a job ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) status: Status,
    /// None is left out.
    pub(super) result: Option<Value>,
    /// The way of failing.
    pub(super) kind: Option<String>,
    /// Whether it has failed as often as it may, which is more than once.
    pub(super) dead_letter: bool,
    /// Resources that are to link to it.
    pub(super) links: Vec<String>,
}

impl End {
    pub(super) fn of(outcome: Outcome, is_last_of_many: bool) -> Self {
        match outcome {
            Ok(value) => {
                let result = (!value.is_null()).then_some(value);
                Self { status: Status::Success, result, kind: None, dead_letter: false, links: Vec::new() }
            }
            Err(failure) => Self { dead_letter: is_last_of_many, ..Self::failed(failure) },
        }
    }

    pub(super) fn failed(failure: Failure) -> Self {
        let (kind, result) = (failure.kind().map(ToOwned::to_owned), Some(failure.result()));
        Self { status: Status::Failure, result, kind, dead_letter: false, links: Vec::new() }
    }
}

/// Finishes one job.
pub(super) struct Finisher<'a> {
    pub(super) env: &'a QueueEnv,
    pub(super) target: &'a Target,
    /// The job's revision as far as it is known.
    pub(super) rev: &'a Arc<AtomicU64>,
    /// Says whether the job was taken out of the list.
    pub(super) cancel: &'a CancelSignal,
    /// The label for metrics.
    pub(super) kind: String,
    /// When work on it began.
    pub(super) begun: Instant,
}

/// Why a status was not written.
enum Unwritten {
    /// Another service has the job now.
    NotOurs,
    /// The service is to end at once.
    Stopped,
    /// The store does not take it.
    Refused(ClientError),
}

/// How much a result says that takes the place of one that the store does not take.
const TELLING_BYTES: usize = 1000;

impl End {
    /// What to write of it after the store has refused it, the `refusals`-th time from 0: a failure that says so, then
    /// one that says less, then one that says nothing.
    fn refused(&self, error: &ClientError, refusals: u32) -> Option<Self> {
        let status = error.status().unwrap_or_default();
        let result = match refusals {
            0 => {
                let of = self.status.as_str();
                let bytes = self.result.as_ref().map_or(0, |result| result.to_string().len());
                let failed = self.result.as_ref().filter(|_| self.status == Status::Failure);
                let said = failed.and_then(|result| result.get("message")).and_then(Value::as_str);
                let said = said.map(|said| format!("; the job had failed: {}", shortened(said))).unwrap_or_default();
                let why = shortened(&error.to_string());
                let error = JobError::typed(format!("The store refused the job's result: {why}{said}"), REFUSED);
                let error = JobError { fields: Map::from_iter([("bytes".to_owned(), bytes.into())]), ..error };
                let mut result = error.named("ResultRefusedError").result();
                result["status"] = of.into();
                Some(result)
            }
            1 => Some(JobError::typed(format!("The store refused the job's result ({status})"), REFUSED).result()),
            2 => None,
            _ => return None,
        };
        let kind = self.kind.clone().filter(|_| self.status == Status::Failure).unwrap_or_else(|| REFUSED.to_owned());
        Some(Self { status: Status::Failure, result, kind: Some(kind), ..self.clone() })
    }
}

/// The type of failures whose result the store does not take.
const REFUSED: &str = "result-refused";

fn shortened(text: &str) -> String {
    text.chars()
        .scan(0, |bytes, character| {
            *bytes += character.len_utf8();
            (*bytes <= TELLING_BYTES).then_some(character)
        })
        .collect()
}

impl Unwritten {
    fn of(error: ClientError) -> Self {
        match error {
            ClientError::Closed => Self::Stopped,
            error => Self::Refused(error),
        }
    }
}

impl Finisher<'_> {
    /// Takes all steps.
    pub(super) async fn finish(&self, end: &End) -> Verdict {
        let mut end = end.clone();
        for refusals in 0.. {
            match self.write_status(&end).await {
                Ok(()) => break,
                Err(Unwritten::NotOurs) => {
                    tracing::warn!(job = self.target.id, "another service has the job: not writing its result");
                    return Verdict::Left;
                }
                Err(Unwritten::Stopped) => return Verdict::Left,
                Err(Unwritten::Refused(error)) => {
                    self.complain("its status was not written", &error);
                    match end.refused(&error, refusals) {
                        Some(lesser) => end = lesser,
                        // What can be done without it is done, so that the job does not come again and again.
                        None => break,
                    }
                }
            }
        }
        self.write_update(end.status).await;
        let kind = end.kind.as_deref();
        self.put_away(end.status, kind, end.dead_letter, &end.links, Timestamp::now()).await
    }

    /// Files a job that was finished before, under the day on which it was.
    pub(super) async fn file_finished(&self, job: &Job, status: Status, links: &[String]) -> Verdict {
        let at = job.finished_at();
        if at.is_none() {
            self.write_update(status).await;
        }
        self.put_away(status, job.failure_type(), false, links, at.unwrap_or_else(Timestamp::now)).await
    }

    async fn write_status(&self, end: &End) -> Result<(), Unwritten> {
        let path = format!("/{}", self.target.id);
        let mut body = json!({ "status": end.status.as_str() });
        if let (Some(result), Some(object)) = (&end.result, body.as_object_mut()) {
            object.insert("result".to_owned(), result.clone());
        }
        let request = Request::new(Method::Put, path.as_str()).body("application/json", body);
        loop {
            let rev = self.rev.load(Ordering::Acquire);
            let conditional = self.env.conditional(request.clone(), &self.target.id, rev);
            let written = self.env.persist(self.writing(), || self.env.client.send(conditional.clone()).boxed()).await;
            let error = match written {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => error,
                Err(error) => return Err(Unwritten::of(error)),
            };
            let read =
                self.env.persist(Ask::Read, || self.env.client.get(&path).boxed()).await.map_err(Unwritten::of)?;
            let body = read.data.unwrap_or_default();
            let is_ours = Claim::read(&body).is_some_and(|claim| claim.is_of(&self.env.shared.instance));
            if self.env.shared.options.claim_lease.is_some() && !is_ours {
                return Err(Unwritten::NotOurs);
            }
            if body.get("status").and_then(Value::as_str) == Some(end.status.as_str()) {
                // Written before, by a request whose answer was lost.
                return Ok(());
            }
            let present = body.get("_rev").and_then(Value::as_u64).unwrap_or(0);
            if present == rev {
                // Nobody was faster: it is what was written that the store does not like.
                return Err(Unwritten::Refused(error));
            }
            self.rev.store(present, Ordering::Release);
        }
    }

    fn writing(&self) -> Ask<'_> {
        Ask::Write(&self.target.id)
    }

    async fn write_update(&self, status: Status) {
        let meta = Some(Value::from(FINISHED));
        let update = || post_update(&self.env.client, &self.target.id, status.as_str(), meta.clone()).boxed();
        if let Err(error) = self.env.persist(self.writing(), update).await {
            self.complain("its last update was not written", &error);
        }
    }

    /// Files the job, has what it names link to it, takes it out of the list, counts it, and tells who wants to know.
    async fn put_away(
        &self,
        status: Status,
        kind: Option<&str>,
        dead_letter: bool,
        links: &[String],
        at: Timestamp,
    ) -> Verdict {
        let date = at.to_zoned(TimeZone::UTC).date();
        let shelf = match status {
            Status::Success => Shelf::Success,
            Status::Failure => Shelf::Failure,
        };
        // What is on no shelf stays in the list, where it can be found.
        let Ok(filed) = self.file(shelf, date).await else { return Verdict::Later(LOOK_AGAIN, None) };
        // They say again what is filed already. What goes wrong is logged there.
        if let (Status::Failure, Some(kind)) = (status, kind) {
            let _ = self.file(Shelf::TypedFailure(kind), date).await;
        }
        if dead_letter {
            let _ = self.file(Shelf::DeadLetter, date).await;
        }
        self.link_back(links).await;
        self.take_out().await;
        self.forget_claim().await;
        if self.env.is_killed() {
            // Whoever comes next finds where to go on.
            return Verdict::Left;
        }
        let service = self.env.shared.paths.service();
        metrics().oada_jobs(service, &self.kind, status.as_str()).inc();
        metrics().oada_job_finished(service, &self.kind, status.as_str(), self.begun.elapsed());
        self.report(status, filed.as_deref().unwrap_or_default()).await;
        Verdict::Done
    }

    /// Takes the job out of the list, unless somebody did: then its key may lead to another job by now.
    async fn take_out(&self) {
        if *self.cancel.borrow() == Some(Cancelled::Removed) {
            return;
        }
        let link = format!("{}/{}", self.env.shared.paths.pending(), self.target.key);
        match self.env.persist(Ask::Write(&link), || self.env.client.delete(&link).boxed()).await {
            Err(error) if !error.is_missing() => self.complain("it was not taken out of the list", &error),
            _ => {}
        }
    }

    /// Takes the claim out of the job: a finished one belongs to nobody.
    async fn forget_claim(&self) {
        if self.env.shared.options.claim_lease.is_none() {
            return;
        }
        let forget = KEYS.map(|key| async move {
            let place = format!("/{}/{key}", self.target.id);
            self.env.persist_within(1, || self.env.client.delete(&place).boxed()).await
        });
        for error in futures_util::future::join_all(forget).await.into_iter().filter_map(Result::err) {
            if !error.is_missing() {
                tracing::debug!(job = self.target.id, "its claim was not taken out of it: {error}");
            }
        }
    }

    /// Links the job on a shelf. Returns the path of the day, if the shelf exists in these paths.
    async fn file(&self, shelf: Shelf<'_>, date: Date) -> Result<Option<String>, ClientError> {
        let paths = &self.env.shared.paths;
        let Some(day) = paths.day(shelf, date) else { return Ok(None) };
        let mut links = Map::new();
        links.insert(self.target.key.clone(), paths.filed_link(&self.target.id));
        let tree = paths.tree();
        let put = || self.env.client.put_tree(&day, Value::Object(links.clone()), &tree).boxed();
        let mut filed = self.env.persist(Ask::Write(&day), put).await;
        for _ in 1..FILE_TRIES {
            // Others file theirs on the same shelf.
            if !filed.as_ref().is_err_and(ClientError::is_conflict) {
                break;
            }
            filed = self.env.persist(Ask::Write(&day), put).await;
        }
        if let Err(error) = &filed {
            self.complain("it was not filed", error);
        }
        filed.map(|_| Some(day))
    }

    /// Has the resources that the job names link to it. Never fails the job.
    async fn link_back(&self, resources: &[String]) {
        for resource in resources {
            let path =
                format!("{resource}/_meta/services/{}/jobs/{}", self.env.shared.paths.service(), self.target.key);
            let put = || self.env.client.put(&path, "application/json", json!({ "_id": self.target.id })).boxed();
            if let Err(error) = self.env.persist_within(LINK_TRIES, put).await {
                self.complain(&format!("{resource} does not link to it"), &error);
            }
        }
    }

    async fn report(&self, status: Status, filed: &str) {
        let reporters = &self.env.shared.options.finish_reporters;
        if reporters.iter().all(|reporter| reporter.status != status) {
            return;
        }
        let job = match self.env.client.get(&format!("/{}", self.target.id)).await {
            Ok(response) => response.data.unwrap_or_default(),
            Err(error) => return self.complain("it cannot be read to report it", &error),
        };
        let domain = self.env.client.domain().to_string();
        for reporter in reporters {
            let (service, job_id) = (self.env.shared.paths.service(), &self.target.job_id);
            reporter.tell(Finished { service, domain: &domain, job_id, status, filed, job: &job }).await;
        }
    }

    fn complain(&self, what: &str, error: &ClientError) {
        if matches!(error, ClientError::Closed) {
            // The service is to end at once.
            return;
        }
        tracing::warn!(job = self.target.id, "a job is finished, but {what}: {error}");
    }
}
