//! Variables of the environment that look like the worker's and mean nothing to it.

use std::collections::BTreeSet;

/// What the worker's own variables begin with.
const PREFIX: &str = "WORKER_";
/// Read by the worker itself or by Lightning, which often has the same file of variables.
const OTHERS: &[&str] = &["WORKER_NAME", "WORKER_RUNS_PRIVATE_KEY"];
/// Below this likeness nobody meant the one and wrote the other.
const ALIKE: f64 = 0.85;

/// A line for each variable in `names` that is taken for an option of the worker by somebody and is none.
pub(super) fn strays(command: &clap::Command, names: impl Iterator<Item = String>) -> Vec<String> {
    let known = known(command);
    let is_stray =
        |name: &String| name.starts_with(PREFIX) && !known.contains(name) && !OTHERS.contains(&name.as_str());
    let strays: BTreeSet<String> = names.filter(is_stray).filter(|name| !is_of_kubernetes(name)).collect();
    let line = |name: String| match nearest(&name, &known) {
        Some(meant) => format!("{name} is set and is no option of the worker: did you mean {meant}?"),
        None => format!("{name} is set and is no option of the worker: `worker --help` lists its variables"),
    };
    strays.into_iter().map(line).collect()
}

/// The variables of all commands, and those that name files with secrets.
fn known(command: &clap::Command) -> BTreeSet<String> {
    fn collect(command: &clap::Command, known: &mut BTreeSet<String>) {
        for argument in command.get_arguments() {
            let Some(name) = argument.get_env().and_then(|name| name.to_str()) else { continue };
            if argument.is_hide_env_values_set() {
                known.insert(format!("{name}_FILE"));
            }
            known.insert(name.to_owned());
        }
        command.get_subcommands().for_each(|sub| collect(sub, known));
    }
    let mut all = BTreeSet::new();
    collect(command, &mut all);
    all
}

/// Kubernetes sets these in every pod of a namespace that has a service called `worker`, or `worker-something`.
fn is_of_kubernetes(name: &str) -> bool {
    let is_numbered = || {
        let part = name.split("_PORT_").nth(1).and_then(|rest| rest.split('_').next());
        part.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_numbered()
}

fn nearest<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    // What all have in common would make all alike.
    let own = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let likeness = |candidate: &&String| strsim::jaro_winkler(&own(name), &own(candidate));
    let scored = known.iter().map(|candidate| (likeness(&candidate), candidate));
    let best = scored.filter(|(score, _)| *score >= ALIKE).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map(|(_, candidate)| candidate.as_str())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn what_somebody_took_for_an_option_is_named_with_what_was_meant() {
        let told = |name: &str| strays(&Cli::command(), [name.to_owned()].into_iter()).pop().unwrap_or_default();
        for (name, meant) in [
            ("WORKER_CAPASITY", "WORKER_CAPACITY"),
            ("WORKER_LIGHTNING_SERVICE_URI", "WORKER_LIGHTNING_SERVICE_URL"),
            ("WORKER_MAX_RUN_MEMORY", "WORKER_MAX_RUN_MEMORY_MB"),
            ("WORKER_MAX_RUN_DURATION", "WORKER_MAX_RUN_DURATION_SECONDS"),
            ("WORKER_SECRETS_FILE", "WORKER_SECRET_FILE"),
            ("WORKER_REPODIR", "WORKER_REPO_DIR"),
        ] {
            assert!(told(name).contains(&format!("{name} is set")), "{name}: {}", told(name));
            assert!(told(name).ends_with(&format!("did you mean {meant}?")), "{}", told(name));
        }
        assert!(told("WORKER_FLUX").contains("worker --help"), "{}", told("WORKER_FLUX"));
    }

    #[test]
    fn what_means_something_to_somebody_is_no_stray() {
        let names = [
            "WORKER_CAPACITY",
            "WORKER_SECRET_FILE",
            "WORKER_NAME",
            "WORKER_RUNS_PRIVATE_KEY",
            "WORKER_SERVICE_HOST",
            "WORKER_SERVICE_PORT_HTTP",
            "WORKER_PORT_2222_TCP_ADDR",
            "WORKER_METRICS_SERVICE_HOST",
            "PATH",
        ];
        assert_eq!(strays(&Cli::command(), names.iter().map(ToString::to_string)), Vec::<String>::new());
    }
}
