//! What must not be shown of texts: control characters, which forge lines or steer a terminal, and who logs in by a URL.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Writes on to another writer with [`is_unsafe`] characters escaped as in Rust: `\n`, `\u{1b}`.
pub(crate) struct Escaping<W>(pub(crate) W);

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
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
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

/// The text with `***` in place of whatever stands before an `@` in its URLs, or in all of it if it begins like
/// `name:password@`.
pub(crate) fn without_userinfo(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let words = text.split_inclusive(|it: char| it.is_whitespace() || "\"'`<>,".contains(it));
    let mut out = String::with_capacity(text.len());
    for word in words {
        let end = word.rfind('@').unwrap_or_default();
        let start = word.find("://").map(|at| at + 3).or_else(|| word[..end].contains(':').then_some(0));
        match start {
            Some(start) if start < end => {
                out.push_str(&word[..start]);
                out.push_str("***");
                out.push_str(&word[end..]);
            }
            _ => out.push_str(word),
        }
    }
    Cow::Owned(out)
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
    }

    #[test]
    fn who_logs_in_by_a_url_is_not_shown() {
        let cases = [
            ("ws://bob:p@ss/w@h:1/x failed", "ws://***@h:1/x failed"),
            ("value 'https://token@h' for", "value 'https://***@h' for"),
            ("a http://a:b@c, http://d:e@f", "a http://***@c, http://***@f"),
            ("bob:secret@host", "***@host"),
            ("mail to bob@example.org", "mail to bob@example.org"),
            ("@openfn/language-http@1.0.0: http://h/", "@openfn/language-http@1.0.0: http://h/"),
            ("wss://app.openfn.org/worker", "wss://app.openfn.org/worker"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_userinfo(text), expected);
        }
    }
}
