//! What the worker's own log looks like.

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
    let output = printed_with("off,worker::hosts=debug", "host ready").await;
    assert!(!output.contains("worker starts"), "{output}");
    for says_nothing in ["", "worker=loud"] {
        let output = printed_with(says_nothing, "refuse").await;
        assert!(output.contains("worker starts") && !output.contains("DEBUG"), "{says_nothing}: {output}");
        assert_eq!(output.contains("RUST_LOG is not used"), !says_nothing.is_empty(), "{output}");
    }
}
