//! What runs have wanted of late, and which of it is worth keeping ready: policy without I/O.
//!
//! Each want counts one, and half of that after [`HALF_LIFE`], so that what is wanted often and what was wanted last
//! both count. Every key that counts gets one host, best first; what is left of the room goes to the busiest keys in
//! proportion. Memory is bounded by a budget, with what such hosts were measured to take.

use std::time::{Duration, Instant};

use protocol::engine::EngineSpec;
use protocol::message::Prepare;

/// Time after which a want counts half.
const HALF_LIFE: Duration = Duration::from_secs(5 * 60);
/// A key that counts less is forgotten: one that was wanted once half an hour ago.
const LEAST: f64 = 1.0 / 64.0;
/// What a key that has hosts ready counts more, so that two keys do not take each other's place again and again.
const HELD: f64 = 1.0;
/// How many keys are remembered.
const MOST_KEYS: usize = 64;
/// How long a key whose engine could not be prepared is not prepared ahead of a run.
const PENALTY: Duration = Duration::from_secs(60);

/// What runs have wanted of late.
#[derive(Debug, Default)]
pub(super) struct Demand {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    wanted: Prepare,
    weight: f64,
    /// When it weighed that.
    at: Instant,
    /// Memory of a host that has prepared it, where that was measured.
    bytes: Option<u64>,
    /// It is not to be prepared ahead before that.
    not_before: Option<Instant>,
}

impl Key {
    fn weight(&self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.weight * 0.5_f64.powf(half_lives)
    }

    fn bytes(&self) -> u64 {
        self.bytes.unwrap_or_else(|| usual_bytes(&self.wanted))
    }
}

impl Demand {
    /// A run wants this.
    pub(super) fn wanted(&mut self, wanted: &Prepare, now: Instant) {
        self.keys.retain(|key| key.weight(now) >= LEAST);
        if let Some(key) = self.keys.iter_mut().find(|key| key.wanted == *wanted) {
            (key.weight, key.at) = (key.weight(now) + 1.0, now);
            return;
        }
        if self.keys.len() >= MOST_KEYS {
            let lightest = (0..self.keys.len()).min_by(|a, b| self.weight(*a, now).total_cmp(&self.weight(*b, now)));
            lightest.map(|lightest| self.keys.swap_remove(lightest));
        }
        self.keys.push(Key { wanted: wanted.clone(), weight: 1.0, at: now, bytes: None, not_before: None });
    }

    fn weight(&self, index: usize, now: Instant) -> f64 {
        self.keys[index].weight(now)
    }

    /// A host that has prepared this takes so much memory.
    pub(super) fn measured(&mut self, wanted: &Prepare, bytes: u64) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.wanted == *wanted) {
            key.bytes = Some(bytes);
        }
    }

    /// Whether a measurement of such a host would be news.
    pub(super) fn is_unmeasured(&self, wanted: &Prepare) -> bool {
        self.keys.iter().any(|key| key.wanted == *wanted && key.bytes.is_none())
    }

    /// Whether anybody has wanted this of late.
    pub(super) fn remembers(&self, wanted: &Prepare, now: Instant) -> bool {
        self.keys.iter().any(|key| key.wanted == *wanted && key.weight(now) >= LEAST)
    }

    /// An engine for this could not be prepared.
    pub(super) fn failed(&mut self, wanted: &Prepare, now: Instant) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.wanted == *wanted) {
            key.not_before = Some(now + PENALTY);
        }
    }

    /// How many hosts of each key are to be ready, of `room` hosts at most, in `budget` bytes. `held` says how many
    /// there are. The most wanted key comes first.
    pub(super) fn allot(
        &self,
        room: usize,
        mut budget: u64,
        held: impl Fn(&Prepare) -> usize,
        now: Instant,
    ) -> Vec<(Prepare, usize)> {
        let mut shares: Vec<Share<'_>> = self
            .keys
            .iter()
            .filter(|key| key.not_before.is_none_or(|time| time <= now))
            .map(|key| Share { key, weight: key.weight(now), hosts: 0, bonus: 0.0 })
            .filter(|share| share.weight >= LEAST)
            .collect();
        for share in &mut shares {
            share.bonus = if held(&share.key.wanted) > 0 { HELD } else { 0.0 };
        }
        shares.sort_by(|a, b| (b.weight + b.bonus).total_cmp(&(a.weight + a.bonus)));
        for _ in 0..room {
            let affordable = shares.iter_mut().filter(|share| share.key.bytes() <= budget);
            // Of equals the last one is the greatest, so the order is turned round for the first to win.
            let Some(best) = affordable.rev().max_by(|a, b| a.merit().total_cmp(&b.merit())) else { break };
            best.hosts += 1;
            budget -= best.key.bytes();
        }
        shares.iter().filter(|share| share.hosts > 0).map(|share| (share.key.wanted.clone(), share.hosts)).collect()
    }
}

