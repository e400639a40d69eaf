//! Every option of `worker start` can be given as a flag, a variable, a `_FILE` and in the configuration file, and the
//! nearer one wins.

use std::path::Path;
use std::process::{Command, Output};

use clap::{Arg, ArgAction, CommandFactory};
use tests::binaries;
use worker::cli::Cli;

/// What any option can take, one or the other.
const SAMPLES: &[&str] = &[
    "7",
    "3/7",
    "first:1 *:3",
    "wss://lightning.example.org/worker",
    "127.0.0.1",
    "http://localhost:4318/v1",
    "seven",
    "0.5",
    "team=data",
];

/// What any secret option can be.
const SECRETS: &[&str] = &["https://very-private@sentry.example.org/42", "x-key=very-private"];

/// `worker check-config --print`, with the environment that every worker needs and nothing else.
fn check(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(binaries::worker());
    command.args(["check-config", "--print"]).args(arguments);
    command.env_clear().env("WORKER_SECRET", "a secret").envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("the worker was just built");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// An option as the test sets it.
struct Sample {
    long: String,
    variable: Option<String>,
    value: String,
    is_switch: bool,
    is_secret: bool,
}

impl Sample {
    fn of(argument: &Arg) -> Self {
        let long = argument.get_long().expect("all options are long").to_owned();
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
        let possible = argument.get_possible_values();
        let value = match possible.last() {
            _ if is_switch => "true".to_owned(),
            Some(possible) => possible.get_name().to_owned(),
            None if long == "lightning-public-key" => public_key(),
            None => {
                let taken = |sample: &&&str| {
                    Cli::command().try_get_matches_from(["worker", &format!("--{long}={sample}")]).is_ok()
                };
                let samples = if argument.is_hide_env_values_set() { SECRETS } else { SAMPLES };
                (*samples.iter().find(taken).unwrap_or_else(|| panic!("no sample fits --{long}"))).to_owned()
            }
        };
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        Self { long, variable, value, is_switch, is_secret: argument.is_hide_env_values_set() }
    }

    /// The line that shows it.
    fn line(&self, origin: &str) -> String {
        let Self { long, value, .. } = self;
        match value.parse::<u64>().is_ok() || value == "true" {
            _ if self.is_secret => format!("# {long} is set  # {origin}"),
            true => format!("{long} = {value}  # {origin}"),
            false => format!("{long} = \"{value}\"  # {origin}"),
        }
    }

    fn shown(&self, origin: &str, (code, text): (Option<i32>, String)) {
        let line = self.line(origin);
        assert_eq!(code, Some(0), "{line}: {text}");
        // A list is shown as one.
        let listed = line.replace("\"", "").replace(['[', ']'], "");
        let is_there = |it: &str| it == line || it.replace("\"", "").replace(['[', ']'], "") == listed;
        assert!(text.lines().any(is_there), "{line} is missing in:\n{text}");
        assert!(!self.is_secret || !text.contains(&self.value), "--{} shows its secret:\n{text}", self.long);
    }
}

fn public_key() -> String {
    let pem = include_str!("../../mock-lightning/tests/mock_lightning/public.pem");
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem)
}

fn samples() -> Vec<Sample> {
    let command = Cli::command();
    let mut options: Vec<_> = command.get_arguments().filter(|it| it.get_long() != Some("config")).collect();
    options.retain(|it| !it.is_hide_set());
    options.into_iter().map(Sample::of).collect()
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a temporary folder can be written to");
}

