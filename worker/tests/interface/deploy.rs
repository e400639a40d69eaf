//! What is in `deploy/` and `docs/` speaks of metrics and options that the worker has.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base::metrics::{Format, metrics};
use clap::{Arg, CommandFactory};
use lightning::{LightningStatus, WorkloopStatus};
use serde_json::Value;
use worker::cli::Cli;
use worker::health::Health;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names that samples of the worker's metrics have.
fn samples() -> BTreeSet<String> {
    // What has a label for each workloop or service is there when there is one.
    metrics().run_claimed("*");
    drop(metrics().oada_jobs("service", "type", "queued"));
    metrics().oada_job_finished("service", "type", "success", Duration::ZERO);
    drop(metrics().oada_queues_refused("service"));
    let workloops = vec![WorkloopStatus { name: "*".into(), capacity: 1, ..Default::default() }];
    let lightning = LightningStatus { workloops, ..Default::default() };
    Health { lightning: Some(lightning), ..Default::default() }.show(metrics());
    let text = metrics().render(Format::OpenMetrics);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |it: char| it.is_ascii_lowercase() || it == '_';
    text.match_indices("openfn_worker_")
        .map(|(at, _)| text[at..].chars().take_while(|it| is_part(*it)).collect::<String>())
        .collect()
}

#[test]
fn every_metric_that_is_used_is_there() {
    let there = samples();
    for file in
        ["deploy/grafana/openfn-worker.json", "deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts.test.yaml"]
    {
        let used = named(&read(file));
        assert!(used.len() > 3, "{file} uses {used:?}");
        let missing: Vec<_> = used.difference(&there).collect();
        assert!(missing.is_empty(), "{file} uses what is not there: {missing:?}");
    }
    let keda = named(&read("deploy/helm/openfn-worker/templates/autoscaling.yaml"));
    assert!(!keda.is_empty() && keda.is_subset(&there), "{keda:?}");
}

#[test]
fn every_metric_is_in_the_documentation() {
    let family = |name: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()
    };
    let families: BTreeSet<String> = samples().iter().map(|name| family(name)).collect();
    // Those of the process have the names that every exporter gives them.
    let (own, of_the_process): (BTreeSet<String>, BTreeSet<String>) =
        families.into_iter().partition(|name| name.starts_with("openfn_worker_"));
    let page = read("docs/observing.md");
    assert_eq!(named(&page), own);
    assert!(!of_the_process.is_empty());
    for name in of_the_process {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in the documentation");
    }
}

#[test]
fn the_grafana_dashboard_has_panels_that_ask_for_something() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/openfn-worker.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("there are panels");
    assert!(panels.len() > 15);
    for panel in panels {
        let targets = panel["targets"].as_array().expect("a panel has targets");
        assert!(targets.iter().all(|target| target["expr"].as_str().is_some_and(|it| !it.is_empty())), "{panel}");
    }
}

#[test]
fn every_option_is_in_the_readme_and_every_option_there_is_one() {
    let readme = read("README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `-") || line.starts_with("| | `")).collect();
    let command = Cli::command();
    let shown: Vec<_> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
    for argument in &shown {
        let flag = format!("`--{}`", argument.get_long().expect("all options are long"));
        let is_its = |row: &&&str| row.split('|').nth(1).is_some_and(|first| first.contains(&flag));
        let row = rows.iter().find(is_its).unwrap_or_else(|| panic!("{flag} is not in the README"));
        if let Some(variable) = argument.get_env() {
            let variable = format!("`{}`", variable.to_string_lossy());
            assert!(row.contains(&variable), "{variable} is not beside {flag}");
        }
    }
    for row in rows {
        let first = row.split('|').nth(1).unwrap_or_default();
        for flag in first.split('`').filter_map(|part| part.strip_prefix("--")) {
            let is_it =
                |it: &&Arg| it.get_long() == Some(flag) || it.get_all_aliases().unwrap_or_default().contains(&flag);
            assert!(shown.iter().any(is_it), "--{flag} is in the README and is no option");
        }
    }
}

#[test]
fn variables_in_deploy_are_the_workers() {
    let command = Cli::command();
    let mut known: BTreeSet<String> =
        command.get_arguments().filter_map(|it| Some(it.get_env()?.to_string_lossy().into_owned())).collect();
    // What installs adaptors reads it.
    known.insert("WORKER_REPO_DIR".to_owned());
    let secret_files: Vec<_> = known.iter().map(|name| format!("{name}_FILE")).collect();
    known.extend(secret_files);
    let is_part = |it: char| it.is_ascii_uppercase() || it == '_';
    for file in [
        "deploy/Dockerfile",
        "deploy/compose/worker.yml",
        "deploy/systemd/openfn-worker.service",
        "deploy/systemd/worker.env",
        "deploy/helm/openfn-worker/templates/deployment.yaml",
        "deploy/helm/openfn-worker/values.yaml",
        "docs/deploying.md",
    ] {
        let text = read(file);
        let starts = |at: &usize| !text[..*at].ends_with(is_part);
        for at in text.match_indices("WORKER_").map(|(at, _)| at).filter(starts) {
            let name: String = text[at..].chars().take_while(|it| is_part(*it)).collect();
            assert!(known.contains(&name), "{file} sets {name}, which the worker does not know");
        }
    }
}

#[test]
fn packages_have_a_manual_page_of_each_command() {
    let script = read("deploy/package");
    let list = script.lines().find_map(|line| line.trim().strip_prefix("for command in ")?.strip_suffix("; do"));
    let packaged: BTreeSet<&str> = list.expect("a list of commands is there").split(' ').collect();
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set()).map(clap::Command::get_name);
    assert_eq!(packaged, shown.filter(|name| !["man", "completions", "help"].contains(name)).collect());
}
