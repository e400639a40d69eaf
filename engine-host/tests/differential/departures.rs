//! How the embedded engine may differ from Node, and why: the rows of the table in `docs/embedded.md`.

use std::collections::BTreeMap;

use protocol::run::Exit;

use super::End;

/// A row of the page's table.
pub(crate) struct Departure {
    /// What differs, as the page calls it.
    pub(crate) what: &'static str,
    /// A job that shows it, where one can.
    pub(crate) example: Option<&'static str>,
    /// The newest major version of Node that shows it.
    pub(crate) newest_node: Option<u32>,
    /// Whether jobs made by chance may differ in it.
    by_chance: bool,
}

const fn met(what: &'static str, example: &'static str) -> Departure {
    Departure { what, example: Some(example), newest_node: None, by_chance: true }
}

const fn avoided(what: &'static str, example: &'static str) -> Departure {
    Departure { what, example: Some(example), newest_node: None, by_chance: false }
}

const OTHER_WORDS: &str = "words of the language's own errors";
const OTHER_PLACE: &str = "place of an error";
const OTHER_LOCALES: &str = "`toLocaleString` and its kind";
const OTHER_ORDER: &str = "`localeCompare`";
const OTHER_BUFFER: &str = "`Buffer`";
const NUL_INDENTATION: &str = "`JSON.stringify` that indents with a text that has a NUL";
const CALLED_CLASS: &str = "a class of the job that an adaptor calls as a function";
const FROZEN_STATE: &str = "an operation that sets a key of a frozen state";
const OTHER_REALM: &str = "`instanceof` of what an operation made";
const ODD_DATES: &str = "a text that is a date in no usual form";
const LONG_NUMBERS: &str = "numbers that are not decimal, more than 10 digits long";

