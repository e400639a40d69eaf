//! The hosts of a pool: the one record of each, and which to start, to prepare and to let go, and when. No I/O.
//!
//! A pool wants some hosts, as [`PoolSize`] says. A new one has prepared what [`Policy::first`] says, or nothing. When
//! no run waits or is being prepared, those that wait prepare what runs are likely to want next, as [`Demand`] says.
//! Hosts that are to be replaced go one after the other, each when there is enough without it.

mod planning;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::message::Prepare;

pub(super) use self::planning::Dismissal;
use super::demand::{Demand, is_cheap};
use super::health::{Health, STABLE};
use super::policy::{Policy, PoolSize};
use super::status::{HostState, HostStatus, describe};

/// Number of a host, in the order of starts, which no other host of the worker has.
pub(super) type HostNumber = u64;

/// The name of a host, for people.
pub(super) fn host_id(host: HostNumber) -> String {
    format!("h{host}")
}

/// The hosts of a pool, and all that is known of them. `H` is the way to a host.
#[derive(Debug)]
pub(super) struct Pool<H> {
    policy: Policy,
    members: BTreeMap<HostNumber, Member<H>>,
    demand: Demand,
    health: Health,
    is_draining: bool,
}

#[derive(Debug)]
struct Member<H> {
    handle: H,
    stage: Stage,
    pid: Option<u32>,
    /// What it has prepared, or will have when it is ready.
    prepared: Option<Prepare>,
    started_at: Instant,
    ready_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// When it is too old.
    expires: Option<Instant>,
    /// How many runs it was given, or how often it was lent.
    runs: u32,
    /// Memory when it was last measured, in bytes.
    bytes: Option<u64>,
    /// It is to be replaced.
    is_outdated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Starting,
    /// It waits, and gets something else ready.
    Preparing {
        since: Instant,
    },
    Ready,
    /// Held for a run; since when, until something was heard of that.
    Reserved {
        unheard_since: Option<Instant>,
    },
    Running {
        run_id: String,
        unheard_since: Option<Instant>,
    },
    Lent,
    /// On its way out.
    Leaving,
}

impl<H> Member<H> {
    fn waits(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Preparing { .. } | Stage::Ready)
    }

    fn is_taken(&self) -> bool {
        matches!(self.stage, Stage::Reserved { .. } | Stage::Running { .. } | Stage::Lent)
    }

    /// Since when something has been wanted of it of which nothing was heard yet.
    fn unheard_since(&mut self) -> Option<&mut Option<Instant>> {
        match &mut self.stage {
            Stage::Reserved { unheard_since } | Stage::Running { unheard_since, .. } => Some(unheard_since),
            _ => None,
        }
    }

    fn status(&self, host: HostNumber, now: Instant) -> HostStatus {
        let (state, run) = match &self.stage {
            Stage::Starting | Stage::Preparing { .. } => (HostState::Starting, None),
            Stage::Ready => (HostState::Ready, None),
            Stage::Reserved { .. } | Stage::Lent => (HostState::Reserved, None),
            Stage::Running { run_id, .. } => (HostState::Running, Some(run_id.clone())),
            Stage::Leaving => (HostState::Stopping, None),
        };
        HostStatus {
            id: host_id(host),
            pid: self.pid,
            state,
            prepared: self.prepared.as_ref().map(describe),
            run,
            age: now.saturating_duration_since(self.started_at),
            runs: self.runs,
            bytes: self.bytes,
        }
    }
}

/// A host for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) host: HostNumber,
    /// Whether it has prepared what the run wants, or is at it.
    pub(super) is_prepared: bool,
}

impl<H> Pool<H> {
    /// A pool without hosts.
    pub(super) fn new(policy: Policy) -> Self {
        let (demand, health) = (Demand::default(), Health::default());
        Self { policy, members: BTreeMap::new(), demand, health, is_draining: false }
    }

    /// The hosts that the size is about.
    fn counted(&self) -> impl Iterator<Item = (HostNumber, &Member<H>)> {
        let with_taken = matches!(self.policy.size, PoolSize::Shared { .. });
        let counts = move |member: &Member<H>| member.waits() || (with_taken && member.is_taken());
        self.members.iter().filter(move |(_, member)| counts(member)).map(|(host, member)| (*host, member))
    }

    fn count(&self, is_counted: impl Fn(&Member<H>) -> bool) -> usize {
        self.members.values().filter(|member| is_counted(member)).count()
    }

    fn prepared_for(&self, wanted: &Prepare) -> usize {
        self.count(|member| member.waits() && !member.is_outdated && member.prepared.as_ref() == Some(wanted))
    }

    /// A run wants this.
    pub(super) fn wanted(&mut self, wanted: &Prepare, now: Instant) {
        self.demand.wanted(wanted, now);
    }

