//! What one open dashboard is told: all there is, then a few times a second what changed.

use std::sync::Arc;
use std::time::Duration;

use base::processes::resident;
use hosts::HostStatus;
use lightning::WorkloopStatus;
use lightning::timeline::{self, RunView};
use protocol::clock::{now_us, unix_seconds};
use serde::Serialize;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Dashboard;
use super::board::{HostExit, Point};
use crate::health::{Health, Readiness};
use crate::http::Operations;
use crate::telemetry::{Line, lines};

/// Time between updates.
const PACE: Duration = Duration::from_millis(250);
/// Every how many updates the worker itself is looked at.
const LOOK_EVERY: u32 = 4;

/// What changed.
#[derive(Debug, Serialize)]
pub(super) struct Update {
    /// Now, in microseconds since the epoch.
    at_us: u64,
    /// Whether this is all there is, and not only what changed.
    is_whole: bool,
    /// Runs about which something changed.
    runs: Vec<Arc<RunView>>,
    /// New lines of the worker's log.
    lines: Vec<Arc<Line>>,
    /// How the worker is, if it was looked at.
    worker: Option<WorkerView>,
}

/// How the worker is.
#[derive(Debug, Serialize)]
struct WorkerView {
    version: &'static str,
    readiness: Readiness,
    connected: bool,
    workloops: Vec<WorkloopStatus>,
    hosts: Vec<HostView>,
    waiting: usize,
    started: u64,
    memory: u64,
    exits: Vec<HostExit>,
    points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct HostView {
    id: String,
    pid: Option<u32>,
    state: &'static str,
    prepared: Option<String>,
    age_ms: u64,
    runs: u32,
    memory: u64,
}

/// Follows everything for one who looks.
pub(super) struct Follower<O> {
    dashboard: Arc<Dashboard>,
    worker: Arc<O>,
    runs: broadcast::Receiver<Arc<RunView>>,
    lines: broadcast::Receiver<Arc<Line>>,
    ticks: Interval,
    count: u32,
    _seat: OwnedSemaphorePermit,
}

impl<O: Operations> Follower<O> {
    pub(super) fn new(dashboard: Arc<Dashboard>, worker: Arc<O>, seat: OwnedSemaphorePermit) -> Self {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (runs, lines) = (timeline::subscribe(), lines().subscribe());
        Self { dashboard, worker, runs, lines, ticks, count: 0, _seat: seat }
    }

    /// Waits for the next update. The first one is whole.
    pub(super) async fn next(&mut self) -> Update {
        self.ticks.tick().await;
        let mut is_whole = self.count == 0;
        let (mut runs, lost_runs) = latest(drain(&mut self.runs));
        let (mut new_lines, lost_lines) = drain(&mut self.lines);
        is_whole |= lost_runs || lost_lines;
        if is_whole {
            (runs, new_lines) = (self.dashboard.with(|board| board.runs()), lines().last());
        }
        let worker = match self.count.is_multiple_of(LOOK_EVERY) {
            true => Some(self.look().await),
            false => None,
        };
        self.count = self.count.wrapping_add(1);
        let at_us = now_us();
        Update { at_us, is_whole, runs, lines: new_lines, worker }
    }

    async fn look(&self) -> WorkerView {
        let health = self.worker.health().await;
        let readiness = health.readiness();
        let Health { lightning, pool, .. } = health;
        let lightning = lightning.unwrap_or_default();
        let (exits, points) = self.dashboard.with(|board| (board.exits(), board.points(unix_seconds())));
        let (hosts, waiting, started) =
            pool.map_or((Vec::new(), 0, 0), |pool| (pool.hosts, pool.waiting, pool.started));
        WorkerView {
            version: env!("CARGO_PKG_VERSION"),
            readiness,
            connected: lightning.connected,
            workloops: lightning.workloops,
            hosts: hosts.into_iter().map(HostView::of).collect(),
            waiting,
            started,
            memory: resident(std::process::id()),
            exits,
            points,
        }
    }
}

impl HostView {
    fn of(host: HostStatus) -> Self {
        Self {
            memory: host.resident_bytes(),
            id: host.id,
            pid: host.pid,
            state: host.state.as_str(),
            prepared: host.prepared,
            age_ms: u64::try_from(host.age.as_millis()).unwrap_or(u64::MAX),
            runs: host.runs,
        }
    }
}

/// What has arrived, and whether some was lost.
fn drain<T: Clone>(from: &mut broadcast::Receiver<T>) -> (Vec<T>, bool) {
    let (mut taken, mut is_lost) = (Vec::new(), false);
    loop {
        match from.try_recv() {
            Ok(item) => taken.push(item),
            Err(TryRecvError::Lagged(_)) => is_lost = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return (taken, is_lost),
        }
    }
}

/// Of several looks at a run the last one.
fn latest((runs, is_lost): (Vec<Arc<RunView>>, bool)) -> (Vec<Arc<RunView>>, bool) {
    let mut last: Vec<Arc<RunView>> = Vec::new();
    for run in runs {
        match last.iter_mut().find(|known| known.run == run.run) {
            Some(known) => *known = run,
            None => last.push(run),
        }
    }
    (last, is_lost)
}
