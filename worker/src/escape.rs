//! Control characters in texts of other people, which must not forge lines or steer a terminal.

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
}