#[test]
fn each_option_is_taken_in_each_way() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    let name = config.to_str().expect("its name is text");
    let samples = samples();
    assert!(samples.len() >= 30, "only {} options", samples.len());
    for sample in &samples {
        let Sample { long, value, .. } = sample;
        let flag = if sample.is_switch { format!("--{long}") } else { format!("--{long}={value}") };
        sample.shown(&format!("--{long}"), check(&[&flag], &[]));

        let quoted = if sample.is_switch { value.clone() } else { format!("\"{value}\"") };
        write(&config, &format!("\n{long} = {quoted}\n"));
        let without: &[_] = if long == "secret" { &[("WORKER_SECRET", "")] } else { &[] };
        sample.shown(&format!("{name}:2"), check(&["--config", name], without));

        let Some(variable) = &sample.variable else { continue };
        sample.shown(variable, check(&[], &[(variable, value)]));
        // The variable beats the file.
        sample.shown(variable, check(&[], &[(variable, value), ("WORKER_CONFIG", name)]));
        if sample.is_secret {
            let file = folder.path().join("secret");
            write(&file, &format!("{value}\n"));
            let names = format!("{variable}_FILE");
            let environment = [(variable.as_str(), ""), (&names, file.to_str().expect("its name is text"))];
            sample.shown(&names, check(&[], &environment));
        }
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    write(&config, "port = 1\nworkloops = \"*:9\"\nno-loop = true\n");
    let name = config.to_str().expect("its name is text");
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], "port = 2222  # default"),
        (&["--config", name], &[], &format!("port = 1  # {name}:1")),
        (&["--config", name], &[("WORKER_PORT", "2")], "port = 2  # WORKER_PORT"),
        (&["--config", name, "--port", "3"], &[("WORKER_PORT", "2")], "port = 3  # --port"),
        (&["--config", name, "--capacity", "4"], &[], "capacity = 4  # --capacity"),
        (&["--config", name], &[("WORKER_CAPACITY", "4")], "capacity = 4  # WORKER_CAPACITY"),
    ];
    for (arguments, environment, line) in cases {
        let (code, text) = check(arguments, environment);
        assert_eq!(code, Some(0), "{line}: {text}");
        assert!(text.lines().any(|it| it == *line), "{line} is missing in:\n{text}");
    }
    let (_, text) = check(&["--config", name, "--capacity", "4"], &[]);
    let is_set = |line: &str| line.starts_with("workloops =");
    assert!(!text.lines().any(is_set), "what says the same and weighs less is left out:\n{text}");
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    let name = config.to_str().expect("its name is text");
    let cases: &[(&str, &[&str])] = &[
        ("# mine\ncapasity = 3\n", &[":2: ", "capasity", "`capacity`"]),
        ("capacity = 0\n", &[":1: ", "--capacity", "WORKER_CAPACITY", "whole number"]),
        ("port = \n", &[":1: ", "TOML"]),
    ];
    for (text, parts) in cases {
        write(&config, text);
        let (code, told) = check(&["--config", name], &[]);
        assert_eq!(code, Some(2), "{text}: {told}");
        for part in [&[name], *parts].concat() {
            assert!(told.contains(part), "{part} is missing in: {told}");
        }
    }
    let (code, told) = check(&["--config", "/nowhere/worker.toml"], &[]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("/nowhere/worker.toml") && told.contains("--config"), "{told}");
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let config = folder.path().join("worker.toml");
    let (_, first) = check(&["--backoff", "0.5/3", "--state-props-to-remove", "a", "b"], &[]);
    write(&config, &first);
    let (code, second) = check(&["--config", config.to_str().expect("its name is text")], &[]);
    assert_eq!(code, Some(0), "{second}");
    let values = |text: &str| -> Vec<String> {
        let settings = text.lines().filter(|line| !line.starts_with('#'));
        settings.filter_map(|line| line.split("  # ").next().map(str::to_owned)).collect()
    };
    assert_eq!(values(&first), values(&second));
}

#[test]
fn without_home_the_password_database_says_where_adaptors_go() {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").expect("every system has it");
    let user = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user.get(2) == Some(&&*uid));
    let home = user.expect("whoever runs tests is in it")[5];
    let (code, text) = check(&[], &[]);
    assert_eq!(code, Some(0), "{text}");
    let expected = format!("repo-dir = \"{}\"", Path::new(home).join(".local/share/openfn-worker/adaptors").display());
    assert!(text.contains(&expected), "{expected}: {text}");
}
