//! Takes the secrets of a run's credentials out of what is logged.
//!
//! Works on the JSON text of a message and leaves it valid JSON. Never prints or keeps more than it must: the values
//! live in the matcher only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use protocol::Json;
use serde_json::{Map, Value};

/// What stands for a secret.
const MASK: &str = "***";

/// Shorter values are not taken for secrets: they would be found everywhere.
const MIN_CHARS: usize = 6;

/// Replaces secrets.
#[derive(Default)]
pub struct Redactor {
    matcher: Option<AhoCorasick>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Redactor(..)")
    }
}

impl Redactor {
    /// Knows the secrets in `credentials`, and those in `others`, such as tokens.
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Json>, others: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = Secrets::default();
        for credential in credentials {
            match credential.decode() {
                Ok(object) => secrets.add_object(&object),
                // Too deep, or a number that is too large: nobody knows what is no secret there.
                Err(_) => secrets.add_texts(credential.as_str()),
            }
        }
        secrets.0.extend(others.into_iter().filter(|secret| secret.len() >= MIN_CHARS).map(Into::into));
        if secrets.0.is_empty() {
            return Self::default();
        }
        // Every run builds one, and most runs log little: what counts is that it is built fast.
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .dense_depth(1)
            .build(&secrets.0);
        // Building fails only beyond 2 GiB of secrets, which no message of ours can carry.
        Self { matcher: matcher.ok() }
    }

    /// The text with each secret replaced.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.matcher {
            Some(matcher) if matcher.is_match(text) => Cow::Owned(mask(matcher, text)),
            _ => Cow::Borrowed(text),
        }
    }

    /// As [`Self::text`], of a text whose end was cut off: what may be the beginning of a secret there goes, too.
    pub fn cut_text(&self, text: &str) -> String {
        let Some(matcher) = &self.matcher else { return text.to_owned() };
        let mut text = self.text(text).into_owned();
        // Half a character may have become a whole one.
        let unsure = matcher.max_pattern_len() + char::REPLACEMENT_CHARACTER.len_utf8();
        text.truncate(text.floor_char_boundary(text.len().saturating_sub(unsure)));
        text
    }

    /// The JSON with each secret in a string replaced, keys included, and each number that is a secret.
    pub fn json(&self, json: Json) -> Json {
        let Some(matcher) = &self.matcher else { return json };
        let text = json.as_str();
        // An escape may hide a secret from a search in the raw text.
        if !text.contains('\\') && !matcher.is_match(text) {
            return json;
        }
        let masked = mask_json(matcher, text);
        Json::parse(masked).unwrap_or_else(|_| Json::encode(&[MASK]).unwrap_or_else(|_| Json::null()))
    }
}

fn mask(matcher: &AhoCorasick, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    matcher.replace_all_with(text, &mut out, |_, _, out| {
        out.push_str(MASK);
        true
    });
    out
}

/// Goes through the tokens of valid JSON.
fn mask_json(matcher: &AhoCorasick, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                rest.find(|it: char| !it.is_ascii_alphanumeric() && !"+-.".contains(it)).unwrap_or(rest.len())
            }
            _ => rest.find(|it: char| it == '"' || it == '-' || it.is_ascii_digit()).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        match first {
            b'"' => mask_string(matcher, token, &mut out),
            b'-' | b'0'..=b'9' if matcher.find(token).is_some_and(|it| it.len() == token.len()) => {
                out.push_str(&format!("\"{MASK}\""));
            }
            _ => out.push_str(token),
        }
        rest = after;
    }
    out
}

/// Length of the string token that `text` starts with, both quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn mask_string(matcher: &AhoCorasick, token: &str, out: &mut String) {
    // Strings of a `Json` can be read; should one not be, its raw form is searched.
    let value = match token.contains('\\') {
        true => serde_json::from_str::<String>(token).map_or(Cow::Borrowed(token), Cow::Owned),
        false => Cow::Borrowed(&token[1..token.len() - 1]),
    };
    if !matcher.is_match(&*value) {
        return out.push_str(token);
    }
    let masked = mask(matcher, &value);
    match serde_json::to_string(&masked) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"***\""),
    }
}

