//! Batches: jobs of one type that are handled together, when there are enough of them, when the first has waited long
//! enough, at certain times, or when no more can come because the service is to end.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::optional::sleep_until;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::handler::{Context, Outcome};
use super::queue::{Phase, reached};
use crate::cron::Cron;
use crate::job::{Failure, Job, JobError, overdue};

/// When a batch is complete: whatever comes first.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// So many jobs are together.
    pub size: usize,
    /// The first one has waited for so long.
    pub age: Duration,
    /// It is time.
    pub cron: Option<Cron>,
    /// How long the handler may take.
    pub timeout: Duration,
}

/// What a handler made of a batch.
#[derive(Debug, Clone)]
pub struct BatchOutcome {
    /// What becomes of all jobs…
    pub all: Outcome,
    /// …but these, by their [`Job::key`].
    pub each: HashMap<String, Outcome>,
}

impl BatchOutcome {
    /// The same for all.
    pub fn same(outcome: Outcome) -> Self {
        Self { all: outcome, each: HashMap::new() }
    }
}

/// A queue's name and the jobs from it.
pub(super) type BatchWork =
    Arc<dyn Fn(String, Vec<(Job, Context)>) -> Pin<Box<dyn Future<Output = BatchOutcome> + Send>> + Send + Sync>;

/// A function as a handler of batches.
pub(super) fn batch_work<H, F>(handler: H) -> BatchWork
where
    H: Fn(String, Vec<(Job, Context)>) -> F + Send + Sync + 'static,
    F: Future<Output = BatchOutcome> + Send + 'static,
{
    Arc::new(move |queue, jobs| Box::pin(handler(queue, jobs)))
}

/// A job that waits for its batch.
struct Member {
    job: Job,
    context: Context,
    answer: oneshot::Sender<Outcome>,
}

/// Where jobs of a type wait for their batch. Its task ends when it is dropped.
pub(super) struct Collector {
    members: mpsc::UnboundedSender<Member>,
}

impl Collector {
    /// Starts collecting. `slots` are the places that batches run in.
    pub(super) fn start(
        options: BatchOptions,
        work: BatchWork,
        slots: Arc<Semaphore>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let (members, incoming) = mpsc::unbounded_channel();
        tokio::spawn(collect(options, work, slots, incoming, phase));
        Self { members }
    }

    /// Waits until the job was handled in its batch.
    pub(super) async fn outcome(&self, job: Job, context: Context) -> Outcome {
        let gone = || Failure::from(JobError::new("the batch was given up").named("BatchError"));
        let (answer, answered) = oneshot::channel();
        self.members.send(Member { job, context, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// What a queue has waiting.
struct Waiting {
    members: Vec<Member>,
    since: Instant,
}

async fn collect(
    options: BatchOptions,
    work: BatchWork,
    slots: Arc<Semaphore>,
    mut incoming: mpsc::UnboundedReceiver<Member>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut queues: HashMap<String, Waiting> = HashMap::new();
    let mut tick = next_tick(&options);
    let mut size = options.size.max(1);
    loop {
        let oldest = queues.values().map(|waiting| waiting.since + options.age).min();
        let due = [oldest, tick].into_iter().flatten().min();
        tokio::select! {
            member = incoming.recv() => {
                let Some(member) = member else { return };
                let queue = member.context.queue().to_owned();
                let fresh = || Waiting { members: Vec::new(), since: Instant::now() };
                let waiting = queues.entry(queue.clone()).or_insert_with(fresh);
                waiting.members.push(member);
                if waiting.members.len() >= size
                    && let Some(waiting) = queues.remove(&queue)
                {
                    start(&options, &work, &slots, queue, waiting.members);
                }
            }
            () = reached(&mut phase, Phase::Drain), if size > 0 => {
                size = 0;
                for (queue, waiting) in queues.drain() {
                    start(&options, &work, &slots, queue, waiting.members);
                }
            }
            () = sleep_until(due) => {
                let now = Instant::now();
                let all = tick.is_some_and(|tick| tick <= now);
                if all {
                    tick = next_tick(&options);
                }
                let ripe = queues.extract_if(|_, waiting| all || waiting.since + options.age <= now);
                for (queue, waiting) in ripe.collect::<Vec<_>>() {
                    start(&options, &work, &slots, queue, waiting.members);
                }
            }
        }
    }
}

fn next_tick(options: &BatchOptions) -> Option<Instant> {
    Some(Instant::now() + options.cron.as_ref()?.until_next()?)
}

fn start(options: &BatchOptions, work: &BatchWork, slots: &Arc<Semaphore>, queue: String, members: Vec<Member>) {
    let (timeout, work, slots) = (options.timeout, Arc::clone(work), Arc::clone(slots));
    tokio::spawn(async move {
        // A job whose run has ended meanwhile is not handled.
        let members: Vec<Member> = members.into_iter().filter(|member| !member.answer.is_closed()).collect();
        if members.is_empty() {
            return;
        }
        let _slot = slots.acquire_owned().await;
        let jobs = members.iter().map(|member| (member.job.clone(), member.context.clone())).collect();
        // On a task of its own, so that a panic is the batch's and not ours.
        let running = tokio::spawn(work(queue, jobs));
        let stop = running.abort_handle();
        let outcome = match tokio::time::timeout(timeout, running).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => BatchOutcome::same(Err(super::runner::panicked(panic).into())),
            Err(_) => {
                stop.abort();
                BatchOutcome::same(Err(overdue(timeout).into()))
            }
        };
        deliver(members, outcome);
    });
}

fn deliver(members: Vec<Member>, mut outcome: BatchOutcome) {
    for Member { job, answer, .. } in members {
        let own = outcome.each.remove(&job.key).unwrap_or_else(|| outcome.all.clone());
        // Fails when the job's run has ended meanwhile.
        let _ = answer.send(own);
    }
}

/// A result for all, as handlers of single jobs return it.
impl From<Result<Value, Failure>> for BatchOutcome {
    fn from(outcome: Outcome) -> Self {
        Self::same(outcome)
    }
}
