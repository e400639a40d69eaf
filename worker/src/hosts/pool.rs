//! Which hosts to start, to prepare and to let go, and when: policy without I/O.
//!
//! A pool wants some hosts waiting beyond those that are at work, plus one for each run that waits. A new host has
//! prepared what [`Room::first`] says, or nothing. When no run waits or is being prepared, those that wait prepare
//! what runs are likely to want next, as [`Demand`] says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::message::Prepare;

use super::demand::{Demand, is_cheap};
use super::health::{Health, STABLE};

/// How long a run of which nothing was heard yet keeps preparations off the processor.
const RUN_FIRST: Duration = Duration::from_secs(2);

/// Number of a host, in the order of starts.
pub(super) type HostNumber = u64;

/// What a pool may have waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    /// Hosts beyond those that are at work.
    pub(super) warm: usize,
    /// Memory of those that have prepared something, in bytes.
    pub(super) bytes: u64,
    /// What a host prepares as it starts.
    pub(super) first: Option<Prepare>,
    /// Hosts that may prepare at the same time while no run waits.
    pub(super) preparations: usize,
}

/// The hosts of a pool as far as policy goes.
#[derive(Debug)]
pub(super) struct Pool {
    room: Room,
    members: BTreeMap<HostNumber, Member>,
    demand: Demand,
    health: Health,
}

#[derive(Debug)]
struct Member {
    stage: Stage,
    /// What it has prepared, or will have when it is ready.
    prepared: Option<Prepare>,
    ready_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    /// It waits, and gets something else ready.
    Preparing,
    Ready,
    /// Held for a run or executing one.
    Taken {
        at: Instant,
        is_heard: bool,
    },
    /// On its way out.
    Leaving,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many hosts to start.
    pub(super) start: usize,
    /// Which hosts are to prepare what.
    pub(super) prepare: Vec<(HostNumber, Prepare)>,
    /// Which hosts to stop.
    pub(super) retire: Vec<HostNumber>,
    /// When to ask again, although nothing happens until then.
    pub(super) again_at: Option<Instant>,
}

/// A host for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) host: HostNumber,
    /// Whether it has prepared what the run wants, or is at it.
    pub(super) is_prepared: bool,
}

impl Pool {
    /// A pool without hosts.
    pub(super) fn new(room: Room) -> Self {
        Self { room, members: BTreeMap::new(), demand: Demand::default(), health: Health::default() }
    }

    /// What to do while `waiting` runs wait for a host.
    pub(super) fn plan(&self, now: Instant, waiting: usize) -> Plan {
        let missing = (self.room.warm + waiting).saturating_sub(self.waiting_hosts().count());
        let delayed_until = self.health.delayed_until(now).filter(|_| missing > 0);
        let allowed = match delayed_until {
            Some(_) => 0,
            None if self.health.is_doubtful() => 1_usize.saturating_sub(self.count(|stage| stage == Stage::Starting)),
            None => missing,
        };
        let mut plan = Plan { start: missing.min(allowed), again_at: delayed_until, ..Plan::default() };
        match self.quiet_from(now) {
            _ if waiting > 0 => {}
            Some(time) => plan.again_at = Some(plan.again_at.map_or(time, |again_at| again_at.min(time))),
            None => self.balance(now, &mut plan),
        }
        plan
    }

    /// Has hosts prepare what runs are likely to want, and lets go of those that nobody wants.
    fn balance(&self, now: Instant, plan: &mut Plan) {
        let shares = self.demand.allot(self.room.warm, self.room.bytes, |wanted| self.prepared_for(wanted), now);
        let share = |wanted: &Prepare| shares.iter().find(|(key, _)| key == wanted).map_or(0, |(_, hosts)| *hosts);
        let mut free = self.free(share);
        let mut room = self.room.preparations.saturating_sub(self.count(|stage| stage == Stage::Preparing));
        let mut is_starved = false;
        for (key, hosts) in &shares {
            let ready = self.prepared_for(key);
            for _ in ready..*hosts {
                match free.pop() {
                    Some(host) if room > 0 => {
                        room -= 1;
                        plan.prepare.push((host, key.clone()));
                    }
                    Some(host) => free.push(host),
                    None => is_starved |= ready == 0,
                }
            }
        }
        // A host that is about to come is free, too.
        is_starved &= plan.start == 0 && self.count(|stage| stage == Stage::Starting) == 0;
        let surplus = self.waiting_hosts().find(|(_, member)| {
            let Some(prepared) = member.prepared.as_ref().filter(|prepared| !is_cheap(prepared)) else { return false };
            let is_surplus = member.stage == Stage::Ready && self.prepared_for(prepared) > share(prepared);
            is_surplus && (is_starved || !self.demand.remembers(prepared, now))
        });
        plan.retire.extend(surplus.map(|(host, _)| *host));
    }

    /// Hosts that wait with nothing prepared, or with something that is ready again in no time; the best one last.
    fn free(&self, share: impl Fn(&Prepare) -> usize) -> Vec<HostNumber> {
        let rank = |member: &Member| match &member.prepared {
            _ if member.stage != Stage::Ready => None,
            None => Some(1),
            Some(prepared) if is_cheap(prepared) && self.prepared_for(prepared) > share(prepared) => Some(0),
            Some(_) => None,
        };
        let mut free: Vec<_> = self.members.iter().filter_map(|(host, member)| Some((rank(member)?, *host))).collect();
        free.sort_unstable();
        free.into_iter().map(|(_, host)| host).collect()
    }

