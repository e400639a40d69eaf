//! Which hosts to start, to prepare and to let go, and when: policy without I/O.
//!
//! A pool wants some hosts, as [`PoolSize`] says. A new one has prepared what [`Policy::first`] says, or nothing. When
//! no run waits or is being prepared, those that wait prepare what runs are likely to want next, as [`Demand`] says.
//! Hosts that are to be replaced go one after the other, each when there is enough without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::message::Prepare;

use super::demand::{Demand, is_cheap};
use super::health::{Health, STABLE};
use super::policy::{Policy, PoolSize};

/// How long a run of which nothing was heard yet keeps preparations off the processor.
const RUN_FIRST: Duration = Duration::from_secs(2);

/// Number of a host, in the order of starts.
pub(super) type HostNumber = u64;

/// The hosts of a pool as far as policy goes.
#[derive(Debug)]
pub(super) struct Pool {
    policy: Policy,
    members: BTreeMap<HostNumber, Member>,
    demand: Demand,
    health: Health,
    is_draining: bool,
}

#[derive(Debug)]
struct Member {
    stage: Stage,
    /// What it has prepared, or will have when it is ready.
    prepared: Option<Prepare>,
    ready_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// When it is too old.
    expires: Option<Instant>,
    /// How often it was taken.
    runs: u32,
    /// It is to be replaced.
    is_outdated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    /// It waits, and gets something else ready.
    Preparing,
    Ready,
    /// Held, or at work.
    Taken {
        at: Instant,
        is_heard: bool,
    },
    /// On its way out.
    Leaving,
}

impl Member {
    fn waits(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Preparing | Stage::Ready)
    }

    fn is_taken(&self) -> bool {
        matches!(self.stage, Stage::Taken { .. })
    }
}

/// Why a host that is not at work is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dismissal {
    /// There are more than enough.
    Surplus,
    /// Another one takes its place.
    Recycled,
    /// There are to be none.
    Drained,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many hosts to start.
    pub(super) start: usize,
    /// Which hosts are to prepare what.
    pub(super) prepare: Vec<(HostNumber, Prepare)>,
    /// Which hosts to stop.
    pub(super) retire: Vec<(HostNumber, Dismissal)>,
    /// When to ask again, although nothing happens until then.
    pub(super) again_at: Option<Instant>,
}

impl Plan {
    fn ask_again(&mut self, at: Option<Instant>) {
        self.again_at = self.again_at.into_iter().chain(at).min();
    }
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
    pub(super) fn new(policy: Policy) -> Self {
        let (demand, health) = (Demand::default(), Health::default());
        Self { policy, members: BTreeMap::new(), demand, health, is_draining: false }
    }

    /// What to do while `waiting` callers wait for a host.
    pub(super) fn plan(&mut self, now: Instant, waiting: usize) -> Plan {
        let mut plan = Plan::default();
        if self.is_draining {
            let all = self.members.iter().filter(|(_, member)| member.waits());
            plan.retire = all.map(|(host, _)| (*host, Dismissal::Drained)).collect();
            return plan;
        }
        self.outdate_old(now, &mut plan);
        let wanted = self.wanted_hosts(waiting);
        let (outdated, current) = self.counted().partition::<Vec<_>, _>(|(_, member)| member.is_outdated);
        let all = outdated.len() + current.len();
        let missing = wanted.saturating_sub(current.len());
        let allowed = match outdated.len() {
            0 => missing,
            _ => (wanted + self.policy.recycling.surge()).saturating_sub(all),
        };
        plan.start = missing.min(allowed).min(self.allowed_by_health(now, missing, &mut plan));
        self.retire_outdated(wanted, &mut plan);
        if missing == 0 && waiting == 0 {
            self.retire_surplus(current.len() - wanted, now, &mut plan);
        }
        if waiting == 0 {
            match self.quiet_from(now) {
                None => self.balance(now, &mut plan),
                later => plan.ask_again(later),
            }
        }
        plan
    }

    /// How many hosts there are to be, of those that [`counted`](Self::counted) counts.
    fn wanted_hosts(&self, waiting: usize) -> usize {
        let wanted = match self.policy.size {
            PoolSize::OneRunEach { warm } => warm + waiting,
            PoolSize::Shared { least, most, .. } => {
                (self.count(Member::is_taken) + waiting).clamp(least.min(most), most)
            }
        };
        if !self.health.is_open() {
            return wanted;
        }
        // Nobody waits while the circuit is open, and a new host that gets ready closes it.
        let there = self.counted().filter(|(_, member)| member.stage != Stage::Starting && !member.is_outdated).count();
        let most = match self.policy.size {
            PoolSize::OneRunEach { .. } => usize::MAX,
            PoolSize::Shared { most, .. } => most,
        };
        wanted.max((there + 1).min(most))
    }

