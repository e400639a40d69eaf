//! What the options are in the end, and who said so; secrets left out.

use std::fmt;

use base::escape::without_url_secrets;
use clap::ArgMatches;
use clap::parser::ValueSource;

use super::StartOptions;
use super::config::{NOT_KEYS, is_secret};
use super::environment::Origins;
use crate::adaptors;
use crate::start::DEFAULT_CAPACITY;

/// An option with what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    key: String,
    value: Value,
    origin: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// As texts; none of a switch that is on.
    Set(Vec<String>),
    Secret,
    /// Nobody set it, and it follows from others, or from where the worker is: as TOML.
    Follows(String),
    Unset,
}

/// All options, in the order of the help.
pub(super) fn effective(
    command: &clap::Command,
    matches: &ArgMatches,
    origins: &Origins,
    options: &StartOptions,
) -> Vec<Effective> {
    let all = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let of = |argument: &clap::Arg| {
        let key = argument.get_long().filter(|key| !NOT_KEYS.contains(key))?;
        let id = argument.get_id().as_str();
        // Ids that are not the command's own are not in its matches.
        let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
        let raw = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
        let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        let origin = match source {
            Some(ValueSource::CommandLine) => format!("--{key}"),
            Some(ValueSource::EnvVariable) => argument.get_env()?.to_string_lossy().into_owned(),
            _ => origins.get(id).cloned().unwrap_or_else(|| "default".to_owned()),
        };
        let (value, origin) = match source {
            Some(_) if is_secret(argument) => (Value::Secret, origin),
            Some(_) => (Value::Set(values), origin),
            None => match follows(key, options) {
                Some((value, why)) => (Value::Follows(value), why.to_owned()),
                None => (Value::Unset, origin),
            },
        };
        Some(Effective { key: key.to_owned(), value, origin })
    };
    all.filter_map(of).collect()
}

/// What an option that nobody set comes down to, as TOML, and why.
fn follows(key: &str, options: &StartOptions) -> Option<(String, &'static str)> {
    let workloops = options.claiming.workloops.as_ref();
    let capacity = match workloops {
        Some(workloops) => workloops.list.iter().map(|workloop| workloop.capacity).sum(),
        None => options.claiming.capacity.unwrap_or(DEFAULT_CAPACITY),
    };
    Some(match key {
        "capacity" if workloops.is_some() => (capacity.to_string(), "follows from workloops"),
        "capacity" => (capacity.to_string(), "default"),
        "workloops" => (toml_text(&format!("manual>*:{capacity}")), "follows from capacity"),
        "warm-hosts" => (capacity.to_string(), "follows from the capacity"),
        "shutdown-grace" => {
            (options.limits.max_run_duration_seconds.as_secs_f64().to_string(), "follows from max-run-duration-seconds")
        }
        "repo-dir" => (toml_text(&adaptors::default_repo()?.to_string_lossy()), "default"),
        "engine" => ("\"node\"".to_owned(), "default, where there is a Node that can be used, else \"embedded\""),
        "node" => ("\"node\"".to_owned(), "default, from the PATH"),
        _ => return None,
    })
}

impl Effective {
    /// The option's name, without dashes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the same is in force, whoever said so. Of secrets that is not known: the worker has erased them from its
    /// environment.
    pub fn is_as(&self, other: &Self) -> bool {
        let is_secret = [&self.value, &other.value].contains(&&Value::Secret);
        self.key == other.key && (self.value == other.value || is_secret)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin } = self;
        match value {
            Value::Secret => write!(out, "# {key} is set  # {origin}"),
            Value::Unset => write!(out, "# {key} is not set  # {origin}"),
            Value::Follows(value) => write!(out, "# {key} = {value}  # {origin}"),
            Value::Set(values) => match values.as_slice() {
                [] => write!(out, "{key} = true  # {origin}"),
                [value] => write!(out, "{key} = {}  # {origin}", toml_value(value)),
                many => {
                    let texts: Vec<String> = many.iter().map(|value| toml_text(value)).collect();
                    write!(out, "{key} = [{}]  # {origin}", texts.join(", "))
                }
            },
        }
    }
}

/// A number or a boolean as such, anything else as text.
pub(super) fn toml_value(value: &str) -> String {
    if is_number(value) || matches!(value, "true" | "false") { value.to_owned() } else { toml_text(value) }
}

/// Whether TOML takes this for a number, without a sign, an exponent or an underscore.
fn is_number(value: &str) -> bool {
    let (whole, rest) = value.split_once('.').unwrap_or((value, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole) && is_digits(rest) && whole.len() < 19 && (whole == "0" || !whole.starts_with('0'))
}

fn toml_text(value: &str) -> String {
    let value = without_url_secrets(value);
    let escaped = value.chars().map(|it| match it {
        '"' | '\\' => format!("\\{it}"),
        it if it.is_control() => format!("\\u{:04X}", u32::from(it)),
        it => it.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_shown_as_it_would_stand_in_a_file_and_a_secret_is_not() {
        let shown = |value| Effective { key: "key".into(), value, origin: "default".into() }.to_string();
        let set = |values: &[&str]| shown(Value::Set(values.iter().map(ToString::to_string).collect()));
        assert_eq!(set(&["5"]), "key = 5  # default");
        assert_eq!(set(&["10.4"]), "key = 10.4  # default");
        for text in ["1.2.3", "007", "1.", "+5", "99999999999999999999"] {
            assert_eq!(set(&[text]), format!("key = \"{text}\"  # default"));
        }
        assert_eq!(set(&["1/10"]), "key = \"1/10\"  # default");
        assert_eq!(set(&["a\"b"]), "key = \"a\\\"b\"  # default");
        assert_eq!(set(&["a", "b"]), "key = [\"a\", \"b\"]  # default");
        assert_eq!(shown(Value::Secret), "# key is set  # default");
        assert_eq!(shown(Value::Unset), "# key is not set  # default");
        assert_eq!(shown(Value::Follows("5".into())), "# key = 5  # default");
    }
}
