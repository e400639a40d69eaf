//! Connections that nobody needs keep nobody out who needs one.

use std::process::Command;

use tests::binaries;
use tests::lightning::{self, LightningOptions};
use tests::worker::Worker;
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
    for number in 0..300 {
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
    assert!(flooded < before + 100, "{before} descriptors before, {flooded} with 300 connections");
    assert_eq!(worker.http("GET", "/readyz").await.0, 200);
    worker.stop().await;
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the worker lives").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_and_a_connection_without_requests_are_cut() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &[]).await;
    let port = worker.port().await;
    for text in ["GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
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
