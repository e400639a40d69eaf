//! How the embedded engine may differ from Node, and why.

use std::collections::BTreeMap;

use protocol::run::Exit;

use super::End;

/// What a text of the embedded engine stands in for, with `*` for anything.
struct Words {
    embedded: &'static str,
    node: &'static str,
}

const fn words(embedded: &'static str, node: &'static str) -> Words {
    Words { embedded, node }
}

/// The language's own errors in QuickJS's words, where it does not know the expression or value that V8 names.
const WORDS: &[Words] = &[
    words("not a function", "* is not a function*"),
    words("not a function", "* is not a constructor"),
    words("Cannot convert undefined or null to object", "Cannot destructure *"),
    words("Cannot convert undefined or null to object", "Cannot read properties of * (reading *"),
    words("null or undefined are forbidden", "* called on null or undefined"),
    words("null or undefined are forbidden", "* is not iterable*"),
    words("cannot convert BigInt to number", "Cannot mix BigInt and other types, use explicit conversions"),
    words("cannot convert BigInt to number", "Cannot convert a BigInt value to a number"),
    words("invalid descriptor flags", "Cannot freeze array buffer views with elements"),
    words("not a TypedArray", "* called on incompatible receiver *"),
    words("Invalid index : *", "Invalid index : *"),
    words("No number after *", "No number after *"),
    words("unexpected *", "Unexpected *"),
    words("Unexpected *", "Unexpected *"),
    words("not a constructor", "* is not a constructor"),
    words("value is not iterable", "* is not iterable*"),
    words("* is not iterable*", "* is not iterable*"),
    words("'*' is read-only", "Assignment to constant variable."),
    words("'*' is read-only", "Cannot assign to read only property *"),
    words("invalid number of digits", "to*() * must be between * and *"),
    words("invalid repeat count", "Invalid count value: *"),
    // Node 20 tells no line and column.
    words("* in JSON at position *", "* in JSON at position *"),
    words("unexpected *", "* in JSON*"),
    words("unexpected *", "*is not valid JSON"),
    words("cannot convert to BigInt", "Cannot convert * to a BigInt"),
    words("cannot convert to BigInt: not an integer", "The number * cannot be converted to a BigInt*"),
];

/// Says that something needs tables of locales.
const NO_TABLES: &str = "is not possible in the embedded engine";

/// The departures that were met, and how often.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    met: BTreeMap<&'static str, usize>,
}

impl Departures {
    /// What differs without a reason.
    pub(crate) fn unexplained(&mut self, expected: &End, actual: &End) -> Vec<String> {
        if actual.logs.iter().chain([&actual.state]).any(|text| text.contains(NO_TABLES)) {
            self.meet("a locale, time zone or option that needs tables is refused");
            return Vec::new();
        }
        if expected.logs.iter().any(|line| line.contains("readBigUInt64LE") || line.contains("ƒ Buffer/")) {
            self.meet("Buffer has fewer methods, and none that can be listed");
            return Vec::new();
        }
        let mut states = [without_columns(&expected.state), without_columns(&actual.state)];
        let is_reworded = expected.exit != actual.exit && is_reworded(&expected.exit, &actual.exit);
        if is_reworded {
            self.meet("the language's own errors are in QuickJS's words");
            for (state, exit) in states.iter_mut().zip([&expected.exit, &actual.exit]) {
                *state = without_place(&state.replace(&in_json(message(exit)), ""));
            }
        }
        if states[0].contains("\"pos\"") && !states[1].contains("\"pos\"") {
            self.meet("QuickJS does not know the place of an error in the code outside of functions");
            states = states.map(|state| without_place(&state));
        }
        let mut found = Vec::new();
        let mut differ = |what: &str, expected: &str, actual: &str| {
            if expected != actual {
                found.push(format!("{what}\n    node     {expected}\n    embedded {actual}"));
            }
        };
        if !is_reworded {
            differ("exit", &format!("{:?}", expected.exit), &format!("{:?}", actual.exit));
        }
        differ("state", &states[0], &states[1]);
        for i in 0..expected.logs.len().max(actual.logs.len()) {
            let line = |end: &End| end.logs.get(i).cloned().unwrap_or_else(|| "no line".to_owned());
            let (expected, actual) = (line(expected), line(actual));
            let is_stack = |text: &str| text.contains("\\n    at ");
            if !((is_stack(&expected) && is_stack(&actual)) || logs_words(&expected, &actual)) {
                differ("log", &expected, &actual);
            }
        }
        if found.is_empty() && expected.state != actual.state && !is_reworded {
            self.meet("an error's column is that of another part of the same expression");
        }
        found
    }

    fn meet(&mut self, reason: &'static str) {
        *self.met.entry(reason).or_default() += 1;
    }

    /// The reasons that were needed, with their counts.
    pub(crate) fn told(&self) -> String {
        self.met.iter().map(|(reason, count)| format!("\n  {count} × {reason}")).collect()
    }
}

fn message(exit: &Exit) -> &str {
    exit.error.as_ref().map_or("", |error| &error.message)
}

/// Whether two ends are of the same reason and type, and the messages say the same in the words of each engine.
fn is_reworded(expected: &Exit, actual: &Exit) -> bool {
    let kind = |exit: &Exit| exit.error.as_ref().map(|error| error.kind.clone());
    if expected.reason != actual.reason || kind(expected) != kind(actual) {
        return false;
    }
    let parts = |exit: &'_ Exit| -> (String, String) {
        let (class, rest) = message(exit).split_once("Error: ").unwrap_or(("", message(exit)));
        (class.to_owned(), rest.to_owned())
    };
    let ((class, expected), (other, actual)) = (parts(expected), parts(actual));
    class == other && WORDS.iter().any(|it| fits(it.node, &expected) && fits(it.embedded, &actual))
}

/// Whether two lines are the words of an error that an operation logs.
fn logs_words(expected: &str, actual: &str) -> bool {
    let inner = |line: &str| line.strip_prefix("ADA info [\"")?.strip_suffix("\"]").map(str::to_owned);
    let (Some(expected), Some(actual)) = (inner(expected), inner(actual)) else { return false };
    WORDS.iter().any(|it| fits(it.node, &expected) && fits(it.embedded, &actual))
}

/// Whether a text fits a pattern with `*` for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("") || last.is_some_and(|part| !part.is_empty() && text.ends_with(part))
}

fn in_json(text: &str) -> String {
    let quoted = format!("{}", serde_json::Value::String(text.to_owned()));
    quoted[1..quoted.len() - 1].to_owned()
}

/// A state less the place of the job's error, which V8 does not tell of every error of its own.
fn without_place(state: &str) -> String {
    let place = state.split_once("\"pos\":{").and_then(|(before, rest)| {
        let (_, after) = rest.split_once("},\"step\":\"a\",")?;
        Some(format!("{before}{after}"))
    });
    place.unwrap_or_else(|| state.to_owned())
}

/// A state less the columns of errors.
fn without_columns(state: &str) -> String {
    let mut text = String::new();
    for (i, part) in state.split("\"column\":").enumerate() {
        text += if i == 0 { part } else { part.trim_start_matches(|char: char| char.is_ascii_digit()) };
    }
    text
}