/// Every departure. Each example ends differently on the two engines.
pub(crate) const DEPARTURES: &[Departure] = &[
    met(OTHER_WORDS, "fn(() => { try { null.x; } catch (error) { return { data: error.message }; } });"),
    met(OTHER_PLACE, "const first = null.x;\nfn((state) => state);"),
    Departure {
        newest_node: Some(20),
        ..avoided(
            "`hour12: false` at midnight",
            "fn(() => ({ data: new Date(Date.UTC(2024, 0, 1)).toLocaleTimeString('en-US', { hour12: false, timeZone: 'UTC' }) }));",
        )
    },
    avoided("`Intl`", "fn(() => ({ data: typeof Intl }));"),
    avoided("`WebAssembly`", "fn(() => ({ data: typeof WebAssembly }));"),
    met(OTHER_LOCALES, "fn(() => ({ data: (1.5).toLocaleString('de') }));"),
    met(OTHER_ORDER, "fn(() => ({ data: 'ö'.localeCompare('z', 'sv') }));"),
    avoided("a date as text, local time not UTC", "fn(() => ({ data: new Date(0).toString() }));"),
    avoided(
        "`sort` with a function that contradicts itself",
        "fn(() => ({ data: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].sort(() => 1) }));",
    ),
    avoided("stacks", "fn(() => ({ data: [3].map(() => new Error('own words').stack) }));"),
    avoided("arguments of a call", "fn(() => ({ data: Math.max(...Array(70000).fill(1)) }));"),
    avoided(
        "order of the language's own properties (`Object.getOwnPropertyNames(Math)`)",
        "fn(() => ({ data: Object.getOwnPropertyNames(Math) }));",
    ),
    avoided(
        "`Math.hypot`, `cbrt`, `log2`, `log10`, `atan2` and their kind",
        "fn(() => ({ data: Array.from({ length: 2000 }, (_, i) => [Math.hypot, Math.cbrt, Math.log2, Math.log10, Math.sinh].map((f) => f(i / 7))) }));",
    ),
    met(
        LONG_NUMBERS,
        "fn(() => ({ data: Array.from({ length: 100 }, (_, i) => parseInt('5zg1e9bqk3x7a2mzz09c8f' + i, 36)) }));",
    ),
    met(NUL_INDENTATION, "fn(() => ({ data: JSON.stringify([1], null, 'a\\u0000b') }));"),
    met(OTHER_BUFFER, "fn(() => ({ data: typeof Buffer.from('a').readUInt8 }));"),
    met(CALLED_CLASS, "fn(class {});"),
    met(OTHER_REALM, "parseCsv('a\\n1\\n');\nfn((state) => ({ data: state.references instanceof Object }));"),
    met(ODD_DATES, "fn(() => ({ data: new Date('1706659200000Sun, 01 Mar 1903 00:00:00 GMT').getTime() }));"),
    met(FROZEN_STATE, "alterState(() => Object.freeze({}));\ncursor(1);"),
    // On Node no job would end that shows it.
    Departure { what: "`chunk(items, 0)`", example: None, newest_node: None, by_chance: false },
];

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
    words("object is not extensible", "Cannot add property *, object is not extensible"),
    words("object is not extensible", "Cannot define property *, object is not extensible"),
    words("could not delete property", "Cannot delete property * of *"),
    words("not an object", "Cannot create property * on *"),
    words("null or undefined are forbidden", "* called on null or undefined"),
    words("null or undefined are forbidden", "* is not iterable*"),
    words("cannot convert BigInt to number", "Cannot mix BigInt and other types, use explicit conversions"),
    words("cannot convert BigInt to number", "Cannot convert a BigInt value to a number"),
    words("invalid descriptor flags", "Cannot freeze array buffer views with elements"),
    words("not a TypedArray", "this is not a typed array."),
    words("not a TypedArray", "* called on incompatible receiver *"),
    words("Invalid index : *", "Invalid index : *"),
    words("No number after *", "No number after *"),
    words("unexpected *", "Unexpected *"),
    words("Unexpected *", "Unexpected *"),
    words("not a constructor", "* is not a constructor"),
    words("* is not a constructor", "* is not a constructor"),
    words("must be called with new", "Constructor * requires 'new'"),
    words("value is not iterable", "* is not iterable*"),
    words("* is not iterable*", "* is not iterable*"),
    words("* object expected", "Method * called on incompatible receiver *"),
    words("'*' is read-only", "Assignment to constant variable."),
    words("'*' is read-only", "Cannot assign to read only property *"),
    words("invalid number of digits", "to*() * must be between * and *"),
    words("invalid repeat count", "Invalid count value: *"),
    // Node 20 tells no line and column.
    words("* in JSON at position *", "* in JSON at position *"),
    words("unexpected *", "* in JSON*"),
    words("* in JSON at position *", "* after JSON at position *"),
    words("*", "Invalid regular expression: *"),
    words("Unexpected end of JSON input", "* in JSON at position *"),
    words("unexpected *", "*is not valid JSON"),
    words("cannot convert to BigInt", "Cannot convert * to a BigInt"),
    words("cannot convert to BigInt: not an integer", "The number * cannot be converted to a BigInt*"),
];

/// Says that something needs tables of locales.
const NO_TABLES: &str = "is not possible in the embedded engine";

/// What the page's table calls the departures, in its order.
pub(crate) fn documented() -> Vec<&'static str> {
    let page = include_str!("../../../docs/embedded.md");
    let (_, table) = page.split_once("| what | on Node |").expect("the page has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_start_matches("| ").split(" | ").next().unwrap_or_default()).collect()
}

/// The departures that were met, and how often.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    met: BTreeMap<&'static str, usize>,
}

