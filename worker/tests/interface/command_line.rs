//! Wrong options, a missing host program and a host started by hand are told plainly.

use std::process::{Command, Output};

use clap::CommandFactory;
use tests::binaries;
use worker::cli::Cli;

fn worker(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(binaries::worker());
    command.args(arguments).env_remove("WORKER_SECRET").envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("the worker was just built");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn wrong_options_are_named_and_exit_with_2() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&["--capacity", "0"], &[], &["--capacity", "WORKER_CAPACITY", "'0'"]),
        (&[], &[("WORKER_CAPACITY", "many")], &["--capacity", "WORKER_CAPACITY", "'many'"]),
        (&["--capacity", "-1"], &[], &["--capacity", "WORKER_CAPACITY", "'-1'", "whole number"]),
        (&["--port", "70000"], &[], &["--port", "WORKER_PORT", "70000", "65535"]),
        (&["--host-max-open-files", "many"], &[], &["--host-max-open-files", "'many'", "whole number"]),
        (&["--backoff", "5/1"], &[], &["--backoff", "WORKER_BACKOFF", "shortest"]),
        (&["-l", "http://x"], &[], &["--lightning", "WORKER_LIGHTNING_SERVICE_URL", "ws://"]),
        (&["--no-such-flag"], &[], &["--no-such-flag"]),
        (&["--capacity", "2"], &[("WORKER_WORKLOOPS", "*:1")], &["--capacity", "--workloops", "exclude"]),
        (&["-l", "mock", "--workloops", "a b:1"], &[], &["--workloops", "WORKER_WORKLOOPS", "a"]),
        (&[], &[], &["--secret", "WORKER_SECRET", "WORKER_SECRET_FILE"]),
        (
            &["-l", "mock", "--lightning-public-key", "x"],
            &[],
            &["--lightning-public-key", "WORKER_LIGHTNING_PUBLIC_KEY"],
        ),
        (
            &["-l", "mock", "--engine-host", "/nowhere/engine-host"],
            &[],
            &["--engine-host", "WORKER_ENGINE_HOST", "/nowhere/engine-host"],
        ),
        (&["mock-lightning", "--port", "many"], &[], &["'--port <PORT>':", "'many'"]),
        (&[], &[("WORKER_SECRET_FILE", "/nowhere/secret")], &["WORKER_SECRET_FILE", "/nowhere/secret"]),
    ];
    for (arguments, environment, expected) in cases {
        let (code, text) = worker(arguments, environment);
        assert_eq!(code, Some(2), "{arguments:?} {environment:?}: {text}");
        for part in *expected {
            assert!(text.contains(part), "{arguments:?} {environment:?}: {part} is missing in: {text}");
        }
    }
}

#[test]
fn no_error_shows_a_password() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        (&["-l", "ws://bob:s3cret@h/worker"], &[]),
        (&[], &[("WORKER_LIGHTNING_SERVICE_URL", "wss://bob:s3cret@h/worker")]),
        (&["-l", "ws://bob:s3cret/@h/worker"], &[]),
        (&["ws://bob:s3cret@h/worker"], &[]),
        (&["--nothing=ws://bob:s3cret@h/worker"], &[]),
        (&["-l", "mock", "--otlp-endpoint", "http://bob:s3cret@h:4318"], &[]),
        (&["-l", "mock", "--otlp-headers", "s3cret"], &[]),
        (&["-l", "mock", "--sentry-dsn", "https://s3cret@h"], &[]),
        (&["-l", "mock", "--sentry-dsn", "s3cret"], &[]),
        (&["-l", "mock", "--lightning-public-key", "s3cret"], &[]),
        (&["-l", "mock", "--port", "http://bob:s3cret@h"], &[]),
        (&["oada", "--domain", "https://bob:s3cret@h", "--handlers", "x", "--token", "t"], &[]),
        (&["check-config", "--print", "-l", "mock", "--collections-url", "http://bob:s3cret@h"], &[]),
    ];
    for (arguments, environment) in cases {
        let (code, text) = worker(arguments, environment);
        assert!(!text.contains("s3cret"), "{arguments:?} {environment:?}: {text}");
        assert!(code == Some(2) || arguments[0] == "check-config", "{arguments:?} {environment:?}: {text}");
    }
}

