//! Every flag and variable of the reference worker is taken, in all the ways that it is written there.

use std::ffi::OsString;
use std::process::Command;

use clap::{ArgAction, CommandFactory};
use tests::binaries;
use tests::contract::Contract;
use worker::cli::{Cli, LogLevel};

/// A value that each of these flags takes.
fn sample(flag: &str) -> &'static str {
    match flag {
        "lightning" | "lightning-service-url" => "ws://localhost:4000/worker",
        "backoff" => "1/10",
        "workloops" => "manual>*:2",
        "log" => "warn",
        "sentry-dsn" | "dsn" => "http://key@localhost/1",
        "repo-dir" | "monorepo-dir" => "folder",
        "collections-url" => "http://localhost/collections",
        "collections-version" => "latest",
        "secret" | "sentry-env" | "state-props-to-remove" => "text",
        _ => "7",
    }
}

fn in_camel_case(flag: &str) -> String {
    let mut parts = flag.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + &part[..1].to_uppercase() + &part[1..])
}

fn parse(arguments: &[&str]) -> Result<Cli, String> {
    let all = ["worker"].iter().chain(arguments).map(OsString::from);
    Cli::read(all).map_err(|error| error.to_string())
}

#[test]
fn flags() {
    let command = Cli::command();
    for flag in Contract::known().flags {
        // Needs a key; the tests of options have one.
        if flag == "lightning-public-key" {
            continue;
        }
        let argument = command.get_arguments().find(|argument| {
            argument.get_long() == Some(&flag)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&flag.as_str()))
        });
        let takes_value =
            argument.is_some_and(|argument| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append));
        for name in [flag.clone(), in_camel_case(&flag)] {
            let name = format!("--{name}");
            let joined = format!("{name}={}", sample(&flag));
            let ways = match takes_value {
                true => vec![vec![name.as_str(), sample(&flag)], vec![joined.as_str()]],
                false => vec![vec![name.as_str()]],
            };
            for way in ways {
                for before in [&[][..], &["server"], &["start"], &["--"]] {
                    let arguments = [before, &way].concat();
                    let parsed = parse(&arguments);
                    assert!(parsed.is_ok(), "{arguments:?}: {}", parsed.err().unwrap_or_default());
                }
            }
        }
    }
}

#[test]
fn variables() {
    let command = Cli::command();
    let read_elsewhere = ["WORKER_NAME", "DEPLOYED_POD_NAME"];
    for variable in Contract::known().variables {
        let known = command.get_arguments().any(|argument| argument.get_env().is_some_and(|it| *it == *variable));
        assert!(known || read_elsewhere.contains(&variable.as_str()), "{variable}");
    }
}

#[test]
fn log_levels() {
    let level = |arguments: &[&str]| parse(arguments).expect("a level of the reference").start.operation.log;
    assert_eq!(level(&["--log", "default"]), LogLevel::Info);
    assert_eq!(level(&["--log", "none-really"]), LogLevel::None);
    assert_eq!(level(&["--debug"]), LogLevel::Debug);
    assert_eq!(level(&["--log", "warn"]), LogLevel::Warn);
}

#[test]
fn the_program_takes_them() {
    let arguments = ["server", "--debug", "--repoDir", "folder", "--log", "none-really", "--port", "70000"];
    let output = Command::new(binaries::worker()).args(arguments).output().expect("the worker was just built");
    let text = String::from_utf8_lossy(&output.stderr);
    // Of all these only the port is wrong.
    assert!(output.status.code() == Some(2) && text.contains("--port"), "{text}");
}
