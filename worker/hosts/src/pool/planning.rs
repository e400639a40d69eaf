//! Which hosts to start, to prepare and to let go.

use std::time::{Duration, Instant};

use protocol::message::Prepare;

use super::{HostNumber, Member, Pool, Stage};
use crate::demand::is_cheap;
use crate::policy::PoolSize;

/// How long a run of which nothing was heard yet keeps preparations off the processor.
const RUN_FIRST: Duration = Duration::from_secs(2);

/// Why a host that is not at work is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dismissal {
    /// There are more than enough.
    Surplus,
    /// Another one takes its place.
    Recycled,
    /// There are to be none.
    Drained,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How many hosts to start.
    pub(crate) start: usize,
    /// Which hosts are to prepare what.
    pub(crate) prepare: Vec<(HostNumber, Prepare)>,
    /// Which hosts to stop.
    pub(crate) retire: Vec<(HostNumber, Dismissal)>,
    /// When to ask again, although nothing happens until then.
    pub(crate) again_at: Option<Instant>,
}

impl Plan {
    fn ask_again(&mut self, at: Option<Instant>) {
        self.again_at = self.again_at.into_iter().chain(at).min();
    }
}

impl<H> Pool<H> {
    /// What to do while `waiting` callers wait for a host.
    pub(crate) fn plan(&mut self, now: Instant, waiting: usize) -> Plan {
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
        let useless = |member: &Member<H>| matches!(member.stage, Stage::Starting | Stage::Preparing { .. });
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
        let preparing = self.count(|member| matches!(member.stage, Stage::Preparing { .. }));
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
        let rank = |member: &Member<H>| match &member.prepared {
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
            Stage::Reserved { unheard_since } | Stage::Running { unheard_since, .. } => {
                Some(unheard_since? + RUN_FIRST)
            }
            _ => None,
        });
        unheard.filter(|time| *time > now).max()
    }
}
