//! Whoever gets whichever signal, whatever is under way: only the run that is hit is harmed, it gets one end, capacity
//! comes back, and nothing is left afterwards.
//!
//! Some cells of the matrix by chance: `CELLS` says how many (or `all`), `SEED` which.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tests::leftovers;
use tests::lightning::{self, LightningOptions, chain, end, logged, one_job, queue, until};
use tests::random::{Random, amount};
use tests::worker::{Worker, send};
use worker::mock_lightning::{MockLightning, RunState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Worker,
    Host,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Idle,
    /// A run was queued a moment ago.
    Claiming,
    Running,
    /// The last step is over, or about to be.
    Completing,
}

const TARGETS: [Target; 2] = [Target::Worker, Target::Host];
const SIGNALS: [Signal; 3] = [Signal::KILL, Signal::STOP, Signal::TERM];
const MOMENTS: [Moment; 4] = [Moment::Idle, Moment::Claiming, Moment::Running, Moment::Completing];

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_hit_is_harmed_and_nothing_is_left() {
    let mut random = Random::seeded();
    let mut cells = Vec::new();
    for target in TARGETS {
        for signal in SIGNALS {
            cells.extend(MOMENTS.map(|moment| (target, signal, moment)));
        }
    }
    let wanted =
        if std::env::var("CELLS").is_ok_and(|cells| cells == "all") { cells.len() } else { amount("CELLS", 6) };
    while cells.len() > wanted {
        cells.swap_remove(random.below(cells.len()));
    }
    for (target, signal, moment) in cells {
        println!("{target:?} gets {signal:?} while {moment:?}");
        cell(target, signal, moment).await;
    }
}

/// A job that says so when it runs, and ends when the test has had time to do something.
const SLOW: &str = "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 1500)); return s; })";
/// One that is over at once, so that its run completes.
const QUICK: &str = "fn(s => { console.log('here'); return s; })";

fn plan(moment: Moment) -> Value {
    match moment {
        Moment::Completing => chain(&[("a", QUICK), ("b", QUICK)]),
        _ => one_job(SLOW),
    }
}

async fn cell(target: Target, signal: Signal, moment: Moment) {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = start(&lightning, runtime.path()).await;
    let bystander = queue(&lightning, one_job(SLOW));
    until(&lightning, &worker, &bystander, |record| logged(record, "here")).await;

    let victim = (moment != Moment::Idle).then(|| queue(&lightning, plan(moment)));
    if let (Some(victim), Moment::Running | Moment::Completing) = (&victim, moment) {
        until(&lightning, &worker, victim, |record| logged(record, "here")).await;
    }
    match target {
        Target::Worker => hit_worker(&lightning, worker, signal, &bystander, victim.as_deref(), runtime.path()).await,
        Target::Host => hit_host(&lightning, worker, signal, &bystander, victim.as_deref()).await,
    }
    assert_eq!(
        leftovers::gone(runtime.path(), Duration::from_secs(20)).await,
        [""; 0],
        "{target:?} {signal:?} {moment:?}"
    );
}

async fn start(lightning: &MockLightning, runtime: &Path) -> Worker {
    let options = ["--capacity", "2", "--max-run-duration-seconds", "6", "--host-stop-timeout", "1"];
    Worker::start_in(lightning, &options, runtime).await
}

async fn hit_worker(
    lightning: &MockLightning,
    worker: Worker,
    signal: Signal,
    bystander: &str,
    victim: Option<&str>,
    runtime: &Path,
) {
    let runs: Vec<&str> = [bystander].into_iter().chain(victim).collect();
    worker.signal(signal);
    match signal {
        Signal::KILL => {
            assert_eq!(worker.exit(Duration::from_secs(20)).await, None);
            // A successor sweeps what was left.
            let successor = start(lightning, runtime).await;
            let next = queue(lightning, one_job(QUICK));
            assert_eq!(end(lightning, &successor, &next).await.state, RunState::Success);
            successor.stop().await;
        }
        Signal::STOP => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            worker.signal(Signal::CONT);
            for run in runs {
                let record = end(lightning, &worker, run).await;
                assert_eq!(record.state, RunState::Success, "{:?}\n{}", record.error_message, worker.output());
            }
            worker.stop().await;
        }
        _ => {
            // What is claimed ends well; what is not stays in the queue.
            assert_eq!(worker.exit(Duration::from_secs(30)).await, Some(0));
            let states: Vec<_> = runs.iter().filter_map(|run| lightning.run(run)).map(|record| record.state).collect();
            assert_eq!(states[0], RunState::Success);
            assert!(states.iter().all(|state| [RunState::Success, RunState::Available].contains(state)), "{states:?}");
        }
    }
}

async fn hit_host(lightning: &MockLightning, worker: Worker, signal: Signal, bystander: &str, victim: Option<&str>) {
    let spared = worker.host_of(bystander).pid;
    let others: Vec<_> = worker.hosts().into_iter().filter(|host| host.pid != spared).collect();
    let of_victim = victim.map(|victim| format!("run {victim}"));
    let is_of_victim = |name: &str| of_victim.as_ref().is_some_and(|run| name.len() > 4 && run.starts_with(name));
    // The victim's host if it can be told yet, else the one that has waited longest.
    let host = others.iter().find(|host| is_of_victim(&host.name)).or(others.first());
    if let Some(host) = host {
        // It may just have ended by itself.
        let pid = i32::try_from(host.pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid is positive");
        let _ = kill_process(pid, signal);
    }
    assert_eq!(end(lightning, &worker, bystander).await.state, RunState::Success, "{}", worker.output());
    if let Some(victim) = victim {
        let record = end(lightning, &worker, victim).await;
        let error = record.error_type.as_deref();
        let expected = match signal {
            Signal::KILL => record.state == RunState::Crashed && error == Some("ExitError"),
            Signal::STOP => error == Some("TimeoutError") || error == Some("EngineHostError"),
            _ => false,
        };
        assert!(record.state == RunState::Success || expected, "{:?} {error:?}\n{}", record.state, worker.output());
    }
    for _ in 0..3 {
        let next = queue(lightning, one_job(QUICK));
        assert_eq!(end(lightning, &worker, &next).await.state, RunState::Success, "{}", worker.output());
    }
    worker.stop().await;
    assert_eq!(lightning.violations(), []);
}

/// A worker that is asked to stop while its hosts hang does stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_although_all_its_hosts_hang() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = start(&lightning, runtime.path()).await;
    let first = queue(&lightning, one_job(QUICK));
    end(&lightning, &worker, &first).await;
    for host in worker.hosts() {
        if tests::processes::process(host.pid).is_some() {
            send(host.pid, Signal::STOP);
        }
    }
    worker.stop().await;
    assert_eq!(leftovers::gone(runtime.path(), Duration::from_secs(10)).await, [""; 0]);
}
