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

    /// The source position of the last mapped point at or before a place in the module (line from 1), on its line.
    pub(super) fn look_up(&self, line: u32, column: u32) -> Option<Position> {
        let place = (line.checked_sub(1)?, column);
        let after = self.mappings.partition_point(|mapping| mapping.compiled <= place);
        let mapping = self.mappings[..after].last().filter(|mapping| mapping.compiled.0 == place.0)?;
        Some(Position { line: mapping.source.0 + 1, column: mapping.source.1 })
    }
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
            assert_eq!(map.look_up(line, column), expected, "{line}:{column}");
        }
    }
}