    /// When preparations disturb no run any more; none if that is now.
    fn quiet_from(&self, now: Instant) -> Option<Instant> {
        let unheard = self.members.values().filter_map(|member| match member.stage {
            Stage::Taken { at, is_heard: false } => Some(at + RUN_FIRST),
            _ => None,
        });
        unheard.filter(|time| *time > now).max()
    }

    fn waiting_hosts(&self) -> impl Iterator<Item = (&HostNumber, &Member)> {
        let waits = |stage| matches!(stage, Stage::Starting | Stage::Preparing | Stage::Ready);
        self.members.iter().filter(move |(_, member)| waits(member.stage))
    }

    fn prepared_for(&self, wanted: &Prepare) -> usize {
        self.waiting_hosts().filter(|(_, member)| member.prepared.as_ref() == Some(wanted)).count()
    }

    fn count(&self, is_counted: impl Fn(Stage) -> bool) -> usize {
        self.members.values().filter(|member| is_counted(member.stage)).count()
    }

    /// A run wants this.
    pub(super) fn wanted(&mut self, wanted: &Prepare, now: Instant) {
        self.demand.wanted(wanted, now);
    }

    /// A host is being started. Returns what it is to prepare.
    pub(super) fn started(&mut self, host: HostNumber) -> Option<Prepare> {
        let prepared = self.room.first.clone();
        self.members.insert(host, Member { stage: Stage::Starting, prepared: prepared.clone(), ready_since: None });
        prepared
    }

    /// A host is ready. Returns whether that closes the circuit.
    pub(super) fn ready(&mut self, host: HostNumber, now: Instant) -> bool {
        if let Some(member) = self.members.get_mut(&host) {
            if matches!(member.stage, Stage::Starting | Stage::Preparing) {
                member.stage = Stage::Ready;
            }
            member.ready_since.get_or_insert(now);
        }
        self.health.ready()
    }

    /// A waiting host was told to prepare this.
    pub(super) fn preparing(&mut self, host: HostNumber, wanted: Prepare) {
        if let Some(member) = self.members.get_mut(&host) {
            (member.stage, member.prepared) = (Stage::Preparing, Some(wanted));
        }
    }

    /// A host that was told to prepare something could not, and lives on with nothing.
    pub(super) fn not_prepared(&mut self, host: HostNumber, now: Instant) {
        let Some(member) = self.members.get_mut(&host) else { return };
        if member.stage == Stage::Preparing {
            member.stage = Stage::Ready;
        }
        if let Some(wanted) = member.prepared.take() {
            self.demand.failed(&wanted, now);
        }
    }

    /// What the host has prepared, if its memory is worth a measurement.
    pub(super) fn is_unmeasured(&self, host: HostNumber) -> bool {
        let prepared = self.members.get(&host).and_then(|member| member.prepared.as_ref());
        prepared.is_some_and(|prepared| !is_cheap(prepared) && self.demand.is_unmeasured(prepared))
    }

    /// A host that waits takes this much memory.
    pub(super) fn measured(&mut self, host: HostNumber, bytes: u64) {
        if let Some(Member { prepared: Some(prepared), .. }) = self.members.get(&host) {
            self.demand.measured(prepared, bytes);
        }
    }

    /// The best host for a run, which is from now on taken: one that has prepared what is `wanted`, else one that has
    /// nothing to lose; of several the one that has been ready the longest.
    pub(super) fn take(&mut self, wanted: &Prepare, now: Instant) -> Option<Taken> {
        let rank = |member: &Member| match (&member.prepared, member.stage) {
            (Some(prepared), Stage::Ready) if prepared == wanted => Some(0),
            (Some(prepared), Stage::Preparing) if prepared == wanted => Some(1),
            (None, Stage::Ready) => Some(2),
            (Some(prepared), Stage::Ready) if is_cheap(prepared) => Some(3),
            _ => None,
        };
        let candidates = self.members.iter_mut().filter_map(|(host, member)| Some((rank(member)?, *host, member)));
        let (rank, host, member) = candidates.min_by_key(|(rank, host, member)| (*rank, member.ready_since, *host))?;
        member.stage = Stage::Taken { at: now, is_heard: false };
        member.prepared = Some(wanted.clone());
        Some(Taken { host, is_prepared: rank < 2 })
    }

    /// A host that was taken comes back unused; it has, or is at, what was wanted of it.
    pub(super) fn give_back(&mut self, host: HostNumber) {
        if let Some(member) = self.members.get_mut(&host)
            && matches!(member.stage, Stage::Taken { .. })
        {
            member.stage = Stage::Ready;
        }
    }

    /// Something was heard of a host's run.
    pub(super) fn heard(&mut self, host: HostNumber) {
        if let Some(Member { stage: Stage::Taken { is_heard, .. }, .. }) = self.members.get_mut(&host) {
            *is_heard = true;
        }
    }

    /// A host is on its way out.
    pub(super) fn leaving(&mut self, host: HostNumber) {
        if let Some(member) = self.members.get_mut(&host) {
            member.stage = Stage::Leaving;
        }
    }

    /// A host has executed a run: hosts work.
    pub(super) fn finished_run(&mut self) {
        self.health.worked();
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
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
