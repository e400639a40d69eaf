//! What a host prints gets into the worker's log, and never holds the host up.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use protocol::handshake::{ADDRESS_VARIABLE, PARENT_VARIABLE, TOKEN_VARIABLE};

use crate::fake::{Act, Habit};
use crate::harness::*;

/// All that this process logs.
#[derive(Debug, Clone, Copy)]
struct Log;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Log {
    fn start() -> Self {
        static STARTED: OnceLock<()> = OnceLock::new();
        STARTED.get_or_init(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Self).init());
        Self
    }

    /// Waits for a line with all of these words.
    async fn line(self, words: &[&str]) -> String {
        let find = || {
            let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        soon(async {
            loop {
                if let Some(line) = find() {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn lines_are_logged_with_host_and_run() {
    let printed = Log::start();
    let hosts = start(&[]).await;
    let reservation = reserve(&hosts).await;
    let host = format!("host={}", reservation.host_id());
    let long = "y".repeat(10_000);
    let text = format!("a line of 4711\nlong {long}\nunfinished of 4711");
    follow(reservation.start(spec(&Act::Print(text)), log())).await.succeeded();
    printed.line(&["INFO", "engine_host", "a line of 4711", &host, "run=r1"]).await;
    printed.line(&["WARN", "engine_host", "a line of 4711", &host, "run=r1"]).await;
    printed.line(&["WARN", "unfinished of 4711", &host]).await;
    let cut = printed.line(&["long yyyy"]).await;
    assert!(cut.len() < 9_000 && cut.contains("yyyy [cut]"), "{} bytes", cut.len());
    hosts.shutdown(Duration::ZERO).await;
}

/// What this process takes.
fn resident_mebibytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() / (1024 * 1024)
}

/// `FLOOD_MB` makes it longer. Other tests take memory of this process meanwhile, too.
#[tokio::test]
async fn a_flood_is_read_dropped_and_told() {
    let printed = Log::start();
    let hosts = start(&[]).await;
    let before = std::time::Instant::now();
    let mebibytes = std::env::var("FLOOD_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let resident = resident_mebibytes();
    let flood = execute(&hosts, Act::Flood(mebibytes));
    // The pool answers all the while.
    let mut slowest = Duration::ZERO;
    let answering = async {
        loop {
            let asked = std::time::Instant::now();
            status(&hosts).await;
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        followed = flood => followed.succeeded(),
        () = answering => unreachable!("it goes on for ever"),
    }
    let grown = resident_mebibytes().saturating_sub(resident);
    println!("{mebibytes} MiB of output took {:?}; {grown} MiB more; {slowest:?} to answer", before.elapsed());
    assert!(grown < 128, "{grown} MiB for {mebibytes} MiB of output");
    assert!(slowest < Duration::from_secs(5), "{slowest:?} to answer");
    printed.line(&["of stdout were dropped: too many at once"]).await;
    hosts.shutdown(Duration::ZERO).await;
    assert!(LOG.lock().unwrap().len() < 16 * 1024 * 1024, "most of it is not logged");
}

#[tokio::test]
async fn a_host_gets_only_what_it_needs_of_the_environment() {
    let printed = Log::start();
    let hosts = start(&[Habit::PrintsItsEnvironment]).await;
    let parent = std::process::id();
    printed.line(&[&format!("parent {parent}")]).await;
    printed.line(&["folder ", "/openfn-worker-", "/h1"]).await;
    hosts.shutdown(Duration::ZERO).await;
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let mut names: Vec<_> = log.lines().filter_map(|line| line.split("variable ").nth(1)).collect();
    names.iter_mut().for_each(|name| *name = name.split(' ').next().unwrap());
    let link = [ADDRESS_VARIABLE, TOKEN_VARIABLE, PARENT_VARIABLE];
    assert!(link.iter().all(|name| names.contains(name)), "{names:?}");
    // Cargo sets many for a test, and none of them may get through.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let others = ["CARGO", "RUST_TEST", "USER", "PWD", "SECRET"];
    assert!(!names.iter().any(|name| others.iter().any(|other| name.contains(other))), "{names:?}");
}
