//! The configuration file: TOML whose keys are the long flags, as in `capacity = 5`.
//!
//! A key that ends with `-file` names the file that holds a secret. Pure but for [`read`]. An error names the file, the line and what would be right.

use std::path::{Path, PathBuf};

use clap::builder::ArgAction;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use toml::de::{DeTable, DeValue};

use super::environment::{name_variable, secret_in};

/// Flags that are no keys: they say where the configuration is, or undo another one.
pub(super) const NOT_KEYS: &[&str] = &["config", "loop", "help", "version", "print"];

/// The settings of a file, already checked one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    key: String,
    values: Vec<String>,
    line: usize,
}

/// Reads a file, whose settings are checked as flags of `command`.
pub(super) fn read(path: &Path, command: &clap::Command) -> Result<ConfigFile, clap::Error> {
    let told = |message: String| clap::Error::raw(ErrorKind::Io, message + "\n");
    let text = std::fs::read_to_string(path)
        .map_err(|error| told(format!("cannot read {} (--config, WORKER_CONFIG): {error}", path.display())))?;
    let bad = |BadSetting { line, message }| told(format!("{}:{line}: {message}", path.display()));
    let settings = parse(&text, command).map_err(bad)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let settings = settings.into_iter().map(|setting| filled(setting, folder, command).map_err(bad));
    Ok(ConfigFile { path: path.to_owned(), settings: settings.collect::<Result<_, _>>()? })
}

/// A setting whose value is in a file, with that value. A relative path begins at the folder of the configuration.
fn filled(setting: Setting, folder: &Path, command: &clap::Command) -> Result<Setting, BadSetting> {
    let Some(key) = secret_key(&setting.key, command) else { return Ok(setting) };
    let Setting { key: named, values, line } = &setting;
    let path = folder.join(values.concat());
    let bad = |message| BadSetting { line: *line, message };
    let secret = vec![secret_in(&path, named).map_err(bad)?];
    // The error would have the secret in it.
    try_flag(command, key, &secret).map_err(|_| bad(format!("{named}: what {} holds is not valid", path.display())))?;
    Ok(Setting { key: key.to_owned(), values: secret, line: *line })
}

/// Whether an option holds a secret, which may be in a file of its own.
pub(super) fn is_secret(argument: &clap::Arg) -> bool {
    argument.is_hide_env_values_set()
}

/// The option whose secret is in the file that `key` names.
fn secret_key<'a>(key: &'a str, command: &clap::Command) -> Option<&'a str> {
    let option = key.strip_suffix("-file")?;
    command.get_arguments().any(|it| it.get_long() == Some(option) && is_secret(it)).then_some(option)
}

impl ConfigFile {
    /// The values of a flag, and where they stand.
    pub(super) fn get(&self, key: &str) -> Option<(&[String], String)> {
        let setting = self.settings.iter().find(|setting| setting.key == key)?;
        Some((&setting.values, format!("{}:{}", self.path.display(), setting.line)))
    }

    /// Takes settings out that stand against one that weighs more.
    pub(super) fn forget(&mut self, keys: &[&str]) {
        self.settings.retain(|setting| !keys.contains(&setting.key.as_str()));
    }
}

/// Something that is not right in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadSetting {
    line: usize,
    message: String,
}

pub(super) fn parse(text: &str, command: &clap::Command) -> Result<Vec<Setting>, BadSetting> {
    let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| BadSetting {
        line: line(error.span().map_or(0, |span| span.start)),
        message: format!("this is not TOML: {}", error.message()),
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line(key.span().start);
        let key = key.get_ref().as_ref();
        let values =
            values(value.get_ref()).map_err(|message| BadSetting { line, message: format!("{key}: {message}") });
        let setting = Setting { key: key.to_owned(), values: values?, line };
        check(&setting, command).map_err(|message| BadSetting { line, message })?;
        settings.push(setting);
    }
    settings.sort_by_key(|setting| setting.line);
    let given = |key: &str| settings.iter().find(|setting| setting.key == key);
    for setting in &settings {
        if let Some(key) = secret_key(&setting.key, command).filter(|key| given(key).is_some()) {
            let message = format!("{key} and {key}-file exclude each other: set only one of them");
            return Err(BadSetting { line: setting.line, message });
        }
    }
    if let (Some(_), Some(workloops)) = (given("capacity"), given("workloops")) {
        let message = "capacity and workloops exclude each other: set only one of them".to_owned();
        return Err(BadSetting { line: workloops.line, message });
    }
    Ok(settings)
}

fn values(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let Some(list) = value.as_array() else { return Ok(vec![single(value)?]) };
    if list.is_empty() {
        return Err("the list is empty".to_owned());
    }
    list.iter().map(|value| single(value.get_ref())).collect()
}

fn single(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err("expected a text, a number, true or false, or a list of those".to_owned())
        }
    }
}

/// Checks a setting as if it were a flag.
fn check(setting: &Setting, command: &clap::Command) -> Result<(), String> {
    let Setting { key, values, .. } = setting;
    if secret_key(key, command).is_some() {
        let is_path = matches!(values.as_slice(), [path] if !path.is_empty());
        return if is_path { Ok(()) } else { Err(format!("{key}: expected the path of a file")) };
    }
    let found = command.get_arguments().find(|it| it.get_long() == Some(key) && !NOT_KEYS.contains(&key.as_str()));
    let Some(argument) = found else { return Err(unknown(key, command)) };
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        let is_boolean = matches!(values.as_slice(), [value] if value == "true" || value == "false");
        return if is_boolean { Ok(()) } else { Err(format!("{key}: expected true or false")) };
    }
    let takes_many = argument.get_value_delimiter().is_some();
    if values.len() > 1 && !takes_many {
        return Err(format!("{key}: expected one value, not a list"));
    }
    try_flag(command, key, values)
}

