//! How many hosts to start, and when: policy without I/O.
//!
//! A pool wants some hosts ready beyond those that are at work, plus one for each run that waits. Hosts that fail
//! before they get a run slow it down: the first one is replaced at once, later ones after a delay that doubles; after
//! [`CIRCUIT_LIMIT`] in a row the circuit opens, and nobody is kept waiting for hosts that do not come. A host that
//! gets ready closes it, and a run that was executed clears the record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Delay before the third start when two in a row have failed.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest delay between two starts.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How long a host has to have been ready for its death to be a matter of its own.
const STABLE: Duration = Duration::from_secs(10);
/// This many failures in a row open the circuit.
const CIRCUIT_LIMIT: u32 = 8;

/// Number of a host, in the order of starts.
pub(super) type HostNumber = u64;

/// The hosts of a pool as far as policy goes.
#[derive(Debug)]
pub(super) struct Pool {
    warm: usize,
    members: BTreeMap<HostNumber, Member>,
    health: Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Starting,
    Ready(Instant),
    /// Held by a caller, at work, or on its way out.
    Taken(Instant),
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many hosts to start.
    pub(super) start: usize,
    /// When to ask again, although nothing happens until then.
    pub(super) again_at: Option<Instant>,
}

impl Pool {
    /// A pool that keeps `warm` hosts ready.
    pub(super) fn new(warm: usize) -> Self {
        Self { warm, members: BTreeMap::new(), health: Health::default() }
    }

    /// What to do while `waiting` runs wait for a host.
    pub(super) fn plan(&self, now: Instant, waiting: usize) -> Plan {
        let coming = self.members.values().filter(|member| !matches!(member, Member::Taken(_))).count();
        let missing = (self.warm + waiting).saturating_sub(coming);
        let allowed = match self.health.not_before {
            Some(time) if missing > 0 && time > now => return Plan { start: 0, again_at: Some(time) },
            _ if self.health.is_doubtful() => 1_usize.saturating_sub(self.starting()),
            _ => missing,
        };
        Plan { start: missing.min(allowed), again_at: None }
    }

    /// A host is being started.
    pub(super) fn started(&mut self, host: HostNumber) {
        self.members.insert(host, Member::Starting);
    }

    /// A host is ready. Returns whether that closes the circuit.
    pub(super) fn ready(&mut self, host: HostNumber, now: Instant) -> bool {
        if let Some(member) = self.members.get_mut(&host) {
            *member = Member::Ready(now);
        }
        std::mem::take(&mut self.health.is_open)
    }

    /// The host that has been ready the longest, which is from now on taken.
    pub(super) fn take(&mut self) -> Option<HostNumber> {
        let ready = self.members.iter_mut().filter_map(|(host, member)| match member {
            Member::Ready(since) => Some((*since, *host, member)),
            _ => None,
        });
        let (since, host, member) = ready.min_by_key(|(since, host, _)| (*since, *host))?;
        *member = Member::Taken(since);
        Some(host)
    }

    /// A host that was taken comes back unused.
    pub(super) fn give_back(&mut self, host: HostNumber) {
        if let Some(member @ Member::Taken(_)) = self.members.get_mut(&host)
            && let Member::Taken(since) = *member
        {
            *member = Member::Ready(since);
        }
    }

    /// A host has executed a run: hosts work.
    pub(super) fn finished_run(&mut self) {
        self.health = Health::default();
    }

    /// A host is dead. `roll` in 0..1 spreads delays. Returns whether that opens the circuit.
    pub(super) fn died(&mut self, host: HostNumber, is_failure: bool, now: Instant, roll: f64) -> bool {
        let was_stable = match self.members.remove(&host) {
            Some(Member::Ready(since) | Member::Taken(since)) => now.saturating_duration_since(since) >= STABLE,
            _ => false,
        };
        is_failure && self.health.failed(was_stable, now, roll)
    }

    /// Whether hosts die so often that waiting for one is of no use.
    pub(super) fn is_open(&self) -> bool {
        self.health.is_open
    }

    fn starting(&self) -> usize {
        self.members.values().filter(|member| **member == Member::Starting).count()
    }
}

/// Whether hosts can be had.
#[derive(Debug, Default)]
struct Health {
    /// Failures since the last run that was executed.
    failures: u32,
    /// When the next host may be started.
    not_before: Option<Instant>,
    is_open: bool,
}

impl Health {
    /// Whether one host at a time is enough to see if it is better now.
    fn is_doubtful(&self) -> bool {
        self.failures > 1
    }

    fn failed(&mut self, was_stable: bool, now: Instant, roll: f64) -> bool {
        // Several that die at once are one failure.
        if self.not_before.is_some_and(|time| time > now) {
            return false;
        }
        self.failures = if was_stable { 1 } else { self.failures.saturating_add(1) };
        self.not_before = Some(now + delay(self.failures, roll));
        let opens = self.failures >= CIRCUIT_LIMIT && !self.is_open;
        self.is_open |= opens;
        opens
    }
}

