//! Takes the secrets of a run's credentials out of what is logged.
//!
//! Works on the JSON text of a message and leaves it valid JSON. Bounded: what is kept of a run's secrets, and the time
//! that it takes, do not grow with its credentials. Never prints what it knows.

mod index;
mod secrets;
#[cfg(test)]
mod tests;
mod views;

use std::borrow::Cow;
use std::ops::Range;

use protocol::Json;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use self::index::Index;
pub use self::secrets::Gaps;
use self::secrets::Secrets;

/// What stands for a secret.
const MASK: &str = "***";

/// Shorter values are not taken for secrets: they would be found everywhere.
const MIN_CHARS: usize = 6;

/// Credentials of so many bytes are read where they are; more are read by another thread.
const QUICK: usize = 16 * 1024;

/// Large credentials are read one after the other, so that what is needed for that is needed once.
static LARGE: Semaphore = Semaphore::const_new(1);

/// Replaces secrets.
#[derive(derive_more::Debug, Default)]
#[debug("Redactor(..)")]
pub struct Redactor {
    index: Option<Index>,
    gaps: Gaps,
}

impl Redactor {
    /// Knows the secrets in `credentials`, and those in `others`, such as tokens. Takes as long as it takes to read them.
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Json>, others: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = Secrets::default();
        others.into_iter().for_each(|secret| secrets.add(secret));
        credentials.into_iter().for_each(|credential| secrets.add_credential(credential));
        let (index, gaps) = secrets.index();
        Self { index, gaps }
    }

    /// The same for a run with this token, and never long on the thread that calls it.
    pub async fn of_run(credentials: Vec<Json>, token: String) -> Self {
        if credentials.iter().map(Json::len).sum::<usize>() <= QUICK {
            return Self::new(&credentials, [token.as_str()]);
        }
        // It is never closed.
        let _turn = LARGE.acquire().await;
        let read = spawn_blocking(move || Self::new(&credentials, [token.as_str()]));
        read.await.expect("reading credentials does not panic, and nobody aborts it")
    }

    /// What is not looked for; nothing if all is.
    pub fn gaps(&self) -> Option<Gaps> {
        (self.gaps != Gaps::default()).then_some(self.gaps)
    }

    /// The text with each secret replaced.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.index.as_ref().map(|index| index.find(text)).unwrap_or_default();
        if found.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(mask(text, &found)) }
    }

    /// As [`Self::text`], of a text whose end was cut off: what may be the beginning of a secret there goes, too.
    pub fn cut_text(&self, text: &str) -> String {
        let Some(index) = &self.index else { return text.to_owned() };
        let mut found = index.find(text);
        if let Some(cut) = index.find_cut(text) {
            found.retain(|range| range.start < cut.start);
            found.push(cut);
        }
        mask(text, &found)
    }

    /// The JSON with each secret in a string replaced, keys included, and each number that is a secret.
    pub fn json(&self, json: Json) -> Json {
        let Some(index) = self.index.as_ref().filter(|index| index.may_be_in(json.as_str())) else { return json };
        let mut out = String::with_capacity(json.len());
        let mut is_changed = false;
        for token in tokens(json.as_str()) {
            let masked = match token.as_bytes().first() {
                Some(b'"') => masked_string(index, token),
                Some(b'-' | b'0'..=b'9') if index.is_secret(token.trim_start_matches('-')) => Some(quoted(MASK)),
                _ => None,
            };
            is_changed |= masked.is_some();
            out.push_str(masked.as_deref().unwrap_or(token));
        }
        if !is_changed {
            return json;
        }
        Json::parse(out).unwrap_or_else(|_| Json::encode(&[MASK]).unwrap_or_else(|_| Json::null()))
    }
}

/// The text with these ranges replaced, which are in order and apart.
fn mask(text: &str, ranges: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        let start = text.floor_char_boundary(range.start).max(at);
        out.push_str(&text[at..start]);
        out.push_str(MASK);
        at = text.ceil_char_boundary(range.end);
    }
    out.push_str(&text[at..]);
    out
}

fn masked_string(index: &Index, token: &str) -> Option<String> {
    // Strings of a `Json` can be read; should one not be, its raw form is searched.
    let value = match token.contains('\\') {
        true => serde_json::from_str::<String>(token).map_or(Cow::Borrowed(token), Cow::Owned),
        false => Cow::Borrowed(&token[1..token.len() - 1]),
    };
    let found = index.find(&value);
    (!found.is_empty()).then(|| quoted(&mask(&value, &found)))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| format!("\"{MASK}\""))
}

/// The tokens of valid JSON: strings, numbers, and what is between them.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = match rest.bytes().next()? {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                rest.find(|it: char| !it.is_ascii_alphanumeric() && !"+-.".contains(it)).unwrap_or(rest.len())
            }
            _ => rest.find(|it: char| it == '"' || it == '-' || it.is_ascii_digit()).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
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
