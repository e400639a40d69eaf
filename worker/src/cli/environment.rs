//! The environment below the command line: empty variables, secrets in files, and errors that name variables.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use base::escape::{shown_url, without_url_secrets};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::config::{ConfigFile, try_flag};

/// The commands that a configuration file is for, beside none at all.
pub(super) const CONFIGURED: &[&str] = &["start", "check-config", "doctor"];

/// Where values that are neither flags nor variables come from, by the argument's id.
pub(super) type Origins = HashMap<String, String>;

/// A command line above what is below it.
#[derive(Debug)]
pub(super) struct Layered {
    pub(super) command: clap::Command,
    pub(super) origins: Origins,
    /// What is wrong with variables that do not count.
    pub(super) warnings: BTreeSet<String>,
}

/// Takes out empty variables and those of a platform that mean nothing here, and puts in what the files hold that
/// `…_FILE` variables name, below that what `config` says of the options of `start`. Variables that are not set stay: the
/// help names them.
pub(super) fn layered(
    command: clap::Command,
    variable: impl Fn(&OsStr) -> Option<OsString> + Copy,
    config: &ConfigFile,
) -> Result<Layered, clap::Error> {
    let mut failures = Vec::new();
    let mut origins = Origins::new();
    let mut warnings = BTreeSet::new();
    let checked = command.clone();
    let mut apply = |argument: clap::Arg, config: &ConfigFile| {
        let is_empty = argument.get_env().and_then(variable).is_some_and(|value| value.is_empty());
        let invalid = if is_empty { None } else { invalid_of_platform(&argument, variable, &checked) };
        let is_ignored = is_empty || invalid.is_some();
        warnings.extend(invalid);
        let takes_values = argument.get_action().takes_values();
        let below = layer(&argument, variable, config, &checked);
        // A negative number is a wrong value, not an unknown flag.
        let argument = argument.allow_negative_numbers(takes_values);
        let argument = if is_ignored { argument.env(None::<&str>) } else { argument };
        match below {
            Ok(None) => argument,
            Ok(Some((values, origin))) => {
                origins.insert(argument.get_id().to_string(), origin);
                argument.default_values(values).hide_default_value(takes_values)
            }
            Err(failure) => {
                failures.push(failure);
                argument
            }
        }
    };
    let nothing = ConfigFile::default();
    let command = command.mut_args(|argument| apply(argument, config)).mut_subcommands(|sub| {
        let is_start = CONFIGURED.contains(&sub.get_name());
        sub.mut_args(|argument| apply(argument, if is_start { config } else { &nothing }))
    });
    match failures.into_iter().next() {
        None => Ok(Layered { command, origins, warnings }),
        Some(failure) => Err(clap::Error::raw(ErrorKind::Io, failure + "\n")),
    }
}

/// Variables that a platform sets for all its programs.
const OF_PLATFORM: [&str; 3] = ["OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"];

/// What is wrong with a variable that a platform sets for all its programs. OpenTelemetry has each warn of a value that it
/// does not know, and go on without.
fn invalid_of_platform(
    argument: &clap::Arg,
    variable: impl Fn(&OsStr) -> Option<OsString>,
    command: &clap::Command,
) -> Option<String> {
    let (name, long) = (argument.get_env()?, argument.get_long()?);
    OF_PLATFORM.iter().find(|known| name == **known)?;
    let value = variable(name)?.to_string_lossy().into_owned();
    let why = try_flag(command, long, &[value]).err()?;
    Some(format!("ignoring {}: {why}", name.to_string_lossy()))
}

/// Values, and where they come from.
type Layer = (Vec<String>, String);

/// What lies below the flag of one argument, where its variable says nothing.
fn layer(
    argument: &clap::Arg,
    variable: impl Fn(&OsStr) -> Option<OsString>,
    config: &ConfigFile,
    command: &clap::Command,
) -> Result<Option<Layer>, String> {
    let Some(name) = argument.get_env() else { return Ok(configured(argument, config)) };
    if variable(name).is_some_and(|value| !value.is_empty()) {
        return Ok(None);
    }
    let mut file_name = name.to_owned();
    file_name.push("_FILE");
    let file = variable(&file_name).filter(|path| !path.is_empty() && argument.is_hide_env_values_set());
    let Some(path) = file.map(PathBuf::from) else { return Ok(configured(argument, config)) };
    let origin = file_name.to_string_lossy().into_owned();
    let values = vec![secret_in(&path, &origin)?];
    if let Some(long) = argument.get_long().filter(|long| command.get_arguments().any(|it| it.get_long() == Some(long)))
    {
        try_flag(command, long, &values)
            .map_err(|_| format!("{} (or {origin}): what {} holds is not valid", flag(long), path.display()))?;
    }
    Ok(Some((values, origin)))
}

