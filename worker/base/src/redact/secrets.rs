//! What of a run's credentials is secret.

use std::borrow::Cow;
use std::fmt;

use protocol::Json;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::index::{Forms, Index};
use super::{MIN_CHARS, tokens};

/// Bytes of a value, or a line, that are kept.
const KEPT: usize = 4 * 1024;
/// Bytes of values and lines in all that are kept.
const ALL_KEPT: usize = 512 * 1024;
/// A number with fewer digits is not taken for a secret.
const MIN_DIGITS: usize = 6;
/// Longest name of a user that a password is looked for together with.
pub(super) const LONGEST_NAME: usize = 128;
/// Bytes of a value in which secrets within it are looked for.
pub(super) const SEARCHED: usize = 8 * 1024;
/// URLs of a value that are looked at.
const MOST_URLS: usize = 8;
/// Names and passwords of an object that are looked for together.
const MOST_PAIRED: usize = 8;
/// Parts of a URL's path that are as long and have letters and digits are keys, as in the addresses of webhooks.
const LONG_PART: usize = 20;

/// Values under these keys are no secrets, nor are those under keys that end in `url`.
const PLAIN: [&str; 8] = ["user", "username", "email", "host", "port", "database", "schema", "apiversion"];
/// Keys whose values are sent as `name:secret`, and those of the secrets.
const NAMES: [&str; 11] = [
    "user",
    "username",
    "email",
    "login",
    "id",
    "client_id",
    "clientid",
    "account_sid",
    "accountsid",
    "api_key",
    "apikey",
];
const PASSWORDS: [&str; 10] =
    ["password", "pass", "passwd", "pwd", "pin", "secret", "client_secret", "clientsecret", "token", "auth_token"];
/// What names of secrets contain, in a query or a connection string.
const SECRET_NAMES: [&str; 10] =
    ["pass", "pwd", "secret", "token", "key", "sig", "auth", "credential", "session", "jwt"];

/// A text, or its beginning if it is long.
struct Kept {
    text: String,
    /// Of the whole.
    length: usize,
}

/// The secrets of a run, as far as there is room for them.
#[derive(Default)]
pub(super) struct Secrets {
    values: Vec<Kept>,
    /// Lines of values that have several.
    lines: Vec<Kept>,
    /// What is secret only as a whole, such as `user:password`.
    pairs: Vec<String>,
    bytes: usize,
    /// Values for which there was no room.
    left_out: usize,
    /// Lines for which there was no room.
    lines_left_out: usize,
}

/// What is not looked for, as there is too much of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Values that are not looked for at all.
    pub(super) values: usize,
    /// Lines of values that are looked for with their whole value only.
    pub(super) lines: usize,
    /// Values whose encodings are not looked for.
    pub(super) encodings: usize,
    /// Values so long that only their beginning is compared.
    pub(super) long: usize,
}

impl fmt::Display for Gaps {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.values, "values are not masked"),
            (self.encodings, "values are not masked where they are base64 or hexadecimal"),
            (self.lines, "single lines of values are not masked"),
            (self.long, "values are longer than 4 KiB, and masked only from their beginning or line by line"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        out.write_str("The run's credentials are too large for all of them to be masked in logs: ")?;
        out.write_str(&parts.collect::<Vec<_>>().join("; "))
    }
}

impl Secrets {
    /// Takes all secrets of a credential.
    pub(super) fn add_credential(&mut self, credential: &Json) {
        let mut reader = serde_json::Deserializer::from_str(credential.as_str());
        if (Walk { secrets: self, may_be_secret: true, is_wanted: false }).deserialize(&mut reader).is_err() {
            // Too deep, or a number that is too large: nobody knows what is no secret there.
            self.add_tokens(credential.as_str());
        }
    }

    /// Takes a text that is secret.
    pub(super) fn add(&mut self, secret: &str) {
        self.add_embedded(secret);
        if secret.len() < MIN_CHARS || secret.chars().take(MIN_CHARS).count() < MIN_CHARS {
            return;
        }
        if !keep(&mut self.values, &mut self.bytes, secret) {
            self.left_out += 1;
        }
        // What a key of several lines is printed as.
        if secret.contains(['\n', '\r']) {
            let lines = secret.lines().map(str::trim).filter(|line| line.len() >= MIN_CHARS);
            for line in lines {
                if !keep(&mut self.lines, &mut self.bytes, line) {
                    self.lines_left_out += 1;
                }
            }
        }
    }

    /// All texts and numbers of a JSON text, keys included.
    fn add_tokens(&mut self, text: &str) {
        for token in tokens(text) {
            match token.as_bytes().first() {
                Some(b'"') => {
                    if let Ok(text) = serde_json::from_str::<String>(token) {
                        self.add(&text);
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.add_number(token),
                _ => {}
            }
        }
    }

    fn add_number(&mut self, number: &str) {
        if number.bytes().filter(u8::is_ascii_digit).count() >= MIN_DIGITS {
            self.add(number.trim_start_matches('-'));
        }
    }

    /// Takes what is secret within a text: who says so in a URL, and what names of secrets stand before.
    fn add_embedded(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(SEARCHED)];
        for (at, _) in text.match_indices("://").take(MOST_URLS) {
            let rest = &text[at + 3..];
            let rest = &rest[..rest.find(|it: char| it.is_whitespace() || "\"'<>".contains(it)).unwrap_or(rest.len())];
            self.add_url(rest);
        }
        if text.contains('=') {
            let parts = text.split(|it: char| it.is_whitespace() || "?&;,\"'".contains(it));
            let named = parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| names_secret(name));
            named.for_each(|(_, secret)| self.add_part(secret));
        }
    }

