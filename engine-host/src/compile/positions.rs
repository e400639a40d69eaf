//! Places in the user's source: of a byte of it, and of a place in the compiled module.

use super::Position;

/// Where the lines of a source start. Lines end as JavaScript has it: LF, CR, CRLF, U+2028, U+2029.
pub(super) struct Lines<'s> {
    source: &'s str,
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    pub(super) fn of(source: &'s str) -> Self {
        let ends = source.char_indices().filter_map(|(at, character)| match character {
            '\r' if source[at + 1..].starts_with('\n') => None,
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(at + character.len_utf8()),
            _ => None,
        });
        let starts = std::iter::once(0).chain(ends).collect();
        Self { source, starts }
    }

    /// The position of the byte at `offset`.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.line(offset);
        let start = self.starts[line as usize - 1];
        let before = self.source.get(start..offset).unwrap_or_default();
        Position { line, column: before.encode_utf16().count() as u32 }
    }

    /// The text of the line `number`, from 1, without its end.
    pub(super) fn text(&self, number: u32) -> Option<&'s str> {
        let index = (number as usize).checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.source.len());
        Some(self.source.get(start..end)?.trim_end_matches(['\n', '\r', '\u{2028}', '\u{2029}']))
    }

    /// The byte at a position; the end of the line if it has no such column.
    fn offset(&self, Position { line, column }: Position) -> Option<usize> {
        let start = *self.starts.get((line as usize).checked_sub(1)?)?;
        let mut units = 0;
        let rest = &self.source[start..];
        let before = rest.chars().take_while(|character| {
            units += character.len_utf16() as u32;
            units <= column
        });
        Some(start + before.map(char::len_utf8).sum::<usize>())
    }

    /// The line, from 1, of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> u32 {
        self.starts.partition_point(|&start| start <= offset) as u32
    }
}

/// A point of the compiled module that comes from the user's source. Lines and columns from 0.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    compiled: (u32, u32),
    source: (u32, u32),
}

/// The way back from the compiled module to the user's source.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceMap {
    /// In the order of `compiled`.
    mappings: Vec<Mapping>,
}

impl SourceMap {
    /// Of pairs of a place in the module and its place in the source, lines and columns from 0, in the module's order.
    pub(super) fn new(places: impl Iterator<Item = [(u32, u32); 2]>) -> Self {
        Self { mappings: places.map(|[compiled, source]| Mapping { compiled, source }).collect() }
    }

    /// The source position of a place in the module (line from 1): as far behind the last mapped point before it as it is
    /// there, or, where the texts differ, that of the point itself if it is on the same line.
    pub(super) fn look_up(&self, source: &str, compiled: &str, line: u32, column: u32) -> Option<Position> {
        let place = (line.checked_sub(1)?, column);
        let after = self.mappings.partition_point(|mapping| mapping.compiled <= place);
        let mapping = self.mappings[..after].last()?;
        let of = |(line, column): (u32, u32)| Position { line: line + 1, column };
        let exact = || {
            let (source, compiled) = (Lines::of(source), Lines::of(compiled));
            let start = source.offset(of(mapping.source))?;
            let (from, to) = (compiled.offset(of(mapping.compiled))?, compiled.offset(of(place))?);
            let passed =
                Passed { text: compiled.source.get(from..to)?, next: compiled.source.get(to..)?.chars().next() };
            Some(source.position(start + passed.length_in(source.source.get(start..)?)?))
        };
        exact().or_else(|| (mapping.compiled.0 == place.0).then(|| of(mapping.source)))
    }
}

/// Compiled text from a mapped point to a place behind it.
struct Passed<'c> {
    text: &'c str,
    /// What comes at the place.
    next: Option<char>,
}

impl Passed<'_> {
    /// How many bytes of the source say the same, up to where the next token begins. The printer leaves out white space,
    /// comments and needless parentheses, adds some, and has quotes of its own. None if there are other differences.
    fn length_in(&self, source: &str) -> Option<usize> {
        let mut rest = source;
        let mut text = self.text.chars().peekable();
        while let Some(&expected) = text.peek() {
            let found = rest.chars().next()?;
            if found == expected || is_quote(found) && is_quote(expected) {
                rest = &rest[found.len_utf8()..];
                text.next();
            } else if let Some(after) = skip(rest) {
                rest = after;
            } else if expected.is_whitespace() || matches!(expected, '(' | ')' | ',' | ';') {
                text.next();
            } else {
                return None;
            }
        }
        while let Some(after) = skip(rest).filter(|_| self.next.is_none_or(|next| !rest.starts_with(next))) {
            rest = after;
        }
        Some(source.len() - rest.len())
    }
}