/// What a file that holds a secret holds, less the line break that editors end it with. `origin` is what names it.
pub(super) fn secret_in(path: &Path, origin: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}, which {origin} names: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.trim().is_empty() {
        return Err(format!(
            "{}, which {origin} names, is empty: it is to hold the secret and nothing else",
            path.display()
        ));
    }
    Ok(secret.to_owned())
}

fn configured(argument: &clap::Arg, config: &ConfigFile) -> Option<Layer> {
    let (values, origin) = config.get(argument.get_long()?)?;
    Some((values.to_vec(), origin))
}

fn flag(long: &str) -> String {
    format!("--{long}")
}

/// Adds the variable to an error about a bad value of a command's flag, which clap tells by the flag alone.
pub(super) fn name_variable(error: clap::Error, command: &clap::Command) -> clap::Error {
    let mut error = without_secrets(error, command);
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let long = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
    let subcommands = command.get_subcommands().flat_map(|sub| sub.get_arguments());
    let variable = command
        .get_arguments()
        .chain(subcommands)
        .find(|argument| argument.get_long() == Some(long))
        .and_then(|argument| argument.get_env());
    if let Some(variable) = variable {
        let named = format!("{flag} (or {})", variable.to_string_lossy());
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}

/// The error without what must not be shown of what it quotes: values of options that are secrets, and secrets in
/// URLs.
fn without_secrets(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let secret = |flag: &str| {
        let long = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
        let all = command.get_arguments().chain(command.get_subcommands().flat_map(|sub| sub.get_arguments()));
        all.filter(|it| it.is_hide_env_values_set()).any(|it| it.get_long() == Some(long))
    };
    let is_secret = matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(flag)) if secret(flag));
    let quoted: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in quoted {
        let ContextValue::String(text) = value else { continue };
        let shown = match kind {
            ContextKind::InvalidValue if is_secret && !text.is_empty() => "(hidden)".to_owned(),
            ContextKind::InvalidValue if text.contains(['?', '#', '@']) => shown_url(&text),
            _ => without_url_secrets(&text).into_owned(),
        };
        error.insert(kind, ContextValue::String(shown));
    }
    error
}

pub(super) fn worker_name(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    ["WORKER_NAME", "DEPLOYED_POD_NAME"].into_iter().filter_map(variable).find(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::super::Cli;
    use super::*;

    #[test]
    fn secrets_come_from_files_and_empty_variables_do_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from the file\n").unwrap();
        let variable = |name: &OsStr| match name.to_str() {
            Some("WORKER_SECRET_FILE") => Some(file.path().into()),
            Some("WORKER_CAPACITY") => Some("".into()),
            _ => None,
        };
        let mut command = layered(Cli::command(), variable, &ConfigFile::default()).unwrap().command;
        let matches = command.try_get_matches_from_mut(["worker"]).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&cli.start.lightning.secret.unwrap()), "from the file");
        assert_eq!(cli.start.claiming.capacity, None);
    }

    #[test]
    fn what_a_platform_sets_for_all_its_programs_stops_nothing() {
        let set = [
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://x"),
            ("OTEL_RESOURCE_ATTRIBUTES", "nothing"),
            ("OTEL_SERVICE_NAME", "mine"),
        ];
        let variable = |name: &OsStr| set.iter().find(|(known, _)| name == *known).map(|(_, value)| value.into());
        let Layered { mut command, warnings, .. } = layered(Cli::command(), variable, &ConfigFile::default()).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings.iter().any(|it| it.starts_with("ignoring OTEL_TRACES_SAMPLER: ") && it.contains("xray")));
        command.try_get_matches_from_mut(["worker"]).unwrap();
        let with_flag = command.try_get_matches_from_mut(["worker", "--otlp-sampler", "xray"]);
        assert!(with_flag.is_err(), "a flag is meant for this program alone");
    }

    #[test]
    fn a_secret_file_that_is_missing_or_empty_is_named() {
        let (empty, blank) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::fs::write(blank.path(), " \n\n").unwrap();
        for (path, why) in
            [(Path::new("/nowhere/secret"), "cannot read"), (empty.path(), "is empty"), (blank.path(), "is empty")]
        {
            for wanted in ["WORKER_SECRET_FILE", "WORKER_LIGHTNING_PUBLIC_KEY_FILE"] {
                let variable = |name: &OsStr| (name == wanted).then(|| path.into());
                let text = layered(Cli::command(), variable, &ConfigFile::default()).unwrap_err().to_string();
                for part in [path.to_str().unwrap(), wanted, why] {
                    assert!(text.contains(part), "{part} is missing in: {text}");
                }
            }
        }
    }
}
