//! What must not be shown of texts: control characters, which forge lines or steer a terminal, and secrets in URLs.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Writes on to another writer with unsafe characters escaped as in Rust: `\n`, `\u{1b}`.
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| is_unsafe(*character)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", character.escape_default())?;
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// The text as part of one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = Escaping(String::with_capacity(text.len() + 16));
    // Writing to a string cannot fail.
    let _ = escaped.write_str(text);
    Cow::Owned(escaped.0)
}

/// Whether a character ends a line, steers a terminal or changes the direction of what follows.
fn is_unsafe(character: char) -> bool {
    const SEPARATORS_AND_EMBEDDINGS: std::ops::RangeInclusive<char> = '\u{2028}'..='\u{202e}';
    const ISOLATES: std::ops::RangeInclusive<char> = '\u{2066}'..='\u{2069}';
    character.is_control() || SEPARATORS_AND_EMBEDDINGS.contains(&character) || ISOLATES.contains(&character)
}

/// The text without what may be a secret in its URLs: `***` stands for whatever is before an `@`, in a query and in a
/// fragment. What begins like `name:password@` without being a URL loses that, too.
pub fn without_url_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains('@') && !text.contains(SCHEME_END) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME_END) {
        let (before, url) = rest.split_at(at + SCHEME_END.len());
        let length = url_length(before, url);
        // The scheme is no name, whatever follows it.
        out.push_str(&without_logins(&before[..at]));
        out.push_str(SCHEME_END);
        out.push_str(&shown(&url[..length]));
        rest = &url[length..];
    }
    out.push_str(&without_logins(rest));
    Cow::Owned(out)
}

/// A text that is meant to be a URL, or the name of a host, for an error that quotes it.
pub fn shown_url(text: &str) -> String {
    match text.split_once(SCHEME_END) {
        Some((scheme, rest)) => format!("{scheme}{SCHEME_END}{}", shown(rest)),
        None => shown(text),
    }
}

const SCHEME_END: &str = "://";

/// How much of `url` belongs to the URL whose scheme `before` ends with: what is quoted ends with the quote, anything else
/// with white space.
fn url_length(before: &str, url: &str) -> usize {
    let is_scheme = |it: char| it.is_ascii_alphanumeric() || "+-.".contains(it);
    let quote = before.trim_end_matches(SCHEME_END).trim_end_matches(is_scheme).chars().next_back();
    let end = quote.and_then(|quote| match quote {
        '"' | '\'' | '`' => Some(quote),
        '<' => Some('>'),
        '(' => Some(')'),
        '[' => Some(']'),
        _ => None,
    });
    let length = url.find(|it: char| it.is_whitespace() || Some(it) == end).unwrap_or(url.len());
    if end.is_some() { length } else { url[..length].trim_end_matches([',', ':', ';', '.']).len() }
}

/// What is shown of a URL behind its scheme. Its password may hold anything, an `@` and a `?` as well.
fn shown(url: &str) -> String {
    let (login, rest) = url.rsplit_once('@').map_or(("", url), |(_, rest)| ("***@", rest));
    match rest.find(['?', '#']) {
        Some(at) => format!("{login}{}***", &rest[..=at]),
        None => format!("{login}{rest}"),
    }
}

/// The text without what stands before the `@` in words like `name:password@host`.
fn without_logins(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let words = text.split_inclusive(|it: char| it.is_whitespace() || "\"'`<>,".contains(it));
    let shown = words.map(|word| match word.rfind('@') {
        Some(end) if word[..end].contains(':') => format!("***{}", &word[end..]),
        _ => word.to_owned(),
    });
    Cow::Owned(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_the_rest_stays() {
        let cases = [
            ("plain é 日本 \\n \"q\"", "plain é 日本 \\n \"q\""),
            ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
            ("\u{1b}[2J\u{7}\0\u{7f}", r"\u{1b}[2J\u{7}\u{0}\u{7f}"),
            ("\u{85}\u{9b}31m", r"\u{85}\u{9b}31m"),
            ("\u{2028}\u{2029}\u{202e}\u{2066}", r"\u{2028}\u{2029}\u{202e}\u{2066}"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(one_line(text), expected);
        }
        assert!(matches!(one_line("plain"), Cow::Borrowed(_)));
        for (first, last) in
            [('\0', '\u{1f}'), ('\u{7f}', '\u{9f}'), ('\u{2028}', '\u{202e}'), ('\u{2066}', '\u{2069}')]
        {
            for unsafe_one in first..=last {
                let escaped = unsafe_one.escape_default().to_string();
                assert_eq!(one_line(&format!("a{unsafe_one}b")), format!("a{escaped}b"));
            }
        }
        let beside = " ~\u{a0}\u{2027}\u{202f}\u{2065}\u{206a}";
        assert_eq!(one_line(beside), beside, "what stands beside them is harmless");
    }

    #[test]
    fn what_may_be_secret_in_urls_is_not_shown() {
        let cases = [
            ("ws://bob:p@ss/w@h:1/x failed", "ws://***@h:1/x failed"),
            ("value 'https://token@h' for", "value 'https://***@h' for"),
            ("a http://a:b@c, http://d:e@f", "a http://***@c, http://***@f"),
            ("ws://h/x?token=abc: no connection", "ws://h/x?***: no connection"),
            ("value 'ws://h?a=1,b=\"2\"' for", "value 'ws://h?***' for"),
            ("(http://h/a#token=1) and {\"u\":\"http://h?a='b'\"}", "(http://h/a#***) and {\"u\":\"http://h?***\"}"),
            ("<http://h?a=1> http://h?a='b'", "<http://h?***> http://h?***"),
            ("ws://ann:pa?ss@h/x?y=z", "ws://***@h/x?***"),
            ("http://h?to=ann@example.org", "http://***@example.org"),
            ("what? no://", "what? no://"),
            ("bob:secret@host", "***@host"),
            ("mail to bob@example.org", "mail to bob@example.org"),
            ("@openfn/language-http@1.0.0: http://h/", "@openfn/language-http@1.0.0: http://h/"),
            ("wss://app.openfn.org/worker", "wss://app.openfn.org/worker"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_url_secrets(text), expected);
        }
        // What a URL ends with: the quote that it stands in, or white space and the punctuation before it.
        for (open, close) in [("'", "'"), ("\"", "\""), ("`", "`"), ("<", ">"), ("(", ")"), ("[", "]")] {
            let text = format!("at {open}http://h?a=1,;:.{close}b@c");
            assert_eq!(without_url_secrets(&text), format!("at {open}http://h?***{close}b@c"));
        }
        for end in [",", ":", ";", ".", ".,:;"] {
            assert_eq!(without_url_secrets(&format!("at http://h?a=1{end} b")), format!("at http://h?***{end} b"));
        }
        for space in [" ", "\n", "\t", "\u{a0}"] {
            assert_eq!(without_url_secrets(&format!("http://h?a=1{space}b?c")), format!("http://h?***{space}b?c"));
        }
        for separator in [" ", "\"", "'", "`", "<", ">", ","] {
            let text = format!("a:b{separator}c:d@e{separator}f@g");
            assert_eq!(without_url_secrets(&text), format!("a:b{separator}***@e{separator}f@g"));
        }
        for (text, expected) in [
            ("wss://h/worker", "wss://h/worker"),
            ("wss://h/worker?token=a b'c", "wss://h/worker?***"),
            ("ann:secret@h", "***@h"),
            ("h.example.org?token=1", "h.example.org?***"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown_url(text), expected);
        }
    }
}
