//! What the reference worker's packages say of its contract with Lightning: read from their text, and compared with what
//! this worker was made for (`data/reference.json`).

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde::Deserialize;

/// Names, as far as packages give them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contract {
    /// Flags of its command line, without dashes. No package of the registry has them.
    pub flags: BTreeSet<String>,
    /// Variables that its program reads. No package of the registry has them.
    pub variables: BTreeSet<String>,
    /// Events of the websocket.
    pub events: BTreeSet<String>,
    /// Fields of plans and payloads, by the name of their type.
    pub fields: BTreeMap<String, BTreeSet<String>>,
    /// Events of its engine.
    pub engine_events: BTreeSet<String>,
    /// Options of its engine.
    pub engine_options: BTreeSet<String>,
    /// Variables that its engine reads.
    pub engine_variables: BTreeSet<String>,
}

impl Contract {
    /// What this worker was made for.
    pub fn known() -> Self {
        serde_json::from_str(include_str!("../data/reference.json")).expect("the file holds what it is read as")
    }

    /// Reads `lightning.d.ts` of the package `@openfn/lexicon`.
    pub fn of_lexicon(text: &str) -> Self {
        let text = regex(r"(?s)/\*.*?\*/|//[^\n]*").replace_all(text, "");
        // What follows is about projects, not about runs.
        let text = text.split("export namespace").next().unwrap_or_default();
        let mut fields = BTreeMap::new();
        let types = regex(r"(?s)export (?:type|interface) (\w+)[^={;]*(?:=[^{;]*)?\{\n(.*?)\n\}");
        let field = regex(r"(?m)^  (\w+)\??:");
        for found in types.captures_iter(text) {
            fields.insert(found[1].to_owned(), names(&field, &found[2]));
        }
        Self { events: names(&regex(r"export type [A-Z_]+ = '([^']+)'"), text), fields, ..Self::default() }
    }

    /// Reads `dist/index.js` of the package `@openfn/engine-multi`.
    pub fn of_engine(text: &str) -> Self {
        Self {
            engine_events: names(&regex(r#"var [A-Z_]+ = "([a-z]+(?:[-:][a-z]+)+)""#), text),
            engine_options: names(&regex(r"\b(?:options|opts)\.([A-Za-z]+)"), text),
            engine_variables: names(&regex(r"process\.env\.([A-Z_]+)"), text),
            ..Self::default()
        }
    }

    /// What is here and not in `known`, a line each.
    pub fn beyond(&self, known: &Self) -> Vec<String> {
        let lists = [
            ("event", &self.events, &known.events),
            ("engine event", &self.engine_events, &known.engine_events),
            ("engine option", &self.engine_options, &known.engine_options),
            ("variable", &self.engine_variables, &known.engine_variables),
        ];
        let mut beyond: Vec<_> = lists
            .into_iter()
            .flat_map(|(what, here, known)| here.difference(known).map(move |name| format!("{what} {name}")))
            .collect();
        for (name, fields) in &self.fields {
            match known.fields.get(name) {
                None => beyond.push(format!("type {name} {{ {} }}", joined(fields))),
                Some(known) => beyond.extend(fields.difference(known).map(|field| format!("field {name}.{field}"))),
            }
        }
        beyond
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant that the tests try")
}

fn names(pattern: &Regex, text: &str) -> BTreeSet<String> {
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEXICON: &str = "
export type LightningPlan = {
  /** id: not a field */
  id: string;
  meta?: {
    nested: string;
  };
  brand_new?: number; // other: none
};
export interface LightningJob extends LightningNode {
  adaptor: string;
}
export type Shiny = Base & {
  one: string;
};
export type CLAIM = 'claim';
export type RUN_PAUSE = 'run:pause';
export type RunStartReply = {}; // no payload
export namespace Provisioner {
  export type Project = {
    name: string;
  };
}
";

    #[test]
    fn what_is_new_is_named() {
        let beyond = Contract::of_lexicon(LEXICON).beyond(&Contract::known());
        assert_eq!(beyond, ["event run:pause", "field LightningPlan.brand_new", "type Shiny { one }"]);
        let engine =
            "var JOB_START = \"job-start\";\nvar X = \"job-paused\"; options.repoDir; opts.warp ?? process.env.WARP";
        let beyond = Contract::of_engine(engine).beyond(&Contract::known());
        assert_eq!(beyond, ["engine event job-paused", "engine option warp", "variable WARP"]);
    }

    #[test]
    fn what_is_known_is_not_new() {
        let known = Contract::known();
        assert!(known.fields["StepCompletePayload"].contains("dataclip_size_mb"));
        assert_eq!(known.beyond(&known), Vec::<String>::new());
    }
}
