//! The life of one job: read, claimed, started, run, finished.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::optional::or_never;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, JoinError};

use super::Handling;
use super::access::Ask;
use super::claim::{self, Observed, Standing};
use super::finish::{End, Finisher};
use super::gauges::{Counted, State, UNKNOWN_TYPE};
use super::handler::{Context, Handler, Outcome, Registered, Target};
use super::lease::Lease;
use super::options::{HalfRun, UnknownType, named_resources};
use super::pending::{CancelSignal, Cancelled, Due, Verdict};
use super::queue::{PERSIST, Phase, QueueEnv, reached};
use crate::client::ClientError;
use crate::job::{Failure, InvalidJob, Job, JobError, overdue};
use crate::paths::Layout;
use crate::request::post_update;
use crate::wire::{Method, Request};

/// How often a resource is read that is not a job yet: its link may be seen before it is written.
const READS: u32 = 6;
/// The pause before the second reading; each is twice as long as the one before.
const READ_PAUSE: Duration = Duration::from_millis(25);
/// When a job is looked at again that cannot be read, or that nobody handles.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How often that time is doubled for a job whose handler can be loaded to be looked at, and not to work.
const MOST_DOUBLINGS: usize = 8;
/// When a job is looked at again that changed between reading and claiming.
const CLAIM_AGAIN: Duration = Duration::from_millis(20);
/// When a job is looked at again that another queue, or another link, of this service has led to already.
const HELD_AGAIN: Duration = Duration::from_secs(1);
/// How long a handler may go on after it was told to end.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// How long the store may take to be told that a service that is to end at once gives its jobs up.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The status of the update that says that a job will be run again.
const RETRY: &str = "retry";

/// Works off one entry of the pending list. The permit is the job's slot.
pub(super) async fn run(env: Arc<QueueEnv>, due: Due, permit: OwnedSemaphorePermit) -> Verdict {
    let Due { key, id, observed, cancel } = due;
    let Some(_hold) = env.shared.in_progress.take(env.client.domain(), &id) else {
        return Verdict::Later(HELD_AGAIN, observed);
    };
    let job_id = match env.shared.paths.layout() {
        Layout::V5 => id.clone(),
        Layout::V2 => key.clone(),
    };
    let target = Target { id, key, job_id };
    let mut phase = env.phase.clone();
    let mut run = Run { env, target, cancel, rev: Arc::default(), begun: Instant::now(), permit: Some(permit) };
    let whole = async {
        match run.read().await {
            Ok(Read::Job(job)) => run.job(*job, observed).await,
            Ok(Read::NotAJob(body, invalid)) => run.refuse(&body, &invalid, observed.as_ref()).await,
            Err(verdict) => verdict,
        }
    };
    tokio::select! {
        verdict = whole => verdict,
        // Whatever it waits for: a store that is away may not answer for minutes.
        () = killed(&mut phase) => Verdict::Left,
    }
}

