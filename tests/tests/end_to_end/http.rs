//! What the worker answers over HTTP, and claims on request.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mock_lightning::RunState;
use rustix::process::Signal;
use serde_json::Value;
use tests::binaries;
use tests::lightning::{self, DEADLINE, LightningOptions, end, logged, one_job, queue, until};
use tests::worker::{Worker, send};

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_lives() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    for path in ["/", "/livez"] {
        assert_eq!(worker.http("GET", path).await, (200, "OK".to_owned()), "{path}");
    }
    assert_eq!(worker.http("GET", "/nothing").await.0, 404);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_loop_it_claims_when_told() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--no-loop"]).await;
    worker.printed("joined").await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    assert_eq!(worker.http("POST", "/claim").await, (200, "complete".to_owned()));
    assert_eq!(end(&lightning, &worker, &id).await.state, RunState::Success);
    assert_eq!(worker.http("POST", "/claim").await.0, 204, "there is nothing more");
    worker.stop().await;
    assert_eq!(
        lightning.activity().claims.len(),
        2,
        "it claims when it is asked to, not when it joins or there is work"
    );
}

/// Asks until this is the answer.
async fn readiness(worker: &Worker, status: u16) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (is, body) = worker.http("GET", "/readyz").await;
        if is == status {
            return serde_json::from_str(&body).expect("readiness is told in JSON");
        }
        assert!(Instant::now() < deadline, "{is} {body}\n{}", worker.output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_while_it_is_joined_and_not_asked_to_stop() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let ready = readiness(&worker, 200).await;
    for check in ["ready", "engine_answered", "queue_joined", "circuit_closed", "not_draining"] {
        assert_eq!(ready[check], true, "{ready}");
    }

    let id = queue(
        &lightning,
        one_job("fn(s => { console.log('waits'); return new Promise(done => setTimeout(() => done(s), 3000)); })"),
    );
    until(&lightning, &worker, &id, |record| logged(record, "waits")).await;
    worker.signal(Signal::TERM);
    let draining = readiness(&worker, 503).await;
    assert_eq!((&draining["not_draining"], &draining["queue_joined"]), (&false.into(), &true.into()));
    assert_eq!(worker.http("GET", "/livez").await.0, 200, "it lives on");
    end(&lightning, &worker, &id).await;
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_without_its_queue() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--secret", "a wrong one"]).await;
    worker.printed("refuse").await;
    let unready = readiness(&worker, 503).await;
    assert_eq!(unready["queue_joined"], false, "{unready}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_without_an_engine() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let host = script(folder.path(), "exec sleep 100");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--engine-host", &host, "--engine-validation-timeout-ms", "60000"]).await;
    let unready = readiness(&worker, 503).await;
    assert_eq!(unready["engine_answered"], false, "{unready}");
    assert_eq!(worker.http("GET", "/livez").await.0, 200, "it lives");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_when_hosts_fail_one_after_the_other() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let host = folder.path().join("engine-host");
    std::fs::copy(binaries::worker().with_file_name("engine-host"), &host).expect("the host lies beside the worker");
    let name = host.to_str().expect("its name is text");
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--engine-host", name, "--warm-hosts", "1"]).await;
    readiness(&worker, 200).await;

    // The next hosts are started from a program that is no good any more.
    let broken = script(folder.path(), "exit 3");
    std::fs::rename(broken, &host).expect("the folder is ours");
    for process in worker.hosts() {
        send(process.pid, Signal::KILL);
    }
    let unready = readiness(&worker, 503).await;
    assert_eq!((&unready["circuit_closed"], &unready["queue_joined"]), (&false.into(), &true.into()), "{unready}");
    measured(&worker, &["openfn_worker_circuit_open 1"], &["openfn_worker_host_ends_total{phase=\"starting\""]).await;

    // Others may claim what this worker could not execute.
    let id = queue(&lightning, one_job("fn(s => s)"));
    let (status, why) = worker.http("POST", "/claim").await;
    assert!(status == 503 && why.contains("claims are paused"), "not even when told: {status} {why}");
    assert_eq!(lightning.run(&id).expect("it was queued").state, RunState::Available);
    std::fs::copy(binaries::worker().with_file_name("engine-host"), folder.path().join("mended"))
        .and_then(|_| std::fs::rename(folder.path().join("mended"), &host))
        .expect("the folder is ours");
    assert_eq!(end(&lightning, &worker, &id).await.state, RunState::Success);
    readiness(&worker, 200).await;
    worker.stop().await;
}

/// A shell script; gives back its path.
fn script(folder: &Path, line: &str) -> String {
    let path = folder.join("script");
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("the folder can be written to");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
    path.to_str().expect("its name is text").to_owned()
}

