//! When a workloop claims, and how much.
//!
//! Pure. A claim takes its slots before it is pushed and keeps them until it is answered or its link dies, so no more
//! runs can arrive than there are slots, however late an answer comes.

use std::time::Duration;

use tokio::time::Instant;

use protocol::backoff::Backoff;

/// How much the last answer counts for the server's reply time, of all that came before.
const RECENT: f64 = 0.25;

/// Runs that a workloop takes beyond its capacity, in case the server counts otherwise than we do.
const MARGIN: usize = 2;

/// How many runs a claim asks for. A lost answer strands what its claim brings. The benchmark `claims` compares what each
/// costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Demand {
    /// One.
    #[default]
    One,
    /// One; twice as many as the last claim where that brought all that it asked for and there are slots left, so that a
    /// full queue fills them soon.
    Growing,
    /// As many as there are slots.
    All,
}

impl Demand {
    /// What a loop asks for that has claimed nothing yet.
    fn first(self) -> usize {
        match self {
            Self::One | Self::Growing => 1,
            Self::All => usize::MAX,
        }
    }
}

/// The claims of one workloop.
#[derive(Debug, Default)]
pub(super) struct ClaimLoop {
    capacity: usize,
    policy: Demand,
    /// Slots taken by runs.
    active: usize,
    /// Slots taken by claims that are not answered yet.
    open: usize,
    /// The most that the next claim asks for.
    demand: usize,
    backoff: Backoff,
    /// How long the server takes to answer a claim, of late.
    reply_time: Duration,
    due: Due,
    /// Work was announced while claims were open, which may have missed it.
    announced: bool,
    linked: bool,
    stopped: bool,
    /// Somebody has asked for a pause.
    paused: bool,
    /// No host could be had for a run.
    lacks_hosts: bool,
}

/// When the next claim is made, if there is a slot for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    /// When a claim is answered, a run ends or work is announced.
    #[default]
    OnEvent,
}

impl ClaimLoop {
    /// A loop without a link. `backoff` paces the claims that bring nothing.
    pub(super) fn new(capacity: usize, policy: Demand, backoff: Backoff) -> Self {
        Self { capacity, policy, demand: policy.first(), backoff, ..Self::default() }
    }

    /// The claim to push now, as its number of slots, which are taken.
    pub(super) fn next_claim(&mut self, now: Instant, most: usize) -> Option<usize> {
        let due = match self.due {
            Due::Now => true,
            Due::At(at) => at <= now,
            Due::OnEvent => false,
        };
        let demand = if due { self.free().min(self.demand).min(most) } else { 0 };
        if demand == 0 {
            return None;
        }
        self.due = Due::OnEvent;
        self.open += demand;
        Some(demand)
    }

    /// A claim of one slot outside the loop's own pace; none if there is no free slot or no link.
    pub(super) fn claim_one(&mut self) -> Option<usize> {
        (self.free() > 0).then(|| {
            self.open += 1;
            1
        })
    }