#[test]
fn far_more_warm_hosts_than_runs_are_refused() {
    let (code, text) = worker(&["-l", "mock", "--capacity", "2", "--warm-hosts", "9"], &[]);
    assert_eq!(code, Some(2), "{text}");
    for part in ["--warm-hosts", "WORKER_WARM_HOSTS", "9", "--capacity"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let (code, text) = worker(&["check-config", "-l", "mock", "--capacity", "2", "--warm-hosts", "8"], &[]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_missing_host_program_is_named_with_the_option() {
    let (code, text) = worker(&["demo", "--engine-host", "/nowhere/engine-host"], &[]);
    assert_eq!(code, Some(2), "{text}");
    for part in ["/nowhere/engine-host", "--engine-host", "WORKER_ENGINE_HOST"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn help_shows_every_group_and_no_secret() {
    let (code, text) = worker(&["--help"], &[("WORKER_LIGHTNING_PUBLIC_KEY", "very private")]);
    assert_eq!(code, Some(0));
    for part in ["Lightning:", "Claiming:", "Limits of a run:", "Delivery:", "Engine hosts:", "Operation:", "demo"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(!text.contains("very private"), "{text}");
}

#[test]
fn an_address_of_another_machine_is_named_with_its_option() {
    // From the block for documentation.
    let arguments = ["-l", "mock", "--engine", "embedded", "--host", "192.0.2.1", "--port", "0"];
    let (code, text) = worker(&arguments, &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["192.0.2.1:0", "--host", "WORKER_HOST"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn help_names_the_variable_of_each_option() {
    for arguments in [&["--help"][..], &["start", "--help"]] {
        let (_, text) = worker(arguments, &[]);
        for argument in Cli::command().get_arguments() {
            let Some(name) = argument.get_env() else { continue };
            let name = format!("[env: {}", name.to_string_lossy());
            assert!(text.contains(&name), "{name} is missing in: {text}");
        }
        for part in ["--lightning-service-url", "--loop", "--dsn", "_FILE", "Exit codes:"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}

#[test]
fn a_host_started_by_hand_says_what_it_is() {
    let host = binaries::worker().with_file_name("engine-host");
    let output = Command::new(host).output().expect("the host lies beside the worker");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("worker"), "{text}");
}

#[test]
fn keys_are_made_as_environment_lines_that_a_worker_takes() {
    let (code, text) = worker(&["gen-keys"], &[]);
    assert_eq!(code, Some(0), "{text}");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is missing")).to_owned()
    };
    let secret = value("WORKER_SECRET");
    assert_eq!(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, &secret).expect("base64").len(), 32);
    let private = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, value("WORKER_RUNS_PRIVATE_KEY"));
    assert!(private.expect("base64").starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    let public = value("WORKER_LIGHTNING_PUBLIC_KEY");
    let environment = [("WORKER_SECRET", secret.as_str()), ("WORKER_LIGHTNING_PUBLIC_KEY", public.as_str())];
    let (code, text) = worker(&["check-config"], &environment);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_wrong_flag_is_answered_with_the_right_usage() {
    for (arguments, usage) in [
        (&["--no-such-flag"][..], "Usage: worker [OPTIONS]"),
        (&["start", "--no-such-flag"], "Usage: worker start [OPTIONS]"),
        (&["check-config", "--capasity", "1"], "--capacity"),
    ] {
        let (code, text) = worker(arguments, &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(usage), "{usage} is missing in: {text}");
    }
}

#[test]
fn manual_and_completions_are_printed() {
    for (arguments, part) in [
        (&["man"][..], "WORKER_LIGHTNING_SERVICE_URL"),
        (&["man", "demo"], "worker"),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "zsh"], "#compdef worker"),
        (&["completions", "fish"], "complete -c worker"),
    ] {
        let (code, text) = worker(arguments, &[]);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {part} is missing in: {text}");
    }
}

#[test]
fn a_misspelt_variable_is_told_with_what_was_meant() {
    let environment = [("WORKER_SECRET", "x"), ("WORKER_CAPASITY", "3"), ("WORKER_ENGINE", ""), ("WORKER_FLUX", "")];
    let (code, text) = worker(&["check-config"], &environment);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("warning: WORKER_CAPASITY is set") && text.contains("did you mean WORKER_CAPACITY?"),
        "{text}"
    );
    assert_eq!(text.matches("is no option").count(), 1, "empty ones are not set: {text}");
}

#[test]
fn a_file_of_a_secret_that_is_empty_starts_nothing() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let (secret, config) = (folder.path().join("secret"), folder.path().join("worker.toml"));
    std::fs::write(&secret, "\n").expect("the folder can be written to");
    std::fs::write(&config, "secret-file = \"secret\"\n").expect("the folder can be written to");
    let (secret, config) = (secret.to_str().expect("it is text"), config.to_str().expect("it is text"));
    for (arguments, environment, named) in [
        (&[][..], &[("WORKER_SECRET_FILE", secret)][..], "WORKER_SECRET_FILE"),
        (&["--config", config], &[], "secret-file"),
        (&["-s", "x"], &[("WORKER_LIGHTNING_PUBLIC_KEY_FILE", secret)], "WORKER_LIGHTNING_PUBLIC_KEY_FILE"),
    ] {
        let (code, text) = worker(arguments, environment);
        assert_eq!(code, Some(2), "{text}");
        for part in [named, secret, "is empty"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
    std::fs::write(secret, "x\n").expect("the folder can be written to");
    let (code, text) = worker(&["check-config", "--config", config, "--print"], &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("# secret is set  # {config}:1")), "{text}");
}

#[test]
fn every_option_is_shown_with_what_is_in_force() {
    let arguments = ["check-config", "--print", "-l", "mock", "--workloops", "a:2 b:3", "-t", "60"];
    let (code, text) = worker(&arguments, &[]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "# capacity = 5  # follows from workloops",
        "# warm-hosts = 5  # follows from the capacity",
        "# shutdown-grace = 60  # follows from max-run-duration-seconds",
        "max-run-duration-seconds = 60  # --max-run-duration-seconds",
        "# sentry-dsn is not set  # default",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
    }
    for argument in Cli::command().get_arguments().filter(|it| !it.is_hide_set()) {
        let key = argument.get_long().expect("all options are long");
        let has = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} "));
        assert!(key == "config" || text.lines().any(has), "{key} is missing in:\n{text}");
    }
}

#[test]
fn the_configuration_file_is_described_for_editors_and_for_people() {
    let (code, schema) = worker(&["config-schema"], &[]);
    assert_eq!(code, Some(0), "{schema}");
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("it is JSON");
    assert_eq!(schema["properties"]["capacity"]["type"], "integer");
    let (code, template) = worker(&["config-template"], &[]);
    assert_eq!(code, Some(0), "{template}");
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    std::fs::write(&config, template).expect("the folder can be written to");
    let config = config.to_str().expect("it is text");
    let (code, text) = worker(&["check-config", "-l", "mock", "--config", config], &[]);
    assert_eq!(code, Some(0), "it is valid as it is: {text}");
}