    /// A host is being started, to which `handle` is the way. `roll` in 0..1 spreads ages. Returns what it is to prepare.
    pub(super) fn started(&mut self, host: HostNumber, handle: H, now: Instant, roll: f64) -> Option<Prepare> {
        let prepared = self.policy.first.clone();
        let member = Member {
            handle,
            stage: Stage::Starting,
            pid: None,
            prepared: prepared.clone(),
            started_at: now,
            ready_since: None,
            idle_since: None,
            expires: self.policy.recycling.lifetime(roll).map(|lifetime| now + lifetime),
            runs: 0,
            bytes: None,
            is_outdated: false,
        };
        self.members.insert(host, member);
        prepared
    }

    /// A host has this process.
    pub(super) fn spawned(&mut self, host: HostNumber, pid: Option<u32>) {
        if let Some(member) = self.members.get_mut(&host) {
            member.pid = pid;
        }
    }

    /// A host is ready, which closes the circuit. Returns how long it took, if it was not ready before.
    pub(super) fn ready(&mut self, host: HostNumber, now: Instant) -> Option<Duration> {
        self.health.ready();
        let member = self.members.get_mut(&host)?;
        member.ready_since.get_or_insert(now);
        member.idle_since.get_or_insert(now);
        let begun = match member.stage {
            Stage::Starting => member.started_at,
            Stage::Preparing { since } => since,
            _ => return None,
        };
        member.stage = Stage::Ready;
        Some(now.saturating_duration_since(begun))
    }

    /// A waiting host was told to prepare this.
    pub(super) fn preparing(&mut self, host: HostNumber, wanted: Prepare, now: Instant) {
        if let Some(member) = self.members.get_mut(&host) {
            (member.stage, member.prepared) = (Stage::Preparing { since: now }, Some(wanted));
        }
    }

    /// A host could not prepare what it was told to, and lives on with nothing. Returns what that was.
    pub(super) fn not_prepared(&mut self, host: HostNumber, now: Instant) -> Option<Prepare> {
        let member = self.members.get_mut(&host)?;
        if matches!(member.stage, Stage::Preparing { .. }) {
            member.stage = Stage::Ready;
        }
        let wanted = member.prepared.take()?;
        self.demand.failed(&wanted, now);
        Some(wanted)
    }

    /// What the host has prepared, if its memory is worth a measurement.
    pub(super) fn is_unmeasured(&self, host: HostNumber) -> bool {
        let prepared = self.members.get(&host).and_then(|member| member.prepared.as_ref());
        prepared.is_some_and(|prepared| !is_cheap(prepared) && self.demand.is_unmeasured(prepared))
    }

    /// A host takes this much memory.
    pub(super) fn measured(&mut self, host: HostNumber, bytes: u64) {
        let Some(member) = self.members.get_mut(&host) else { return };
        member.bytes = Some(bytes);
        member.is_outdated |= self.policy.recycling.max_bytes.is_some_and(|most| bytes > most);
        if let Some(prepared) = member.prepared.as_ref().filter(|_| member.waits()) {
            self.demand.measured(prepared, bytes);
        }
    }

    /// The best host for a run, which is from now on held for it: one that has prepared what is `wanted`, else one that
    /// has nothing to lose; of several the one that has been ready the longest, and one that is to be replaced only if
    /// there is no other.
    pub(super) fn take(&mut self, wanted: &Prepare, now: Instant) -> Option<Taken> {
        let rank = |member: &Member<H>| match (&member.prepared, &member.stage) {
            _ if self.is_draining => None,
            (Some(prepared), Stage::Ready) if prepared == wanted => Some(0),
            (Some(prepared), Stage::Preparing { .. }) if prepared == wanted => Some(1),
            (None, Stage::Ready) => Some(2),
            (Some(prepared), Stage::Ready) if is_cheap(prepared) => Some(3),
            _ => None,
        };
        let candidates = self.members.iter().filter_map(|(host, member)| {
            let rank = rank(member)?;
            Some((member.is_outdated, rank, member.ready_since, *host))
        });
        let (_, rank, _, host) = candidates.min()?;
        let member = self.members.get_mut(&host)?;
        member.stage = Stage::Reserved { unheard_since: Some(now) };
        member.prepared = Some(wanted.clone());
        Some(Taken { host, is_prepared: rank < 2 })
    }

    /// The best ready host for who borrows one: one that has loaded what is `wanted`, else one that has nothing to lose,
    /// else any. It is from then on lent.
    pub(super) fn take_to_lend(&mut self, wanted: Option<&Prepare>) -> Option<HostNumber> {
        if self.is_draining {
            return None;
        }
        let rank = |member: &Member<H>| match &member.prepared {
            prepared if prepared.as_ref() == wanted => 0,
            None => 1,
            Some(prepared) if is_cheap(prepared) => 2,
            Some(_) => 3,
        };
        let ready = self.members.iter().filter(|(_, member)| member.stage == Stage::Ready);
        let ranked = ready.map(|(host, member)| (member.is_outdated, rank(member), member.ready_since, *host));
        let (.., host) = ranked.min()?;
        let member = self.members.get_mut(&host)?;
        member.stage = Stage::Lent;
        member.runs += 1;
        Some(host)
    }

