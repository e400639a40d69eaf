//! Bounds how deeply code nests, before anything recursive sees it.
//!
//! The parser, the scope analysis and the printer recurse over the code's structure and check no stack. One linear pass
//! over the bytes adds up, at each place, everything that may be an open level there: brackets, and in each of them
//! the operators, member accesses, prefix keywords and brace-less statements since the last point where the grammar
//! must have closed them. The sum never falls short of the true depth; where the meaning of a character hangs on more grammar
//! than this pass knows (is the `/` after `}` a division?), it takes no closing bracket as such any more.

use super::Fault;

/// How many levels may be open in one another: few enough for [`super::STACK`], enough for generated chains.
pub(super) const MAX_LEVELS: usize = 10_000;

/// How many of these may be brackets.
pub(super) const MAX_BRACKETS: usize = 1_000;

/// The most bytes within brackets, those in further brackets counted again for each: the scope analysis takes time and
/// memory by this measure.
const MAX_NESTED: usize = 256 << 20;

/// The same of parentheses that may be an arrow function's: the parser reads what is in them again for each pair.
const MAX_REREAD: usize = 16 << 20;

/// Refuses source that nests too deeply.
pub(super) fn check(source: &str) -> Result<(), Fault> {
    let mut scan = Scan::new(source);
    scan.run().map_err(|TooDeep(limit)| Fault {
        message: format!("Code is nested too deeply: the limit is {limit}"),
        offset: scan.at,
    })
}

/// With the limit that was passed.
struct TooDeep(String);

impl TooDeep {
    fn brackets() -> Self {
        Self(format!("{MAX_BRACKETS} brackets in one another"))
    }

    fn size() -> Self {
        Self(format!("{} MB within brackets, {} MB within parentheses", MAX_NESTED >> 20, MAX_REREAD >> 20))
    }

    fn levels() -> Self {
        Self(format!("{MAX_LEVELS} operators, calls or statements in one another"))
    }
}

/// What the token before means for the next one.
#[derive(Clone, Copy, PartialEq)]
enum Before {
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

#[derive(Clone, Copy, PartialEq)]
enum Bracket {
    Paren,
    /// The parentheses of `if`, `for`, `while`, `with`: a statement follows.
    Head,
    Square,
    Brace,
    Template,
    Substitution,
}

/// An open bracket, and the levels open directly in it.
struct Frame {
    bracket: Bracket,
    start: usize,
    /// It may hold an arrow function's parameters.
    parameters: bool,
    /// Operators and prefixes of the current expression.
    expression: usize,
    /// Brace-less statements around it, and labels.
    statement: usize,
    /// `statement` before the last `;`, for the `else` that may follow.
    before_semicolon: usize,
    /// Those that a `;` does not close: `do`.
    kept: usize,
}

struct Scan<'s> {
    bytes: &'s [u8],
    source: &'s str,
    at: usize,
    /// The code's own level, then one for each open bracket.
    frames: Vec<Frame>,
    /// See [`MAX_NESTED`] and [`MAX_REREAD`].
    nested: usize,
    reread: usize,
    /// Levels of the frames below the top one.
    below: usize,
    before: Before,
    /// The last two words, if nothing but space came after them.
    word: &'s str,
    word_before: &'s str,
    newline: bool,
    /// A label may start here.
    statement_start: bool,
}

impl<'s> Scan<'s> {
    fn new(source: &'s str) -> Self {
        Self {
            bytes: source.as_bytes(),
            source,
            at: 0,
            frames: vec![Frame::new(Bracket::Brace, 0)],
            nested: 0,
            reread: 0,
            below: 0,
            before: Before::Open,
            word: "",
            word_before: "",
            newline: true,
            statement_start: true,
        }
    }

    fn run(&mut self) -> Result<(), TooDeep> {
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
        while self.frames.len() > 1 {
            self.pop()?;
        }
        Ok(())
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
        self.end_statement_before(text);
        let label = self.statement_start;
        let (before, levels) = self.weigh(text);
        self.frame().expression += levels;
        (self.word_before, self.word) = (self.word, text);
        self.before = before;
        self.newline = false;
        self.statement_start = label || matches!(text, "else" | "do");
        self.bound()
    }

