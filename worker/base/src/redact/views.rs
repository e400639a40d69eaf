//! Texts as they read once escapes are undone: a secret is found in them however it was escaped.
//!
//! Undoes, in each layer, percent-encoding, JSON's and JavaScript's escapes, HTML's character references and `+` for a
//! space. What was wrapped over lines is joined in a view of its own.

use std::ops::Range;

/// Layers of escapes that are undone.
pub(super) const LAYERS: usize = 4;

/// Longest escape of one character, in bytes: a surrogate pair.
const LONGEST_ESCAPE: usize = 12;

/// A text with a layer of escapes undone.
#[derive(Debug)]
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// Where each byte comes from in the original text.
    origins: Vec<(u32, u32)>,
}

impl View {
    /// The original place of a range of the view.
    pub(super) fn original(&self, range: &Range<usize>) -> Range<usize> {
        let origin = |at: usize| self.origins.get(at).copied().unwrap_or_default();
        origin(range.start).0 as usize..origin(range.end - 1).1 as usize
    }

    fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), origins: Vec::with_capacity(bytes) }
    }
}

/// Shows all views of a text, each layer as it is and joined, but the text itself.
pub(super) fn each(text: &[u8], mut show: impl FnMut(&View)) {
    // No message of ours is longer.
    if u32::try_from(text.len()).is_err() {
        return;
    }
    let whole = |at: usize, length: usize| (at as u32, (at + length) as u32);
    joined(text, whole).iter().for_each(&mut show);
    let mut layer = decoded(text, whole);
    for _ in 0..LAYERS {
        let Some(view) = layer else { break };
        let origin = |at: usize, length: usize| (view.origins[at].0, view.origins[at + length - 1].1);
        show(&view);
        joined(&view.bytes, origin).iter().for_each(&mut show);
        layer = decoded(&view.bytes, origin);
    }
}

/// A secret with all layers undone.
pub(super) fn canonical(secret: &[u8]) -> Vec<u8> {
    let mut bytes = secret.to_owned();
    for _ in 0..LAYERS {
        let Some(view) = decoded(&bytes, |_, _| (0, 0)) else { break };
        bytes = view.bytes;
    }
    bytes
}

/// A secret as it is in a view that joins lines.
pub(super) fn unwrapped(secret: &[u8]) -> Vec<u8> {
    secret.iter().copied().filter(|byte| !is_seam(*byte)).collect()
}

/// Whether there is anything to be undone in a text.
pub(super) fn is_escaped(text: &[u8]) -> bool {
    first_mark(text).is_some() || memchr::memchr(b'\n', text).is_some()
}

/// The text without an escape at its end that was cut in two.
pub(super) fn without_cut_escape(text: &[u8]) -> &[u8] {
    let tail = text.len().saturating_sub(LONGEST_ESCAPE);
    let start = text[tail..].iter().position(|byte| is_mark(*byte));
    &text[..start.map_or(text.len(), |start| tail + start)]
}

/// Where the first escape may begin. Looks at nearly all that runs log, so it is to be quick.
fn first_mark(text: &[u8]) -> Option<usize> {
    memchr::memchr3(b'\\', b'%', b'&', text).into_iter().chain(memchr::memchr(b'+', text)).min()
}

/// Whether an escape may begin with this byte.
fn is_mark(byte: u8) -> bool {
    b"\\%&+".contains(&byte)
}

/// Whether a byte may be part of where a text was wrapped: white space, quotes and operators.
fn is_seam(byte: u8) -> bool {
    b" \t\r\n'\"+\\".contains(&byte)
}

/// The view without what lines may be joined by; none if there is one line.
fn joined(bytes: &[u8], origin: impl Fn(usize, usize) -> (u32, u32)) -> Option<View> {
    memchr::memchr(b'\n', bytes).map(|_| {
        let mut view = View::with_room(bytes.len());
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| !is_seam(**byte)) {
            view.bytes.push(*byte);
            view.origins.push(origin(at, 1));
        }
        view
    })
}

