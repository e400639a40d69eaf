//! Claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lightning::{ClaimError, Workloop, parse_workloops};
use mock_lightning::{HookVerdict, Hooks, Incoming, MockOptions, RunState};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::fake::*;
use crate::network::simulate;

#[tokio::test]
async fn announced_work_is_claimed_at_once() {
    let it = setting(2, FakeHosts::new(|spec, host| host.trivial(spec))).await;
    it.joined().await;
    // The next claim of its own would come in a minute.
    assert_eq!(it.run(&one_job()).await.state, RunState::Success);
    it.assert_nothing_was_refused();
}

#[tokio::test]
async fn work_is_found_without_being_announced() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let pace = (Duration::from_millis(10), Duration::from_millis(20));
    let it = with_options(MockOptions::default(), hosts, |options| options.backoff = pace).await;
    it.joined().await;
    let id = it.mock.queue_run(one_job()).unwrap();
    assert_eq!(it.end_of(&id).await.state, RunState::Success);
}

#[tokio::test]
async fn never_more_runs_than_slots() {
    let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let (counted, peak, held) = (active.clone(), most.clone(), gate.clone());
    let hosts = FakeHosts::new(move |spec, host| {
        let (active, most, gate) = (counted.clone(), peak.clone(), held.clone());
        async move {
            most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            active.fetch_sub(1, Ordering::SeqCst);
            host.trivial(spec).await;
        }
    });
    let it = setting(3, hosts).await;
    it.joined().await;
    let ids: Vec<_> = (0..10).map(|_| it.queue(&one_job())).collect();
    for _ in 0..50 {
        it.mock.wake();
    }
    let full = async {
        while active.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, full).await.unwrap();
    gate.add_permits(ids.len());
    for id in &ids {
        it.end_of(id).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn workloops_keep_to_their_queues() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let workloops = parse_workloops("fast_lane:1 manual>*:2").unwrap().list;
    let it = with_options(MockOptions::default(), hosts, |options| {
        options.workloops = workloops;
        options.worker_name = Some("wendy".into());
    })
    .await;
    let ids: Vec<_> = (0..6)
        .map(|n| {
            let mut plan = one_job();
            plan["queue"] = if n % 2 == 0 { "fast_lane".into() } else { "manual".into() };
            it.queue(&plan)
        })
        .collect();
    for id in ids {
        assert_eq!(it.end_of(&id).await.worker_name.as_deref(), Some("wendy"));
    }
    it.assert_nothing_was_refused();
    let queues: std::collections::BTreeSet<_> =
        it.mock.activity().claims.into_iter().map(|claim| claim.queues).collect();
    assert_eq!(queues, [vec!["fast_lane".to_owned()], vec!["manual".into(), "*".into()]].into());
}

#[tokio::test]
async fn claims_by_hand() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let hosts = FakeHosts::new(move |spec, host| {
        let gate = held.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            host.trivial(spec).await;
        }
    });
    let it = with_options(MockOptions::default(), hosts, |options| {
        options.claim_by_itself = false;
        options.workloops = vec![Workloop::standard(1)];
    })
    .await;
    it.joined().await;
    assert_eq!(it.lightning.claim_once().await, Ok(0));
    let ids: Vec<_> = (0..2).map(|_| it.queue(&one_job())).collect();
    assert_eq!(it.lightning.claim_once().await, Ok(1));
    assert_eq!(it.lightning.claim_once().await, Err(ClaimError::Full));
    gate.add_permits(1);
    it.end_of(&ids[0]).await;
    let mut status = it.lightning.watch();
    tokio::time::timeout(DEADLINE, status.wait_for(|status| status.active_runs == 0)).await.unwrap().unwrap();
    assert_eq!(it.mock.run(&ids[1]).unwrap().state, RunState::Available, "nothing is claimed by itself");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_nothing_ends() {
    let mock = MockOptions { secret: Some("right".into()), ..MockOptions::default() };
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let it = with_options(mock, hosts, |options| options.secret = "wrong".into()).await;
    // A refused upgrade and a refused join both leave the worker outside.
    while it.mock.violations().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!it.lightning.status().joined);
    assert_eq!(it.lightning.claim_once().await, Err(ClaimError::NotJoined));
}

/// Gives all its runs to whoever claims one.
struct Generous;