    /// The hosts that the size is about.
    fn counted(&self) -> impl Iterator<Item = (HostNumber, &Member)> {
        let with_taken = matches!(self.policy.size, PoolSize::Shared { .. });
        let counts = move |member: &Member| member.waits() || (with_taken && member.is_taken());
        self.members.iter().filter(move |(_, member)| counts(member)).map(|(host, member)| (*host, member))
    }

    fn count(&self, is_counted: impl Fn(&Member) -> bool) -> usize {
        self.members.values().filter(|member| is_counted(member)).count()
    }

    fn allowed_by_health(&self, now: Instant, missing: usize, plan: &mut Plan) -> usize {
        match self.health.delayed_until(now) {
            Some(time) if missing > 0 => {
                plan.ask_again(Some(time));
                0
            }
            _ if self.health.is_doubtful() => {
                1_usize.saturating_sub(self.count(|member| member.stage == Stage::Starting))
            }
            _ => usize::MAX,
        }
    }

    fn outdate_old(&mut self, now: Instant, plan: &mut Plan) {
        for member in self.members.values_mut().filter(|member| !member.is_outdated) {
            match member.expires {
                Some(time) if time <= now => member.is_outdated = true,
                later => plan.ask_again(later),
            }
        }
    }

    /// Lets go of outdated hosts: at once of those that are of no use yet, and of as many others as can be missed.
    fn retire_outdated(&self, wanted: usize, plan: &mut Plan) {
        let useless = |member: &Member| matches!(member.stage, Stage::Starting | Stage::Preparing);
        let available = self.counted().filter(|(_, member)| !useless(member)).count();
        let mut spare = available.saturating_sub(wanted.saturating_sub(self.policy.recycling.unavailable));
        for (host, member) in self.members.iter().filter(|(_, member)| member.is_outdated && member.waits()) {
            let goes = useless(member) || spare > 0;
            if member.stage == Stage::Ready && goes {
                spare -= 1;
            }
            if goes {
                plan.retire.push((*host, Dismissal::Recycled));
            }
        }
    }

