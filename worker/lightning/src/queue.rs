//! The actor of the queue channel: claims runs for every workloop and watches over those that are active.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use base::execution::Executor;
use base::metrics::metrics;
use base::optional::sleep_until;
use protocol::Json;
use protocol::backoff::{Backoff, jitter};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Duration, Instant};

use super::claims::ClaimLoop;
use super::journal::Orphan;
use super::outbox::describe;
use super::phoenix::{Channel, ChannelEvent, Payload, Reply, Socket, Status};
use super::run::{ClaimedRun, OpenRun, Stop, execute, recover, refuse};
use super::timeline::Timeline;
use super::token::TokenFault;
use super::token_circuit::TokenCircuit;
use super::workloop::Workloop;
use super::{ClaimError, LightningStatus, Settings, WorkloopStatus};

/// Pauses before a refused queue channel is joined again.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long runs that are killed may take to be reported.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// How long runs may take to say what Lightning could not be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Refused runs that the log names.
const REFUSED_NAMED: usize = 10;

/// The workloop of runs that a dead worker left behind, as far as timelines are concerned.
const RECOVERED: &str = "journal";

/// What the worker asks of the actor.
pub(super) enum Command {
    /// Claim one run in each workloop; the sender gets the number of runs that each claim brought.
    ClaimOnce(oneshot::Sender<Result<(), ClaimError>>, mpsc::UnboundedSender<usize>),
    /// Claim nothing for now, or claim again.
    Pause(bool),
    /// Finish what runs and end.
    Shutdown(Duration),
    /// Kill what runs and end.
    Kill,
}

pub(super) struct Queue<E> {
    settings: Settings,
    executor: Arc<E>,
    socket: Socket,
    channel: Channel,
    loops: Vec<ClaimLoop>,
    claims: BTreeMap<u64, Claim>,
    /// Runs that claims have asked for whose answers were lost with their link.
    unanswered: usize,
    last_tag: u64,
    runs: JoinSet<()>,
    active: HashMap<task::Id, (String, usize)>,
    active_ids: HashSet<String>,
    stop: watch::Sender<Stop>,
    status: watch::Sender<LightningStatus>,
    refusals: Backoff,
    refused_tokens: u64,
    tokens: TokenCircuit,
    /// The workloop whose turn it is to claim first.
    first: usize,
    runs_ended: u64,
    joined: bool,
    told_refused: bool,
    rejoin_at: Option<Instant>,
    /// Since the worker was told to stop: when what is left is killed, and then given up.
    kill_at: Option<Instant>,
    give_up_at: Option<Instant>,
    stopping: bool,
    /// Somebody wants nothing to be claimed for now.
    paused: bool,
}

/// A claim without a reply.
struct Claim {
    workloop: usize,
    demand: usize,
    since: Instant,
    reported: bool,
    /// Somebody who waits for what it brings.
    asked_by: Option<mpsc::UnboundedSender<usize>>,
}

#[derive(Deserialize)]
struct ClaimReply {
    #[serde(default)]
    runs: Vec<Value>,
}

#[derive(Deserialize)]
struct WireRun {
    id: String,
    token: String,
}

impl<E: Executor> Queue<E> {
    /// An actor that has asked to join.
    pub(super) fn new(
        settings: Settings,
        executor: Arc<E>,
        socket: Socket,
        status: watch::Sender<LightningStatus>,
    ) -> Self {
        let mut queues = BTreeMap::new();
        let options = &settings.options;
        for workloop in &options.workloops {
            *queues.entry(workloop.name()).or_insert(0) += workloop.capacity;
        }
        let capacity: usize = queues.values().sum();
        let join = Payload::object(&json!({ "capacity": capacity, "queues": queues }));
        let channel = socket.open("worker:queue".into(), join);
        let pace = || Backoff::new(options.backoff, 1.15);
        let claims = |workloop: &Workloop| ClaimLoop::new(workloop.capacity, options.demand, pace());
        let loops = options.workloops.iter().map(claims).collect();
        let tokens = TokenCircuit::new(options.public_key.is_some());
        Self {
            settings,
            executor,
            socket,
            channel,
            loops,
            claims: BTreeMap::new(),
            unanswered: 0,
            last_tag: 0,
            runs: JoinSet::new(),
            active: HashMap::new(),
            active_ids: HashSet::new(),
            stop: watch::Sender::new(Stop::No),
            status,
            refusals: Backoff::new(REFUSED, 2.0),
            refused_tokens: 0,
            tokens,
            first: 0,
            runs_ended: 0,
            joined: false,
            told_refused: false,
            rejoin_at: None,
            kill_at: None,
            give_up_at: None,
            stopping: false,
            paused: false,
        }
    }