/// The metrics when they have all these lines, and others that begin like these and are not zero: a run is counted when
/// Lightning has confirmed its end, and a host when it is buried.
async fn measured(worker: &Worker, lines: &[&str], beginnings: &[&str]) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (status, text) = worker.http("GET", "/metrics").await;
        assert_eq!(status, 200);
        let is_there = |line: &str| text.lines().any(|it| it == line);
        let is_counted = |beginning: &str| {
            let mut found = text.lines().filter(|line| line.starts_with(beginning));
            found.any(|line| line.rsplit(' ').next().is_some_and(|value| value != "0"))
        };
        let missing = lines.iter().filter(|line| !is_there(line));
        let missing: Vec<_> = missing.chain(beginnings.iter().filter(|it| !is_counted(it))).collect();
        if missing.is_empty() {
            return text;
        }
        assert!(Instant::now() < deadline, "{missing:?} are missing in:\n{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_what_it_does() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--workloops", "manual>*:3 fast_lane:1"]).await;
    let good = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &good).await;
    let bad = queue(&lightning, one_job("fn(() => { throw new Error('secret of a user') })"));
    end(&lightning, &worker, &bad).await;
    let lines = [
        "openfn_worker_capacity{workloop=\"manual>*\"} 3",
        "openfn_worker_capacity{workloop=\"fast_lane\"} 1",
        "openfn_worker_runs_claimed_total{workloop=\"manual>*\"} 2",
        "openfn_worker_runs_ended_total{reason=\"success\",error_type=\"\"} 1",
        "openfn_worker_runs_ended_total{reason=\"fail\",error_type=\"JobError\"} 1",
        "openfn_worker_run_phase_duration_seconds_count{phase=\"prepare\"} 2",
        "openfn_worker_run_phase_duration_seconds_count{phase=\"execute\"} 2",
        "openfn_worker_run_phase_duration_seconds_count{phase=\"deliver\"} 2",
        "openfn_worker_lightning_joined 1",
        "openfn_worker_lightning_connections_total 1",
        "openfn_worker_runs_undelivered_total 0",
        "openfn_worker_log_lines_dropped_total 0",
        "openfn_worker_circuit_open 0",
        "openfn_worker_outbox_events 0",
    ];
    let beginnings = [
        "openfn_worker_hosts_started_total ",
        "openfn_worker_host_start_duration_seconds_count ",
        "openfn_worker_host_ends_total{phase=\"stopping\",reason=\"retired\"} ",
        "openfn_worker_reservations_total{warm=",
        "openfn_worker_event_loop_lag_seconds_count ",
        "openfn_worker_claim_duration_seconds_count ",
    ];
    let text = measured(&worker, &lines, &beginnings).await;
    for name in ["openfn_worker_resident_memory_bytes ", "openfn_worker_hosts_resident_memory_bytes "] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("memory is measured");
        assert!(value.parse::<u64>().expect("a number of bytes") > 1_000_000, "{name}{value}");
    }
    assert!(!text.contains("secret of a user") && !text.contains(&good), "{text}");
    for line in ["# TYPE openfn_worker_runs_ended_total counter", "# TYPE openfn_worker_build_info gauge"] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in what everything reads:\n{text}");
    }
    let accepts = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4";
    let open_metrics = worker.http_with("GET", "/metrics", &format!("accept: {accepts}\r\n")).await.1;
    assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_and_other_names_get_nothing_but_probes() {
    let lightning = lightning::start(LightningOptions::default()).await;
    for options in [&["--dashboard"][..], &["--dashboard", "--host", "127.0.0.1"]] {
        let worker = Worker::start(&lightning, options).await;
        worker.printed("joined").await;
        for (method, path) in [("POST", "/claim"), ("GET", "/dashboard"), ("GET", "/dashboard/events")] {
            for headers in [
                "origin: http://evil.example\r\n",
                "origin: null\r\n",
                "sec-fetch-site: cross-site\r\n",
                "sec-fetch-site: same-site\r\n",
                "host: evil.example:2222\r\n",
                "host: evil.example\r\norigin: http://evil.example\r\nsec-fetch-site: same-origin\r\n",
            ] {
                let (status, text) = worker.http_with(method, path, headers).await;
                assert_eq!(status, 403, "{options:?} {method} {path} {headers}: {text}");
            }
        }
        let own = "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n";
        assert_eq!(worker.http_with("POST", "/claim", own).await.0, 204);
        for host in ["host: [::1]:2222\r\n", "host: 127.0.0.1:1\r\n", "host: localhost:8080\r\n"] {
            assert_eq!(worker.http_with("GET", "/dashboard", host).await.0, 200, "{host}");
        }
        for path in ["/", "/livez", "/readyz", "/metrics"] {
            let headers = "host: evil.example\r\norigin: http://evil.example\r\n";
            assert_eq!(worker.http_with("GET", path, headers).await.0, 200, "{path}");
        }
        worker.stop().await;
    }
}
