//! What the admin socket can ask of a worker, done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use base::room::{MOST_PER_SLOT, Room};
use hosts::{Broker, HostStatus, Hosts, ManageError, PoolStatus, TemplateState, TemplateStatus, Templates};
use lightning::Lightning;
use lightning::timeline::{RunView, history};
use protocol::clock::since_epoch;
use protocol::run::{Exit, ExitReason};

use super::message::{
    Answer, HostReport, PastRun, PoolReport, Request, RunReport, StatusReport, TemplateReport, WholeRun,
};

/// A worker as its admin socket sees it.
#[derive(Debug)]
pub struct Admin {
    broker: Broker,
    lightning: Arc<Lightning>,
    limits: String,
    since: Instant,
}

impl Admin {
    /// For this worker, which bounds the memory of runs like this.
    pub fn new(broker: Broker, lightning: Arc<Lightning>, limits: String) -> Self {
        Self { broker, lightning, limits, since: Instant::now() }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Does what is asked, and returns when it is done.
    pub(super) async fn answer(&self, request: Request) -> Answer {
        self.done(request).await.unwrap_or_else(Answer::Error)
    }

    async fn done(&self, request: Request) -> Result<Answer, String> {
        Ok(match request {
            Request::Status => Answer::Status(self.status().await),
            Request::Hosts => Answer::Hosts(self.broker.status().await.iter().flat_map(host_reports).collect()),
            Request::Runs => {
                let pools = self.broker.status().await;
                Answer::Runs(history().live().iter().map(|view| run_report(view, &pools)).collect())
            }
            Request::History { most, .. } => Answer::History(history().last(most).map(PastRun::from).collect()),
            Request::Run { run } => Answer::Run(Box::new(WholeRun::from(&the_one(&run, history().find(&run))?))),
            Request::Recycle { pool } => Answer::Done(self.recycle(pool).await?),
            Request::Drain => Answer::Done(self.drain().await?),
            Request::Resume => Answer::Done(self.resume().await?),
            Request::Cancel { run } => Answer::Done(self.cancel(&run).await?),
            Request::Resize { pool, size, force } => {
                let hosts = self.resizable(&pool, size, force).await?;
                hosts.resize(size).await.map_err(|error| error.to_string())?;
                Answer::Done(format!("{pool} has {size}"))
            }
            Request::Logs { .. } => return Err("lines are sent by the server".to_owned()),
        })
    }

    async fn status(&self) -> StatusReport {
        let pools = self.broker.status().await;
        let lightning = self.lightning.status();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.since.elapsed().as_secs(),
            draining: lightning.paused || pools.iter().any(|pool| pool.is_draining),
            limits: self.limits.clone(),
            lightning,
            pools: pools.iter().map(pool_report).collect(),
            templates: self.broker.templates().iter().flat_map(Templates::status).map(template_report).collect(),
        }
    }

    async fn recycle(&self, pool: Option<String>) -> Result<String, String> {
        let pools = match &pool {
            None => self.broker.all(),
            Some(pool) => vec![self.pool(pool)?],
        };
        // Those that look after templates are never given back.
        if let Some(templates) = self.broker.templates() {
            templates.start_afresh();
        }
        for hosts in &pools {
            managed(hosts, hosts.recycle().await)?;
        }
        Ok("all hosts are new".to_owned())
    }

    async fn drain(&self) -> Result<String, String> {
        self.lightning.pause(true);
        // What was claimed before still needs hosts.
        let mut status = self.lightning.watch();
        let is_quiet = status.wait_for(|status| status.paused && status.active_runs == 0 && status.open_claims == 0);
        if is_quiet.await.is_err() {
            return Err("the worker is stopping".to_owned());
        }
        if let Some(templates) = self.broker.templates() {
            templates.start_afresh();
        }
        for hosts in self.broker.all() {
            managed(&hosts, hosts.drain().await)?;
        }
        Ok("drained: nothing is claimed, and there are no hosts; `worker ctl resume` ends that".to_owned())
    }