    /// Takes the secrets of a URL, which begins behind its scheme.
    fn add_url(&mut self, url: &str) {
        let end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let authority = &url[..end];
        let mut logins: Vec<&str> = authority.rsplit_once('@').map(|it| it.0).into_iter().collect();
        // A password may hold what should be escaped.
        if !authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())) {
            logins.extend(url.rsplit_once('@').map(|it| it.0).filter(|login| login.contains(':') && login.len() > end));
        }
        for login in logins {
            match login.split_once(':') {
                Some((_, password)) if password.chars().count() >= MIN_CHARS => self.add_part(password),
                Some(_) => self.add_pair(login.to_owned()),
                None => self.add_part(login),
            }
        }
        let path = url[end..].split(['?', '#']).next().unwrap_or_default();
        path.split('/').filter(|part| is_key(part)).for_each(|part| self.add_part(part));
    }

    /// Takes a secret that is part of a value.
    fn add_part(&mut self, secret: &str) {
        let is_secret = secret.chars().take(MIN_CHARS).count() == MIN_CHARS;
        if is_secret && !keep(&mut self.values, &mut self.bytes, secret) {
            self.left_out += 1;
        }
    }

    fn add_pair(&mut self, pair: String) {
        if self.bytes + pair.len() <= ALL_KEPT {
            self.bytes += pair.len();
            self.pairs.push(pair);
        } else {
            self.left_out += 1;
        }
    }

    /// What finds them, and what it does not find. What is certain to be there goes first.
    pub(super) fn index(self) -> (Option<Index>, Gaps) {
        let mut gaps = Gaps { values: self.left_out, lines: self.lines_left_out, ..Gaps::default() };
        let mut forms = Forms::default();
        for value in &self.values {
            gaps.values += usize::from(!forms.add_plain(&value.text, value.length));
            gaps.long += usize::from(value.length > KEPT);
        }
        for pair in &self.pairs {
            gaps.values += usize::from(!forms.add_whole(pair));
        }
        for line in &self.lines {
            gaps.lines += usize::from(!forms.add_plain(&line.text, line.length));
        }
        for value in &self.values {
            gaps.encodings += usize::from(!forms.add_encoded(&value.text, value.length));
        }
        (forms.index(), gaps)
    }
}

/// Keeps a text or its beginning if there is room.
fn keep(list: &mut Vec<Kept>, bytes: &mut usize, text: &str) -> bool {
    let kept = &text[..text.floor_char_boundary(KEPT)];
    let cost = kept.len() + size_of::<Kept>();
    let is_room = *bytes + cost <= ALL_KEPT;
    if is_room {
        *bytes += cost;
        list.push(Kept { text: kept.to_owned(), length: text.len() });
    }
    is_room
}

/// Whether values under this key are no secrets.
fn names_no_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    PLAIN.contains(&key.as_str()) || key.ends_with("url")
}

/// Whether a secret stands behind this name and `=`.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn is_key(part: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| part.as_bytes().iter().any(kind);
    part.len() >= LONG_PART && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// Goes through a value of a credential.
struct Walk<'a> {
    secrets: &'a mut Secrets,
    /// Texts and numbers count only where they may be secrets; the keys of an object say that anew.
    may_be_secret: bool,
    /// Whether a short text is to be given back.
    is_wanted: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    /// A short text that is wanted.
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<String>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        if self.may_be_secret {
            self.secrets.add_number(&number.to_string());
            // What JavaScript makes of a number beyond its precision.
            let rounded = (number as f64).to_string();
            if rounded != number.to_string() {
                self.secrets.add_number(&rounded);
            }
        }
        Ok(None)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_u64(number.unsigned_abs())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        if self.may_be_secret {
            self.secrets.add_number(&number.to_string());
        }
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        match self.may_be_secret {
            true => self.secrets.add(text),
            false => self.secrets.add_embedded(text),
        }
        Ok((self.is_wanted && text.len() <= LONGEST_NAME).then(|| text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let Walk { secrets, may_be_secret, .. } = self;
        while values.next_element_seed(Walk { secrets, may_be_secret, is_wanted: false })?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let secrets = self.secrets;
        let (mut names, mut passwords) = (Vec::new(), Vec::new());
        while let Some(key) = members.next_key::<Cow<'_, str>>()? {
            let is_one_of = |list: &[&str]| list.iter().any(|it| it.eq_ignore_ascii_case(&key));
            let (is_name, is_password) = (is_one_of(&NAMES), is_one_of(&PASSWORDS));
            let (may_be_secret, is_wanted) = (!names_no_secret(&key), is_name || is_password);
            let text = members.next_value_seed(Walk { secrets, may_be_secret, is_wanted })?;
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                let list = if is_name { &mut names } else { &mut passwords };
                if list.len() < MOST_PAIRED {
                    list.push(text);
                }
            }
        }
        for name in &names {
            passwords.iter().for_each(|password| secrets.add_pair(format!("{name}:{password}")));
        }
        Ok(None)
    }
}
