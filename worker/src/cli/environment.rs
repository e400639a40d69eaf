//! The environment below the command line: empty variables, secrets in files, and errors that name variables.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Takes empty variables out, and puts in what the files hold that `…_FILE` variables name.
pub(super) fn layered(
    command: clap::Command,
    variable: impl Fn(&OsStr) -> Option<OsString> + Copy,
) -> Result<clap::Command, clap::Error> {
    let mut failures = Vec::new();
    let mut apply = |argument: clap::Arg| match layer(&argument, variable) {
        Ok(Layer::AsItIs) => argument,
        Ok(Layer::NotSet) => argument.env(None::<&str>),
        Ok(Layer::File(value)) => argument.env(None::<&str>).default_value(value).hide_default_value(true),
        Err(failure) => {
            failures.push(failure);
            argument
        }
    };
    let command = command.mut_args(&mut apply).mut_subcommands(|sub| sub.mut_args(&mut apply));
    match failures.into_iter().next() {
        None => Ok(command),
        Some(failure) => Err(clap::Error::raw(ErrorKind::Io, failure + "\n")),
    }
}

/// What the environment says about one argument.
enum Layer {
    AsItIs,
    NotSet,
    File(String),
}

fn layer(argument: &clap::Arg, variable: impl Fn(&OsStr) -> Option<OsString>) -> Result<Layer, String> {
    let Some(name) = argument.get_env() else { return Ok(Layer::AsItIs) };
    let without_file = match variable(name) {
        Some(value) if !value.is_empty() => return Ok(Layer::AsItIs),
        Some(_) => Layer::NotSet,
        None => Layer::AsItIs,
    };
    let mut file_name = name.to_owned();
    file_name.push("_FILE");
    let file = variable(&file_name).filter(|path| !path.is_empty() && argument.is_hide_env_values_set());
    let Some(path) = file.map(PathBuf::from) else { return Ok(without_file) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Layer::File(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) => {
            Err(format!("cannot read {}, which {} names: {error}", path.display(), file_name.to_string_lossy()))
        }
    }
}

/// Adds the variable to an error about a bad value, which clap tells by the flag alone.
pub(super) fn name_variable(mut error: clap::Error, command: &clap::Command) -> clap::Error {
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
        let command = layered(Cli::command(), |name| match name.to_str() {
            Some("WORKER_SECRET_FILE") => Some(file.path().into()),
            Some("WORKER_CAPACITY") => Some("".into()),
            _ => None,
        });
        let matches = command.unwrap().try_get_matches_from(["worker"]).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&cli.start.lightning.secret.unwrap()), "from the file");
        assert_eq!(cli.start.claiming.capacity, None);
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        let error =
            layered(Cli::command(), |name| (name == "WORKER_SECRET_FILE").then(|| OsString::from("/nowhere/secret")));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("/nowhere/secret") && text.contains("WORKER_SECRET_FILE"), "{text}");
    }
}