/// Every form in which a secret is looked for.
#[derive(Default)]
struct Secrets(HashSet<String>);

impl Secrets {
    /// All texts of a JSON text, keys included.
    fn add_texts(&mut self, mut rest: &str) {
        while let Some(start) = rest.find('"') {
            let (token, after) = rest[start..].split_at(string_length(&rest[start..]));
            if let Ok(text) = serde_json::from_str::<String>(token) {
                self.add(&text);
            }
            rest = after;
        }
    }

    fn add_object(&mut self, object: &Map<String, Value>) {
        for (key, value) in object {
            self.add_value(value, !names_no_secret(key));
        }
        let text = |names: &[&str]| {
            object
                .iter()
                .find(|(key, _)| names.iter().any(|it| it.eq_ignore_ascii_case(key)))
                .and_then(|it| it.1.as_str())
        };
        for user in [text(&["username", "user"]), text(&["email"])].into_iter().flatten() {
            if let Some(password) = text(&["password", "pass"]) {
                self.add(&format!("{user}:{password}"));
            }
        }
    }

    /// Texts count only where they may be secrets; the keys of an object say that anew.
    fn add_value(&mut self, value: &Value, may_be_secret: bool) {
        match value {
            Value::String(secret) if may_be_secret => self.add(secret),
            Value::String(_) => {}
            Value::Array(values) => values.iter().for_each(|value| self.add_value(value, may_be_secret)),
            Value::Object(object) => self.add_object(object),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn add(&mut self, secret: &str) {
        if secret.chars().count() < MIN_CHARS {
            return;
        }
        // What a key of several lines is printed as.
        self.0.extend(secret.lines().map(str::trim).filter(|line| line.chars().count() >= MIN_CHARS).map(Into::into));
        for encoded in [STANDARD.encode(secret), URL_SAFE.encode(secret)] {
            self.0.insert(encoded.trim_end_matches('=').to_owned());
            self.0.insert(encoded);
        }
        // A state that is logged as JSON text inside a string has the secret's own escapes in it.
        if let Ok(quoted) = serde_json::to_string(secret) {
            self.0.insert(quoted[1..quoted.len() - 1].to_owned());
        }
        self.0.insert(secret.to_owned());
    }
}

/// Whether values under this key are no secrets.
fn names_no_secret(key: &str) -> bool {
    const NAMES: [&str; 8] = ["user", "username", "email", "host", "port", "database", "schema", "apiversion"];
    let key = key.to_ascii_lowercase();
    NAMES.contains(&key.as_str()) || key.ends_with("url")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redactor(credential: &Value) -> Redactor {
        Redactor::new([&Json::encode(credential).unwrap()], [])
    }

    fn check(credential: &Value, message: &str, expected: &str) {
        let message = Json::parse(message.to_owned()).unwrap();
        assert_eq!(redactor(credential).json(message).as_str(), expected);
    }

    #[test]
    fn secrets_in_strings() {
        let password = json!({"user": "ann", "password": "hunter2"});
        check(&password, r#"[{"user":"ann","password":"hunter2"}]"#, r#"[{"user":"ann","password":"***"}]"#);
        check(&password, r#"["xhunter2yhunter2"]"#, r#"["x***y***"]"#);
        check(&password, r#"[{"hunter2":1}]"#, r#"[{"***":1}]"#);
        check(&password, r#"["\u0068unter2 \n"]"#, r#"["*** \n"]"#);
        check(&password, r#"["\ud83dhunter2"]"#, "[\"\u{fffd}***\"]");
        check(&password, r#"["hunter", 2, null, "a\"b\\"]"#, r#"["hunter", 2, null, "a\"b\\"]"#);
        check(&json!({"password": "short"}), r#"["short"]"#, r#"["short"]"#);
        check(&json!({"password": "é\"\nlong"}), r#"["é\"\nlong"]"#, r#"["***"]"#);
        check(&json!({"password": "é\"\nlong"}), r#"["{\"p\":\"é\\\"\\nlong\"}"]"#, r#"["{\"p\":\"***\"}"]"#);
        check(&json!({"key": "-- KEY --\nMIIEow\nend"}), r#"["MIIEow","end","-- KEY --"]"#, r#"["***","end","***"]"#);
        check(&json!({"deep": [{"er": {"token": "secret!"}}]}), r#"["secret!"]"#, r#"["***"]"#);
    }

    #[test]
    fn all_texts_are_secrets_in_what_cannot_be_read() {
        for value in [format!("{}\"secret!\"{}", "[".repeat(200), "]".repeat(200)), r#"[1e999,"secret!"]"#.to_owned()] {
            let credential = Json::parse(format!(r#"{{"host":{value}}}"#)).unwrap();
            assert_eq!(Redactor::new([&credential], []).text("a secret!"), "a ***", "{value}");
        }
    }

    #[test]
    fn numbers_that_are_secrets() {
        let pin = json!({"pin": "123456"});
        check(&pin, "[123456,1234567,-123456,[123456]]", r#"["***",1234567,-123456,["***"]]"#);
        check(&json!({"pin": 123456}), "[123456]", "[123456]");
        check(&json!({"literal": "null,true"}), "[null,true]", "[null,true]");
    }

    #[test]
    fn encoded_forms() {
        let login = json!({"username": "ann", "password": "hunter2"});
        let basic = STANDARD.encode("ann:hunter2");
        check(&login, &format!(r#"["Basic {basic}"]"#), r#"["Basic ***"]"#);
        check(&login, &format!(r#"["{}"]"#, STANDARD.encode("hunter2")), r#"["***"]"#);
        check(&login, &format!(r#"["{}"]"#, STANDARD.encode("hunter2").trim_end_matches('=')), r#"["***"]"#);
        let mail = json!({"email": "a@b.c", "password": "hi"});
        check(&mail, &format!(r#"["{}"]"#, STANDARD.encode("a@b.c:hi")), r#"["***"]"#);
    }

    #[test]
    fn keys_that_name_no_secret() {
        for key in ["user", "userName", "EMAIL", "host", "port", "database", "schema", "apiVersion", "baseUrl", "URL"] {
            check(&json!({key: "plain value"}), r#"["plain value"]"#, r#"["plain value"]"#);
        }
        let login = json!({"database": [{"host": "plain value", "pin": "secret!"}, "plain value"]});
        check(&login, r#"["plain value","secret!"]"#, r#"["plain value","***"]"#);
        check(&json!({"urls": "plain value"}), r#"["plain value"]"#, r#"["***"]"#);
    }

    #[test]
    fn the_longest_secret_wins() {
        let both = json!({"a": "secret", "b": "secret-and-more"});
        check(&both, r#"["secret-and-more secret"]"#, r#"["*** ***"]"#);
    }

    #[test]
    fn plain_text() {
        let it = redactor(&json!({"password": "hunter2"}));
        assert_eq!(it.text("Error: hunter2!"), "Error: ***!");
        assert!(matches!(it.text("nothing"), Cow::Borrowed(_)));
        assert_eq!(Redactor::new([], ["a token"]).text("a token"), "***");
        assert_eq!(Redactor::default().text("a token"), "a token");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (100_000i64..1_000_000).prop_map(Value::from),
            "[a-c\"\\\\\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map("[a-c\"\\\\]{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_result_is_json_without_the_secret(message in any_json(), secret in "[a-c\"\\\\\n]{6,8}") {
            let json = Json::encode(&json!([message, secret, format!("x{secret}")])).unwrap();
            let redacted = redactor(&json!({"s": secret.clone()})).json(json);
            let read: Value = redacted.decode().unwrap();
            fn contains(value: &Value, secret: &str) -> bool {
                match value {
                    Value::String(text) => text.contains(secret),
                    Value::Array(values) => values.iter().any(|value| contains(value, secret)),
                    Value::Object(map) => map.iter().any(|(key, value)| key.contains(secret) || contains(value, secret)),
                    _ => false,
                }
            }
            prop_assert!(!contains(&read, &secret), "{}", redacted.as_str());
        }
    }
}