/// The view below one layer of escapes; none if there is none.
fn decoded(bytes: &[u8], origin: impl Fn(usize, usize) -> (u32, u32)) -> Option<View> {
    first_mark(bytes)?;
    let mut view = View::with_room(bytes.len());
    let (mut at, mut is_changed, mut buffer) = (0, false, [0; 4]);
    while at < bytes.len() {
        let (length, character) = match unescape(&bytes[at..]) {
            Some((length, character)) => {
                is_changed = true;
                (length, encode(character, &mut buffer))
            }
            None => (1, &bytes[at..=at]),
        };
        view.bytes.extend_from_slice(character);
        view.origins.extend(character.iter().map(|_| origin(at, length)));
        at += length;
    }
    is_changed.then_some(view)
}

/// What an escape stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unescaped {
    Byte(u8),
    Char(char),
}

fn encode(unescaped: Unescaped, buffer: &mut [u8; 4]) -> &[u8] {
    match unescaped {
        Unescaped::Byte(byte) => {
            buffer[0] = byte;
            &buffer[..1]
        }
        Unescaped::Char(character) => character.encode_utf8(buffer).as_bytes(),
    }
}

/// The escape that the text begins with: its length, and what it stands for.
fn unescape(text: &[u8]) -> Option<(usize, Unescaped)> {
    match text {
        [b'+', ..] => Some((1, Unescaped::Byte(b' '))),
        [b'%', high, low, ..] => Some((3, Unescaped::Byte(hex(&[*high, *low])? as u8))),
        [b'&', rest @ ..] => reference(rest).map(|(length, character)| (1 + length, Unescaped::Char(character))),
        [b'\\', b'u', rest @ ..] => match code_units(rest) {
            Some((length, character)) => Some((2 + length, Unescaped::Char(character))),
            None => Some((2, Unescaped::Byte(b'u'))),
        },
        [b'\\', b'x', high, low, ..] if hex(&[*high, *low]).is_some() => {
            Some((4, Unescaped::Char(char::from_u32(hex(&[*high, *low])?)?)))
        }
        [b'\\', next, ..] => {
            let byte = match next {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'f' => 12,
                b'v' => 11,
                b'0' => 0,
                other => *other,
            };
            Some((2, Unescaped::Byte(byte)))
        }
        _ => None,
    }
}

/// What stands behind `\u`: four digits, eight of a surrogate pair, or any number in braces.
fn code_units(text: &[u8]) -> Option<(usize, char)> {
    if let [b'{', rest @ ..] = text {
        let length = rest.iter().take(7).position(|byte| *byte == b'}')?;
        return Some((length + 2, char::from_u32(hex(&rest[..length])?)?));
    }
    let unit = hex(text.get(..4)?)?;
    match (unit, text.get(4..6), text.get(6..10).and_then(hex)) {
        (0xd800..0xdc00, Some(b"\\u"), Some(low @ 0xdc00..0xe000)) => {
            Some((10, char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?))
        }
        _ => Some((4, char::from_u32(unit)?)),
    }
}

