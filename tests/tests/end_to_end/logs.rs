//! What the worker's own log looks like.

use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_have_the_ids_of_run_step_and_host_as_fields() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--log-format", "json"]).await;
    let id = queue(&lightning, one_job("fn(s => { console.log('of a user'); return s; })"));
    end(&lightning, &worker, &id).await;
    worker.printed("run ended").await;
    let output = worker.output();
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect();
    let with = |part: &str| {
        let found = lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains(part)));
        found.unwrap_or_else(|| panic!("no line has {part}:\n{output}"))
    };
    let step = with("Starting step");
    assert_eq!((&step["run"], &step["level"], &step["target"]), (&id.as_str().into(), &"INFO".into(), &"run".into()));
    assert!(step["host"].as_str().is_some_and(|host| host.starts_with('h')), "{step}");
    assert!(step["timestamp"].is_string(), "{step}");
    let within = with("succeeded");
    assert_eq!(within["step"], "a", "{within}");
    assert_eq!(with("run ended")["run"], id.as_str());
    assert!(!output.contains("of a user"), "{output}");
    worker.stop().await;
}

/// What the worker prints with this `RUST_LOG` until it is told that its secret is wrong.
async fn printed_with(rust_log: &str, until: &str) -> String {
    let lightning = lightning::start(LightningOptions::default()).await;
    let options = ["--secret", "a wrong one", "--log", "info", "--port", "0"];
    let worker = Worker::start_with(&lightning, &options, &[("RUST_LOG", rust_log)]).await;
    worker.printed(until).await;
    let output = worker.output();
    worker.stop().await;
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_log_beats_the_level_unless_it_says_nothing() {
    let output = printed_with("error", "refuse").await;
    assert!(!output.contains("INFO"), "{output}");
    let output = printed_with("off,hosts=debug", "host ready").await;
    assert!(!output.contains("worker starting"), "{output}");
    for says_nothing in ["", "worker=loud"] {
        let output = printed_with(says_nothing, "refuse").await;
        assert!(output.contains("worker starting") && !output.contains("DEBUG"), "{says_nothing}: {output}");
        assert_eq!(output.contains("ignoring RUST_LOG"), !says_nothing.is_empty(), "{output}");
    }
}

/// What a worker prints into a file that `JOURNAL_STREAM` names as the journal, or does not.
fn printed(arguments: &[&str], is_journal: bool) -> String {
    let mut file = tempfile::tempfile().expect("there is room for a file");
    let known = file.metadata().expect("it is open");
    let inode = known.ino() + u64::from(!is_journal);
    let (out, err) = (file.try_clone().expect("it is open"), file.try_clone().expect("it is open"));
    let mut command = std::process::Command::new(tests::binaries::worker());
    command.args(arguments).env("JOURNAL_STREAM", format!("{}:{inode}", known.dev())).stdout(out).stderr(err);
    command.env("WORKER_SECRET", "a secret").env("WORKER_ENGINE", "embedded").env_remove("RUST_LOG");
    command.status().expect("the worker was just built");
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("it is text");
    text
}

#[test]
fn the_journal_gets_priorities_and_no_second_timestamp() {
    // The port is taken, so it ends by itself.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    let arguments = ["--host", "127.0.0.1", "--port", &port, "--socket-timeout", "5", "--log", "debug"];
    let text = printed(&arguments, true);
    let beginnings = [("<4>", "--socket-timeout"), ("<3>error: ", "cannot listen on")];
    for (beginning, part) in beginnings {
        let found = text.lines().any(|line| line.starts_with(beginning) && line.contains(part));
        assert!(found, "{beginning:?} with {part:?} is missing in:\n{text}");
    }
    let year = regex_lite::Regex::new(r"\d{4}-\d\d-\d\dT").expect("it is a pattern");
    assert!(!year.is_match(&text), "{text}");
    let json = printed(&[&arguments[..], &["--log-format", "json"]].concat(), true);
    assert!(json.lines().any(|line| line.starts_with("<4>{\"timestamp\":")), "{json}");

    let text = printed(&arguments, false);
    assert!(text.lines().any(|line| year.is_match(line) && line.contains("--socket-timeout")), "{text}");
    assert!(!text.contains("<3>") && !text.contains("<4>"), "{text}");
}
