use protocol::engine::{EngineSpec, ForkOrigin, NodeSpec};

use super::super::policy::Recycling;
use super::planning::Plan;
use super::*;

const MB: u64 = 1024 * 1024;

fn embedded() -> Prepare {
    Prepare { engine: EngineSpec::Embedded, memory_bytes: 500 * MB }
}

fn node(name: &str) -> Prepare {
    let node = NodeSpec {
        program: name.into(),
        version: "24.4.0".into(),
        adaptors: Vec::new(),
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    Prepare { engine: EngineSpec::Node(node), memory_bytes: 500 * MB }
}

/// A pool of two with a clock.
struct Bench {
    pool: Pool<()>,
    start: Instant,
    ms: u64,
}

impl Bench {
    /// Hosts prepare the embedded engine as they start.
    fn embedded() -> Self {
        Self::with(Some(embedded()))
    }

    /// Hosts prepare nothing as they start.
    fn unkeyed() -> Self {
        Self::with(None)
    }

    fn with(first: Option<Prepare>) -> Self {
        Self::of(PoolSize::OneRunEach { warm: 2 }, first, Recycling::default())
    }

    /// Hosts are lent again and again: one at least, three at most.
    fn shared() -> Self {
        let size = PoolSize::Shared { least: 1, most: 3, idle: Duration::from_secs(10) };
        Self::of(size, None, Recycling::default())
    }

    fn of(size: PoolSize, first: Option<Prepare>, recycling: Recycling) -> Self {
        let policy = Policy { size, warm_bytes: 1_000 * MB, first, preparations: 1, recycling };
        Self { pool: Pool::new(policy), start: Instant::now(), ms: 0 }
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.ms = ms;
        self
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn starts(&mut self, host: HostNumber) {
        self.pool.started(host, (), self.now(), 0.0);
    }

    fn ready(&mut self, host: HostNumber) {
        self.starts(host);
        self.pool.ready(host, self.now());
    }

    /// A host that waits with this engine.
    fn keyed(&mut self, host: HostNumber, wanted: &Prepare) {
        self.ready(host);
        self.pool.preparing(host, wanted.clone(), self.now());
        self.pool.ready(host, self.now());
    }

    /// A run comes, takes a host and reports something.
    fn run(&mut self, wanted: &Prepare) -> Option<(HostNumber, bool)> {
        self.pool.wanted(wanted, self.now());
        let taken = self.pool.take(wanted, self.now())?;
        self.pool.heard(taken.host);
        Some((taken.host, taken.is_prepared))
    }

    fn fail(&mut self, host: HostNumber) -> bool {
        self.starts(host);
        self.die(host)
    }

    fn die(&mut self, host: HostNumber) -> bool {
        self.pool.died(host, true, self.now(), 1.0)
    }

    fn plan(&mut self) -> Plan {
        self.pool.plan(self.now(), 0)
    }

    #[track_caller]
    fn wants(&mut self, waiting: usize, start: usize, again_ms: Option<u64>) {
        let again_at = again_ms.map(|ms| self.start + Duration::from_millis(ms));
        let plan = self.pool.plan(self.now(), waiting);
        assert_eq!(plan, Plan { start, again_at, ..Plan::default() });
    }
}

#[test]
fn keeps_spares_ready_beyond_what_is_taken_and_wanted() {
    let mut bench = Bench::embedded();
    bench.wants(0, 2, None);
    bench.wants(3, 5, None);
    bench.starts(1);
    bench.wants(0, 1, None);
    bench.ready(2);
    bench.wants(0, 0, None);
    assert_eq!(bench.run(&embedded()), Some((2, true)));
    bench.wants(0, 1, None);
    bench.pool.give_back(2, false, bench.now());
    bench.wants(0, 0, None);
}

#[test]
fn takes_the_one_that_waits_longest_and_never_one_twice() {
    let mut bench = Bench::embedded();
    assert_eq!(bench.run(&embedded()), None);
    bench.at(20).ready(1);
    bench.at(10).ready(2);
    bench.starts(3);
    for expected in [Some((2, true)), Some((1, true)), None] {
        assert_eq!(bench.run(&embedded()), expected);
    }
    bench.pool.give_back(9, false, bench.now());
    assert_eq!(bench.run(&embedded()), None);
}

#[test]
fn takes_what_is_prepared_before_what_is_being_prepared_before_what_is_not() {
    let mut bench = Bench::unkeyed();
    bench.ready(1);
    bench.ready(2);
    bench.pool.preparing(2, node("a"), bench.now());
    bench.keyed(3, &node("a"));
    bench.keyed(0, &node("b"));
    bench.keyed(5, &embedded());
    for expected in [Some((3, true)), Some((2, true)), Some((1, false)), Some((5, false)), None] {
        assert_eq!(bench.run(&node("a")), expected);
    }
    assert_eq!(bench.run(&node("b")), Some((0, true)));
}

#[test]
fn the_status_tells_of_each_host_what_it_does() {
    let mut bench = Bench::embedded();
    bench.ready(1);
    bench.ready(2);
    bench.starts(3);
    let tell = |bench: &Bench| {
        let status = bench.pool.status(bench.now()).into_iter();
        status.map(|host| (host.state.as_str(), host.run, host.runs)).collect::<Vec<_>>()
    };
    let (ready, starting) = (("ready", None, 0), ("starting", None, 0));
    assert_eq!(tell(&bench), [ready.clone(), ready.clone(), starting.clone()]);
    bench.run(&embedded());
    assert_eq!(tell(&bench), [("reserved", None, 0), ready.clone(), starting.clone()]);
    bench.pool.running(1, "r".into());
    assert_eq!(tell(&bench), [("running", Some("r".to_owned()), 1), ready, starting]);
}

#[test]
fn an_idle_host_prepares_what_was_wanted_one_at_a_time() {
    let mut bench = Bench::unkeyed();
    bench.ready(1);
    assert_eq!(bench.run(&node("a")), Some((1, false)));
    bench.ready(2);
    bench.ready(3);
    let prepare = |host| Plan { prepare: vec![(host, node("a"))], ..Plan::default() };
    assert_eq!(bench.plan(), prepare(3));
    bench.pool.preparing(3, node("a"), bench.now());
    assert_eq!(bench.plan(), Plan::default());
    bench.pool.ready(3, bench.now());
    assert_eq!(bench.plan(), prepare(2));
}

#[test]
fn nothing_is_prepared_while_a_run_waits_or_is_not_heard_of() {
    let mut bench = Bench::unkeyed();
    for host in 1..=3 {
        bench.ready(host);
    }
    bench.pool.wanted(&node("a"), bench.now());
    bench.wants(1, 0, None);
    let taken = bench.pool.take(&node("a"), bench.now()).unwrap();
    bench.wants(0, 0, Some(2_000));
    bench.pool.heard(taken.host);
    assert_eq!(bench.plan().prepare.len(), 1);
    bench.at(100);
    assert!(bench.pool.take(&node("a"), bench.now()).is_some());
    bench.at(2_100);
    assert_eq!(bench.plan().prepare.len(), 1, "a run that says nothing does not stop it for ever");
}

#[test]
fn a_host_of_a_key_that_is_wanted_less_makes_way_for_one_that_has_none() {
    let mut bench = Bench::unkeyed();
    bench.pool.wanted(&node("a"), bench.now());
    bench.keyed(1, &node("a"));
    bench.keyed(2, &node("a"));
    assert_eq!(bench.plan(), Plan::default());
    for _ in 0..3 {
        bench.pool.wanted(&node("b"), bench.now());
    }
    assert_eq!(bench.plan(), Plan { retire: vec![(1, Dismissal::Surplus)], ..Plan::default() });
    bench.pool.leaving(1);
    assert_eq!(bench.plan(), Plan { start: 1, ..Plan::default() });
    bench.ready(3);
    assert_eq!(bench.plan(), Plan { prepare: vec![(3, node("b"))], ..Plan::default() });
}

#[test]
fn a_host_that_nobody_has_wanted_for_long_is_let_go() {
    let mut bench = Bench::unkeyed();
    bench.run(&node("a"));
    bench.keyed(1, &node("a"));
    bench.keyed(2, &node("a"));
    assert_eq!(bench.plan(), Plan::default());
    assert_eq!(bench.at(3_600_000).plan(), Plan { retire: vec![(1, Dismissal::Surplus)], ..Plan::default() });
}

#[test]
fn a_host_that_cannot_prepare_stays_and_is_not_asked_again_for_a_while() {
    let mut bench = Bench::unkeyed();
    bench.ready(1);
    bench.ready(2);
    bench.pool.wanted(&node("a"), bench.now());
    assert_eq!(bench.plan().prepare, [(2, node("a"))]);
    bench.pool.preparing(2, node("a"), bench.now());
    bench.pool.not_prepared(2, bench.now());
    assert_eq!(bench.plan(), Plan::default());
    assert_eq!(bench.pool.take(&node("a"), bench.now()), Some(Taken { host: 1, is_prepared: false }));
}

#[test]
fn replaces_the_first_failure_at_once_and_the_next_ones_ever_later() {
    let mut bench = Bench::embedded();
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
fn a_pause_is_waited_for_only_where_a_host_is_missing() {
    let mut bench = Bench::embedded();
    bench.starts(1);
    bench.starts(2);
    bench.fail(3);
    bench.fail(4);
    bench.wants(0, 0, None);
    bench.die(2);
    bench.wants(0, 0, Some(100));
}

#[test]
fn an_executed_run_clears_the_record() {
    let mut bench = Bench::embedded();
    bench.fail(1);
    bench.fail(2);
    bench.ready(3);
    bench.run(&embedded());
    bench.pool.running(3, "r1".into());
    bench.pool.leaving(3);
    bench.wants(0, 2, None);
}

#[test]
fn the_death_of_a_long_ready_host_starts_a_new_record() {
    let mut bench = Bench::embedded();
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
    let mut bench = Bench::embedded();
    for host in 0..50 {
        bench.ready(host);
        assert!(!bench.pool.died(host, false, bench.now(), 1.0));
    }
    bench.wants(0, 2, None);
}

#[test]
fn an_open_circuit_is_probed_by_one_host_at_a_time() {
    let mut bench = Bench::embedded();
    for host in 0..8 {
        bench.at(host * 20_000).fail(host);
    }
    assert!(bench.pool.is_open());
    bench.at(300_000).wants(4, 1, None);
    bench.ready(20);
    assert!(!bench.pool.is_open());
}

#[test]
fn an_open_circuit_is_probed_although_nobody_waits_and_none_are_kept() {
    for size in [PoolSize::OneRunEach { warm: 0 }, PoolSize::Shared { least: 0, most: 2, idle: Duration::ZERO }] {
        let mut bench = Bench::of(size, None, Recycling::default());
        for host in 0..8 {
            bench.at(host * 20_000).fail(host);
        }
        bench.at(300_000).wants(0, 1, None);
        bench.ready(20);
        assert!(!bench.pool.is_open());
        does(&mut bench, 0, &[(20, Dismissal::Surplus)]);
    }
}

#[test]
fn an_open_circuit_is_probed_although_those_that_wait_are_enough() {
    let mut bench = Bench::unkeyed();
    for host in [1, 2] {
        bench.ready(host);
    }
    for host in 10..18 {
        bench.at(host * 20_000).fail(host);
    }
    assert!(bench.pool.is_open());
    bench.at(500_000);
    does(&mut bench, 1, &[]);
    bench.starts(20);
    does(&mut bench, 0, &[]);
    bench.pool.ready(20, bench.now());
    assert!(!bench.pool.is_open());
}

/// What a plan does: hosts to start, and hosts to retire with the reason.
#[track_caller]
fn does(bench: &mut Bench, start: usize, retire: &[(HostNumber, Dismissal)]) {
    let plan = bench.plan();
    assert_eq!((plan.start, plan.retire.as_slice()), (start, retire));
}

#[test]
fn hosts_are_recycled_one_after_the_other_each_when_its_successor_is_ready() {
    let mut bench = Bench::embedded();
    bench.ready(1);
    bench.ready(2);
    assert_eq!(bench.pool.recycle().into_iter().collect::<Vec<_>>(), [1, 2]);
    does(&mut bench, 1, &[]);
    bench.starts(3);
    does(&mut bench, 0, &[]);
    bench.pool.ready(3, bench.now());
    does(&mut bench, 0, &[(1, Dismissal::Recycled)]);
    bench.pool.leaving(1);
    does(&mut bench, 1, &[]);
    bench.ready(4);
    assert!(!bench.pool.is_settled());
    does(&mut bench, 0, &[(2, Dismissal::Recycled)]);
    bench.pool.leaving(2);
    for host in 1..=2 {
        bench.pool.died(host, false, bench.now(), 0.0);
    }
    does(&mut bench, 0, &[]);
    assert!(bench.pool.is_settled());
}

#[test]
fn surge_and_unavailable_say_how_many_are_replaced_at_a_time() {
    let table = [((2, 0), 2, 0), ((9, 0), 2, 0), ((0, 1), 0, 1), ((0, 0), 1, 0), ((1, 2), 1, 2)];
    for ((surge, unavailable), start, retired) in table {
        let recycling = Recycling { surge, unavailable, ..Recycling::default() };
        let mut bench = Bench::of(PoolSize::OneRunEach { warm: 2 }, None, recycling);
        bench.ready(1);
        bench.ready(2);
        bench.pool.recycle();
        let plan = bench.plan();
        assert_eq!((plan.start, plan.retire.len()), (start, retired), "{surge}, {unavailable}");
    }
}

#[test]
fn a_host_at_work_is_recycled_by_its_end_and_one_that_starts_at_once() {
    let mut bench = Bench::embedded();
    bench.ready(1);
    bench.run(&embedded());
    bench.starts(2);
    bench.ready(3);
    bench.pool.recycle();
    does(&mut bench, 1, &[(2, Dismissal::Recycled)]);
    // It is taken only because there is no other.
    assert_eq!(bench.run(&embedded()), Some((3, true)));
}

#[test]
fn a_host_goes_when_it_is_too_old() {
    let recycling = Recycling { max_age: Some(Duration::from_secs(60)), ..Recycling::default() };
    let mut bench = Bench::of(PoolSize::OneRunEach { warm: 1 }, None, recycling);
    bench.ready(1);
    bench.wants(0, 0, Some(60_000));
    does(bench.at(60_000), 1, &[]);
    bench.ready(2);
    does(&mut bench, 0, &[(1, Dismissal::Recycled)]);
}

#[test]
fn a_shared_host_goes_when_it_was_used_too_often_or_has_grown() {
    let recycling = Recycling { max_runs: Some(2), max_bytes: Some(MB), ..Recycling::default() };
    let size = PoolSize::Shared { least: 1, most: 1, idle: Duration::ZERO };
    let mut bench = Bench::of(size, None, recycling);
    bench.ready(1);
    for replaced in [0, 1] {
        does(&mut bench, 0, &[]);
        let host = bench.pool.take_to_lend(None).unwrap();
        bench.pool.give_back(host, true, bench.now());
        does(&mut bench, replaced, &[]);
    }
    bench.ready(2);
    does(&mut bench, 0, &[(1, Dismissal::Recycled)]);
    bench.pool.died(1, false, bench.now(), 0.0);
    bench.pool.measured(2, MB);
    does(&mut bench, 0, &[]);
    bench.pool.measured(2, MB + 1);
    does(&mut bench, 1, &[]);
}

#[test]
fn shared_hosts_come_as_they_are_wanted_and_go_when_they_are_idle() {
    let mut bench = Bench::shared();
    bench.wants(0, 1, None);
    bench.wants(2, 2, None);
    bench.wants(9, 3, None);
    for host in 1..=3 {
        bench.ready(host);
        assert!(bench.pool.take_to_lend(None).is_some());
    }
    bench.wants(5, 0, None);
    for host in 1..=3 {
        bench.at(host * 1_000);
        bench.pool.give_back(host, true, bench.now());
    }
    bench.wants(0, 0, Some(12_000));
    does(bench.at(12_000), 0, &[(2, Dismissal::Surplus)]);
    bench.at(13_000);
    assert_eq!(bench.plan().retire, [(3, Dismissal::Surplus), (2, Dismissal::Surplus)]);
}

#[test]
fn a_smaller_pool_lets_go_of_those_with_the_least_to_lose() {
    let mut bench = Bench::unkeyed();
    bench.run(&node("a"));
    bench.ready(1);
    bench.keyed(2, &node("a"));
    let smaller = Policy { size: PoolSize::OneRunEach { warm: 1 }, ..bench.pool.policy.clone() };
    bench.pool.set_policy(smaller);
    does(&mut bench, 0, &[(1, Dismissal::Surplus)]);
}

#[test]
fn a_drained_pool_has_no_hosts_until_it_is_resumed() {
    let mut bench = Bench::embedded();
    bench.ready(1);
    bench.starts(2);
    bench.ready(3);
    bench.run(&embedded());
    bench.pool.drain(true);
    let drained = [(2, Dismissal::Drained), (3, Dismissal::Drained)];
    does(&mut bench, 0, &drained);
    assert_eq!(bench.run(&embedded()), None);
    assert!(bench.pool.is_draining());
    bench.pool.drain(false);
    assert!(!bench.pool.is_draining());
    assert_eq!(bench.run(&embedded()), Some((3, true)));
}

#[test]
fn a_loan_that_was_not_used_costs_its_host_nothing() {
    let recycling = Recycling { max_runs: Some(1), ..Recycling::default() };
    let size = PoolSize::Shared { least: 1, most: 1, idle: Duration::from_secs(10) };
    let mut bench = Bench::of(size, None, recycling);
    bench.pool.wanted(&node("a"), bench.now());
    bench.keyed(1, &node("a"));
    for ms in [1_000, 2_000, 3_000] {
        bench.at(ms);
        assert_eq!(bench.pool.take_to_lend(Some(&node("a"))), Some(1));
        bench.pool.give_back(1, false, bench.now());
        does(&mut bench, 0, &[]);
        assert_eq!(bench.pool.prepared_for(&node("a")), 1, "it still has what it had loaded");
    }
    assert_eq!(bench.pool.take_to_lend(None), Some(1));
    bench.pool.give_back(1, true, bench.now());
    assert_eq!(bench.pool.prepared_for(&node("a")), 0);
    does(&mut bench, 1, &[]);
}

#[test]
fn what_a_run_has_its_host_prepare_is_known_where_that_fails() {
    let mut bench = Bench::unkeyed();
    bench.ready(1);
    assert_eq!(bench.run(&node("a")), Some((1, false)));
    assert_eq!(bench.pool.not_prepared(1, bench.now()), Some(node("a")));
    assert_eq!(bench.pool.not_prepared(1, bench.now()), None, "once");
}

#[test]
fn what_was_wanted_and_costs_memory_is_measured_once() {
    let mut bench = Bench::unkeyed();
    for host in 1..=4 {
        bench.ready(host);
    }
    for (host, wanted) in [(2, node("a")), (3, embedded()), (4, node("unwanted"))] {
        bench.keyed(host, &wanted);
    }
    bench.pool.wanted(&node("a"), bench.now());
    bench.pool.wanted(&embedded(), bench.now());
    let unmeasured = |bench: &Bench| (1..=5).filter(|&host| bench.pool.is_unmeasured(host)).collect::<Vec<_>>();
    assert_eq!(unmeasured(&bench), [2], "not what is cheap, nor what nobody wants");
    bench.pool.measured(2, 60 * MB);
    assert!(unmeasured(&bench).is_empty());
}

#[test]
fn only_hosts_that_wait_and_stay_are_asked_to_prepare() {
    let mut bench = Bench::unkeyed();
    for host in 1..=3 {
        bench.ready(host);
    }
    bench.starts(4);
    bench.pool.outdate(3);
    bench.pool.wanted(&node("a"), bench.now());
    assert_eq!(bench.plan().prepare, [(2, node("a"))]);
    bench.pool.outdate(2);
    assert_eq!(bench.plan().prepare, [(1, node("a"))]);
}

#[test]
fn of_hosts_that_have_something_cheap_those_beyond_its_share_prepare_something_else() {
    let mut bench = Bench::embedded();
    bench.keyed(1, &embedded());
    bench.keyed(2, &embedded());
    bench.pool.wanted(&embedded(), bench.now());
    bench.pool.wanted(&node("a"), bench.now());
    let plan = bench.plan();
    assert_eq!(plan.prepare.len(), 1, "{plan:?}");
    assert_eq!(plan.prepare[0].1, node("a"));
    bench.keyed(plan.prepare[0].0, &node("a"));
    assert_eq!(bench.plan(), Plan::default(), "the other one is the share of the cheap one");
}

#[test]
fn what_is_outdated_is_not_let_go_a_second_time_as_too_many() {
    let recycling = Recycling { unavailable: 1, ..Recycling::default() };
    let mut bench = Bench::of(PoolSize::OneRunEach { warm: 1 }, None, recycling);
    for host in 1..=3 {
        bench.ready(host);
    }
    bench.pool.outdate(3);
    let plan = bench.plan();
    let mut hosts: Vec<_> = plan.retire.iter().map(|(host, _)| *host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), plan.retire.len(), "{plan:?}");
}

#[test]
fn outdated_hosts_are_taken_when_there_is_no_other() {
    type Take = fn(&mut Bench) -> Option<HostNumber>;
    let takes: [Take; 2] = [|bench| Some(bench.run(&node("a"))?.0), |bench| bench.pool.take_to_lend(Some(&node("a")))];
    for take in takes {
        let mut bench = Bench::unkeyed();
        bench.keyed(1, &node("a"));
        bench.at(10).keyed(2, &node("a"));
        bench.at(20).ready(3);
        bench.pool.outdate(1);
        // Though it has waited the longest, and has what is wanted.
        for expected in [Some(2), Some(3), Some(1), None] {
            assert_eq!(take(&mut bench), expected);
        }
    }
}

#[test]
fn nothing_that_waits_is_let_go_while_somebody_waits_for_it() {
    let mut bench = Bench::unkeyed();
    for host in 1..=3 {
        bench.ready(host);
    }
    let smaller = Policy { size: PoolSize::OneRunEach { warm: 0 }, ..bench.pool.policy.clone() };
    bench.pool.set_policy(smaller);
    bench.wants(1, 0, None);
    assert_eq!(bench.plan().retire.len(), 3);
}

#[test]
fn a_probe_is_no_host_more_than_there_may_be() {
    let size = PoolSize::Shared { least: 0, most: 1, idle: Duration::from_secs(10) };
    for (is_taken, start) in [(true, 0), (false, 0)] {
        let mut bench = Bench::of(size, None, Recycling::default());
        bench.ready(1);
        if is_taken {
            assert!(bench.pool.take_to_lend(None).is_some());
        }
        for host in 10..18 {
            bench.at(host * 20_000).fail(host);
        }
        assert!(bench.pool.is_open());
        assert_eq!(bench.at(500_000).plan().start, start, "{is_taken}");
    }
}

#[test]
fn what_failed_before_a_fresh_start_delays_nothing() {
    let mut bench = Bench::embedded();
    for host in 0..8 {
        bench.at(host * 20_000).fail(host);
    }
    assert!(bench.pool.is_open());
    bench.pool.start_afresh();
    assert!(!bench.pool.is_open());
    bench.wants(0, 2, None);
    // And the next failure is the first.
    bench.fail(10);
    bench.wants(0, 2, None);
}