impl Hooks for Generous {
    fn most_runs(&self, _: u64) -> u64 {
        u64::MAX
    }
}

#[tokio::test]
async fn runs_far_beyond_a_claim_are_refused() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let hosts = FakeHosts::new(move |spec, host| {
        let gate = held.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            host.trivial(spec).await;
        }
    });
    let mock = MockOptions { hooks: Arc::new(Generous), ..MockOptions::default() };
    let it = with_options(mock, hosts, |options| options.workloops = vec![Workloop::standard(5)]).await;
    it.joined().await;
    let ids: Vec<_> = (0..500).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
    it.mock.wake();
    let mut status = it.lightning.watch();
    let busy = tokio::time::timeout(DEADLINE, status.wait_for(|status| status.active_runs > 0)).await;
    let active = busy.unwrap().unwrap().active_runs;
    // A claim of one run, and the few beyond that a server may give by mistake.
    assert!((1..=7).contains(&active), "{active}");
    gate.add_permits(ids.len());
    let mut status = it.lightning.watch();
    let ended = status.wait_for(|status| status.active_runs == 0 && status.runs_ended > 0);
    let ended = tokio::time::timeout(DEADLINE, ended).await.unwrap().unwrap().runs_ended;
    let succeeded = ids.iter().filter(|id| it.mock.run(id).unwrap().state == RunState::Success).count();
    assert_eq!(succeeded as u64, ended);
    assert!((1..=7).contains(&succeeded), "{succeeded}");
}

/// Answers the first claim late.
struct LateClaim {
    asked: AtomicUsize,
}

impl Hooks for LateClaim {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        let first = message.event == "claim" && self.asked.fetch_add(1, Ordering::Relaxed) == 0;
        if first { HookVerdict::Delay(Duration::from_millis(300)) } else { HookVerdict::GoOn }
    }
}

#[tokio::test]
async fn a_late_answer_to_a_claim_is_honoured() {
    let mock = MockOptions { hooks: Arc::new(LateClaim { asked: AtomicUsize::new(0) }), ..MockOptions::default() };
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let it = with_options(mock, hosts, |options| options.claim_timeout = Duration::from_millis(20)).await;
    assert_eq!(it.run(&json!({"jobs": [{"id": "a", "body": "fn(s => s)"}]})).await.state, RunState::Success);
    let claims = it.mock.activity().claims;
    assert_eq!(claims[0].runs.len(), 1, "the first claim brought it: {claims:?}");
}

/// Loses the connection while the answer to the first claim that may bring a run is on its way.
struct LostClaim(AtomicUsize);

impl Hooks for LostClaim {
    fn before_reply(&self, message: &Incoming<'_>, _accepted: bool) -> HookVerdict {
        let is_second = message.event == "claim" && self.0.fetch_add(1, Ordering::Relaxed) == 1;
        if is_second { HookVerdict::LoseReply } else { HookVerdict::GoOn }
    }
}

#[test]
fn a_claim_whose_answer_is_lost_strands_one_run_and_the_log_says_so() {
    simulate(|log| async move {
        let mock = MockOptions { hooks: Arc::new(LostClaim(AtomicUsize::new(0))), ..MockOptions::default() };
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = in_memory(mock, Duration::from_millis(5), hosts, |options| {
            options.workloops = vec![Workloop::standard(1)];
        });
        it.joined().await;
        let ids: Vec<_> = (0..5).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
        it.mock.wake();
        let mut status = it.lightning.watch();
        status.wait_for(|status| status.runs_ended == 4).await.unwrap();
        let stranded = ids.iter().filter(|id| it.mock.run(id).unwrap().state == RunState::Claimed).count();
        assert_eq!(stranded, 1);
        let told = log.lines_with(&["before Lightning had answered a claim", "up to 1, are stranded"]);
        assert_eq!(told.len(), 1, "{}", log.text());
    });
}

#[tokio::test]
async fn a_claim_asks_for_one_run_so_that_no_lost_answer_strands_more() {
    let it = setting(5, FakeHosts::new(|spec, host| host.trivial(spec))).await;
    it.joined().await;
    let ids: Vec<_> = (0..12).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
    it.mock.wake();
    for id in &ids {
        assert_eq!(it.end_of(id).await.state, RunState::Success);
    }
    let claims = it.mock.activity().claims;
    assert!(claims.iter().all(|claim| claim.demand == 1), "{claims:?}");
}
