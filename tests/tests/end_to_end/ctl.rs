//! `worker ctl` looks at a worker that runs, and tells it what to do.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use mock_lightning::RunState;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, logged, one_job, queue, until};
use tests::node::write_local;
use tests::worker::Worker;
use tests::{binaries, leftovers, processes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn ctl(runtime: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binaries::worker());
    command
        .arg("ctl")
        .args(arguments)
        .env("XDG_RUNTIME_DIR", runtime)
        .env_remove("WORKER_ADMIN_SOCKET")
        .kill_on_drop(true);
    let output = tokio::time::timeout(lightning::DEADLINE, command.output()).await;
    output.expect("it answers in time").expect("the worker was just built")
}

/// What it prints, if it succeeds.
async fn told(runtime: &Path, arguments: &[&str]) -> String {
    let output = ctl(runtime, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

async fn json(runtime: &Path, arguments: &[&str]) -> Value {
    let text = told(runtime, &[&["--json"], arguments].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_and_changes_what_a_worker_does() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = runtime.path();
    let none = ctl(runtime, &["status"]).await;
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no worker of this user runs here"));

    let lightning = lightning::start(LightningOptions::default()).await;
    let second = runtime.join("second.sock");
    let options = ["--capacity", "2", "--admin-socket", second.to_str().expect("the path is text")];
    let worker = Worker::start_in(&lightning, &options, runtime).await;
    let busy = queue(&lightning, one_job("fn(s => { console.log('busy'); for (;;); })"));
    until(&lightning, &worker, &busy, |record| logged(record, "busy")).await;

    let status = json(runtime, &["status"]).await;
    assert_eq!(status["status"]["pid"], worker.pid());
    assert_eq!(status["status"]["lightning"]["active_runs"], 1);
    assert_eq!(status["status"]["pools"][0]["pool"], "engines");
    let text = told(runtime, &["status", "--admin-socket", second.to_str().expect("the path is text")]).await;
    assert!(text.contains("queue joined; 1 of 2 runs active"), "{text}");
    let mut top = tokio::process::Command::new(binaries::worker());
    let top = top.args(["top", "--admin-socket"]).arg(&second).output().await.expect("the worker was just built");
    assert!(!top.status.success());
    assert!(String::from_utf8_lossy(&top.stderr).contains("needs a terminal; `worker ctl status`"), "{top:?}");
    let runs = json(runtime, &["runs"]).await;
    assert_eq!(runs["runs"][0]["run"], busy.as_str());
    let host = runs["runs"][0]["host"].as_str().expect("a run has a host").to_owned();
    let hosts = told(runtime, &["hosts"]).await;
    let line = hosts.lines().find(|line| line.starts_with(&host)).expect("the host is listed");
    assert!(line.contains("running") && line.contains(&busy), "{hosts}");

    let wrong = ctl(runtime, &["cancel", "another"]).await;
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("no run's id is another"));
    for (wanted, why) in
        [(["logs", "--host", "h0"], "there is no host h0"), (["logs", "--run", "r0"], "no host executes r0")]
    {
        let wrong = ctl(runtime, &wanted).await;
        assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains(why), "{wrong:?}");
    }
    assert_eq!(told(runtime, &["logs", "--host", &host]).await, "", "it prints nothing of its own accord");
    told(runtime, &["cancel", &busy[..8]]).await;
    let record = end(&lightning, &worker, &busy).await;
    assert_eq!((record.state, record.error_type.as_deref()), (RunState::Cancelled, Some("Cancelled")));

    let asked = format!("admin socket request uid={} pid=", rustix::process::getuid().as_raw());
    worker.printed(&asked).await;

    told(runtime, &["resize", "engines", "4"]).await;
    let ready = json(runtime, &["status"]).await["status"]["pools"][0]["hosts"]["ready"].clone();
    assert_eq!(ready, 4);
    let many = ctl(runtime, &["resize", "engines", "99999"]).await;
    let told_why = String::from_utf8_lossy(&many.stderr).into_owned();
    assert!(!many.status.success() && told_why.contains("more than 8") && told_why.contains("--force"), "{many:?}");
    assert_eq!(json(runtime, &["status"]).await["status"]["pools"][0]["size"], 4, "nothing has changed");
    told(runtime, &["resize", "engines", "9", "--force"]).await;
    told(runtime, &["resize", "engines", "4"]).await;
    let wrong = ctl(runtime, &["resize", "nothing", "4"]).await;
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there are engines"), "{wrong:?}");
    let before = worker.hosts();
    told(runtime, &["recycle"]).await;
    assert!(worker.hosts().iter().all(|host| before.iter().all(|old| old.pid != host.pid)));

    told(runtime, &["drain"]).await;
    assert_eq!(worker.hosts(), []);
    told(runtime, &["drain"]).await;
    let waiting = queue(&lightning, one_job("fn(s => s)"));
    // A few round trips to the worker, which knows of the run by then.
    for _ in 0..3 {
        told(runtime, &["drain"]).await;
    }
    let resumed_at = protocol::clock::now_us();
    told(runtime, &["resume"]).await;
    let record = end(&lightning, &worker, &waiting).await;
    assert_eq!(record.state, RunState::Success);
    assert!(record.claimed_at >= Some(resumed_at), "it was claimed by a worker that was drained");

    worker.stop().await;
    assert_eq!(leftovers::gone(runtime, Duration::from_secs(5)).await, [""; 0]);
}

/// Asks until it is so.
async fn until_json(runtime: &Path, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + lightning::DEADLINE;
    loop {
        let answer = json(runtime, arguments).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{arguments:?}: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_did_is_known_after_their_end() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = runtime.path();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_in(&lightning, &["--engine", "embedded"], runtime).await;
    let well = queue(
        &lightning,
        chain(&[("a", "fn(s => s)"), ("b", "fn(s => { for (let i = 0; i < 3e6; i++); return s; })")]),
    );
    end(&lightning, &worker, &well).await;
    let ill = queue(&lightning, one_job("fn(s => s.a.b)"));
    end(&lightning, &worker, &ill).await;

    let both = |answer: &Value| answer["history"].as_array().is_some_and(|runs| runs.len() == 2);
    let history = until_json(runtime, &["history"], both).await;
    let [last, first] = [&history["history"][0], &history["history"][1]];
    assert_eq!(
        (&last["run"], &last["reason"], &last["error_type"]),
        (&json!(ill), &json!("fail"), &json!("RuntimeError"))
    );
    assert_eq!((&first["run"], &first["reason"], &first["delivered"]), (&json!(well), &json!("success"), &json!(true)));
    for run in [first, last] {
        for phase in ["prepare", "start", "execute", "deliver"] {
            assert!(run["phases_us"][phase].as_u64().is_some_and(|took| took > 0), "{phase}: {run}");
        }
        assert!(run["cpu_us"].as_u64().is_some_and(|spent| spent > 100), "{run}");
        assert!(run["peak_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{run}");
        assert_eq!(run["delivery"]["states_withheld"], 0);
    }
    assert_eq!(json(runtime, &["history", "-n", "1"]).await["history"].as_array().map(Vec::len), Some(1));
    let whole = json(runtime, &["history", "--run", &well[..13]]).await;
    assert_eq!(whole["run"]["steps"].as_array().map(Vec::len), Some(2), "{whole}");
    assert_eq!(whole["run"]["timeline"][0][0], "prepare");
    let text = told(runtime, &["history", "--run", &ill]).await;
    assert!(text.contains("fail (RuntimeError)") && text.contains("AT  "), "{text}");
    let none = ctl(runtime, &["history", "--run", "x"]).await;
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no run's id is x"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_shows_at_once_and_goes_on_without_who_asked_for_it() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = runtime.path();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_in(&lightning, &["--engine", "embedded", "--capacity", "1"], runtime).await;
    let busy = queue(&lightning, one_job("fn(s => { console.log('busy'); for (;;); })"));
    until(&lightning, &worker, &busy, |record| logged(record, "busy")).await;
    let mut asking = tokio::process::Command::new(binaries::worker())
        .args(["ctl", "drain"])
        .env("XDG_RUNTIME_DIR", runtime)
        .kill_on_drop(true)
        .spawn()
        .expect("the worker was just built");
    until_json(runtime, &["status"], |answer| answer["status"]["draining"] == true).await;
    let (code, body) = worker.http("GET", "/readyz").await;
    assert_eq!(code, 503, "{body}");
    assert!(body.contains(r#""not_draining":false"#) && body.contains(r#""reason":"draining: "#), "{body}");
    assert!(worker.http("GET", "/metrics").await.1.contains("\nopenfn_worker_draining 1"));
    assert!(asking.try_wait().expect("it can be waited for").is_none(), "it waits for the run");
    asking.kill().await.expect("it can be killed");

    told(runtime, &["cancel", &busy]).await;
    end(&lightning, &worker, &busy).await;
    until_json(runtime, &["hosts"], |answer| answer["hosts"].as_array().is_some_and(Vec::is_empty)).await;
    assert_eq!(worker.http("GET", "/readyz").await.0, 503);
    told(runtime, &["resume"]).await;
    until_json(runtime, &["status"], |answer| answer["status"]["draining"] == false).await;
    let next = queue(&lightning, one_job("fn(s => s)"));
    assert_eq!(end(&lightning, &worker, &next).await.state, RunState::Success);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_workers_one_has_to_be_named() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let lightning = lightning::start(LightningOptions::default()).await;
    let workers = [
        Worker::start_in(&lightning, &[], runtime.path()).await,
        Worker::start_in(&lightning, &[], runtime.path()).await,
    ];
    for worker in &workers {
        worker.printed("joined").await;
    }
    let output = ctl(runtime.path(), &["status"]).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.matches("/admin").count() == 2, "{error}");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signals_end_a_worker_that_was_made_to_have_more_hosts_than_it_should() {
    let runtime = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = runtime.path();
    let lightning = lightning::start(LightningOptions::default()).await;
    // While they start, and when all wait.
    for all_wait in [false, true] {
        let worker = Worker::start_in(&lightning, &["--capacity", "1"], runtime).await;
        let busy = queue(&lightning, one_job("fn(s => { console.log('busy'); for (;;); })"));
        until(&lightning, &worker, &busy, |record| logged(record, "busy")).await;
        let refused = ctl(runtime, &["resize", "engines", "12"]).await;
        assert!(!refused.status.success(), "{refused:?}");
        let mut resize = std::pin::pin!(ctl(runtime, &["resize", "engines", "12", "--force"]));
        tokio::select! {
            _ = &mut resize => {}
            () = more_hosts(&worker, 4), if !all_wait => {}
        }
        let hosts: Vec<u32> = worker.hosts().iter().map(|host| host.pid).collect();
        assert!(hosts.len() > 4 && (!all_wait || hosts.len() > 12), "{hosts:?}\n{}", worker.output());

        worker.signal(Signal::TERM);
        worker.printed("finish").await;
        worker.signal(Signal::TERM);
        // The times that hosts have after SIGTERM and after SIGKILL, with a margin for a busy machine.
        assert_eq!(worker.exit(lightning::DEADLINE).await, Some(0));
        assert_eq!(lightning.run(&busy).expect("it was queued").state, RunState::Killed);
        assert_eq!(processes::gone(&hosts, lightning::DEADLINE).await, [0u32; 0]);
        assert_eq!(leftovers::gone(runtime, lightning::DEADLINE).await, Vec::<String>::new());
    }
}

/// Waits until a worker has more than so many hosts.
async fn more_hosts(worker: &Worker, than: usize) {
    while worker.hosts().len() <= than {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_have_its_socket_claims_nothing() {
    let runtime = tempfile::tempdir().expect("a folder");
    let lightning = lightning::start(LightningOptions::default()).await;
    let run = queue(&lightning, one_job("fn(s => s)"));
    let path = runtime.path().join("no/such/folder/admin");
    let socket = path.to_str().expect("it is UTF-8");
    let worker = Worker::start_in(&lightning, &["--admin-socket", socket], runtime.path()).await;
    worker.printed("cannot listen on the admin socket").await;
    assert_eq!(worker.exit(lightning::DEADLINE).await, Some(1));
    assert_eq!(lightning.run(&run).expect("it was queued").state, RunState::Available);
    assert_eq!(lightning.activity().connections.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_are_few_and_do_not_stay() {
    let runtime = tempfile::tempdir().expect("a folder");
    let lightning = lightning::start(LightningOptions::default()).await;
    let path = runtime.path().join("admin");
    let socket = path.to_str().expect("it is UTF-8");
    let options = ["--capacity", "1", "--admin-socket", socket];
    let worker = Worker::start_in(&lightning, &options, runtime.path()).await;
    worker.printed("joined Lightning's queue").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(UnixStream::connect(&path).await.expect("it listens"));
    }
    worker.printed("as many are open as it serves at once").await;
    let mut refused = UnixStream::connect(&path).await.expect("it listens");
    // It may be cut before it can ask.
    let _ = refused.write_all(b"{\"command\":\"status\"}\n").await;
    let answer = tokio::time::timeout(lightning::DEADLINE, refused.read(&mut [0])).await.expect("it is cut in time");
    assert_eq!(answer.unwrap_or(0), 0);
    // It cuts them, of itself.
    for mut client in silent {
        let cut = tokio::time::timeout(lightning::DEADLINE, client.read(&mut [0])).await.expect("it is cut in time");
        assert_eq!(cut.unwrap_or(0), 0);
    }
    assert_eq!(json(runtime.path(), &["status"]).await["status"]["pid"], worker.pid());
    worker.stop().await;
}

/// An adaptor that finds the socket above its folder, itself and by a process that nobody is the parent of.
const CONTROL: &str = r#"const { connect } = require('node:net');
const { spawnSync } = require('node:child_process');
const asked = (path) => new Promise((resolve) => {
    const socket = connect(path, () => socket.write('{"command":"drain"}\n'));
    let answer = '';
    socket.on('data', (bytes) => (answer += bytes)).on('error', () => {}).on('close', () => resolve(answer));
});
const away = (path) => String(spawnSync('sh', ['-c', `
    setsid ${process.execPath} -e '
        const socket = require("node:net").connect("${path}", () => socket.write(JSON.stringify({command: "drain"}) + "\\n"));
        socket.on("data", (bytes) => process.stdout.write(bytes)).on("error", () => {});' &`]).stdout);
exports.control = (path) => async (state) => ({ ...state, answers: [await asked(path), away(path)] });"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_hosts_gets_no_answer() {
    let (root, runtime) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let manifest = json!({
        "name": "@openfn/language-control", "version": "1.0.0", "main": "index.js",
        "openfn": { "needs": { "child_processes": true } },
    });
    write_local(root.path(), "control", &manifest, CONTROL);
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_unconfined(&lightning, root.path(), runtime.path()).await;
    let mut plan = chain(&[("a", "control('../../../admin')")]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-control@local".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    let answers = record.final_state.as_ref().map_or(&Value::Null, |state| &state["answers"]);
    assert_eq!(answers, &json!(["", ""]), "{record:?}\n{}", worker.output());
    // Both got there.
    worker.printed_times("refused a connection to the admin socket", 2).await;
    assert_eq!(json(runtime.path(), &["status"]).await["status"]["pid"], worker.pid());
    worker.stop().await;
}