/// What a key gets.
#[derive(Debug)]
struct Share<'a> {
    key: &'a Key,
    weight: f64,
    bonus: f64,
    hosts: usize,
}

impl Share<'_> {
    /// How much the key deserves one more host.
    fn merit(&self) -> f64 {
        match u32::try_from(self.hosts) {
            Ok(0) => f64::INFINITY,
            hosts => self.weight / (f64::from(hosts.unwrap_or(u32::MAX)) + 1.0),
        }
    }
}

/// Whether an engine for this is ready in no time, so that there is nothing to lose in dropping one.
pub(super) fn is_cheap(wanted: &Prepare) -> bool {
    matches!(wanted.engine, EngineSpec::Embedded)
}

/// Memory of a host that has prepared this and was never measured.
fn usual_bytes(wanted: &Prepare) -> u64 {
    const MB: u64 = 1024 * 1024;
    match wanted.engine {
        EngineSpec::Embedded => 8 * MB,
        EngineSpec::Node(_) | EngineSpec::Handler(_) => 80 * MB,
    }
}

#[cfg(test)]
mod tests {
    use protocol::engine::{ForkOrigin, NodeSpec};

    use super::*;

    const MB: u64 = 1024 * 1024;

    fn key(name: &str) -> Prepare {
        let node = NodeSpec {
            program: name.into(),
            version: "24.4.0".into(),
            adaptors: Vec::new(),
            snapshot: None,
            origin: ForkOrigin::default(),
        };
        Prepare { engine: EngineSpec::Node(node), memory_bytes: 500 * MB }
    }

    /// What is allotted after these wants, a second apart.
    #[track_caller]
    fn allots(wants: &str, room: usize, budget_mb: u64, expected: &[(&str, usize)]) {
        let (mut demand, start) = (Demand::default(), Instant::now());
        let mut now = start;
        for name in wants.split_whitespace() {
            demand.wanted(&key(name), now);
            now += Duration::from_secs(1);
        }
        let found = demand.allot(room, budget_mb * MB, |_| 0, now);
        let expected: Vec<_> = expected.iter().map(|(name, hosts)| (key(name), *hosts)).collect();
        assert_eq!(found, expected, "{wants}");
    }

    #[test]
    fn the_most_and_latest_wanted_keys_get_hosts_within_the_budget() {
        allots("", 5, 1_000, &[]);
        allots("a", 5, 1_000, &[("a", 5)]);
        allots("a b", 1, 1_000, &[("b", 1)]);
        allots("a a b", 1, 1_000, &[("a", 1)]);
        allots("a b c", 2, 1_000, &[("c", 1), ("b", 1)]);
        allots("a a a a a a b", 5, 1_000, &[("a", 4), ("b", 1)]);
        allots("a a b b", 4, 1_000, &[("b", 2), ("a", 2)]);
        allots("a b", 5, 170, &[("b", 1), ("a", 1)]);
        allots("a b", 5, 79, &[]);
        allots("a", 0, 1_000, &[]);
    }

