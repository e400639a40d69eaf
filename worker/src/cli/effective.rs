//! What the options are in the end, and who said so; secrets left out.

use std::fmt;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::config::NOT_KEYS;
use super::environment::Origins;

/// An option with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    key: String,
    values: Vec<String>,
    is_secret: bool,
    origin: String,
}

/// The options that have a value, in the order of the help.
pub(super) fn effective(command: &clap::Command, matches: &ArgMatches, origins: &Origins) -> Vec<Effective> {
    let with_value = command.get_arguments().filter_map(|argument| {
        let key = argument.get_long().filter(|key| !NOT_KEYS.contains(key))?;
        let id = argument.get_id().as_str();
        // Ids that are not the command's own are not in its matches.
        let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id))?;
        let raw = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
        let origin = match source {
            ValueSource::CommandLine => format!("--{key}"),
            ValueSource::EnvVariable => argument.get_env()?.to_string_lossy().into_owned(),
            _ => origins.get(id).cloned().unwrap_or_else(|| "default".to_owned()),
        };
        Some(Effective { key: key.to_owned(), values, is_secret: argument.is_hide_env_values_set(), origin })
    });
    with_value.collect()
}

impl fmt::Display for Effective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, values, is_secret, origin } = self;
        if *is_secret {
            return write!(out, "# {key} is set  # {origin}");
        }
        match values.as_slice() {
            [] => write!(out, "{key} = true  # {origin}"),
            [value] => write!(out, "{key} = {}  # {origin}", toml_value(value)),
            many => {
                let texts: Vec<String> = many.iter().map(|value| toml_text(value)).collect();
                write!(out, "{key} = [{}]  # {origin}", texts.join(", "))
            }
        }
    }
}

/// A number or a boolean as such, anything else as text.
fn toml_value(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok() && !value.starts_with('+');
    if is_number || matches!(value, "true" | "false") { value.to_owned() } else { toml_text(value) }
}

fn toml_text(value: &str) -> String {
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
        let shown = |values: &[&str], is_secret| {
            let values = values.iter().map(ToString::to_string).collect();
            Effective { key: "key".into(), values, is_secret, origin: "default".into() }.to_string()
        };
        assert_eq!(shown(&["5"], false), "key = 5  # default");
        assert_eq!(shown(&["1/10"], false), "key = \"1/10\"  # default");
        assert_eq!(shown(&["a\"b"], false), "key = \"a\\\"b\"  # default");
        assert_eq!(shown(&["a", "b"], false), "key = [\"a\", \"b\"]  # default");
        assert_eq!(shown(&["hidden"], true), "# key is set  # default");
    }
}