/// What stands behind the `&` of a character reference.
fn reference(text: &[u8]) -> Option<(usize, char)> {
    let length = text.iter().take(9).position(|byte| *byte == b';')?;
    let character = match &text[..length] {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(hex(digits)?)?,
        [b'#', digits @ ..] => char::from_u32(std::str::from_utf8(digits).ok()?.parse().ok()?)?,
        _ => return None,
    };
    Some((length + 1, character))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| is_hex).and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        each(text.as_bytes(), |view| found.push(String::from_utf8_lossy(&view.bytes).into_owned()));
        found
    }

    #[test]
    fn escapes_are_undone_layer_by_layer() {
        let cases: &[(&str, &[&str])] = &[
            ("plain 100 % & \u{e9}", &[]),
            ("a%40b%c3%A9", &["a@b\u{e9}"]),
            ("a%2540b", &["a%40b", "a@b"]),
            (r#"a\"b\/\u00e9\ud83d\ude00\u{1F600}\x41"#, &["a\"b/\u{e9}\u{1f600}\u{1f600}A"]),
            (r"a\\\\d", &[r"a\\d", r"a\d", "ad"]),
            (r"\ud800 \u12 \", &["ud800 u12 \\"]),
            ("&lt;a&amp;amp;&#39;&#x2F;&apos;&nope;", &["<a&amp;'/'&nope;", "<a&'/'&nope;"]),
            ("a b+c", &["a b c"]),
        ];
        for (text, expected) in cases {
            assert_eq!(views(text), *expected, "{text}");
        }
    }

    #[test]
    fn every_escape_is_undone_and_nothing_else() {
        let undone = [
            (r"\n", "\n"),
            (r"\r", "\r"),
            (r"\t", "\t"),
            (r"\b", "\u{8}"),
            (r"\f", "\u{c}"),
            (r"\v", "\u{b}"),
            (r"\0", "\0"),
            (r"\\", "\\"),
            (r"\q", "q"),
            (r"\u0041", "A"),
            (r"\u{41}", "A"),
            (r"\u{10FFFF}", "\u{10ffff}"),
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"\uD83D\uDE00", "\u{1f600}"),
            (r"\ud800\udc00", "\u{10000}"),
            (r"\udbff\udfff", "\u{10ffff}"),
            (r"\x7E", "~"),
            (r"\xe9", "\u{e9}"),
            ("%7e", "~"),
            ("%2B", "+"),
            ("+", " "),
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&apos;", "'"),
            ("&#65;", "A"),
            ("&#x41;", "A"),
            ("&#X41;", "A"),
            ("&#1114111;", "\u{10ffff}"),
            ("&#x10FFFF;", "\u{10ffff}"),
        ];
        for (escape, expected) in undone {
            let views = views(&format!("<{escape}>"));
            assert_eq!(views.first(), Some(&format!("<{expected}>")), "{escape}");
            let all = [format!("<{escape}>").as_bytes(), b"x"].concat();
            each(&all, |view| {
                assert_eq!(view.original(&(view.bytes.len() - 1..view.bytes.len())), all.len() - 1..all.len())
            });
        }
        for text in ["%", "%4", "%4g", "%g4", "&", "&;", "&amp", "&AMP;", "&#;", "&#x;", "&#x110000;", "&#-1;"] {
            assert_eq!(views(&format!("<{text}>")), Vec::<String>::new(), "{text}");
        }
        // A backslash goes, whatever follows it.
        for (text, expected) in [
            (r"\u", "u"),
            (r"\u12", "u12"),
            (r"\u{", "u{"),
            (r"\u{}", "u{}"),
            (r"\u{110000}", "u{110000}"),
            (r"\u{00000041}", "u{00000041}"),
            (r"\ud83d", "ud83d"),
            (r"\ude00\ud83d", "ude00ud83d"),
            (r"\ud83d\u0041", "ud83dA"),
            (r"\x4", "x4"),
        ] {
            assert_eq!(views(&format!("<{text}>")), [format!("<{expected}>")], "{text}");
        }
    }

    #[test]
    fn escapes_are_undone_so_many_times_and_no_more() {
        let wrapped = (0..LAYERS + 2).fold("%41".to_owned(), |text, _| text.replace('%', "%25"));
        assert_eq!(views(&wrapped).len(), LAYERS);
        assert_eq!(canonical(b"a%2541"), b"aA");
        assert_eq!(canonical(b"plain"), b"plain");
        assert_eq!(unwrapped(b"a b\tc\rd\ne'f\"g+h\\i-j"), b"abcdefghi-j");
    }

    #[test]
    fn an_escape_that_was_cut_is_left_out() {
        for (text, expected) in [
            ("abc", "abc"),
            (r"abc\", "abc"),
            (r"abc\u00", "abc"),
            (r"abc\ud83d\ude0", "abc"),
            ("abc%4", "abc"),
            ("abc&quo", "abc"),
            ("abc+", "abc"),
            (r"a\bcdefghijklm", r"a\bcdefghijklm"),
            (r"a\bcdefghijkl", "a"),
        ] {
            assert_eq!(without_cut_escape(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn lines_are_joined_in_every_layer() {
        assert_eq!(views("a b \r\n c' +\n  'd"), ["abcd", "a b \r\n c'  \n  'd", "abcd"]);
        assert_eq!(views(r"a\nb"), ["a\nb", "ab"]);
    }

    #[test]
    fn ranges_lead_back_to_the_original() {
        let text = "x %2541b&amp;";
        let mut places = Vec::new();
        each(text.as_bytes(), |view| places.push(text[view.original(&(2..view.bytes.len()))].to_owned()));
        assert_eq!(places, ["%2541b&amp;", "%2541b&amp;"]);
        each(b"x%41\n y", |view| {
            if view.bytes == *b"xAy" {
                assert_eq!(view.original(&(1..2)), 1..4);
            }
        });
    }
}