    /// A host that was held or lent comes back, `used` or not. What was wanted of it, it has or is at.
    pub(super) fn give_back(&mut self, host: HostNumber, used: bool, now: Instant) {
        let Some(member) = self.members.get_mut(&host) else { return };
        match member.stage {
            Stage::Reserved { .. } => {}
            Stage::Lent if used => {
                // What it had loaded was for this use.
                member.prepared = None;
                member.idle_since = Some(now);
                self.health.worked();
            }
            Stage::Lent => member.runs -= 1,
            _ => return,
        }
        member.stage = Stage::Ready;
        member.is_outdated |= self.policy.recycling.max_runs.is_some_and(|most| member.runs >= most);
    }

    /// A host that was held for a run executes it.
    pub(super) fn running(&mut self, host: HostNumber, run_id: String) {
        if let Some(member) = self.members.get_mut(&host)
            && let Stage::Reserved { unheard_since } = member.stage
        {
            member.stage = Stage::Running { run_id, unheard_since };
            member.runs += 1;
        }
    }

    /// Something was heard of a host's run.
    pub(super) fn heard(&mut self, host: HostNumber) {
        if let Some(unheard_since) = self.members.get_mut(&host).and_then(Member::unheard_since) {
            *unheard_since = None;
        }
    }

    /// A host is on its way out. If it has executed a run, hosts work.
    pub(super) fn leaving(&mut self, host: HostNumber) {
        let Some(member) = self.members.get_mut(&host) else { return };
        if let Stage::Running { .. } = std::mem::replace(&mut member.stage, Stage::Leaving) {
            self.health.worked();
        }
    }

    /// Those that are on their way out.
    pub(super) fn leaving_hosts(&self) -> BTreeSet<HostNumber> {
        let leaving = self.members.iter().filter(|(_, member)| member.stage == Stage::Leaving);
        leaving.map(|(host, _)| *host).collect()
    }

    /// A host is dead. `roll` in 0..1 spreads delays. Returns whether that opens the circuit.
    pub(super) fn died(&mut self, host: HostNumber, is_failure: bool, now: Instant, roll: f64) -> bool {
        let ready_since = self.members.remove(&host).and_then(|member| member.ready_since);
        let was_stable = ready_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        is_failure && self.health.failed(was_stable, now, roll)
    }

    /// Whether hosts die so often that waiting for one is of no use.
    pub(super) fn is_open(&self) -> bool {
        self.health.is_open()
    }

    /// All hosts are to be replaced. Returns which.
    pub(super) fn recycle(&mut self) -> BTreeSet<HostNumber> {
        let there = self.members.iter_mut().filter(|(_, member)| member.stage != Stage::Leaving);
        let outdate = |(host, member): (&HostNumber, &mut Member<H>)| {
            member.is_outdated = true;
            *host
        };
        there.map(outdate).collect()
    }

    /// A host is to be replaced.
    pub(super) fn outdate(&mut self, host: HostNumber) {
        if let Some(member) = self.members.get_mut(&host) {
            member.is_outdated = true;
        }
    }

    /// There are to be no hosts, or again as many as the policy says.
    pub(super) fn drain(&mut self, is_draining: bool) {
        self.is_draining = is_draining;
    }

    /// Whether there are to be none.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Sets something else.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What failed before counts no more: other hosts are started from now on.
    pub(super) fn start_afresh(&mut self) {
        self.health = Health::default();
    }

    /// Whether as many hosts are ready as there are to be when nobody waits, and no more than that.
    pub(super) fn is_settled(&self) -> bool {
        let ready = self.counted().filter(|(_, member)| !matches!(member.stage, Stage::Starting)).count();
        let is_current = self.members.values().all(|member| !member.is_outdated);
        let is_right = match self.policy.size {
            PoolSize::OneRunEach { warm } => ready == warm,
            PoolSize::Shared { least, most, .. } => (least.min(most)..=most).contains(&ready),
        };
        !self.is_draining && is_current && is_right
    }

    /// The way to a host.
    pub(super) fn handle(&self, host: HostNumber) -> Option<&H> {
        self.members.get(&host).map(|member| &member.handle)
    }

    /// The way to each host.
    pub(super) fn handles(&self) -> impl Iterator<Item = &H> {
        self.members.values().map(|member| &member.handle)
    }

    /// The way to the host that executes this run.
    pub(super) fn handle_of_run(&self, id: &str) -> Option<&H> {
        let executes = |member: &&Member<H>| matches!(&member.stage, Stage::Running { run_id, .. } if run_id == id);
        self.members.values().find(executes).map(|member| &member.handle)
    }

    /// The hosts that live.
    pub(super) fn hosts(&self) -> BTreeSet<HostNumber> {
        self.members.keys().copied().collect()
    }

    /// Whether a host lives.
    pub(super) fn has(&self, host: HostNumber) -> bool {
        self.members.contains_key(&host)
    }

    /// Whether none lives.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A host's process.
    pub(super) fn pid(&self, host: HostNumber) -> Option<u32> {
        self.members.get(&host)?.pid
    }

    /// A look at all hosts, oldest first.
    pub(super) fn status(&self, now: Instant) -> Vec<HostStatus> {
        self.members.iter().map(|(host, member)| member.status(*host, now)).collect()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