    /// What follows `text`, and how many levels of expression it opens. Opens its levels of statement.
    fn weigh(&mut self, text: &str) -> (Before, usize) {
        let after_semicolon = self.before == Before::Semicolon;
        let frame = self.frame();
        match text {
            "if" | "for" | "while" | "with" => {
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
            "typeof" | "void" | "delete" | "new" | "in" | "instanceof" | "extends" => (Before::Open, 1),
            "return" | "throw" | "case" | "default" => (Before::Open, 0),
            "await" | "yield" => (Before::Unclear, 1),
            "of" | "let" | "async" | "static" | "get" | "set" | "using" | "break" | "continue" | "debugger" => {
                (Before::Unclear, 0)
            }
            _ if text.contains('\\') => (Before::Unclear, 0),
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
        if ended && !goes_on && self.frame().bracket == Bracket::Brace {
            let frame = self.frame();
            frame.expression = 0;
            frame.statement = 0;
            self.statement_start = true;
        }
    }

    fn operator(&mut self, byte: u8) -> Result<(), TooDeep> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"<!--") || rest.starts_with(b"-->") {
            return self.distrust();
        }
        let repeated = self.at > 0 && self.bytes[self.at - 1] == byte && !matches!(byte, b'!' | b'~' | b'+' | b'-');
        let label = byte == b':' && self.statement_start && !self.word.is_empty();
        let frame = self.frame();
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
            b'+' | b'-' if repeated_sign(self.bytes, self.at) => Before::Unclear,
            _ => Before::Open,
        };
        self.took(before);
        self.statement_start = matches!(byte, b';' | b':');
        self.bound()
    }

    fn open(&mut self, byte: u8) -> Result<(), TooDeep> {
        let bracket = match byte {
            b'(' if self.heads_statement() => Bracket::Head,
            b'(' => Bracket::Paren,
            b'[' => Bracket::Square,
            _ => Bracket::Brace,
        };
        if bracket != Bracket::Brace && matches!(self.before, Before::Operand | Before::Brace | Before::Unclear) {
            self.frame().expression += 1;
        }
        let parameters = bracket == Bracket::Paren && self.before != Before::Operand;
        self.at += 1;
        self.push(bracket);
        self.frame().parameters = parameters;
        self.took(Before::Open);
        self.statement_start = bracket == Bracket::Brace;
        self.bound()
    }

    fn heads_statement(&self) -> bool {
        let word = if self.word == "await" { self.word_before } else { self.word };
        self.before != Before::Operand && matches!(word, "if" | "for" | "while" | "with")
    }

    fn close(&mut self, byte: u8) -> Result<(), TooDeep> {
        let bracket = self.frame().bracket;
        let (fits, before) = match bracket {
            Bracket::Paren => (byte == b')', Before::Operand),
            Bracket::Head => (byte == b')', Before::Open),
            Bracket::Square => (byte == b']', Before::Operand),
            Bracket::Brace => (byte == b'}' && self.frames.len() > 1, Before::Brace),
            Bracket::Substitution => (byte == b'}', Before::Open),
            Bracket::Template => (false, Before::Open),
        };
        if !fits {
            return self.distrust();
        }
        self.at += 1;
        self.pop()?;
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
            (_, Before::Brace | Before::Unclear | Before::Access) => self.distrust(),
        }
    }

    /// The pattern's own parser recurses over its groups and classes.
    fn regular_expression(&mut self) -> Result<(), TooDeep> {
        let (mut in_class, mut groups, mut classes) = (false, 0_usize, 0_usize);
        self.at += 1;
        loop {
            match self.byte_at(0) {
                0 if self.at >= self.bytes.len() => return Ok(()),
                b'\n' | b'\r' => return self.distrust(),
                b'\\' if matches!(self.byte_at(1), b'\n' | b'\r') => return self.distrust(),
                b'\\' => self.at += 1,
                b'/' if !in_class => break,
                b'(' if !in_class => groups += 1,
                b')' if !in_class => groups = groups.saturating_sub(1),
                b'[' => (in_class, classes) = (true, classes + 1),
                b']' => (in_class, classes) = (false, classes.saturating_sub(1)),
                _ => {}
            }
            self.at += 1;
            if self.frames.len() + groups + classes > MAX_BRACKETS {
                return Err(TooDeep::brackets());
            }
        }
        self.at += 1;
        while self.byte_at(0).is_ascii_alphanumeric() || matches!(self.byte_at(0), b'_' | b'$') {
            self.at += 1;
        }
        self.took(Before::Operand);
        Ok(())
    }

    fn string(&mut self, quote: u8) -> Result<(), TooDeep> {
        self.at += 1;
        loop {
            match self.byte_at(0) {
                0 if self.at >= self.bytes.len() => return Ok(()),
                b'\n' | b'\r' => return self.distrust(),
                b'\\' => self.escape()?,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        break;
                    }
                }
            }
        }
        self.took(Before::Operand);
        Ok(())
    }

    fn template_start(&mut self) -> Result<(), TooDeep> {
        if matches!(self.before, Before::Operand | Before::Brace | Before::Unclear) {
            self.frame().expression += 1;
        }
        self.at += 1;
        self.push(Bracket::Template);
        self.bound()?;
        self.template()
    }

    /// The text of a template up to its end or next substitution.
    fn template(&mut self) -> Result<(), TooDeep> {
        loop {
            match self.byte_at(0) {
                0 if self.at >= self.bytes.len() => return Ok(()),
                b'\\' => self.escape()?,
                b'`' => {
                    self.at += 1;
                    self.pop()?;
                    self.took(Before::Operand);
                    return Ok(());
                }
                b'$' if self.byte_at(1) == b'{' => {
                    self.at += 2;
                    self.push(Bracket::Substitution);
                    self.took(Before::Open);
                    return self.bound();
                }
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), TooDeep> {
        let hex = |from: usize, count: usize| {
            self.bytes
                .get(self.at + from..self.at + from + count)
                .is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
        };
        match self.byte_at(1) {
            b'x' if !hex(2, 2) => return self.distrust(),
            b'u' if self.byte_at(2) == b'{' => self.at += self.code_point()?,
            b'u' if !hex(2, 4) => return self.distrust(),
            b'\r' if self.byte_at(2) == b'\n' => self.at += 3,
            0 => self.at += 1,
            _ => {
                self.at += 1;
                self.at += self.character().len_utf8();
            }
        }
        Ok(())
    }

    /// The length of the `\u{…}` here.
    fn code_point(&mut self) -> Result<usize, TooDeep> {
        let digits = self.bytes[self.at + 3..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || self.byte_at(3 + digits) != b'}' {
            self.distrust()?;
            return Ok(0);
        }
        Ok(digits + 4)
    }

    fn skip_word(&mut self) -> Result<(), TooDeep> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'\\' && self.byte_at(1) == b'u' && self.byte_at(2) == b'{' {
                self.at += self.code_point()?;
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
    fn distrust(&mut self) -> Result<(), TooDeep> {
        let rest = &self.bytes[self.at..];
        let parentheses = rest.iter().filter(|&&byte| byte == b'(').count();
        self.reread += parentheses * rest.len();
        let mut levels = self.levels();
        while let Some(&byte) = self.bytes.get(self.at) {
            levels += match byte {
                b'(' | b'[' | b'{' => 4,
                b')' | b']' | b'}' | b'"' | b'\'' => 0,
                _ if byte.is_ascii_whitespace() => usize::from(is_word(self.byte_at(1))),
                _ => usize::from(byte.is_ascii_punctuation()),
            };
            if levels > MAX_LEVELS {
                return Err(TooDeep::levels());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn took(&mut self, before: Before) {
        self.before = before;
        self.word = "";
        self.word_before = "";
        self.newline = false;
        self.statement_start = false;
    }

    fn push(&mut self, bracket: Bracket) {
        self.below += self.frame().levels();
        self.frames.push(Frame::new(bracket, self.at));
    }

    fn pop(&mut self) -> Result<(), TooDeep> {
        if let Some(frame) = self.frames.pop() {
            let length = self.at - frame.start;
            self.nested += length;
            self.reread += if frame.parameters { length } else { 0 };
        }
        self.below -= self.frames.last().map_or(0, Frame::levels);
        if self.nested > MAX_NESTED || self.reread > MAX_REREAD { Err(TooDeep::size()) } else { Ok(()) }
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the code's own frame is never popped")
    }

    fn levels(&self) -> usize {
        self.below + self.frames.last().map_or(0, Frame::levels)
    }

    fn bound(&self) -> Result<(), TooDeep> {
        if self.frames.len() > MAX_BRACKETS {
            Err(TooDeep::brackets())
        } else if self.levels() > MAX_LEVELS {
            Err(TooDeep::levels())
        } else {
            Ok(())
        }
    }

    fn byte_at(&self, offset: usize) -> u8 {
        self.bytes.get(self.at + offset).copied().unwrap_or(0)
    }

    fn character(&self) -> char {
        self.source.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or('\0')
    }
}

impl Frame {
    fn new(bracket: Bracket, start: usize) -> Self {
        Self { bracket, start, parameters: false, expression: 0, statement: 0, before_semicolon: 0, kept: 0 }
    }

    fn levels(&self) -> usize {
        1 + self.expression + self.statement + self.kept
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\\') || !byte.is_ascii()
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{feff}' | '\u{180e}' | '\u{200b}')
}

/// Whether a `++` or `--` ends before `at`.
fn repeated_sign(bytes: &[u8], at: usize) -> bool {
    at >= 2 && bytes[at - 1] == bytes[at - 2]
}