    /// Lets go of hosts that are more than enough, those with the least to lose first.
    fn retire_surplus(&self, surplus: usize, now: Instant, plan: &mut Plan) {
        let mut idle: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Ready && !member.is_outdated)
            .map(|(host, member)| (member.prepared.as_ref().is_some_and(|key| !is_cheap(key)), *host, member))
            .collect();
        idle.sort_by_key(|(has_something, host, _)| (*has_something, std::cmp::Reverse(*host)));
        for (_, host, member) in idle.into_iter().take(surplus) {
            let until = match self.policy.size {
                PoolSize::Shared { most, idle, .. } if self.counted().count() <= most => {
                    member.idle_since.map(|since| since + idle).filter(|time| *time > now)
                }
                _ => None,
            };
            match until {
                None => plan.retire.push((host, Dismissal::Surplus)),
                later => plan.ask_again(later),
            }
        }
    }

    /// Has hosts prepare what runs are likely to want, and lets go of those that nobody wants.
    fn balance(&self, now: Instant, plan: &mut Plan) {
        let room = self.policy.size.target();
        let shares = self.demand.allot(room, self.policy.warm_bytes, |wanted| self.prepared_for(wanted), now);
        let share = |wanted: &Prepare| shares.iter().find(|(key, _)| key == wanted).map_or(0, |(_, hosts)| *hosts);
        let mut free = self.free(share);
        let preparing = self.count(|member| member.stage == Stage::Preparing);
        let mut room = self.policy.preparations.saturating_sub(preparing);
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
        // A host that is about to come is free, too; and one change at a time is enough.
        let is_settled = plan.start == 0 && self.count(|member| member.stage == Stage::Starting) == 0;
        if !is_settled || !plan.retire.is_empty() {
            return;
        }
        let surplus = self.members.iter().find(|(_, member)| {
            let Some(prepared) = member.prepared.as_ref().filter(|prepared| !is_cheap(prepared)) else { return false };
            let is_surplus = member.stage == Stage::Ready && self.prepared_for(prepared) > share(prepared);
            is_surplus && (is_starved || !self.demand.remembers(prepared, now))
        });
        plan.retire.extend(surplus.map(|(host, _)| (*host, Dismissal::Surplus)));
    }

    /// Hosts that wait with nothing prepared, or with something that is ready again in no time; the best one last.
    fn free(&self, share: impl Fn(&Prepare) -> usize) -> Vec<HostNumber> {
        let rank = |member: &Member| match &member.prepared {
            _ if member.stage != Stage::Ready || member.is_outdated => None,
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

    fn prepared_for(&self, wanted: &Prepare) -> usize {
        self.count(|member| member.waits() && !member.is_outdated && member.prepared.as_ref() == Some(wanted))
    }

    /// A run wants this.
    pub(super) fn wanted(&mut self, wanted: &Prepare, now: Instant) {
        self.demand.wanted(wanted, now);
    }

    /// A host is being started. `roll` in 0..1 spreads ages. Returns what it is to prepare.
    pub(super) fn started(&mut self, host: HostNumber, now: Instant, roll: f64) -> Option<Prepare> {
        let prepared = self.policy.first.clone();
        let member = Member {
            stage: Stage::Starting,
            prepared: prepared.clone(),
            ready_since: None,
            idle_since: None,
            expires: self.policy.recycling.lifetime(roll).map(|lifetime| now + lifetime),
            runs: 0,
            is_outdated: false,
        };
        self.members.insert(host, member);
        prepared
    }

    /// A host is ready, which closes the circuit.
    pub(super) fn ready(&mut self, host: HostNumber, now: Instant) {
        if let Some(member) = self.members.get_mut(&host) {
            if matches!(member.stage, Stage::Starting | Stage::Preparing) {
                member.stage = Stage::Ready;
            }
            member.ready_since.get_or_insert(now);
            member.idle_since.get_or_insert(now);
        }
        self.health.ready();
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

    /// A host takes this much memory.
    pub(super) fn measured(&mut self, host: HostNumber, bytes: u64) {
        let Some(member) = self.members.get_mut(&host) else { return };
        member.is_outdated |= self.policy.recycling.max_bytes.is_some_and(|most| bytes > most);
        if let Some(prepared) = member.prepared.as_ref().filter(|_| member.waits()) {
            self.demand.measured(prepared, bytes);
        }
    }

    /// The best host, which is from now on taken: one that has prepared what is `wanted`, else one that has nothing to
    /// lose; of several the one that has been ready the longest, and one that is to be replaced only if there is no
    /// other.
    pub(super) fn take(&mut self, wanted: Option<&Prepare>, now: Instant) -> Option<Taken> {
        let rank = |member: &Member| match (&member.prepared, member.stage) {
            _ if self.is_draining => None,
            (prepared, Stage::Ready) if prepared.as_ref() == wanted => Some(0),
            (prepared, Stage::Preparing) if prepared.as_ref() == wanted => Some(1),
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
        member.stage = Stage::Taken { at: now, is_heard: wanted.is_none() };
        member.prepared = wanted.cloned();
        member.runs += 1;
        Some(Taken { host, is_prepared: rank < 2 })
    }

    /// The best ready host for who borrows one: one that has loaded what is `wanted`, else one that has nothing to lose,
    /// else any. It is from then on taken.
    pub(super) fn take_to_lend(&mut self, wanted: Option<&Prepare>, now: Instant) -> Option<HostNumber> {
        if self.is_draining {
            return None;
        }
        let rank = |member: &Member| match &member.prepared {
            prepared if prepared.as_ref() == wanted => 0,
            None => 1,
            Some(prepared) if is_cheap(prepared) => 2,
            Some(_) => 3,
        };
        let ready = self.members.iter().filter(|(_, member)| member.stage == Stage::Ready);
        let ranked = ready.map(|(host, member)| (member.is_outdated, rank(member), member.ready_since, *host));
        let (.., host) = ranked.min()?;
        let member = self.members.get_mut(&host)?;
        member.stage = Stage::Taken { at: now, is_heard: true };
        member.runs += 1;
        Some(host)
    }

    /// A host that was taken comes back, `used` or not. What was wanted of it, it has or is at.
    pub(super) fn give_back(&mut self, host: HostNumber, used: bool, now: Instant) {
        let Some(member) = self.members.get_mut(&host).filter(|member| member.is_taken()) else { return };
        member.stage = Stage::Ready;
        if used {
            // What it had loaded was for this use.
            member.prepared = None;
            member.idle_since = Some(now);
            self.health.worked();
        } else {
            member.runs -= 1;
        }
        member.is_outdated |= self.policy.recycling.max_runs.is_some_and(|most| member.runs >= most);
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

    /// Those that are on their way out.
    pub(super) fn leaving_hosts(&self) -> BTreeSet<HostNumber> {
        let leaving = self.members.iter().filter(|(_, member)| member.stage == Stage::Leaving);
        leaving.map(|(host, _)| *host).collect()
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

    /// All hosts are to be replaced. Returns which.
    pub(super) fn recycle(&mut self) -> BTreeSet<HostNumber> {
        let there = self.members.iter_mut().filter(|(_, member)| member.stage != Stage::Leaving);
        let outdate = |(host, member): (&HostNumber, &mut Member)| {
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
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