/// Where in the source the property `name` is read, in the chain of accesses and calls that begins at a position.
pub(super) fn property(source: &str, chain: Position, name: &str) -> Option<Position> {
    let lines = Lines::of(source);
    let start = lines.offset(chain)?;
    let mut rest = source[start..].trim_start_matches(is_part_of_name);
    if rest.len() == source.len() - start {
        return None;
    }
    loop {
        while let Some(after) = skip(rest).filter(|_| !rest.starts_with(['(', ')'])) {
            rest = after;
        }
        let at = |rest: &str| Some(lines.position(source.len() - rest.len()));
        if let Some(after) = rest.strip_prefix("?.").or_else(|| rest.strip_prefix('.')) {
            rest = after;
            while let Some(after) = skip(rest).filter(|_| !rest.starts_with(['(', ')'])) {
                rest = after;
            }
            let after = rest.trim_start_matches(is_part_of_name);
            if rest[..rest.len() - after.len()] == *name {
                return at(rest);
            }
            rest = after;
        } else if rest.starts_with(['[', '(']) {
            let (inside, after) = bracketed(rest)?;
            if rest.starts_with('[') && inside.trim().trim_matches(is_quote) == name && inside.trim() != name {
                return at(&rest[1..]);
            }
            rest = after;
        } else {
            return None;
        }
    }
}

fn is_part_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

/// What is in the brackets that a text begins with, and what comes after them.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, _) if is_quote(character) => quote = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') if depth == 1 => return Some((&text[1..at], &text[at + 1..])),
            (None, ')' | ']' | '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

const fn is_quote(character: char) -> bool {
    matches!(character, '"' | '\'' | '`')
}

/// What comes after something that the printer may have left out.
fn skip(source: &str) -> Option<&str> {
    let comment = || match source.get(..2)? {
        "//" => Some(&source[source.find('\n').unwrap_or(source.len())..]),
        "/*" => source.split_once("*/").map(|(_, after)| after),
        _ => None,
    };
    source.strip_prefix(|first: char| first.is_whitespace() || matches!(first, '(' | ')')).or_else(comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_javascripts() {
        let lines = Lines::of("a\nb\r\nc\rd\u{2028}e\u{2029}é😀x");
        for (offset, line, column) in
            [(0, 1, 0), (1, 1, 1), (2, 2, 0), (5, 3, 0), (7, 4, 0), (11, 5, 0), (15, 6, 0), (17, 6, 1), (21, 6, 3)]
        {
            assert_eq!(lines.position(offset), Position { line, column }, "{offset}");
        }
        assert_eq!(lines.position(1000), Position { line: 6, column: 0 }, "past the end");
    }

    #[test]
    fn lines_have_texts_without_their_ends() {
        let lines = Lines::of("a \nb\r\n\rd\u{2028}e\u{2029}é");
        let texts: Vec<_> = (0..=7).map(|number| lines.text(number)).collect();
        assert_eq!(texts, [None, Some("a "), Some("b"), Some(""), Some("d"), Some("e"), Some("é"), None]);
    }

    #[test]
    fn a_place_belongs_to_the_last_mapping_before_it_on_its_line() {
        let map = SourceMap::new([[(1, 4), (0, 0)], [(1, 9), (2, 3)], [(3, 0), (4, 1)]].into_iter());
        for (line, column, expected) in [
            (1, 0, None),
            (2, 3, None),
            (2, 4, Some((1, 0))),
            (2, 8, Some((1, 0))),
            (2, 50, Some((3, 3))),
            (3, 0, None),
            (4, 7, Some((5, 1))),
            (9, 0, None),
            (0, 0, None),
        ] {
            let expected = expected.map(|(line, column)| Position { line, column });
            assert_eq!(map.look_up("", "", line, column), expected, "{line}:{column}");
        }
    }

    #[test]
    fn a_property_is_found_in_the_chain_that_begins_somewhere() {
        for (source, name, expected) in [
            ("a?.b\n  .c(d)", "c", Some((2, 3))),
            ("a.b.c", "b", Some((1, 2))),
            ("a\n  // c.\n  .b(x => ')', [c])\n  . /* . */ c", "c", Some((4, 12))),
            ("a['b'][0]\n['c']", "c", Some((2, 1))),
            ("a[c].b", "c", None),
            ("a.b; x.c", "c", None),
            ("a.b + x.c", "c", None),
            ("a.bc", "b", None),
            (".c", "c", None),
            ("a.b(", "c", None),
        ] {
            let found = property(source, Position { line: 1, column: 0 }, name);
            assert_eq!(found, expected.map(|(line, column)| Position { line, column }), "{source}");
        }
    }

    #[test]
    fn a_place_is_as_far_behind_a_mapping_as_in_the_source() {
        for (source, compiled, column, expected) in [
            ("a?.b\n  .c(d)", "a?.b.c(d)", 5, Some((2, 3))),
            ("a['key'].b", "a[\"key\"].b", 9, Some((1, 9))),
            ("a /* x */ . // y\n  b", "a.b", 2, Some((2, 2))),
            ("(a).b(c)", "a.b(c)", 2, Some((1, 4))),
            ("a + (b).c", "a + b.c", 4, Some((1, 5))),
            ("f(x => x.y)", "f((x) => x.y)", 11, Some((1, 9))),
            ("'http://x'.y", "\"http://x\".y", 11, Some((1, 11))),
            ("a . é\u{1f600} . b", "a.é\u{1f600}.b", 6, Some((1, 10))),
            // What cannot be followed is where it begins.
            ("\"a\\x62\".c", "\"ab\".c", 5, Some((1, 0))),
        ] {
            let start = source.starts_with('(').into();
            let map = SourceMap::new([[(0, 0), (0, start)]].into_iter());
            let found = map.look_up(source, compiled, 1, column);
            assert_eq!(found, expected.map(|(line, column)| Position { line, column }), "{source}");
        }
    }
}
