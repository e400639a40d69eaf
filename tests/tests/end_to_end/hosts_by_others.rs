//! Hosts that others write: the pools of `examples/pool.rs`, with a host in Rust and one in JavaScript, from the start to
//! the end, and every way in which the program with the broker can end while they are busy.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::binaries;
use tests::lightning::DEADLINE;
use tests::processes::{gone, process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const POOLS: [&str; 2] = ["counter", "adder"];

/// The example, at work.
struct Example {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
    _folder: tempfile::TempDir,
}

fn node() -> PathBuf {
    let named = std::env::var_os("OPENFN_TEST_NODE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file());
    named.or(found).expect("Node can be found")
}

impl Example {
    async fn start() -> Self {
        Self::start_with(Path::new(env!("CARGO_BIN_EXE_counter"))).await
    }

    async fn start_with(counter: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pool"));
        command
            .arg(binaries::worker().with_file_name("engine-host"))
            .arg(counter)
            .arg(node())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/adder.mjs"))
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the example can be started");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let lines = BufReader::new(output).lines();
        let mut example = Self { child, input, lines, seen: Vec::new(), _folder: folder };
        example.until_ready("counter", 2).await;
        example.until_ready("adder", 1).await;
        example
    }

    /// Waits until so many hosts of a pool have got ready.
    async fn until_ready(&mut self, pool: &str, count: usize) {
        let is_ready = |line: &&String| line.starts_with(pool) && line.ends_with("ready");
        while self.seen.iter().filter(is_ready).count() < count {
            self.next().await;
        }
    }

    async fn next(&mut self) -> &str {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("nothing more was printed after {:#?}", self.seen));
        let line = line.expect("its output can be read");
        self.seen.push(line.unwrap_or_else(|| panic!("it ended after {:#?}", self.seen)));
        &self.seen[self.seen.len() - 1]
    }

    /// Waits for a line with this in it, from here on.
    async fn printed(&mut self, wanted: &str) -> String {
        loop {
            let line = self.next().await;
            if line.contains(wanted) {
                return line.to_owned();
            }
        }
    }

    async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// Gives a command and waits for its answer.
    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        let answer = self.printed(&format!("{line}: ")).await;
        answer.split_once(": ").expect("it is there").1.to_owned()
    }

    async fn status(&mut self, pool: &str) -> Value {
        serde_json::from_str(&self.ask(&format!("status {pool}")).await).expect("it is JSON")
    }

    /// The processes of all hosts.
    async fn pids(&mut self) -> Vec<u32> {
        let mut pids = Vec::new();
        for pool in POOLS {
            let status = self.status(pool).await;
            let hosts = status["hosts"].as_array().expect("it is a list").clone();
            pids.extend(hosts.iter().filter_map(|host| u32::try_from(host[1].as_u64()?).ok()));
        }
        pids
    }

    fn signal(&self, signal: Signal) {
        let pid =
            Pid::from_raw(i32::try_from(self.child.id().expect("it lives")).expect("it is one")).expect("it is one");
        kill_process(pid, signal).expect("it lives");
    }
}

