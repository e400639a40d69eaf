//! What Lightning keeps in its database: runs, their queue, dataclips and credentials, and what was recorded.
//!
//! Outlives connections and restarts of the listener. What the events of a run do to it is in `events`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use protocol::clock::now_us;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::MockOptions;
use super::plan::{InvalidPlan, Submission};
use super::record::{
    Activity, ClaimRecord, ConnectionRecord, LogRecord, RecordedEvent, RunRecord, RunState, Violation,
};

/// A run with what is only the server's to know.
#[derive(Default)]
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) submission: Submission,
    pub(super) log_ids: HashSet<String>,
    /// Whether somebody asked to end it.
    pub(super) is_cancelled: bool,
    /// When it was claimed, by a clock that only goes forward.
    pub(super) claimed: Option<Instant>,
    place: u64,
    tokens: Vec<SecretString>,
    waiting_for_end: Vec<oneshot::Sender<()>>,
}

impl Run {
    /// Ends a run that no worker has.
    fn cancel(&mut self) {
        self.record.reason = Some("cancel".to_owned());
        self.end(RunState::Cancelled);
    }

    /// Marks the run ended and tells who waits for that.
    pub(super) fn end(&mut self, state: RunState) {
        self.record.state = state;
        self.record.finished_at = Some(now_us());
        for waiting in self.waiting_for_end.drain(..) {
            let _ = waiting.send(());
        }
    }
}

/// Where a refused message came from.
pub(super) struct Origin<'a> {
    pub(super) topic: &'a str,
    pub(super) event: &'a str,
    pub(super) payload: Arc<Value>,
}

/// A run that was just claimed, still without a token.
#[derive(Debug, PartialEq)]
pub(super) struct Claimed {
    pub(super) id: String,
    pub(super) timeout_seconds: u64,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) options: Arc<MockOptions>,
    pub(super) runs: HashMap<String, Run>,
    pub(super) dataclips: HashMap<String, Box<RawValue>>,
    pub(super) credentials: HashMap<String, Box<RawValue>>,
    pub(super) activity: Activity,
    pub(super) violations: Vec<Violation>,
    /// Ids of all runs, oldest first. A run's place in it never changes.
    order: Vec<String>,
    /// Places of the available runs of each queue.
    queues: HashMap<String, BTreeMap<u64, String>>,
    subscribers: Vec<mpsc::UnboundedSender<RecordedEvent>>,
}

impl Store {
    pub(super) fn new(options: Arc<MockOptions>) -> Self {
        Self { options, ..Self::default() }
    }

    /// Notes that a run is to be ended; whether it is known and not over.
    pub(super) fn cancel(&mut self, run_id: &str) -> bool {
        let Some(run) = self.runs.get_mut(run_id).filter(|run| run.record.finished_at.is_none()) else { return false };
        run.is_cancelled = true;
        if run.record.state == RunState::Available {
            if let Some(waiting) = self.queues.get_mut(&run.record.queue) {
                waiting.remove(&run.place);
            }
            run.cancel();
        }
        true
    }

    /// Whether a worker is to be asked to end this run.
    pub(super) fn is_to_be_cancelled(&self, run_id: &str) -> bool {
        self.runs.get(run_id).is_some_and(|run| run.is_cancelled && run.record.finished_at.is_none())
    }

    /// Queues a run with the dataclips and credentials that came with it, and gives its id.
    pub(super) fn queue(&mut self, mut submission: Submission) -> Result<String, InvalidPlan> {
        let (id, queue) = (submission.id.clone(), submission.queue.clone());
        if self.runs.contains_key(&id) {
            return Err(InvalidPlan(format!("id: there is a run {id} already")));
        }
        self.dataclips.extend(std::mem::take(&mut submission.dataclips));
        self.credentials.extend(std::mem::take(&mut submission.credentials));
        let place = self.order.len() as u64;
        self.order.push(id.clone());
        self.queues.entry(queue.clone()).or_default().insert(place, id.clone());
        let record = RunRecord { id: id.as_str().into(), queue, queued_at: now_us(), ..RunRecord::default() };
        self.runs.insert(id.clone(), Run { record, submission, place, ..Run::default() });
        Ok(id)
    }

