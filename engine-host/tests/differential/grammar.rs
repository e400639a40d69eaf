//! Makes texts from a grammar: rules of alternatives, each a line with `<names>` of rules in it.

use std::collections::HashMap;

use super::random::Random;

/// The rules of a grammar's file. A line that ends with a colon begins a rule, an indented one is an alternative of it;
/// `#` begins a comment.
#[derive(Debug)]
pub(crate) struct Grammar<'a> {
    rules: HashMap<&'a str, Rule<'a>>,
}

#[derive(Debug, Default)]
struct Rule<'a> {
    all: Vec<Vec<Part<'a>>>,
    /// The alternatives without names, for when a text is long enough; all of them where each has one.
    short: Vec<usize>,
}

#[derive(Debug)]
enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

impl<'a> Grammar<'a> {
    /// Panics where a rule is used that there is not: the grammar is part of the test.
    pub(crate) fn read(file: &'a str) -> Self {
        let mut rules: HashMap<&str, Rule<'_>> = HashMap::new();
        let mut current = "";
        for line in file.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("  ") {
                Some(alternative) => {
                    let rule = rules.get_mut(current).expect("an alternative follows a rule's name");
                    let parts = parts(alternative);
                    if !parts.iter().any(|part| matches!(part, Part::Name(_))) {
                        rule.short.push(rule.all.len());
                    }
                    rule.all.push(parts);
                }
                None => {
                    current = line.strip_suffix(':').expect("a rule's name ends with a colon");
                    assert!(rules.insert(current, Rule::default()).is_none(), "two rules {current}");
                }
            }
        }
        for (name, rule) in &mut rules {
            assert!(!rule.all.is_empty(), "the rule {name} has no alternatives");
            if rule.short.is_empty() {
                rule.short = (0..rule.all.len()).collect();
            }
        }
        let names = rules.values().flat_map(|rule| rule.all.iter().flatten());
        for part in names {
            if let Part::Name(name) = part {
                assert!(rules.contains_key(name), "there is no rule {name}");
            }
        }
        Self { rules }
    }

    /// A text by the rule `name`, whose parts nest about `depth` deep.
    pub(crate) fn make(&self, name: &str, depth: usize, random: &mut Random) -> String {
        let mut text = String::new();
        self.add(name, depth, random, &mut text);
        text
    }

    fn add(&self, name: &str, depth: usize, random: &mut Random, text: &mut String) {
        let rule = &self.rules[name];
        let index = match depth {
            0 => rule.short[random.below(rule.short.len())],
            _ => random.below(rule.all.len()),
        };
        for part in &rule.all[index] {
            match part {
                Part::Text(part) => *text += part,
                Part::Name(name) => self.add(name, depth.saturating_sub(1), random, text),
            }
        }
    }
}

/// A name is letters between `<` and `>`; what else has these signs has no letters alone between them.
fn parts(line: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = line;
    let mut from = 0;
    while let Some(start) = rest[from..].find('<').map(|at| from + at) {
        let name = rest[start + 1..].split('>').next().filter(|name| rest[start + 1..].len() > name.len());
        let name = name.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()));
        match name {
            Some(name) => {
                parts.push(Part::Text(&rest[..start]));
                parts.push(Part::Name(name));
                rest = &rest[start + name.len() + 2..];
                from = 0;
            }
            None => from = start + 1,
        }
    }
    parts.push(Part::Text(rest));
    parts
}