#[tokio::test]
async fn hosts_answer_ask_tell_count_and_log() {
    let mut example = Example::start().await;
    let first = example.seen.iter().find(|line| line.starts_with("counter")).expect("it says something").clone();
    assert!(first.contains("started"), "nothing that happened before is missed: {first}");
    assert_eq!(example.ask(r#"ask counter "count""#).await, "1");
    assert_eq!(example.ask(r#"ask adder {"add":[1,2,3.5]}"#).await, "6.5");
    assert_eq!(
        serde_json::from_str::<Value>(&example.ask(r#"ask counter {"ask":["why"]}"#).await).expect("it is JSON")["asked"],
        json!(["why"])
    );
    let refused = example.ask("ask counter {\"dance\":1}").await;
    assert!(refused.contains("unknown variant `dance`"), "{refused}");
    let refused = example.ask("ask adder {\"add\":1}").await;
    assert!(refused.contains("add.reduce"), "{refused}");
    assert_eq!(example.status("counter").await["counts"], json!({ "counted": 1 }));
    example.ask(r#"tell counter {"news":1}"#).await;
    drop(example.input.take());
    while example.next().await != "stopped" {}
    let said = example.seen.iter().filter(|line| line.contains("says \"stopping\"")).count();
    assert_eq!(said, 2, "what a host says last arrives: {:#?}", example.seen);
    assert!(example.child.wait().await.expect("it can be waited for").success());
}

#[tokio::test]
async fn pools_are_recycled_drained_resumed_resized_and_get_other_settings() {
    let mut example = Example::start().await;
    let before = example.pids().await;
    for pool in POOLS {
        assert_eq!(example.ask(&format!("recycle {pool}")).await, "done");
    }
    let after = example.pids().await;
    assert!(after.len() == before.len() && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    for pool in POOLS {
        assert_eq!(example.ask(&format!("drain {pool}")).await, "done");
    }
    assert_eq!((example.pids().await, gone(&after, DEADLINE).await), (vec![], vec![]));
    for pool in POOLS {
        assert_eq!(example.ask(&format!("resume {pool}")).await, "done");
    }
    assert_eq!(example.ask("resize counter 4").await, "done");
    assert_eq!(example.status("counter").await["hosts"].as_array().map(Vec::len), Some(4));
    assert_eq!(example.ask("resize counter 1").await, "done");
    let one = example.status("counter").await;
    assert_eq!(one["hosts"].as_array().map(Vec::len), Some(1));

    // A host that takes other settings stays, one that does not is replaced.
    let adder = example.status("adder").await;
    for pool in POOLS {
        assert_eq!(example.ask(&format!(r#"set {pool} [["COLOUR","red"]]"#)).await, "done");
    }
    let counters = example.status("counter").await;
    assert!(counters["hosts"].as_array().is_some_and(|hosts| hosts.contains(&one["hosts"][0])), "{counters}");
    assert_ne!(example.status("adder").await["hosts"], adder["hosts"]);
    for _ in 0..2 {
        assert_eq!(example.ask(r#"ask counter {"setting":"COLOUR"}"#).await, "\"red\"");
    }
}

#[tokio::test]
async fn a_host_that_crashes_is_replaced_and_a_new_program_is_used() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let counter = folder.path().join("counter");
    std::fs::copy(env!("CARGO_BIN_EXE_counter"), &counter).expect("it can be copied");
    let mut example = Example::start_with(&counter).await;
    let crashed = example.ask(r#"ask counter {"crash":7}"#).await;
    assert!(crashed.contains("exited with code: 7"), "{crashed}");
    example.until_ready("counter", 3).await;
    let before = example.pids().await;
    signal(before[0], Signal::KILL);
    example.until_ready("counter", 4).await;
    let before = example.pids().await;
    assert_eq!(before.len(), 3);

    let next = folder.path().join("next");
    std::fs::copy(env!("CARGO_BIN_EXE_counter"), &next).expect("it can be copied");
    std::fs::rename(&next, &counter).expect("it can be replaced");
    example.printed("reloaded").await;
    let after = example.pids().await;
    assert!(after.len() == 3 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

/// How the program with the broker ends.
#[derive(Debug, Clone, Copy)]
enum Road {
    Exit,
    Abort,
    Kill,
    Terminate,
    Stop,
}

const ROADS: [Road; 5] = [Road::Exit, Road::Abort, Road::Kill, Road::Terminate, Road::Stop];

impl Example {
    /// Takes a road to its end.
    async fn end(&mut self, road: Road) {
        match road {
            Road::Exit => self.say("exit").await,
            Road::Abort => self.say("abort").await,
            Road::Kill => self.signal(Signal::KILL),
            Road::Terminate => self.signal(Signal::TERM),
            Road::Stop => drop(self.input.take()),
        }
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends").expect("it can be waited for");
    }
}

#[tokio::test]
async fn hosts_whose_stop_hook_hangs_do_not_outlive_their_broker_on_any_road() {
    let roads = ROADS.map(async |road| {
        let mut example = Example::start().await;
        assert_eq!(example.ask(r#"set counter [["HANG","yes"]]"#).await, "done");
        let pids = example.pids().await;
        example.end(road).await;
        assert_eq!(gone(&pids, DEADLINE).await, Vec::<u32>::new(), "{road:?}");
    });
    join_all(roads).await;
}

#[tokio::test]
async fn busy_hosts_do_not_outlive_their_broker_on_any_road() {
    for road in ROADS {
        let mut example = Example::start().await;
        let pids = example.pids().await;
        example.say(r#"ask counter "spin""#).await;
        example.say(r#"ask adder {"spin":true}"#).await;
        let (mut counter, mut adder) = (false, false);
        while !(counter && adder) {
            let line = example.printed("spinning").await;
            counter |= line.starts_with("counter h");
            adder |= line.starts_with("adder h");
        }
        example.end(road).await;
        assert_eq!(gone(&pids, DEADLINE).await, Vec::<u32>::new(), "{road:?}");
    }
}

#[tokio::test]
async fn a_host_does_what_it_does_last_though_its_broker_was_killed() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let note = folder.path().join("note");
    let mut example = Example::start().await;
    let set = format!(r#"set counter [["NOTE","{}"]]"#, note.display());
    assert_eq!(example.ask(&set).await, "done");
    let pids = example.pids().await;
    example.signal(Signal::KILL);
    assert_eq!(gone(&pids, DEADLINE).await, Vec::<u32>::new());
    assert_eq!(std::fs::read_to_string(&note).ok().as_deref(), Some("stopped"));
}

#[tokio::test]
async fn busy_hosts_end_when_they_are_asked_to() {
    let mut example = Example::start().await;
    example.say(r#"ask counter "spin""#).await;
    let line = example.printed("spinning").await;
    let host = line.split(' ').nth(1).expect("it names the host").to_owned();
    let status = example.status("counter").await;
    let hosts = status["hosts"].as_array().expect("it is a list");
    let pid = hosts.iter().find(|it| it[0] == host.as_str()).and_then(|it| it[1].as_u64());
    let pid = u32::try_from(pid.expect("it has one")).expect("it is one");
    signal(pid, Signal::TERM);
    example.printed("died").await;
    assert_eq!(gone(&[pid], DEADLINE).await, Vec::<u32>::new());
    assert!(process(pid).is_none());
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("it is one")).expect("it is one");
    kill_process(pid, signal).expect("it lives");
}

#[tokio::test]
async fn a_host_does_nothing_when_it_is_started_by_hand() {
    let output = tokio::time::timeout(Duration::from_secs(60), Command::new(env!("CARGO_BIN_EXE_counter")).output());
    let output = output.await.expect("it ends").expect("it can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("the program with the broker starts it"), "{told}");
}
