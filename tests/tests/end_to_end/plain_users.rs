//! A worker of a user without privileges works on kernels that tell it less about itself: it makes itself not dumpable,
//! after which it may not read all of `/proc/self` any more.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use mock_lightning::RunState;
use serde_json::Value;
use tests::lightning::{self, DEADLINE, LightningOptions, end, logged, one_job, queue, until};
use tests::node::{COMMON, SOURCE};
use tests::plain_user::PlainUser;
use tests::registry::Registry;
use tests::worker::Worker;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What the worker prints for a command.
fn output(user: &PlainUser, runtime: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(user.worker());
    command.args(arguments).env_clear().env("PATH", "/nowhere").env("XDG_RUNTIME_DIR", runtime);
    command.env("XDG_CACHE_HOME", runtime.join("cache")).current_dir("/").stdin(Stdio::null());
    let output = user.start(&mut command, Command::output).expect("the worker was just copied");
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output, text)
}

#[test]
fn the_program_alone_shows_a_run_and_looks_at_the_machine() {
    let user = PlainUser::new();
    let runtime = user.folder("runtime");
    let (demo, text) = output(&user, &runtime, &["demo"]);
    assert_eq!(demo.status.code(), Some(0), "{text}");
    assert!(text.contains("✔ success run"), "{text}");
    let (_, text) = output(&user, &runtime, &["doctor", "--engine", "embedded"]);
    assert!(text.lines().any(|line| line.starts_with("ok") && line.contains("answers after")), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// A worker that shows all that it knows of its processes, and what it says of them.
async fn shows_its_processes(engine: &str) {
    let (user, registry) = (PlainUser::new(), Registry::start().await);
    registry.publish(COMMON.0, COMMON.1, SOURCE);
    let [runtime, home] = ["runtime", "home"].map(|name| user.folder(name));
    let lightning = lightning::start(LightningOptions::default()).await;
    let url = lightning.url();
    let mut command = Command::new(user.worker());
    command
        .args(["--lightning", &url, "--port", "0", "--backoff", "0.05/0.2", "--log", "debug", "--capacity", "1"])
        .args(["--dashboard", "--profile", "--profile-poll-interval-ms", "1", "--engine", engine, "--repo-dir"])
        .arg(home.join("repo"))
        .envs([("XDG_RUNTIME_DIR", &runtime), ("HOME", &home), ("npm_config_cache", &home.join("npm"))])
        .env("npm_config_registry", registry.url())
        .env("WORKER_SECRET", lightning::SECRET)
        .current_dir("/");
    let worker = user.start(&mut command, |command| {
        let command = std::mem::replace(command, Command::new("true"));
        Worker::spawn(&mut command.into())
    });

    let id = queue(
        &lightning,
        one_job("fn(async s => { console.log('here'); await new Promise(done => setTimeout(done, 1000)); return s; })"),
    );
    until(&lightning, &worker, &id, |record| logged(record, "here")).await;
    assert_ne!(worker.hosts(), [], "{engine}");
    let seen = first_update_with_hosts(&worker).await;
    assert!(seen["worker"]["memory"].as_u64().is_some_and(|bytes| bytes > 0), "{seen}");
    let (status, metrics) = worker.http("GET", "/metrics").await;
    assert_eq!(status, 200, "{engine}: {metrics}\n{}", worker.output());
    for metric in ["resident_memory_bytes", "hosts_resident_memory_bytes"] {
        let line = metrics.lines().find(|line| line.starts_with(&format!("openfn_worker_{metric} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(value.is_some_and(|bytes| bytes > 0.0), "{engine}: {metric} in {metrics}");
    }
    assert!(metrics.contains("openfn_worker_panics_total 0"), "{metrics}");
    let (hosts, text) = output(&user, &runtime, &["ctl", "hosts", "--json"]);
    assert!(hosts.status.success(), "{engine}: {text}\n{}", worker.output());
    let hosts: Value = serde_json::from_str(&text).expect("it prints JSON");
    assert!(
        hosts["hosts"].as_array().is_some_and(|all| all.iter().any(|host| host["memory_bytes"].is_u64())),
        "{hosts}"
    );

    let record = end(&lightning, &worker, &id).await;
    assert_eq!(record.state, RunState::Success, "{engine}: {record:?}\n{}", worker.output());
    worker.printed("peak memory of a step").await;
    let printed = worker.output();
    worker.stop().await;
    assert!(!printed.contains("panic"), "{engine}: {printed}");
}

/// The first that the dashboard is told of hosts.
async fn first_update_with_hosts(worker: &Worker) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", worker.port().await)).await.expect("the worker listens");
    let request = "GET /dashboard/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the worker reads");
    let mut lines = BufReader::new(stream).lines();
    let end = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < end, "no update tells of hosts\n{}", worker.output());
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("updates come");
        let line = line.expect("it is text").unwrap_or_else(|| panic!("updates end\n{}", worker.output()));
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let update: Value = serde_json::from_str(data).expect("it is JSON");
        if update["worker"]["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()) {
            return update;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_shows_its_processes() {
    shows_its_processes("embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_shows_its_processes() {
    shows_its_processes("node").await;
}