    async fn resume(&self) -> Result<String, String> {
        for hosts in self.broker.all() {
            managed(&hosts, hosts.resume().await)?;
        }
        self.lightning.pause(false);
        Ok("claiming again".to_owned())
    }

    async fn cancel(&self, run: &str) -> Result<String, String> {
        let live = history().live().into_iter().filter(|view| view.run.starts_with(run)).collect();
        let view =
            the_one(run, live).map_err(|why| format!("{why}; `worker ctl runs` lists those that are under way"))?;
        let run = view.run.as_str();
        let exit = Exit::error(ExitReason::Cancel, "Cancelled", "The run was cancelled by the worker's operator");
        for hosts in self.broker.all() {
            if hosts.cancel(run, exit.clone()).await {
                return Ok(format!("{run} is cancelled"));
            }
        }
        let phase = view.phase.as_str();
        Err(format!("no host executes {run}, which is in its phase {phase}; it can be cancelled in execute"))
    }

    /// Why there will be no lines of this host or run: there is none.
    pub(super) async fn unknown(&self, host: Option<&str>, run: Option<&str>) -> Option<String> {
        let pools = self.broker.status().await;
        let has_host = |id: &str| pools.iter().flat_map(host_reports).any(|host| host.id == id);
        let has_run = |id: &str| pools.iter().flat_map(|pool| &pool.hosts).any(|it| it.run.as_deref() == Some(id));
        match (host, run) {
            (Some(host), _) if !has_host(host) => Some(format!(
                "there is no host {host}, and no line of it is kept; `worker ctl hosts` lists those there are"
            )),
            (_, Some(run)) if !has_run(run) => Some(format!(
                "no host executes {run}, and no line of it is kept; `worker ctl runs` lists those that are executed"
            )),
            _ => None,
        }
    }

    /// The pool, if it may get this size.
    async fn resizable(&self, pool: &str, size: usize, force: bool) -> Result<Hosts, String> {
        let hosts = self.pool(pool)?;
        if force {
            return Ok(hosts);
        }
        let capacity = self.lightning.status().capacity;
        let most = MOST_PER_SLOT.saturating_mul(capacity);
        if size > most {
            return Err(format!(
                "{size} hosts are more than {most}, {MOST_PER_SLOT} for each run of the capacity, which is {capacity}; \
                 --force starts them all the same"
            ));
        }
        let present = hosts.status().await.map_or(0, |status| status.hosts.len());
        match Room::look().refusal(size.saturating_sub(present)) {
            Some(why) => Err(format!("{why}; --force starts them all the same")),
            None => Ok(hosts),
        }
    }

    fn pool(&self, pool: &str) -> Result<Hosts, String> {
        self.broker.pool(pool).ok_or_else(|| {
            let known: Vec<_> = self.broker.all().iter().map(|hosts| hosts.pool().to_owned()).collect();
            format!("there are no hosts of type {pool}; there are {}", known.join(", "))
        })
    }
}

fn managed(hosts: &Hosts, result: Result<(), ManageError>) -> Result<(), String> {
    result.map_err(|error| format!("{}: {error}", hosts.pool()))
}

fn pool_report(status: &PoolStatus) -> PoolReport {
    let mut hosts = BTreeMap::new();
    for host in &status.hosts {
        *hosts.entry(host.state.as_str().to_owned()).or_default() += 1;
    }
    let counts = status.ops.counts.iter().map(|(name, count)| (name.clone(), *count as f64));
    let gauges = status.ops.gauges.iter().map(|(name, value)| (name.clone(), *value));
    PoolReport {
        pool: status.pool.clone(),
        size: status.size.target(),
        hosts,
        waiting: status.waiting,
        started: status.started,
        circuit_open: status.is_circuit_open,
        draining: status.is_draining,
        last_end: status.last_death.as_ref().map(|(host, death)| format!("{host} {death}")),
        ops: counts.chain(gauges).collect(),
    }
}