    /// Runs until it is told to stop and everything has ended, or nobody holds the other end of `commands`.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut connected = self.socket.connected();
        let mut availability = self.executor.availability();
        self.recover().await;
        while !self.is_over() {
            self.claim();
            self.publish(*connected.borrow_and_update());
            let timer = self.next_timer();
            tokio::select! {
                event = self.channel.next() => match event {
                    Some(event) => self.channel_event(event),
                    None => {
                        tracing::error!("the connection's task has ended");
                        break;
                    }
                },
                Some(ended) = self.runs.join_next_with_id() => self.run_ended(ended),
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                changed = connected.changed() => if changed.is_err() { break },
                Ok(()) = availability.changed() => self.hosts_available(*availability.borrow_and_update()),
                () = sleep_until(timer) => self.timer(),
            }
        }
        self.end().await;
    }

    /// Sees to the runs of workers that died.
    async fn recover(&mut self) {
        let Some(journal) = self.settings.options.journal.clone() else { return };
        // It cannot panic, and nobody aborts it.
        let orphans = task::spawn_blocking(move || journal.orphans()).await.unwrap_or_default();
        for orphan in orphans {
            let Orphan { run, left, pid, entry } = orphan;
            // It takes no slot: nothing is executed.
            self.runs.spawn(recover(self.open(run, RECOVERED), left, pid, entry));
        }
    }

    fn open(&self, run: ClaimedRun, workloop: &str) -> OpenRun {
        let join = Payload::object(&json!({ "token": run.token.expose_secret() }));
        let channel = self.socket.open(format!("run:{}", run.id), join);
        let timeline = Timeline::claimed(&run.id, workloop);
        OpenRun { run, timeline, channel, settings: self.settings.clone(), stop: self.stop.subscribe() }
    }

    fn is_over(&self) -> bool {
        let given_up = self.give_up_at.is_some_and(|at| at <= Instant::now());
        self.stopping && (given_up || (self.claims.is_empty() && self.active.is_empty()))
    }

    async fn end(mut self) {
        // Runs of dead workers take no slot, so nobody waited for them until now.
        let told = tokio::time::timeout(LAST_WORDS, all_of(&mut self.runs)).await;
        self.stop.send_replace(Stop::GiveUp);
        if told.is_err() && tokio::time::timeout(LAST_WORDS, all_of(&mut self.runs)).await.is_err() {
            tracing::error!("{} runs did not end", self.runs.len());
        }
        // Ends the hosts of runs that are left.
        self.runs.shutdown().await;
        self.status.send_modify(|status| (status.connected, status.joined, status.active_runs) = (false, false, 0));
        drop(self.channel);
        self.socket.close().await;
    }

    fn channel_event(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Joined(link) => {
                tracing::info!("joined Lightning's queue");
                self.settings.server.reached_over(link);
                self.report_stranded();
                (self.joined, self.told_refused) = (true, false);
                self.refusals.reset();
                self.loops.iter_mut().for_each(ClaimLoop::joined);
            }
            ChannelEvent::Refused(reply) => self.refused(reply),
            ChannelEvent::Down(_) => {
                self.joined = false;
                self.unanswered += std::mem::take(&mut self.claims).values().map(|claim| claim.demand).sum::<usize>();
                self.loops.iter_mut().for_each(ClaimLoop::lost);
            }
            ChannelEvent::Pushed(event) if event == "work-available" => {
                self.loops.iter_mut().for_each(ClaimLoop::work_available);
            }
            ChannelEvent::Pushed(event) => tracing::debug!("Lightning pushed {event}, which means nothing to us"),
            ChannelEvent::Replied(tag, reply) => self.claim_answered(tag, reply),
        }
    }

    /// Lightning takes a claim back only if it notices that the link is dead before it answers.
    fn report_stranded(&mut self) {
        let runs = std::mem::take(&mut self.unanswered);
        if runs > 0 {
            tracing::warn!(
                "the connection died before Lightning had answered a claim: the runs that it has given to it, up to {runs}, are stranded; it shows them as claimed, and marks them lost when their time is over"
            );
        }
    }

    fn refused(&mut self, reply: Reply) {
        let why = describe(&reply.response.into_json());
        let pause = self.refusals.next(jitter());
        self.rejoin_at = Some(Instant::now() + pause);
        if std::mem::replace(&mut self.told_refused, true) {
            tracing::debug!("Lightning still does not let this worker join its queue: {why}");
        } else if why == "unauthorized" {
            tracing::error!("Lightning refuses this worker: its secret is wrong; will ask again every now and then");
        } else {
            tracing::error!("Lightning does not let this worker join its queue: {why}; will ask again");
        }
    }

    fn claim_answered(&mut self, tag: u64, reply: Reply) {
        let Some(claim) = self.claims.remove(&tag) else { return };
        let runs = match read_claim(reply) {
            Ok(runs) => runs,
            Err(why) => {
                tracing::warn!("Lightning refused a claim: {why}");
                Vec::new()
            }
        };
        let name = self.settings.options.workloops[claim.workloop].name();
        let room = self.loops[claim.workloop].room(claim.demand);
        let mut runs = runs.into_iter();
        let accepted: Vec<_> = runs.by_ref().filter_map(|run| self.check(run, &name)).take(room).collect();
        refuse_surplus(claim.demand, runs);
        let count = accepted.len();
        metrics().claim_answered(claim.since.elapsed(), count);
        let took = claim.since.elapsed();
        self.loops[claim.workloop].answered(claim.demand, count, took, Instant::now(), jitter());
        if count > claim.demand {
            tracing::warn!("Lightning returned {count} runs for a claim of {}: executing all of them", claim.demand);
        }
        for run in accepted {
            self.start(run, claim.workloop);
        }
        if let Some(asked_by) = claim.asked_by {
            let _ = asked_by.send(count);
        }
    }

    /// Lets a run in unless it is active already or its token is not Lightning's.
    fn check(&mut self, run: Value, workloop: &str) -> Option<ClaimedRun> {
        let WireRun { id, token } = serde_json::from_value(run)
            .map_err(|error| tracing::error!("Lightning returned a run that cannot be parsed: {error}"))
            .ok()?;
        let token = SecretString::from(token);
        if self.active_ids.contains(&id) {
            tracing::warn!(run = %id, "Lightning returned a run that is already active here: ignoring it");
            return None;
        }
        match self.settings.options.public_key.as_ref().map(|key| key.verify(&token, &id)) {
            Some(Err(error)) => {
                tracing::error!(run = %id, "run refused: its token is not valid: {error}");
                let fault = TokenFault::of(&error, &token);
                self.refuse(ClaimedRun { id, token }, fault, workloop);
                return None;
            }
            Some(Ok(())) if self.tokens.verified() => {
                tracing::info!("token circuit closed: a run token is valid, claiming runs again")
            }
            Some(Ok(())) | None => {}
        }
        self.active_ids.insert(id.clone());
        tracing::debug!(run = %id, "claimed");
        Some(ClaimedRun { id, token })
    }

    /// Refuses a run whose token is not valid. Lightning is told, which knows the token.
    fn refuse(&mut self, run: ClaimedRun, fault: TokenFault, workloop: &str) {
        self.refused_tokens += 1;
        metrics().runs_refused.inc();
        if self.tokens.refused(fault.clone(), Instant::now()) {
            tracing::error!("token circuit open: run tokens keep failing, claiming one probe run a minute: {fault}");
        }
        // It takes no slot: nothing is executed.
        self.runs.spawn(refuse(self.open(run, workloop), &fault));
    }

    fn start(&mut self, run: ClaimedRun, workloop: usize) {
        let id = run.id.clone();
        let open = self.open(run, &self.settings.options.workloops[workloop].name());
        let task = self.runs.spawn(execute(open, self.executor.clone()));
        self.active.insert(task.id(), (id, workloop));
    }

    fn run_ended(&mut self, ended: Result<(task::Id, ()), task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some((run, workloop)) = self.active.remove(&id) else { return };
        if let Err(error) = ended {
            tracing::error!(%run, "the run's task failed: {error}");
        }
        self.runs_ended += 1;
        self.active_ids.remove(&run);
        self.loops[workloop].run_ended();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::ClaimOnce(answer, asked_by) => {
                let _ = answer.send(self.claim_by_hand(&asked_by));
            }
            Command::Pause(paused) => {
                self.paused = paused;
                self.loops.iter_mut().for_each(|claims| claims.pause(paused));
            }
            Command::Shutdown(grace) => {
                self.stop();
                self.kill_at = Some(Instant::now() + grace);
            }
            Command::Kill => {
                self.stop();
                self.kill_all();
            }
        }
    }

    fn hosts_available(&mut self, available: bool) {
        self.loops.iter_mut().for_each(|claims| claims.hosts_available(available));
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.loops.iter_mut().for_each(ClaimLoop::stop);
    }

    fn kill_all(&mut self) {
        self.kill_at = None;
        self.give_up_at.get_or_insert(Instant::now() + KILL_GRACE);
        self.stop.send_replace(Stop::Kill);
    }

    fn timer(&mut self) {
        let now = Instant::now();
        if self.rejoin_at.is_some_and(|at| at <= now) {
            self.rejoin_at = None;
            self.channel.rejoin();
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            tracing::warn!("killing {} runs that did not end in time", self.active.len());
            self.kill_all();
        }
        let timeout = self.settings.options.claim_timeout;
        for claim in self.claims.values_mut().filter(|claim| !claim.reported && claim.since + timeout <= now) {
            claim.reported = true;
            tracing::warn!("Lightning has not answered a claim for {}s; waiting on", timeout.as_secs());
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let late = self.claims.values().filter(|claim| !claim.reported);
        let late = late.map(|claim| claim.since + self.settings.options.claim_timeout).min();
        let now = Instant::now();
        let may_claim = self.settings.options.claim_by_itself && self.tokens.allowance(now, self.claims.len()) > 0;
        let wakes = self.loops.iter().filter(|_| may_claim).filter_map(ClaimLoop::wake_at);
        wakes
            .chain(self.tokens.probe_at(now))
            .chain(late)
            .chain(self.rejoin_at)
            .chain(self.kill_at)
            .chain(self.give_up_at)
            .min()
    }

    /// Pushes every claim that is due.
    fn claim(&mut self) {
        if !self.settings.options.claim_by_itself {
            return;
        }
        let now = Instant::now();
        // Where only one may claim, it is not always the same.
        let (first, count) = (self.first, self.loops.len());
        self.first = (first + 1) % count.max(1);
        for workloop in (0..count).map(|at| (at + first) % count) {
            loop {
                let most = self.tokens.allowance(now, self.claims.len());
                let Some(demand) = self.loops[workloop].next_claim(now, most) else { break };
                self.push_claim(workloop, demand, None);
            }
        }
    }

    fn claim_by_hand(&mut self, asked_by: &mpsc::UnboundedSender<usize>) -> Result<(), ClaimError> {
        if self.stopping {
            return Err(ClaimError::Stopping);
        }
        if !self.joined {
            return Err(ClaimError::NotJoined);
        }
        if self.loops.iter().all(ClaimLoop::is_paused) {
            return Err(ClaimError::Paused);
        }
        let mut claimed = false;
        for workloop in 0..self.loops.len() {
            if self.tokens.allowance(Instant::now(), self.claims.len()) == 0 {
                break;
            }
            if let Some(demand) = self.loops[workloop].claim_one() {
                self.push_claim(workloop, demand, Some(asked_by.clone()));
                claimed = true;
            }
        }
        match (claimed, self.tokens.fault()) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(ClaimError::TokensRefused),
            (false, None) => Err(ClaimError::Full),
        }
    }

    fn push_claim(&mut self, workloop: usize, demand: usize, asked_by: Option<mpsc::UnboundedSender<usize>>) {
        self.last_tag += 1;
        self.tokens.claimed(Instant::now());
        let queues = &self.settings.options.workloops[workloop].queues;
        let payload = json!({ "demand": demand, "worker_name": self.settings.options.worker_name, "queues": queues });
        self.channel.push(self.last_tag, "claim", Payload::object(&payload));
        let claim = Claim { workloop, demand, since: Instant::now(), reported: false, asked_by };
        self.claims.insert(self.last_tag, claim);
    }

    fn publish(&self, connected: bool) {
        let status = LightningStatus {
            connected,
            joined: self.joined,
            active_runs: self.active.len(),
            open_claims: self.claims.len(),
            paused: self.paused,
            capacity: self.settings.options.workloops.iter().map(|workloop| workloop.capacity).sum(),
            runs_ended: self.runs_ended,
            refused_tokens: self.refused_tokens,
            token_fault: self.tokens.fault().map(ToString::to_string),
            workloops: self.workloops(),
        };
        self.status.send_if_modified(|old| std::mem::replace(old, status.clone()) != status);
    }

    fn workloops(&self) -> Vec<WorkloopStatus> {
        let loops = self.settings.options.workloops.iter().zip(&self.loops);
        let status = loops.map(|(workloop, claims)| {
            let (capacity, active, open) = claims.slots();
            WorkloopStatus { name: workloop.name(), capacity, active, open }
        });
        status.collect()
    }
}

/// Says of runs that they are more than were asked for, and are not executed.
fn refuse_surplus(demand: usize, runs: impl Iterator<Item = Value>) {
    let ids: Vec<_> = runs.map(|run| run["id"].as_str().unwrap_or("without an id").to_owned()).collect();
    if ids.is_empty() {
        return;
    }
    metrics().runs_refused.inc_by(ids.len() as u64);
    let named = ids.iter().take(REFUSED_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let others = ids.len().saturating_sub(REFUSED_NAMED);
    let others = if others > 0 { format!(" and {others} others") } else { String::new() };
    tracing::error!(
        "refused {} runs that Lightning gave beyond a claim of {demand}: {named}{others}; Lightning will mark them lost, \
         retry them there",
        ids.len()
    );
}

async fn all_of(runs: &mut JoinSet<()>) {
    while runs.join_next().await.is_some() {}
}

fn read_claim(reply: Reply) -> Result<Vec<Value>, String> {
    let response: Json = reply.response.into_json();
    match reply.status {
        Status::Error => Err(describe(&response)),
        Status::Ok => response.decode().map(|reply: ClaimReply| reply.runs).map_err(|error| error.to_string()),
    }
}