/// Time between the last of `failures` in a row and the next start: half of it fixed, half by chance.
fn delay(failures: u32, roll: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(2) else {
        return Duration::ZERO;
    };
    let full = 2_u32.checked_pow(doublings).map_or(LONGEST_DELAY, |factor| FIRST_DELAY.saturating_mul(factor));
    full.min(LONGEST_DELAY).mul_f64(0.5 + 0.5 * roll.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of two with a clock.
    struct Bench {
        pool: Pool,
        start: Instant,
        ms: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { pool: Pool::new(2), start: Instant::now(), ms: 0 }
        }

        fn at(&mut self, ms: u64) -> &mut Self {
            self.ms = ms;
            self
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.ms)
        }

        fn ready(&mut self, host: HostNumber) -> bool {
            self.pool.started(host);
            self.pool.ready(host, self.now())
        }

        fn fail(&mut self, host: HostNumber) -> bool {
            self.pool.started(host);
            self.die(host)
        }

        fn die(&mut self, host: HostNumber) -> bool {
            self.pool.died(host, true, self.now(), 1.0)
        }

        #[track_caller]
        fn wants(&self, waiting: usize, start: usize, again_ms: Option<u64>) {
            let again_at = again_ms.map(|ms| self.start + Duration::from_millis(ms));
            assert_eq!(self.pool.plan(self.now(), waiting), Plan { start, again_at });
        }
    }

    #[test]
    fn keeps_spares_ready_beyond_what_is_taken_and_wanted() {
        let mut bench = Bench::new();
        bench.wants(0, 2, None);
        bench.wants(3, 5, None);
        bench.pool.started(1);
        bench.wants(0, 1, None);
        bench.ready(2);
        bench.wants(0, 0, None);
        assert_eq!(bench.pool.take(), Some(2));
        bench.wants(0, 1, None);
        bench.pool.give_back(2);
        bench.wants(0, 0, None);
    }

    #[test]
    fn takes_the_one_that_waits_longest_and_never_one_twice() {
        let mut bench = Bench::new();
        assert_eq!(bench.pool.take(), None);
        bench.at(20).ready(1);
        bench.at(10).ready(2);
        bench.pool.started(3);
        assert_eq!(bench.pool.take(), Some(2));
        assert_eq!(bench.pool.take(), Some(1));
        assert_eq!(bench.pool.take(), None);
        bench.pool.give_back(9);
        assert_eq!(bench.pool.take(), None);
    }

    #[test]
    fn replaces_the_first_failure_at_once_and_the_next_ones_ever_later() {
        let mut bench = Bench::new();
        bench.fail(1);
        bench.wants(0, 2, None);
        bench.fail(2);
        bench.wants(0, 0, Some(100));
        bench.at(50).fail(3);
        bench.wants(0, 0, Some(100));
        bench.at(100).wants(0, 1, None);
        bench.fail(4);
        bench.wants(0, 0, Some(300));
    }

    #[test]
    fn delays_double_up_to_a_limit_and_are_spread() {
        let table = [(0, 0), (1, 0), (2, 100), (3, 200), (8, 6_400), (9, 10_000), (500, 10_000)];
        for (failures, ms) in table {
            assert_eq!(delay(failures, 1.0), Duration::from_millis(ms), "{failures}");
            assert_eq!(delay(failures, 0.0), Duration::from_millis(ms) / 2, "{failures}");
        }
    }

    #[test]
    fn an_executed_run_clears_the_record() {
        let mut bench = Bench::new();
        bench.fail(1);
        bench.fail(2);
        bench.pool.finished_run();
        bench.wants(0, 2, None);
    }

    #[test]
    fn the_death_of_a_long_ready_host_starts_a_new_record() {
        let mut bench = Bench::new();
        bench.fail(1);
        bench.ready(2);
        bench.at(10_000).die(2);
        bench.wants(0, 2, None);
        bench.ready(3);
        bench.at(10_100).die(3);
        bench.wants(0, 0, Some(10_200));
    }

    #[test]
    fn deaths_in_runs_are_no_failures() {
        let mut bench = Bench::new();
        for host in 0..50 {
            bench.ready(host);
            assert!(!bench.pool.died(host, false, bench.now(), 1.0));
        }
        bench.wants(0, 2, None);
    }

    #[test]
    fn the_circuit_opens_once_and_closes_by_a_host_that_gets_ready() {
        let mut bench = Bench::new();
        let opened: Vec<bool> = (0..12).map(|host| bench.at(host * 20_000).fail(host)).collect();
        assert_eq!(opened.iter().position(|opens| *opens), Some(CIRCUIT_LIMIT as usize - 1));
        assert_eq!(opened.iter().filter(|opens| **opens).count(), 1);
        assert!(bench.pool.is_open());
        bench.at(300_000).wants(4, 1, None);
        assert!(bench.ready(20), "closes it");
        assert!(!bench.ready(21), "was closed");
        assert!(!bench.pool.is_open());
        assert!(bench.fail(22), "one more failure opens it again");
    }
}