/// What the command line would answer to a flag with these values, in one line.
pub(super) fn try_flag(command: &clap::Command, long: &str, values: &[String]) -> Result<(), String> {
    let flags = values.iter().map(|value| format!("--{long}={value}"));
    let alone = command.clone().mut_args(|argument| argument.env(None::<&str>));
    match alone.args_override_self(true).try_get_matches_from(["worker".to_owned()].into_iter().chain(flags)) {
        Ok(_) => Ok(()),
        Err(error) => Err(first_paragraph(&name_variable(error, command))),
    }
}

fn unknown(key: &str, command: &clap::Command) -> String {
    let error = command.clone().try_get_matches_from(["worker".to_owned(), format!("--{key}=x")]).err();
    let similar = error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg));
    match similar {
        Some(ContextValue::String(flag)) => {
            format!("unknown key `{key}`; did you mean `{}`?", flag.trim_start_matches('-'))
        }
        _ => format!("unknown key `{key}`; the keys are the long flags of `worker start`"),
    }
}

fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let told = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    told.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn keys_are_flags_and_values_of_any_kind_are_texts() {
        let text = "# a comment\ncapacity = 3\nbackoff = \"0.5/2\"\n\nrun-memory = 250.5\nbatch-logs = true\n\
                    state-props-to-remove = [\"a\", \"b\"]\nlog = 'warn'\n";
        let settings = parse(text, &Cli::command()).unwrap();
        let told: Vec<_> = settings.iter().map(|it| (it.line, it.key.as_str(), it.values.join("+"))).collect();
        let expected = [
            (2, "capacity", "3"),
            (3, "backoff", "0.5/2"),
            (5, "run-memory", "250.5"),
            (6, "batch-logs", "true"),
            (7, "state-props-to-remove", "a+b"),
            (8, "log", "warn"),
        ];
        assert_eq!(told, expected.map(|(line, key, value)| (line, key, value.to_owned())));
    }

    #[test]
    fn a_secret_may_be_in_a_file_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (config, secret) = (folder.path().join("worker.toml"), folder.path().join("secret"));
        std::fs::write(&config, "port = 1\nsecret-file = 'secret'\n").unwrap();
        let read = || read(&config, &Cli::command());
        for (content, why) in [(None, "cannot read"), (Some(""), "is empty"), (Some("\n"), "is empty")] {
            if let Some(content) = content {
                std::fs::write(&secret, content).unwrap();
            }
            let text = read().unwrap_err().to_string();
            for part in ["worker.toml:2: ", "secret-file", secret.to_str().unwrap(), why] {
                assert!(text.contains(part), "{part} is missing in: {text}");
            }
        }
        std::fs::write(&secret, "hidden\n").unwrap();
        let file = read().unwrap();
        let (values, origin) = file.get("secret").unwrap();
        assert_eq!((values.join(""), origin), ("hidden".to_owned(), format!("{}:2", config.display())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let cases: &[(&str, usize, &[&str])] = &[
            ("port = 1\ncapasity = 3", 2, &["unknown key `capasity`", "`capacity`"]),
            ("\n\nnothing-like-it = 3", 3, &["unknown key `nothing-like-it`"]),
            ("capacity = 0", 1, &["--capacity", "WORKER_CAPACITY", "'0'", "whole number"]),
            ("port = 2222\nbackoff = '5/1'", 2, &["--backoff", "shortest"]),
            ("log = 'loud'", 1, &["--log", "'loud'", "debug"]),
            ("batch-logs = 'yes'", 1, &["batch-logs", "true or false"]),
            ("capacity = [1, 2]", 1, &["capacity", "one value"]),
            ("capacity = { a = 1 }", 1, &["capacity", "expected a text"]),
            ("[lightning]\nsecret = 'x'", 1, &["lightning", "expected a text"]),
            ("port = 1\nport = 2", 2, &["not TOML"]),
            ("port = ", 1, &["not TOML"]),
            (&format!("port = {}1{}", "[".repeat(100_000), "]".repeat(100_000)), 1, &["not TOML"]),
            (&format!("port = {}", "{a=".repeat(100_000)), 1, &["not TOML"]),
            (&format!("{}port = 1", "a.".repeat(100_000)), 1, &[]),
            ("config = 'other.toml'", 1, &["unknown key `config`"]),
            ("capacity = 1\nworkloops = '*:1'", 2, &["exclude each other"]),
            ("state-props-to-remove = []", 1, &["empty"]),
            ("secret-file = ['a', 'b']", 1, &["secret-file", "path"]),
            ("secret = 'x'\nsecret-file = 'y'", 2, &["secret and secret-file exclude each other"]),
            ("capacity-file = 'x'", 1, &["unknown key `capacity-file`"]),
        ];
        for (text, line, parts) in cases {
            let error = parse(text, &Cli::command()).unwrap_err();
            assert_eq!(error.line, *line, "{text}: {error:?}");
            for part in *parts {
                assert!(error.message.contains(part), "{part} is missing in: {}", error.message);
            }
        }
    }
}
