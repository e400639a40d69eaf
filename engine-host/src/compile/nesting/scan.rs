//! The pass over the code's tokens: which of them open a level, and which close some.

use super::{Bracket, Levels, MAX_LEVELS, TooDeep};

/// What the token before means for the next one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Before {
    /// An expression may start here: a `/` is a regular expression.
    Open,
    /// An expression ended here: a `/` is a division.
    Operand,
    /// A `;`, which the `else` of an outer `if` may follow.
    Semicolon,
    /// A `}`, of a block or of an expression.
    Brace,
    /// A word or operator that may do either.
    Unclear,
    /// A `.`, `?.` or `#`: a name follows.
    Access,
}

pub(super) struct Scan<'s> {
    pub(super) bytes: &'s [u8],
    source: &'s str,
    pub(super) at: usize,
    pub(super) levels: Levels,
    pub(super) before: Before,
    /// The last two words, if nothing but space came after them.
    word: &'s str,
    word_before: &'s str,
    newline: bool,
    /// A label may start here.
    statement_start: bool,
}

impl<'s> Scan<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self {
            bytes: source.as_bytes(),
            source,
            at: 0,
            levels: Levels::new(),
            before: Before::Open,
            word: "",
            word_before: "",
            newline: true,
            statement_start: true,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), TooDeep> {
        if self.source.starts_with("#!") {
            self.skip_line();
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' | b'\r' => {
                    self.newline = true;
                    self.at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'"' | b'\'' => self.string(byte)?,
                b'`' => self.template_start()?,
                b'(' | b'[' | b'{' => self.open(byte)?,
                b')' | b']' | b'}' => self.close(byte)?,
                b'/' => self.slash()?,
                _ => self.word_or_operator(byte)?,
            }
        }
        // The parser reads on to the end in brackets that nothing closes.
        self.levels.pop_all(self.at)
    }

    fn word_or_operator(&mut self, byte: u8) -> Result<(), TooDeep> {
        if !byte.is_ascii() {
            let character = self.character();
            if is_space(character) {
                self.newline |= matches!(character, '\u{2028}' | '\u{2029}');
                self.at += character.len_utf8();
                return Ok(());
            }
        }
        if byte == b'.' && self.byte_at(1).is_ascii_digit() || is_word(byte) {
            return self.word();
        }
        self.operator(byte)
    }

    fn word(&mut self) -> Result<(), TooDeep> {
        let start = self.at;
        let number = self.byte_at(0) == b'.' || self.byte_at(0).is_ascii_digit();
        if self.byte_at(0) == b'.' {
            self.at += 1;
        }
        self.skip_word()?;
        if number && self.byte_at(0) == b'.' && self.bytes[start] != b'.' {
            self.at += 1;
            self.skip_word()?;
        }
        let text = &self.source[start..self.at];
        if number || self.before == Before::Access {
            self.took(Before::Operand);
            return Ok(());
        }
        if text.contains('\\') {
            // It may be a keyword to the parser, to be refused later.
            self.levels.top.expression += 1;
            return self.distrust();
        }
        self.end_statement_before(text);
        let label = self.statement_start;
        let (before, levels) = self.weigh(text);
        self.levels.top.expression += levels;
        (self.word_before, self.word) = (self.word, text);
        self.before = before;
        self.newline = false;
        self.statement_start = label || matches!(text, "else" | "do");
        self.levels.check()
    }

    /// What follows `text`, and how many levels of expression it opens. Opens its levels of statement.
    fn weigh(&mut self, text: &str) -> (Before, usize) {
        let after_semicolon = self.before == Before::Semicolon;
        let frame = &mut self.levels.top;
        match text {
            // The parser takes a list of superclasses, to refuse it later: no comma closes them.
            "if" | "for" | "while" | "with" | "extends" => {
                frame.statement += 1;
                (Before::Open, 0)
            }
            "else" => {
                if after_semicolon {
                    frame.statement = frame.before_semicolon;
                }
                frame.statement += 1;
                (Before::Open, 0)
            }
            "do" => {
                frame.kept += 1;
                (Before::Open, 0)
            }
            "typeof" | "void" | "delete" | "new" | "in" | "instanceof" => (Before::Open, 1),
            "return" | "throw" | "case" | "default" => (Before::Open, 0),
            "await" | "yield" => (Before::Unclear, 1),
            "of" | "let" | "async" | "static" | "get" | "set" | "using" | "break" | "continue" | "debugger" => {
                (Before::Unclear, 0)
            }
            _ => (Before::Operand, 0),
        }
    }

    /// Closes what must be closed where `word` cannot go on with the expression before it.
    fn end_statement_before(&mut self, word: &str) {
        let goes_on =
            matches!(word, "in" | "instanceof" | "of" | "else" | "while" | "catch" | "finally" | "as" | "from");
        let ended = match self.before {
            Before::Operand => self.newline,
            Before::Brace => true,
            _ => false,
        };
        if ended && !goes_on && self.levels.top.bracket == Bracket::Brace {
            let frame = &mut self.levels.top;
            frame.expression = 0;
            frame.statement = 0;
            self.statement_start = true;
        }
    }

    fn operator(&mut self, byte: u8) -> Result<(), TooDeep> {
        let rest = &self.bytes[self.at..];
        // Comments to the end of the line, in scripts.
        if rest.starts_with(b"<!--") || self.newline && rest.starts_with(b"-->") {
            return self.distrust();
        }
        if matches!(byte, b'+' | b'-') && self.byte_at(1) == byte {
            return self.increment();
        }
        let repeated = self.at > 0 && self.bytes[self.at - 1] == byte && !matches!(byte, b'!' | b'~' | b'+' | b'-');
        let label = byte == b':' && self.statement_start && !self.word.is_empty();
        let frame = &mut self.levels.top;
        match byte {
            b';' => {
                frame.before_semicolon = frame.statement;
                frame.statement = 0;
                frame.expression = 0;
            }
            b',' => frame.expression = 0,
            b':' if label => frame.statement += 1,
            b':' | b'@' | b'#' => {}
            _ if repeated => {}
            _ => frame.expression += 1,
        }
        self.at += 1;
        let before = match byte {
            b';' => Before::Semicolon,
            b'#' => Before::Access,
            b'.' if !repeated => Before::Access,
            _ => Before::Open,
        };
        self.took(before);
        self.statement_start = matches!(byte, b';' | b':');
        self.levels.check()
    }

    /// A `++` or `--`: behind an operand on the same line that ends it, else before one that begins.
    fn increment(&mut self) -> Result<(), TooDeep> {
        let before = match self.before {
            Before::Operand if !self.newline => Before::Operand,
            Before::Operand | Before::Open | Before::Semicolon | Before::Brace => Before::Open,
            Before::Unclear | Before::Access => Before::Unclear,
        };
        self.levels.top.expression += 2;
        self.at += 2;
        self.took(before);
        self.levels.check()
    }

    fn open(&mut self, byte: u8) -> Result<(), TooDeep> {
        let called = self.follows_operand();
        let bracket = match byte {
            b'(' if self.heads_statement() => Bracket::Head,
            b'(' if self.before == Before::Operand => Bracket::Paren,
            b'(' => Bracket::Parameters,
            b'[' => Bracket::Square,
            _ => Bracket::Brace,
        };
        if called && bracket != Bracket::Brace {
            self.levels.top.expression += 1;
        }
        self.at += 1;
        self.levels.push(bracket, self.at)?;
        self.took(Before::Open);
        self.statement_start = bracket == Bracket::Brace;
        Ok(())
    }

    /// Whether a bracket or template here may be a call, an index, a tagged one.
    pub(super) fn follows_operand(&self) -> bool {
        matches!(self.before, Before::Operand | Before::Brace | Before::Unclear)
    }

    fn heads_statement(&self) -> bool {
        let word = if self.word == "await" { self.word_before } else { self.word };
        self.before != Before::Operand && matches!(word, "if" | "for" | "while" | "with")
    }

    fn close(&mut self, byte: u8) -> Result<(), TooDeep> {
        let bracket = self.levels.top.bracket;
        let (fits, before) = match bracket {
            Bracket::Paren | Bracket::Parameters => (byte == b')', Before::Operand),
            Bracket::Head => (byte == b')', Before::Open),
            Bracket::Square => (byte == b']', Before::Operand),
            Bracket::Brace => (byte == b'}' && self.levels.brackets() > 0, Before::Brace),
            Bracket::Substitution => (byte == b'}', Before::Open),
            Bracket::Template => (false, Before::Open),
        };
        if !fits {
            return self.distrust();
        }
        self.at += 1;
        self.levels.pop(self.at)?;
        self.took(before);
        self.statement_start = matches!(bracket, Bracket::Head | Bracket::Brace);
        if bracket == Bracket::Substitution { self.template() } else { Ok(()) }
    }

    fn slash(&mut self) -> Result<(), TooDeep> {
        match (self.byte_at(1), self.before) {
            (b'/', _) => {
                self.skip_line();
                Ok(())
            }
            (b'*', _) => {
                let comment = &self.source[self.at + 2..];
                let length = comment.find("*/").unwrap_or(comment.len());
                self.newline |= comment[..length].contains(['\n', '\r', '\u{2028}', '\u{2029}']);
                self.at = (self.at + 2 + length + 2).min(self.bytes.len());
                Ok(())
            }
            (_, Before::Open | Before::Semicolon) => self.regular_expression(),
            (_, Before::Operand) => self.operator(b'/'),
            // Names here: what they else stand before is no regular expression.
            (_, Before::Unclear) if matches!(self.word, "async" | "get" | "let" | "set" | "static" | "using") => {
                self.operator(b'/')
            }
            (_, Before::Brace | Before::Unclear | Before::Access) => self.distrust(),
        }
    }

    fn skip_word(&mut self) -> Result<(), TooDeep> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'\\' && self.byte_at(1) == b'u' {
                self.escape()?;
            } else if byte == b'\\' {
                return self.distrust();
            } else if !byte.is_ascii() {
                let character = self.character();
                if is_space(character) {
                    break;
                }
                self.at += character.len_utf8();
            } else if is_word(byte) {
                self.at += 1;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        let rest = &self.source[self.at..];
        self.at += rest.find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(rest.len());
    }

    /// Counts everything in the rest that may open a level, and nothing that may close one.
    pub(super) fn distrust(&mut self) -> Result<(), TooDeep> {
        let rest = &self.bytes[self.at..];
        let parentheses = rest.iter().filter(|&&byte| byte == b'(').count();
        self.levels.read_again(parentheses * rest.len())?;
        let mut levels = self.levels.total();
        while let Some(&byte) = self.bytes.get(self.at) {
            levels += match byte {
                b'(' | b'[' | b'{' => 4,
                b')' | b']' | b'}' | b'"' | b'\'' => 0,
                b' ' | b'\t'..=b'\r' => usize::from(is_word(self.byte_at(1))),
                _ => usize::from(byte.is_ascii_punctuation() || !byte.is_ascii()),
            };
            if levels > MAX_LEVELS {
                return Err(TooDeep::levels());
            }
            self.at += 1;
        }
        Ok(())
    }

    pub(super) fn took(&mut self, before: Before) {
        self.before = before;
        self.word = "";
        self.word_before = "";
        self.newline = false;
        self.statement_start = false;
    }

    pub(super) fn byte_at(&self, offset: usize) -> u8 {
        self.bytes.get(self.at + offset).copied().unwrap_or(0)
    }

    pub(super) fn character(&self) -> char {
        self.source.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or('\0')
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\\') || !byte.is_ascii()
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{feff}' | '\u{180e}' | '\u{200b}')
}