fn template_report(status: TemplateStatus) -> TemplateReport {
    let TemplateStatus { engine, state } = status;
    let report = TemplateReport { engine, ..TemplateReport::default() };
    match state {
        TemplateState::Unwanted => report,
        TemplateState::Warming => TemplateReport { state: "warming".to_owned(), ..report },
        TemplateState::Ready { host, bytes, age, forks } => TemplateReport {
            state: "ready".to_owned(),
            host: Some(host),
            age_s: age.as_secs(),
            forks,
            memory_bytes: bytes,
            ..report
        },
        TemplateState::GivenUp { left, why } => {
            TemplateReport { state: "given up".to_owned(), given_up_s: left.as_secs(), why: Some(why), ..report }
        }
    }
}

fn host_reports(status: &PoolStatus) -> impl Iterator<Item = HostReport> {
    status.hosts.iter().map(|host| HostReport {
        id: host.id.clone(),
        pool: status.pool.clone(),
        pid: host.pid,
        state: host.state.as_str().to_owned(),
        engine: host.prepared.clone(),
        run: host.run.clone(),
        age_s: host.age.as_secs(),
        runs: host.runs,
        memory_bytes: host.pid.map(|_| host.resident_bytes()),
    })
}

/// A run as it is now, with what `pools` tell of its host.
fn run_report(view: &RunView, pools: &[PoolStatus]) -> RunReport {
    let host = pools.iter().flat_map(|pool| &pool.hosts).find(|host| host.run.as_ref() == Some(&view.run));
    let open = view.steps.last().filter(|step| step.ended_us.is_none());
    let now = since_epoch();
    let claimed_ms = view.claimed_us() / 1_000;
    RunReport {
        run: view.run.clone(),
        workloop: view.workloop.clone(),
        phase: view.phase.as_str().to_owned(),
        step: open.map(|step| step.name.as_ref().unwrap_or(&step.step).clone()),
        age_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(claimed_ms),
        host: view.host.clone(),
        pid: host.and_then(|host| host.pid),
        engine: host.and_then(|host| host.prepared.clone()),
        memory_bytes: host.filter(|host| host.pid.is_some()).map(HostStatus::resident_bytes),
    }
}

/// The run that is meant by the beginning of its id, or by all of it.
fn the_one(prefix: &str, mut found: Vec<RunView>) -> Result<RunView, String> {
    // As of a script's variable that nobody has set: every id begins so.
    if prefix.is_empty() {
        return Err("no run is named: its id is empty".to_owned());
    }
    if let Some(exact) = found.iter().position(|view| view.run == prefix) {
        return Ok(found.swap_remove(exact));
    }
    match (found.pop(), found.as_slice()) {
        (None, _) => Err(format!("no run's id is {prefix}, or begins so")),
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let ids: Vec<&str> = others.iter().chain([&last]).map(|view| view.run.as_str()).collect();
            Err(format!("the ids of {} runs begin with {prefix}: {}", ids.len(), listed(&ids)))
        }
    }
}

/// The first few of many.
fn listed(ids: &[&str]) -> String {
    const MOST: usize = 10;
    let more = if ids.len() > MOST { ", …" } else { "" };
    ids.iter().take(MOST).copied().collect::<Vec<_>>().join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_the_beginning_of_its_id_if_no_other_begins_so() {
        let runs = |ids: &[&str]| ids.iter().map(|id| RunView::new(id, "*", 0)).collect::<Vec<_>>();
        let found = |prefix: &str, ids: &[&str]| the_one(prefix, runs(ids)).map(|view| view.run);
        assert_eq!(found("ab", &["abc"]).as_deref(), Ok("abc"));
        assert_eq!(found("ab", &["abc", "ab"]).as_deref(), Ok("ab"), "it is another's whole id");
        assert_eq!(found("", &["abc"]), Err("no run is named: its id is empty".to_owned()));
        assert_eq!(found("x", &[]), Err("no run's id is x, or begins so".to_owned()));
        assert_eq!(found("a", &["ab", "ac"]), Err("the ids of 2 runs begin with a: ab, ac".to_owned()));
        let many: Vec<String> = (0..30).map(|index| format!("a{index}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(found("a", &many).is_err_and(|why| why.contains("30 runs") && why.ends_with("a9, …")));
    }
}