/// Returns when the service is to end at once and what it still has to say has had its time.
async fn killed(phase: &mut watch::Receiver<Phase>) {
    reached(phase, Phase::Kill).await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// The failure of a job whose handler panicked.
pub(super) fn panicked(error: JoinError) -> JobError {
    let message = match error.try_into_panic() {
        Ok(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no message".to_owned(), ToString::to_string),
        },
        Err(error) => error.to_string(),
    };
    JobError::new(format!("the handler panicked: {message}")).named("PanicError")
}

enum Read {
    Job(Box<Job>),
    NotAJob(Value, InvalidJob),
}

/// How a handler's run ended.
enum Ending {
    Finished(Outcome),
    Cancelled(Cancelled),
    ClaimLost,
}

struct Run {
    env: Arc<QueueEnv>,
    target: Target,
    cancel: CancelSignal,
    /// The job's revision after what was written last.
    rev: Arc<AtomicU64>,
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Run {
    fn path(&self) -> String {
        format!("/{}", self.target.id)
    }

    /// Reads the job, more than once if need be.
    async fn read(&self) -> Result<Read, Verdict> {
        let mut pause = READ_PAUSE;
        let mut last = None;
        for _ in 0..READS {
            self.check_cancelled()?;
            let read = self.env.client.get(&self.path()).await;
            self.env.access.heard(Ask::Read, &read);
            match read {
                Ok(response) => {
                    self.note_rev(response.rev());
                    let body = response.data.unwrap_or_default();
                    match Job::parse(&self.target.key, &self.target.id, body.clone()) {
                        Ok(job) => return Ok(Read::Job(Box::new(job))),
                        Err(invalid) => last = Some((body, invalid)),
                    }
                }
                Err(error) if error.is_missing() => last = None,
                Err(ClientError::Closed) => return Err(Verdict::Left),
                Err(error) if error.is_unauthorized() => return Err(Verdict::Later(LOOK_AGAIN, None)),
                Err(error) => {
                    tracing::warn!(job = self.target.id, "cannot read a job: {error}");
                    return Err(Verdict::Later(LOOK_AGAIN, None));
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        match last {
            Some((body, invalid)) => Ok(Read::NotAJob(body, invalid)),
            None => Err(Verdict::Later(LOOK_AGAIN, None)),
        }
    }

    /// Files what is not a job with the failures.
    async fn refuse(&mut self, body: &Value, invalid: &InvalidJob, observed: Option<&Observed>) -> Verdict {
        if let Err(verdict) = self.claim(body, observed, Map::new()).await {
            return verdict;
        }
        let error = JobError::typed(invalid.to_string(), "invalid-job").named("InvalidJobError");
        self.finisher(UNKNOWN_TYPE).finish(&End::failed(error.into())).await
    }

    async fn job(&mut self, job: Job, observed: Option<Observed>) -> Verdict {
        let handling = self.env.shared.handling(&job.kind);
        let registered = match &handling {
            Some(Handling::With(registered)) => Some(Arc::clone(registered)),
            Some(Handling::Withheld(_)) | None => None,
        };
        let kind = if registered.is_some() { job.kind.clone() } else { UNKNOWN_TYPE.to_owned() };
        let _queued = Counted::new(self.env.shared.paths.service(), &kind, State::Queued);
        if let Some(status) = job.finished() {
            // Whoever has it may be about to file it.
            if let Err(verdict) = self.claim(&job.body, observed.as_ref(), Map::new()).await {
                return verdict;
            }
            let pointers = registered.as_ref().map(|it| it.options.links.as_slice()).unwrap_or_default();
            let links = named_resources(&job, job.result.as_ref(), pointers);
            return self.finisher(&kind).file_finished(&job, status, &links).await;
        }
        if let Some(Handling::Withheld(why)) = handling {
            tracing::debug!(job = self.target.id, kind = job.kind, "the job is left alone for now: {why}");
            return Verdict::Later(LOOK_AGAIN, observed);
        }
        let attempt = claim::attempts(&job.body) + 1;
        let Some(registered) = registered else { return self.unknown_type(&job, observed).await };
        let retry = &registered.options.retry;
        let mut with = Map::new();
        if retry.attempts > 1 {
            with.insert("attempts".to_owned(), attempt.into());
        }
        if let Err(verdict) = self.claim(&job.body, observed.as_ref(), with).await {
            return verdict;
        }
        let end = match self.obstacle(&job, &registered, attempt) {
            Some(end) => end,
            None => match self.run_handler(&job, &registered, &kind).await {
                (_, context) if context.why_left().is_some() => {
                    let why = context.why_left().unwrap_or_default();
                    let left = job.updates.iter().filter(|update| update.status == RETRY).count();
                    let pause = LOOK_AGAIN * (1 << left.min(MOST_DOUBLINGS));
                    return self.leave(pause, why, (retry.attempts > 1).then_some(attempt - 1)).await;
                }
                (Ending::Finished(Err(failure)), _) if retry.pause_after(attempt).is_some() => {
                    let pause = retry.pause_after(attempt).unwrap_or_default();
                    return self.run_again_after(pause, attempt, &failure).await;
                }
                (Ending::Finished(outcome), context) => {
                    let end = End::of(outcome, retry.attempts > 1);
                    let named = named_resources(&job, end.result.as_ref(), &registered.options.links);
                    End { links: named.into_iter().chain(context.take_links()).collect(), ..end }
                }
                (Ending::Cancelled(Cancelled::Removed), _) => {
                    let error = JobError::typed("The job was taken out of its queue", "cancelled");
                    End::failed(error.named("CancelledError").into())
                }
                (Ending::Cancelled(Cancelled::Shutdown), _) => return self.give_up().await,
                (Ending::ClaimLost, _) => {
                    tracing::warn!(job = self.target.id, "the claim was lost: another service runs the job");
                    return Verdict::Later(LOOK_AGAIN, None);
                }
            },
        };
        // Filing needs no slot.
        self.permit = None;
        self.finisher(&kind).finish(&end).await
    }

    fn finisher(&self, kind: &str) -> Finisher<'_> {
        Finisher {
            env: &self.env,
            target: &self.target,
            rev: &self.rev,
            cancel: &self.cancel,
            kind: kind.to_owned(),
            begun: self.begun,
        }
    }

    async fn unknown_type(&mut self, job: &Job, observed: Option<Observed>) -> Verdict {
        match self.env.shared.options.unknown_type {
            UnknownType::Leave => Verdict::Left,
            UnknownType::Requeue => Verdict::Later(LOOK_AGAIN, observed),
            UnknownType::Fail => {
                if let Err(verdict) = self.claim(&job.body, observed.as_ref(), Map::new()).await {
                    return verdict;
                }
                let message = format!("No worker registered for {}", job.kind);
                self.finisher(UNKNOWN_TYPE).finish(&End::failed(Failure::new(message))).await
            }
        }
    }

    /// Why the job fails before it is run.
    fn obstacle(&self, job: &Job, registered: &Registered, attempt: u32) -> Option<End> {
        let last = job.updates.iter().rev().find(|update| matches!(update.status.as_str(), "started" | RETRY));
        let interrupted = last.is_some_and(|update| update.status == "started");
        if interrupted && self.env.shared.options.half_run == HalfRun::Fail {
            let error = JobError::typed("A service began the job and never finished it", "interrupted");
            return Some(End::failed(error.named("InterruptedError").into()));
        }
        let attempts = registered.options.retry.attempts;
        if attempts > 1 && attempt > attempts {
            let message = format!("The job was begun {attempts} times and never finished");
            let error = JobError::typed(message, "interrupted").named("InterruptedError");
            return Some(End { dead_letter: true, ..End::failed(error.into()) });
        }
        let check = registered.options.check.as_ref()?;
        let why = check(&job.config).err()?;
        let error = JobError::typed(format!("The job's config is not valid: {why}"), "invalid-config");
        Some(End::failed(error.named("InvalidConfigError").into()))
    }

    /// Claims the job as it was read, with more keys to write at the same time.
    async fn claim(
        &self,
        body: &Value,
        observed: Option<&Observed>,
        mut with: Map<String, Value>,
    ) -> Result<(), Verdict> {
        self.check_cancelled()?;
        let shared = &self.env.shared;
        if let Some(lease) = shared.options.claim_lease {
            match claim::standing(body, &shared.instance, observed, Instant::now()) {
                Standing::Free => {}
                Standing::Taken(left, observed) => return Err(Verdict::Later(left, Some(observed))),
            }
            if let Value::Object(claim) = claim::claiming(&shared.instance, Timestamp::now(), lease) {
                with.extend(claim);
            }
        }
        if with.is_empty() {
            return Ok(());
        }
        let request = Request::new(Method::Put, self.path()).body("application/json", Value::Object(with));
        let request = self.env.conditional(request, &self.target.id, self.rev.load(Ordering::Acquire));
        let claimed = self.env.client.send(request).await;
        self.env.access.heard(Ask::Write(&self.target.id), &claimed);
        match claimed {
            Ok(response) => {
                self.note_rev(response.rev());
                Ok(())
            }
            Err(error) if error.is_conflict() => Err(Verdict::Later(CLAIM_AGAIN, observed.cloned())),
            Err(ClientError::Closed) => Err(Verdict::Left),
            Err(error) if error.is_unauthorized() => Err(Verdict::Later(LOOK_AGAIN, observed.cloned())),
            Err(error) => {
                tracing::warn!(job = self.target.id, "cannot claim a job: {error}");
                Err(Verdict::Later(LOOK_AGAIN, observed.cloned()))
            }
        }
    }

    async fn run_handler(&mut self, job: &Job, registered: &Arc<Registered>, kind: &str) -> (Ending, Context) {
        let _running = Counted::new(self.env.shared.paths.service(), kind, State::Running);
        let lease = Arc::new(Lease::default());
        let context = Context::new(&self.target, Arc::clone(&lease), &self.env, Arc::clone(&self.rev));
        let started = self.update("started", Value::from("Runner started"));
        let mut cancel = self.cancel.clone();
        tokio::select! {
            () = started => {}
            why = cancelled(&mut cancel) => return (Ending::Cancelled(why), context),
        }
        let timeout = match &registered.handler {
            Handler::Single(_) => Some(registered.options.timeout),
            // Its time begins when the batch is complete. Until then it takes no slot.
            Handler::Batch(_) => {
                self.permit = None;
                None
            }
        };
        let mut running = tokio::spawn(outcome(Arc::clone(registered), job.clone(), context.clone()));
        let stop = AbortOnDrop(running.abort_handle());
        let ending = tokio::select! {
            biased;
            finished = &mut running => {
                Ending::Finished(finished.unwrap_or_else(|error| Err(panicked(error).into())))
            }
            why = cancelled(&mut cancel) => Ending::Cancelled(why),
            () = self.keep_claim() => Ending::ClaimLost,
            timeout = self.elapsed(timeout) => Ending::Finished(Err(overdue(timeout).into())),
        };
        if running.is_finished() {
            lease.close().await;
        } else {
            lease.cancel();
            tokio::spawn(async move {
                let _stop = stop;
                // Whether it ends by itself or not makes no difference any more.
                let _ = tokio::time::timeout(CANCEL_GRACE, running).await;
            });
        }
        (ending, context)
    }

    /// Returns when a handler's time is up. That does not end while the store does not take the token: the handler may wait
    /// for an update to be written, and its end could not be written either.
    async fn elapsed(&self, timeout: Option<Duration>) -> Duration {
        let Some(timeout) = timeout else { return std::future::pending().await };
        tokio::time::sleep(timeout).await;
        while self.env.access.is_refused() {
            tokio::time::sleep(PERSIST.1).await;
        }
        timeout
    }

    /// Renews the claim. Returns when it is lost: another has it, or the job is gone. While the store is away, or does
    /// not let this service in, nobody can take it; whether somebody did in between, the job says afterwards.
    async fn keep_claim(&self) {
        let shared = &self.env.shared;
        let Some(lease) = shared.options.claim_lease else { return std::future::pending().await };
        loop {
            tokio::time::sleep(lease / 3).await;
            let claim = claim::claiming(&shared.instance, Timestamp::now(), lease);
            let request = Request::new(Method::Put, self.path()).body("application/json", claim);
            let job = self.env.client.get(&self.path()).await;
            self.env.access.heard(Ask::Read, &job);
            let job = match job {
                Ok(response) => response,
                Err(error) if error.is_passing() || error.is_unauthorized() => continue,
                Err(_) => return,
            };
            let body = job.data.clone().unwrap_or_default();
            if !claim::Claim::read(&body).is_some_and(|claim| claim.is_of(&shared.instance)) {
                return;
            }
            let request = self.env.conditional(request, &self.target.id, job.rev().unwrap_or(0));
            let renewed = self.env.client.send(request).await;
            self.env.access.heard(Ask::Write(&self.target.id), &renewed);
            match renewed {
                Ok(response) => self.note_rev(response.rev()),
                // The job changed meanwhile, which its own updates do, too.
                Err(error) if error.is_conflict() || error.is_passing() || error.is_unauthorized() => {}
                Err(_) => return,
            }
        }
    }

    /// Has the job run again later, and says so in it.
    async fn run_again_after(&self, pause: Duration, attempt: u32, failure: &Failure) -> Verdict {
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let brief = serde_json::json!({ "attempt": attempt, "pause_ms": pause_ms });
        let mut meta = brief.clone();
        meta["failure"] = failure.result();
        if let Err(error) = self.try_update(RETRY, &meta).await
            && error.is_refusal()
        {
            self.update(RETRY, brief).await;
        }
        Verdict::Later(pause, None)
    }

    /// Leaves a job that was not begun for later, and says why.
    async fn leave(&self, pause: Duration, why: &str, attempts: Option<u32>) -> Verdict {
        self.update(RETRY, serde_json::json!({ "reason": why })).await;
        let mut claim = claim::releasing();
        if let Some(attempts) = attempts {
            claim["attempts"] = attempts.into();
        }
        let path = self.path();
        let release = || self.env.client.put(&path, "application/json", claim.clone()).boxed();
        if let Err(error) = self.env.persist(Ask::Write(&self.target.id), release).await {
            tracing::debug!(job = self.target.id, "the claim was not given up and will run out: {error}");
        }
        Verdict::Later(pause, None)
    }

    /// Leaves the job to whoever comes next.
    async fn give_up(&self) -> Verdict {
        if self.env.shared.options.claim_lease.is_some() {
            let given_up = self.env.client.put(&self.path(), "application/json", claim::releasing()).await;
            if let Err(error) = given_up {
                tracing::debug!(job = self.target.id, "the claim was not given up and will run out: {error}");
            }
        }
        Verdict::Left
    }

    /// Writes an update of the service's own; what does not get through is logged.
    async fn update(&self, status: &str, meta: Value) {
        // It is logged there.
        let _ = self.try_update(status, &meta).await;
    }

    async fn try_update(&self, status: &str, meta: &Value) -> Result<(), ClientError> {
        let update = || post_update(&self.env.client, &self.target.id, status, Some(meta.clone())).boxed();
        let written = self.env.persist(Ask::Write(&self.target.id), update).await;
        if let Err(error) = &written {
            tracing::warn!(job = self.target.id, status, "failed to write an update: {error}");
        }
        written.map(|rev| self.note_rev(Some(rev)))
    }

    fn note_rev(&self, rev: Option<u64>) {
        self.rev.fetch_max(rev.unwrap_or(0), Ordering::AcqRel);
    }

    fn check_cancelled(&self) -> Result<(), Verdict> {
        match *self.cancel.borrow() {
            None => Ok(()),
            Some(Cancelled::Removed) => Err(Verdict::Done),
            Some(Cancelled::Shutdown) => Err(Verdict::Left),
        }
    }
}

async fn outcome(registered: Arc<Registered>, job: Job, context: Context) -> Outcome {
    match &registered.handler {
        Handler::Single(work) => work(job, context).await,
        Handler::Batch(collector) => collector.outcome(job, context).await,
    }
}

async fn cancelled(cancel: &mut CancelSignal) -> Cancelled {
    let why = cancel.wait_for(Option::is_some).await.ok().and_then(|why| *why);
    // Nobody may be left who could say so.
    or_never(why.map(ready)).await
}

/// A task that does not outlive this.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