impl Departures {
    /// What differs without a reason, in how this job ended.
    pub(crate) fn unexplained(&mut self, code: &str, expected: &End, actual: &End) -> Vec<String> {
        if actual.logs.iter().chain([&actual.state]).any(|text| text.contains(NO_TABLES)) {
            let is_order = actual.logs.iter().chain([&actual.state]).any(|text| text.contains("localeCompare"));
            self.meet(if is_order { OTHER_ORDER } else { OTHER_LOCALES });
            return Vec::new();
        }
        let mut texts = [code, &actual.state].into_iter().chain(actual.logs.iter().map(String::as_str));
        let has_nul = texts.any(|text| text.contains("\\u0000"));
        if code.contains("JSON.stringify") && has_nul && expected != actual {
            self.meet(NUL_INDENTATION);
            return Vec::new();
        }
        // Taken apart, they are hard to recognise.
        if ["(1e21).toString(", "(1e-7).toString(", "(0.000001).toString("].iter().any(|number| code.contains(number))
            && expected != actual
        {
            self.meet(LONG_NUMBERS);
            return Vec::new();
        }
        if code.contains(" instanceof Object") && expected != actual {
            self.meet(OTHER_REALM);
            return Vec::new();
        }
        // A number and a text, put together.
        if code.contains(".getTime() + (") && code.contains("UTCString()") && expected != actual {
            self.meet(ODD_DATES);
            return Vec::new();
        }
        if fits("TypeError: class constructors must be invoked with 'new'", message(&actual.exit))
            && fits("Class constructor * cannot be invoked without 'new'", message(&expected.exit))
        {
            self.meet(CALLED_CLASS);
            return Vec::new();
        }
        let is_frozen =
            ["object is not extensible", "'*' is read-only"].iter().any(|it| fits(it, message(&actual.exit)));
        if code.contains("Object.freeze(") && is_frozen && !is_reworded(&expected.exit, &actual.exit) {
            self.meet(FROZEN_STATE);
            return Vec::new();
        }
        let lists_methods = code.contains("for (const k in Buffer.from(");
        let has_methods = |line: &String| line.contains("readBigUInt64LE") || line.contains("ƒ Buffer/");
        if lists_methods
            || expected.logs.iter().any(has_methods)
            || expected.state.contains("ERR_INVALID_ARG_TYPE") && code.contains("Buffer")
        {
            self.meet(OTHER_BUFFER);
            return Vec::new();
        }
        let mut states = [without_columns(&expected.state), without_columns(&actual.state)];
        let is_reworded = expected.exit != actual.exit && is_reworded(&expected.exit, &actual.exit);
        if is_reworded {
            self.meet(OTHER_WORDS);
            for (state, exit) in states.iter_mut().zip([&expected.exit, &actual.exit]) {
                *state = without_place(&state.replace(&in_json(message(exit)), ""));
            }
        }
        if states[0].contains("\"pos\"") && !states[1].contains("\"pos\"") {
            self.meet(OTHER_PLACE);
            states = states.map(|state| without_place(&state));
        }
        let mut has_long_number = is_long_number(code, &states[0], &states[1]);
        if has_long_number {
            states[1] = states[0].clone();
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
            if is_long_number(code, &expected, &actual) {
                has_long_number = true;
            } else if !((is_stack(&expected) && is_stack(&actual)) || logs_words(&expected, &actual)) {
                differ("log", &expected, &actual);
            }
        }
        if has_long_number {
            self.meet(LONG_NUMBERS);
        }
        if found.is_empty() && expected.state != actual.state && !is_reworded {
            self.meet(OTHER_PLACE);
        }
        found
    }

    fn meet(&mut self, what: &'static str) {
        assert!(DEPARTURES.iter().any(|it| it.what == what && it.by_chance), "{what} is in no row");
        *self.met.entry(what).or_default() += 1;
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

/// Whether two lines differ only in the last digits of numbers that `parseInt` or `toString` may have made.
fn is_long_number(code: &str, expected: &str, actual: &str) -> bool {
    let numbers = |line: &'_ str| -> Vec<String> {
        line.split(|char: char| !char.is_ascii_alphanumeric() && !".+".contains(char)).map(str::to_owned).collect()
    };
    let is_close = |(one, other): (&String, &String)| match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => (one - other).abs() <= one.abs() * 1e-15,
        _ => one == other || (one.len() == other.len() && one.len() > 10 && one[..10] == other[..10]),
    };
    let (expected_numbers, actual_numbers) = (numbers(expected), numbers(actual));
    expected != actual
        && (code.contains("parseInt") || code.contains(".toString("))
        && expected_numbers.len() == actual_numbers.len()
        && expected_numbers.iter().zip(&actual_numbers).all(is_close)
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
