//! What a configuration file may say, made from the command line's definition: as a JSON Schema, and as a file to begin
//! with.

use std::fmt::Write as _;

use clap::builder::ArgAction;
use clap::{Arg, CommandFactory};
use serde_json::{Map, Value, json};

use super::Cli;
use super::config::{NOT_KEYS, is_secret, try_flag};
use super::effective::toml_value;

/// The JSON Schema of the configuration file.
pub fn schema() -> Value {
    let command = Cli::command();
    let mut properties = Map::new();
    for argument in keys(&command) {
        let long = argument.get_long().unwrap_or_default();
        properties.insert(long.to_owned(), property(&command, argument));
        if is_secret(argument) {
            let description = format!("A file that holds what `{long}` would: {}", help(argument));
            properties.insert(format!("{long}-file"), json!({ "type": "string", "description": description }));
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the worker",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A configuration file in which everything is commented out.
pub fn template() -> String {
    let command = Cli::command();
    let mut text =
        "# Options of the worker. A flag beats its variable, a variable beats this file, and that beats the \
                    default.\n# Lines that are commented out show defaults, or in <> what is expected.\n"
            .to_owned();
    let mut heading = None;
    for argument in keys(&command) {
        if heading != argument.get_help_heading() {
            heading = argument.get_help_heading();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n## {}", heading.unwrap_or_default());
        }
        let long = argument.get_long().unwrap_or_default();
        let _ = writeln!(text, "\n# {}", help(argument));
        let _ = writeln!(text, "#{long} = {}", shown(&command, argument));
        if is_secret(argument) {
            let _ = writeln!(text, "#{long}-file = \"<FILE>\"");
        }
    }
    text
}

/// The options that are keys of the file, in the order of the help.
fn keys(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    let is_key = |argument: &&Arg| argument.get_long().is_some_and(|long| !NOT_KEYS.contains(&long));
    command.get_arguments().filter(is_key).filter(|argument| !argument.is_hide_set())
}

fn help(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value of a line that is commented out.
fn shown(command: &clap::Command, argument: &Arg) -> String {
    if is_switch(argument) {
        return "false".to_owned();
    }
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match defaults.as_slice() {
        [] => {
            let names = argument.get_value_names().unwrap_or_default();
            let name = names.first().map_or("VALUE", |name| name.as_str());
            let is_text = single(command, argument)["type"] == "string";
            if is_text { format!("\"<{name}>\"") } else { format!("<{name}>") }
        }
        [one] => toml_value(one),
        many => format!("[{}]", many.iter().map(|value| toml_value(value)).collect::<Vec<_>>().join(", ")),
    }
}

fn is_switch(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue)
}

fn property(command: &clap::Command, argument: &Arg) -> Value {
    let single = single(command, argument);
    let takes_many = argument.get_value_delimiter().is_some();
    let mut property = match takes_many {
        true => json!({ "anyOf": [single, { "type": "array", "items": single, "minItems": 1 }] }),
        false => single,
    };
    property["description"] = help(argument).into();
    let defaults = argument.get_default_values();
    match defaults {
        [] => {}
        [one] => property["default"] = typed(&one.to_string_lossy()),
        many => property["default"] = many.iter().map(|value| typed(&value.to_string_lossy())).collect(),
    }
    property
}

/// The type of one value. What the option's parser takes says which: the definition knows no more.
fn single(command: &clap::Command, argument: &Arg) -> Value {
    if is_switch(argument) {
        return json!({ "type": "boolean" });
    }
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let names: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
        return json!({ "enum": names });
    }
    let takes = |value: &str| try_flag(command, argument.get_long().unwrap_or_default(), &[value.to_owned()]).is_ok();
    if takes("some-text") || !takes("1") {
        return json!({ "type": "string" });
    }
    let mut number = match (takes("1.5"), takes("0")) {
        (true, true) => json!({ "type": "number", "minimum": 0 }),
        (true, false) => json!({ "type": "number", "exclusiveMinimum": 0 }),
        (false, true) => json!({ "type": "integer", "minimum": 0 }),
        (false, false) => json!({ "type": "integer", "minimum": 1 }),
    };
    if !takes("65536") {
        number["maximum"] = 65535.into();
    }
    number
}

fn typed(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(number @ Value::Number(_)) => number,
        _ => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;

    #[test]
    fn every_key_has_a_type_and_an_explanation() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        for (key, property) in properties {
            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{key} is not explained");
            let has_type = ["type", "enum", "anyOf"].iter().any(|word| property.get(word).is_some());
            assert!(has_type, "{key} has no type");
        }
        for (key, expected) in [
            ("capacity", json!({ "type": "integer", "minimum": 1 })),
            ("port", json!({ "type": "integer", "minimum": 0, "maximum": 65535, "default": 2222 })),
            ("run-memory", json!({ "type": "number", "exclusiveMinimum": 0, "default": 500 })),
            ("backoff", json!({ "type": "string", "default": "1/10" })),
            ("secret", json!({ "type": "string" })),
            ("secret-file", json!({ "type": "string" })),
            ("dashboard", json!({ "type": "boolean" })),
            ("log-format", json!({ "enum": ["human", "json"], "default": "human" })),
            ("repo-dir", json!({ "type": "string" })),
        ] {
            let mut found = properties[key].clone();
            found.as_object_mut().unwrap().remove("description");
            assert_eq!(found, expected, "{key}");
        }
        assert!(!properties.contains_key("config") && !properties.contains_key("help"));
        let many = &properties["state-props-to-remove"];
        assert_eq!(many["anyOf"][1]["type"], "array", "{many}");
    }

    #[test]
    fn a_template_has_every_key_once_and_its_defaults_are_valid() {
        let template = template();
        let settings = template.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
        let settings: Vec<_> =
            settings.filter(|(key, _)| key.chars().all(|it| it.is_ascii_lowercase() || it == '-')).collect();
        let keys: Vec<&str> = settings.iter().map(|(key, _)| *key).collect();
        let schema = schema();
        let mut expected: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut found = keys.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let command = Cli::command();
        let defaults = settings.iter().filter(|(_, value)| !value.contains('<'));
        let text: String = defaults.map(|(key, value)| format!("{key} = {value}\n")).collect();
        for (key, value) in DeTable::parse(&text).unwrap().get_ref() {
            let type_name = schema["properties"][key.get_ref().as_ref()]["type"].as_str();
            let is_of_it = type_name.is_none_or(|name| match value.get_ref() {
                DeValue::String(_) => name == "string",
                DeValue::Integer(_) => ["integer", "number"].contains(&name),
                DeValue::Float(_) => name == "number",
                _ => name == "boolean",
            });
            assert!(is_of_it, "{value:?} is no {type_name:?}");
        }
        super::super::config::parse(&text, &command).unwrap();
    }
}