    #[test]
    fn what_was_measured_counts_against_the_budget() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.wanted(&key("a"), now);
        assert!(demand.is_unmeasured(&key("a")) && !demand.is_unmeasured(&key("b")));
        demand.measured(&key("a"), 30 * MB);
        assert!(!demand.is_unmeasured(&key("a")));
        assert_eq!(demand.allot(9, 100 * MB, |_| 0, now), [(key("a"), 3)]);
    }

    #[test]
    fn a_key_is_forgotten_when_nobody_has_wanted_it_for_long() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        demand.wanted(&key("a"), start);
        let hosts =
            |demand: &Demand, half_lives| demand.allot(1, u64::MAX, |_| 0, start + HALF_LIFE * half_lives).len();
        assert_eq!(hosts(&demand, 5), 1);
        assert_eq!(hosts(&demand, 7), 0);
        demand.wanted(&key("b"), start + HALF_LIFE * 7);
        assert_eq!(demand.keys.len(), 1);
    }

    #[test]
    fn a_key_that_has_hosts_yields_only_to_one_that_is_wanted_clearly_more() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        let held = |wanted: &Prepare| usize::from(*wanted == key("a"));
        demand.wanted(&key("a"), now);
        demand.wanted(&key("b"), now);
        demand.wanted(&key("b"), now);
        let first = |demand: &Demand| demand.allot(1, u64::MAX, held, now)[0].0.clone();
        assert_eq!(first(&demand), key("a"));
        demand.wanted(&key("b"), now);
        assert_eq!(first(&demand), key("b"));
    }

    #[test]
    fn what_could_not_be_prepared_is_left_alone_for_a_while() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.wanted(&key("a"), now);
        demand.failed(&key("a"), now);
        assert_eq!(demand.allot(1, u64::MAX, |_| 0, now), []);
        assert_eq!(demand.allot(1, u64::MAX, |_| 0, now + PENALTY).len(), 1);
    }

    #[test]
    fn a_key_that_failed_costs_no_other_and_is_still_remembered() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        assert!(!demand.remembers(&key("a"), now));
        demand.wanted(&key("a"), now);
        demand.wanted(&key("b"), now);
        demand.failed(&key("a"), now);
        demand.failed(&key("c"), now);
        let moment = Duration::from_millis(1);
        let keys = |now| demand.allot(9, u64::MAX, |_| 0, now).into_iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(keys(now + PENALTY - moment), [key("b")]);
        assert_eq!(keys(now + PENALTY).len(), 2);
        assert!(demand.remembers(&key("a"), now) && !demand.remembers(&key("c"), now));
        assert!(demand.remembers(&key("a"), now + 6 * HALF_LIFE), "it just counts");
        assert!(!demand.remembers(&key("a"), now + 6 * HALF_LIFE + moment));
    }

    #[test]
    fn what_was_wanted_again_counts_from_then_on() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.wanted(&key("a"), now);
        demand.wanted(&key("a"), now + HALF_LIFE);
        assert_eq!(demand.weight(0, now + HALF_LIFE), 1.5);
        assert_eq!(demand.weight(0, now + 2 * HALF_LIFE), 0.75);
        demand.measured(&key("a"), 3);
        demand.wanted(&key("a"), now + 2 * HALF_LIFE);
        assert!(!demand.is_unmeasured(&key("a")), "what was measured stays so");
    }

    #[test]
    fn hosts_of_an_embedded_engine_are_cheap() {
        let embedded = Prepare { engine: EngineSpec::Embedded, memory_bytes: 500 * MB };
        assert!(is_cheap(&embedded) && !is_cheap(&key("a")));
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.wanted(&embedded, now);
        assert_eq!(demand.allot(9, 25 * MB, |_| 0, now), [(embedded.clone(), 3)]);
        demand.wanted(&key("a"), now);
        assert_eq!(demand.allot(9, 79 * MB, |_| 0, now), [(embedded, 9)], "what does not fit costs others nothing");
    }

    #[test]
    fn no_more_keys_are_remembered_than_there_is_room_for() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.wanted(&key("often"), now);
        for number in 0..1_000 {
            demand.wanted(&key("often"), now);
            demand.wanted(&key(&number.to_string()), now);
        }
        assert_eq!(demand.keys.len(), MOST_KEYS);
        assert_eq!(demand.allot(1, u64::MAX, |_| 0, now)[0].0, key("often"));
    }
}
