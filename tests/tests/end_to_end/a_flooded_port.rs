//! Connections that nobody needs keep nobody out who needs one.

use std::process::Command;

use mock_lightning::RunState;
use serde_json::json;
use tests::binaries;
use tests::lightning::{self, LightningOptions, chain, end, queue, until};
use tests::node::write_local;
use tests::worker::{Worker, local_adaptors};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_answered_while_the_port_is_flooded() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let port = worker.port().await;
    worker.printed("joined").await;
    let before = descriptors(worker.pid());
    let mut open = Vec::new();
    for number in 0..600 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the worker takes connections");
        if number % 2 == 0 {
            // Half a head. Fails when it was cut already.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await;
        }
        open.push(stream);
        if number % 50 == 49 {
            assert_eq!(worker.http("GET", "/livez").await, (200, "OK".to_owned()), "{number}");
        }
    }
    let flooded = descriptors(worker.pid());
    assert!(flooded < before + 300, "{before} descriptors before, {flooded} with 600 connections");
    assert_eq!(worker.http("GET", "/readyz").await.0, 200);
    worker.stop().await;
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the worker lives").count()
}

/// Opens 2,000 connections, tells so, and opens another for each that is cut, for as long as it lives.
const FLOOD: &str = "const net = require('node:net');
    exports.flood = (port) => () => new Promise(() => {
        let opened = 0;
        const open = () => {
            const socket = net.connect(port, '127.0.0.1', () => {
                opened += 1;
                if (opened % 3 === 0) socket.write('GET /livez HTTP/1.1\\r\\n');
                if (opened === 2000) console.log('flooded');
            });
            // Most are cut, and some never come up.
            socket.on('error', () => {}).on('close', () => setTimeout(open, 50));
        };
        for (let i = 0; i < 2000; i += 1) open();
    });";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_floods_the_port_keeps_neither_probes_nor_other_runs_out() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let manifest = json!({ "name": "@openfn/language-flood", "version": "1.0.0", "main": "index.js" });
    write_local(folder.path(), "flood", &manifest, FLOOD);
    let lightning = lightning::start(LightningOptions::default()).await;
    let local = local_adaptors("node", folder.path());
    let options: Vec<&str> = local.iter().map(String::as_str).chain(["--capacity", "2"]).collect();
    let worker = Worker::start(&lightning, &options).await;
    let port = worker.port().await;
    worker.printed("joined").await;
    let before = descriptors(worker.pid());

    let job = |code: &str| {
        let mut plan = chain(&[("a", code)]);
        plan["jobs"][0]["adaptor"] = "@openfn/language-flood@local".into();
        queue(&lightning, plan)
    };
    let flood = job(&format!("flood({port})"));
    until(&lightning, &worker, &flood, |record| !lightning::messages(record, "ADA").is_empty()).await;
    for number in 0..3 {
        assert_eq!(worker.http("GET", "/livez").await, (200, "OK".to_owned()), "{number}");
        assert_eq!(worker.http("GET", "/readyz").await.0, 200, "{number}");
        let other = end(&lightning, &worker, &job("(state) => ({ data: 'unharmed' })")).await;
        assert_eq!(other.state, RunState::Success, "{other:?}\n{}", worker.output());
        let flooded = descriptors(worker.pid());
        assert!(flooded < before + 300, "{before} descriptors before, {flooded} in the flood");
    }
    assert_eq!(lightning.run(&flood).expect("it was queued").state, RunState::Started, "{}", worker.output());
    assert!(lightning.cancel_run(&flood));
    assert_eq!(end(&lightning, &worker, &flood).await.state, RunState::Cancelled, "{}", worker.output());
    worker.stop().await;
}

/// Nobody looks at the body.
const SLOW_BODY: &str = "POST /claim HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nx";

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_and_a_connection_without_requests_are_cut() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let port = worker.port().await;
    for text in ["GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", SLOW_BODY] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the worker listens");
        stream.write_all(text.as_bytes()).await.expect("the worker reads");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(lightning::DEADLINE, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "it was not cut after {text:?}");
    }
    worker.stop().await;
}

#[test]
fn too_few_open_files_for_the_capacity_are_an_error_at_once() {
    let command = format!("ulimit -n 64; exec {} start -l mock --capacity 20 --port 0", binaries::worker().display());
    let output = Command::new("sh").args(["-c", &command]).env("WORKER_ENGINE", "embedded").output();
    let output = output.expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in ["64 files", "capacity of 20", "ulimit -n", "--capacity"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}