    /// Marks up to `demand` available runs claimed, from the queues in their order; `*` is any queue.
    pub(super) fn claim(&mut self, demand: u64, worker_name: Option<&str>, queues: &[String]) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        for queue in queues {
            while (claimed.len() as u64) < demand
                && let Some(id) = self.next_available(queue)
                && let Some(run) = self.runs.get_mut(&id)
            {
                run.record.state = RunState::Claimed;
                run.record.claimed_at = Some(now_us());
                run.claimed = Some(Instant::now());
                run.record.worker_name = worker_name.map(str::to_owned);
                claimed.push(Claimed { id, timeout_seconds: run.submission.timeout_seconds });
            }
        }
        self.activity.claims.push(ClaimRecord {
            demand,
            worker_name: worker_name.map(str::to_owned),
            queues: queues.to_vec(),
            runs: claimed.iter().map(|run| run.id.clone()).collect(),
            at: now_us(),
        });
        claimed
    }

    fn next_available(&mut self, queue: &str) -> Option<String> {
        let waiting = if queue == "*" {
            let oldest = |waiting: &&mut BTreeMap<u64, String>| waiting.first_key_value().map(|(place, _)| *place);
            self.queues.values_mut().filter(|waiting| !waiting.is_empty()).min_by_key(oldest)?
        } else {
            self.queues.get_mut(queue)?
        };
        waiting.pop_first().map(|(_, id)| id)
    }

    /// Remembers the token that was handed out for a run.
    pub(super) fn keep_token(&mut self, run_id: &str, token: SecretString) {
        if let Some(run) = self.runs.get_mut(run_id) {
            run.tokens.push(token);
        }
    }

    /// Makes claimed runs available again, each at its old place: nobody heard of the claim. One that was to be cancelled
    /// meanwhile has no worker to be asked, and ends.
    pub(super) fn roll_back(&mut self, run_ids: &[String]) {
        for id in run_ids {
            if let Some(run) = self.runs.get_mut(id).filter(|run| run.record.state == RunState::Claimed) {
                run.record.state = RunState::Available;
                run.record.claimed_at = None;
                run.claimed = None;
                run.record.worker_name = None;
                run.tokens.clear();
                if run.is_cancelled {
                    run.cancel();
                } else {
                    self.queues.entry(run.record.queue.clone()).or_default().insert(run.place, id.clone());
                }
            }
        }
    }

    /// Whether this token was handed out for this run; none if there is no such run.
    pub(super) fn token_opens(&self, run_id: &str, token: &str) -> Option<bool> {
        let run = self.runs.get(run_id)?;
        Some(run.tokens.iter().any(|known| known.expose_secret() == token))
    }

    /// Appends an accepted event to its run and tells the subscribers.
    pub(super) fn record_event(&mut self, run_id: &str, event: &str, payload: &Arc<Value>) {
        let Some(run) = self.runs.get_mut(run_id) else { return };
        let event = RecordedEvent {
            run_id: run.record.id.clone(),
            event: event.to_owned(),
            payload: payload.clone(),
            at: now_us(),
        };
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        run.record.events.push(event);
    }

    /// Appends a log line to its run, unless its id is there already, and gives the line's id.
    pub(super) fn record_log(run: &mut Run, id: Option<&str>, line: Arc<Value>) -> String {
        let id = id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        if run.log_ids.insert(id.clone()) {
            run.record.logs.push(LogRecord { line, at: now_us() });
        }
        id
    }

    /// Records that a message was refused.
    pub(super) fn record_violation(&mut self, origin: &Origin<'_>, reason: String) {
        tracing::warn!(topic = origin.topic, event = origin.event, reason, "the mock Lightning refused a message");
        let run_id = origin.topic.strip_prefix("run:");
        let violation = Violation {
            run_id: run_id.map(str::to_owned),
            topic: origin.topic.to_owned(),
            event: origin.event.to_owned(),
            payload: origin.payload.clone(),
            reason,
            at: now_us(),
        };
        if let Some(run) = run_id.and_then(|id| self.runs.get_mut(id)) {
            run.record.violations.push(violation.clone());
        }
        self.violations.push(violation);
    }

    /// Records an accepted connection and gives its number.
    pub(super) fn open_connection(&mut self, mut connection: ConnectionRecord) -> u64 {
        connection.number = self.activity.connections.len() as u64 + 1;
        self.activity.connections.push(connection);
        self.activity.connections.len() as u64
    }

    pub(super) fn close_connection(&mut self, number: u64) {
        if let Some(connection) = self.activity.connections.get_mut((number - 1) as usize) {
            connection.closed_at = Some(now_us());
        }
    }

    /// All events from now on, in order.
    pub(super) fn subscribe(&mut self) -> mpsc::UnboundedReceiver<RecordedEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.push(sender);
        receiver
    }

    /// Resolves when the run has ended; at once if it has. None if there is no such run.
    pub(super) fn end_of(&mut self, run_id: &str) -> Option<oneshot::Receiver<()>> {
        let run = self.runs.get_mut(run_id)?;
        let (sender, receiver) = oneshot::channel();
        if run.record.state.is_final() {
            let _ = sender.send(());
        } else {
            run.waiting_for_end.push(sender);
        }
        Some(receiver)
    }

    /// Takes a run that is over out of what is remembered, with its dataclips.
    pub(super) fn forget(&mut self, run_id: &str) -> Option<RunRecord> {
        self.runs.get(run_id).filter(|run| run.record.state.is_final())?;
        let run = self.runs.remove(run_id)?;
        let outputs = run.record.steps.iter().filter_map(|step| step.output_dataclip_id.as_ref());
        for id in outputs.chain(&run.record.final_dataclip_id).chain(&run.submission.dataclip_id) {
            self.dataclips.remove(id);
        }
        Some(run.record)
    }

    /// The records of all runs, oldest first.
    pub(super) fn records(&self) -> impl Iterator<Item = &RunRecord> {
        self.order.iter().filter_map(|id| self.runs.get(id)).map(|run| &run.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(runs: &[(&str, &str)]) -> Store {
        let mut store = Store::default();
        for (id, queue) in runs {
            let text = format!(r#"{{"id":"{id}","queue":"{queue}"}}"#);
            store.queue(Submission::parse(&text, false).unwrap()).unwrap();
        }
        store
    }

    fn claim(store: &mut Store, demand: u64, queues: &[&str]) -> Vec<String> {
        let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
        store.claim(demand, None, &queues).into_iter().map(|run| run.id).collect()
    }

    #[test]
    fn claims_take_queues_in_order_of_preference() {
        let runs = [("1", "default"), ("2", "manual"), ("3", "fast"), ("4", "manual")];
        let check = |queues: &[&str], demand, expected: &[&str]| {
            assert_eq!(claim(&mut store(&runs), demand, queues), expected, "{queues:?} {demand}");
        };
        check(&["*"], 9, &["1", "2", "3", "4"]);
        check(&["manual", "*"], 9, &["2", "4", "1", "3"]);
        check(&["manual", "*"], 1, &["2"]);
        check(&["fast"], 9, &["3"]);
        check(&["none"], 9, &[]);
        check(&["fast", "manual"], 2, &["3", "2"]);
    }

    #[test]
    fn a_claim_that_is_rolled_back_gives_each_run_its_place_again() {
        let mut store = store(&[("1", "a"), ("2", "a"), ("3", "b")]);
        let first = claim(&mut store, 2, &["*"]);
        store.keep_token("1", "t".into());
        assert_eq!(store.token_opens("1", "t"), Some(true));
        store.roll_back(&first);
        assert_eq!(store.runs["1"].record.state, RunState::Available);
        assert_eq!(store.token_opens("1", "t"), Some(false));
        assert_eq!(claim(&mut store, 9, &["*"]), ["1", "2", "3"]);
    }

    #[test]
    fn a_run_that_is_cancelled_while_its_claim_is_open_ends_when_that_is_rolled_back() {
        let mut store = store(&[("1", "a"), ("2", "a")]);
        let claimed = claim(&mut store, 2, &["*"]);
        assert!(store.cancel("1"));
        store.roll_back(&claimed);
        let record = &store.runs["1"].record;
        assert_eq!((record.state, record.reason.as_deref()), (RunState::Cancelled, Some("cancel")));
        assert!(record.finished_at.is_some() && !store.cancel("1"), "it is over");
        assert_eq!(claim(&mut store, 9, &["*"]), ["2"]);
    }

    #[test]
    fn an_id_is_queued_once() {
        let mut store = store(&[("1", "a")]);
        let again = Submission::parse(r#"{"id":"1"}"#, false).unwrap();
        assert_eq!(store.queue(again).unwrap_err().to_string(), "invalid plan: id: there is a run 1 already");
    }
}