    /// When [`Self::next_claim`] should be asked next, if nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.due {
            Due::At(at) if self.free() > 0 => Some(at),
            _ => None,
        }
    }

    /// How many runs to take of those that an open claim of `demand` slots brings.
    pub(super) fn room(&self, demand: usize) -> usize {
        let beyond = (self.active + self.open).saturating_sub(self.capacity);
        demand + MARGIN.saturating_sub(beyond)
    }

    /// A claim of `demand` slots was answered with so many runs, after the time that it `took`. The longer answers take
    /// of late, the longer the pauses between claims that bring nothing, so that a server in trouble is asked less.
    pub(super) fn answered(&mut self, demand: usize, runs: usize, took: Duration, now: Instant, jitter: f64) {
        self.reply_time = self.reply_time.mul_f64(1.0 - RECENT) + took.mul_f64(RECENT);
        self.open = self.open.saturating_sub(demand);
        self.active += runs;
        self.demand = self.next_demand(demand, runs);
        if runs > 0 {
            self.backoff.reset();
            self.due = Due::Now;
        } else if std::mem::take(&mut self.announced) {
            self.due = Due::Now;
        } else {
            let at = now + self.backoff.next_at_least(self.reply_time, jitter);
            self.due = match self.due {
                Due::Now => Due::Now,
                Due::At(earlier) if earlier < at && earlier > now => Due::At(earlier),
                Due::At(_) | Due::OnEvent => Due::At(at),
            };
        }
    }

    /// How much the next claim asks for.
    fn next_demand(&self, demand: usize, runs: usize) -> usize {
        if self.policy != Demand::Growing {
            return self.demand;
        }
        let was_limited = demand >= self.demand && self.free() > 0;
        match runs {
            _ if runs < demand => 1,
            _ if was_limited => demand.saturating_mul(2),
            _ => self.demand,
        }
    }

    /// The server says that there is work.
    pub(super) fn work_available(&mut self) {
        self.announced |= self.open > 0;
        self.due = if self.free() > 0 { Due::Now } else { self.due };
    }

    /// One of its runs ended.
    pub(super) fn run_ended(&mut self) {
        self.active = self.active.saturating_sub(1);
        self.backoff.reset();
        self.due = Due::Now;
    }

    /// The queue's channel is joined.
    pub(super) fn joined(&mut self) {
        self.linked = true;
        self.due = Due::Now;
    }

    /// The queue's channel is gone, and with it the answers to open claims.
    pub(super) fn lost(&mut self) {
        self.linked = false;
        self.open = 0;
        self.demand = self.policy.first();
        self.announced = false;
        self.backoff.reset();
    }

    /// No more claims.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// No claims for now, or claims again.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            self.due = Due::Now;
        }
    }

    /// No claims as long as hosts cannot be had.
    pub(super) fn hosts_available(&mut self, available: bool) {
        self.lacks_hosts = !available;
        if available {
            self.due = Due::Now;
        }
    }

    /// Whether claims pause for now.
    pub(super) fn is_paused(&self) -> bool {
        self.paused || self.lacks_hosts
    }

    /// Capacity, slots taken by runs, and slots taken by claims that are not answered yet.
    pub(super) fn slots(&self) -> (usize, usize, usize) {
        (self.capacity, self.active, self.open)
    }

    fn free(&self) -> usize {
        if self.linked && !self.stopped && !self.is_paused() {
            self.capacity.saturating_sub(self.active + self.open)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::ZERO;

    fn joined(capacity: usize) -> ClaimLoop {
        with_policy(capacity, Demand::Growing)
    }

    fn with_policy(capacity: usize, policy: Demand) -> ClaimLoop {
        let mut it = ClaimLoop::new(capacity, policy, Backoff::new((SECOND, 10 * SECOND), 1.15));
        it.joined();
        it
    }

    /// A claim that is answered at once with so many runs.
    fn claim(it: &mut ClaimLoop, now: Instant, expected: usize, runs: usize) {
        assert_eq!(it.next_claim(now, usize::MAX), Some(expected));
        it.answered(expected, runs, QUICK, now, 0.0);
    }

    #[test]
    fn claims_its_slots_once_and_the_more_at_a_time_the_more_there_is() {
        let now = Instant::now();
        let mut it = joined(8);
        assert_eq!(it.next_claim(now, usize::MAX), Some(1));
        assert_eq!(it.next_claim(now + 100 * SECOND, usize::MAX), None, "the claim is open, however long");
        it.answered(1, 1, QUICK, now, 0.0);
        claim(&mut it, now, 2, 2);
        claim(&mut it, now, 4, 4);
        claim(&mut it, now, 1, 1);
        assert_eq!(it.next_claim(now, usize::MAX), None, "full");
        (0..3).for_each(|_| it.run_ended());
        claim(&mut it, now, 3, 2);
        claim(&mut it, now, 1, 1);
        assert_eq!(it.next_claim(now, usize::MAX), None, "full");
        (0..3).for_each(|_| it.run_ended());
        claim(&mut it, now, 1, 0);
        it.work_available();
        claim(&mut it, now, 1, 1);
        claim(&mut it, now, 2, 2);
        it.run_ended();
        it.lost();
        it.joined();
        claim(&mut it, now, 1, 0);
    }

    #[test]
    fn other_policies_ask_for_one_or_for_all() {
        let now = Instant::now();
        let mut it = with_policy(3, Demand::One);
        (0..3).for_each(|_| claim(&mut it, now, 1, 1));
        let mut it = with_policy(3, Demand::All);
        claim(&mut it, now, 3, 1);
        claim(&mut it, now, 2, 2);
        it.lost();
        it.joined();
        it.run_ended();
        claim(&mut it, now, 1, 0);
    }

    #[test]
    fn backs_off_while_there_is_nothing() {
        let now = Instant::now();
        let mut it = joined(1);
        let mut at = now;
        let mut pauses = Vec::new();
        for _ in 0..30 {
            assert_eq!(it.next_claim(at, usize::MAX), Some(1));
            it.answered(1, 0, QUICK, at, 0.0);
            let wake = it.wake_at().unwrap();
            assert_eq!(it.next_claim(wake - SECOND / 100, usize::MAX), None);
            pauses.push(wake - at);
            at = wake;
        }
        assert_eq!(pauses[0], SECOND);
        assert_eq!(pauses[1], SECOND.mul_f64(1.15));
        assert_eq!(pauses[29], 10 * SECOND);
    }

    #[test]
    fn pauses_begin_anew_after_work_the_end_of_a_run_and_a_lost_link() {
        type Event = fn(&mut ClaimLoop, Instant);
        let events: [(&str, Event); 3] = [
            ("work", |it, now| claim(it, now, 1, 1)),
            ("the end of a run", |it, _| it.run_ended()),
            ("a lost link", |it, _| {
                it.lost();
                it.joined();
            }),
        ];
        for (name, event) in events {
            let mut now = Instant::now();
            let mut it = with_policy(3, Demand::One);
            claim(&mut it, now, 1, 1);
            let miss = |it: &mut ClaimLoop, now: &mut Instant| {
                claim(it, *now, 1, 0);
                let wake = it.wake_at().expect("there are free slots");
                let pause = wake - *now;
                *now = wake;
                pause
            };
            let grown = (0..10).map(|_| miss(&mut it, &mut now)).last();
            assert!(grown > Some(3 * SECOND), "{grown:?}");
            event(&mut it, now);
            assert_eq!(miss(&mut it, &mut now), SECOND, "{name}");
        }
    }

    #[test]
    fn claims_go_on_at_once_after_a_pause() {
        type Switch = fn(&mut ClaimLoop, bool);
        for switch in [ClaimLoop::pause as Switch, |it, is_paused| it.hosts_available(!is_paused)] {
            let now = Instant::now();
            let mut it = joined(1);
            claim(&mut it, now, 1, 0);
            assert_eq!(it.next_claim(now, usize::MAX), None, "it backs off");
            switch(&mut it, true);
            assert_eq!((it.next_claim(now + 100 * SECOND, usize::MAX), it.wake_at()), (None, None));
            switch(&mut it, false);
            assert_eq!(it.next_claim(now, usize::MAX), Some(1));
        }
    }

    #[test]
    fn a_server_that_answers_slowly_is_asked_less() {
        let mut now = Instant::now();
        let mut it = joined(1);
        let mut miss = |it: &mut ClaimLoop, took: Duration| {
            assert_eq!(it.next_claim(now, usize::MAX), Some(1));
            it.answered(1, 0, took, now, 0.0);
            it.backoff.reset();
            let wake = it.wake_at().unwrap();
            let pause = wake - now;
            now = wake;
            pause
        };
        assert_eq!(miss(&mut it, QUICK), SECOND);
        let pauses: Vec<_> = (0..20).map(|_| miss(&mut it, 8 * SECOND)).collect();
        assert_eq!(pauses[0], 2 * SECOND, "a single slow answer counts for a quarter");
        assert!(pauses.is_sorted() && pauses[19] > 7 * SECOND && pauses[19] <= 8 * SECOND, "{pauses:?}");
        let pauses: Vec<_> = (0..40).map(|_| miss(&mut it, QUICK)).collect();
        assert!(pauses[0] < 7 * SECOND && pauses[39] == SECOND, "it recovers: {pauses:?}");
        for _ in 0..20 {
            assert!(miss(&mut it, 600 * SECOND) <= 10 * SECOND, "the longest pause holds");
        }
        it.work_available();
        assert_eq!(it.next_claim(now, usize::MAX), Some(1), "announced work is claimed at once all the same");
    }

    #[test]
    fn an_outage_does_not_count_as_slowness() {
        let now = Instant::now();
        let mut it = joined(2);
        it.next_claim(now, usize::MAX);
        it.lost();
        it.joined();
        assert_eq!(it.next_claim(now + 3600 * SECOND, usize::MAX), Some(1), "at once");
        it.answered(1, 0, QUICK, now, 0.0);
        assert_eq!(it.wake_at(), Some(now + SECOND));
    }

    #[test]
    fn announced_work_is_claimed_at_once() {
        let now = Instant::now();
        let mut it = joined(1);
        claim(&mut it, now, 1, 0);
        it.work_available();
        assert_eq!(it.next_claim(now, usize::MAX), Some(1));
        for _ in 0..100 {
            it.work_available();
            assert_eq!(it.next_claim(now, usize::MAX), None, "a storm finds no free slot");
        }
        it.answered(1, 0, QUICK, now, 0.0);
        claim(&mut it, now, 1, 0); // The open claim may have missed the announced work.
        assert_eq!(it.next_claim(now, usize::MAX), None, "but once only");
    }

    #[test]
    fn a_slot_that_gets_free_is_claimed_beside_an_open_claim() {
        let now = Instant::now();
        let mut it = joined(2);
        claim(&mut it, now, 1, 1);
        assert_eq!(it.next_claim(now, usize::MAX), Some(1));
        it.run_ended();
        assert_eq!(it.next_claim(now, usize::MAX), Some(1));
        it.answered(1, 1, QUICK, now, 0.0);
        it.answered(1, 1, QUICK, now + 600 * SECOND, 0.0);
        assert_eq!(it.active, 2, "the late answer is honoured");
    }

    #[test]
    fn an_answer_brings_few_runs_beyond_the_capacity() {
        let now = Instant::now();
        let mut it = joined(5);
        it.next_claim(now, usize::MAX);
        assert_eq!(it.room(5), 5 + MARGIN);
        it.answered(5, 4, QUICK, now, 0.0);
        assert_eq!((it.next_claim(now, usize::MAX), it.room(1)), (Some(1), 1 + MARGIN));
        it.answered(1, 2, QUICK, now, 0.0);
        it.run_ended();
        it.run_ended();
        assert_eq!(it.claim_one(), Some(1));
        it.answered(1, 1 + MARGIN, QUICK, now, 0.0);
        assert_eq!((it.active, it.claim_one()), (5 + MARGIN, None));
        it.lost();
        assert_eq!(it.room(3), 3, "the margin is used up");
    }

    #[test]
    fn a_lost_link_frees_open_claims_and_a_new_one_claims_at_once() {
        let now = Instant::now();
        let mut it = joined(3);
        it.next_claim(now, usize::MAX);
        it.lost();
        assert_eq!(it.next_claim(now, usize::MAX), None);
        assert_eq!(it.claim_one(), None);
        it.joined();
        assert_eq!(it.next_claim(now, usize::MAX), Some(1));
    }

    #[test]
    fn a_stopped_loop_takes_what_open_claims_bring() {
        let now = Instant::now();
        let mut it = joined(2);
        it.next_claim(now, usize::MAX);
        it.stop();
        it.answered(1, 1, QUICK, now, 0.0);
        assert_eq!((it.active, it.next_claim(now, usize::MAX), it.wake_at()), (1, None, None));
    }

    #[test]
    fn claims_pause_while_somebody_asks_for_that_or_no_host_can_be_had() {
        let now = Instant::now();
        let mut it = joined(2);
        it.hosts_available(false);
        assert_eq!((it.next_claim(now, usize::MAX), it.claim_one(), it.wake_at()), (None, None, None));
        it.pause(true);
        it.hosts_available(true);
        assert_eq!(it.next_claim(now, usize::MAX), None, "still paused");
        it.hosts_available(false);
        it.pause(false);
        assert_eq!(it.next_claim(now, usize::MAX), None, "still no host");
        it.hosts_available(true);
        assert_eq!(it.next_claim(now, usize::MAX), Some(1), "at once");
    }

    #[test]
    fn claims_by_hand_take_one_slot() {
        let mut it = ClaimLoop::new(2, Demand::Growing, Backoff::new((SECOND, SECOND), 1.15));
        assert_eq!(it.claim_one(), None, "no link");
        it.joined();
        assert_eq!([it.claim_one(), it.claim_one(), it.claim_one()], [Some(1), Some(1), None]);
    }

    proptest! {
        #[test]
        fn never_over_claims_and_never_gets_stuck(script in proptest::collection::vec((0u8..7, 0usize..6), 1..200)) {
            let mut now = Instant::now();
            let mut it = joined(5);
            let (mut open, mut active) = (Vec::new(), 0);
            for (event, number) in script {
                match event {
                    0 if !open.is_empty() => {
                        let demand = open.swap_remove(number % open.len());
                        let runs = number.min(demand);
                        it.answered(demand, runs, SECOND * number as u32, now, 0.5);
                        active += runs;
                    }
                    1 if active > 0 => {
                        it.run_ended();
                        active -= 1;
                    }
                    2 => it.work_available(),
                    3 => {
                        it.lost();
                        open.clear();
                    }
                    4 => {
                        it.lost();
                        open.clear();
                        it.joined();
                    }
                    5 => now += SECOND,
                    _ => open.extend(it.claim_one()),
                }
                open.extend(it.next_claim(now, usize::MAX));
                prop_assert!(open.iter().sum::<usize>() + active <= 5);
                prop_assert_eq!(it.active, active);
                let waits = it.free() == 0 || it.wake_at().is_some() || !open.is_empty();
                prop_assert!(waits, "a free slot with a link has a claim open or a time to make one: {it:?}");
            }
        }
    }
}
