//! The tokens with a grammar of their own: regular expressions, strings, templates.

use super::scan::{Before, Scan};
use super::{Bracket, MAX_BRACKETS, TooDeep};

impl Scan<'_> {
    /// The pattern's own parser recurses over its groups and classes.
    pub(super) fn regular_expression(&mut self) -> Result<(), TooDeep> {
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
            if self.levels.brackets() + groups + classes > MAX_BRACKETS {
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

    pub(super) fn string(&mut self, quote: u8) -> Result<(), TooDeep> {
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

    pub(super) fn template_start(&mut self) -> Result<(), TooDeep> {
        if self.follows_operand() {
            self.levels.top.expression += 1;
        }
        self.at += 1;
        self.levels.push(Bracket::Template, self.at)?;
        self.template()
    }

    /// The text of a template up to its end or next substitution.
    pub(super) fn template(&mut self) -> Result<(), TooDeep> {
        loop {
            match self.byte_at(0) {
                0 if self.at >= self.bytes.len() => return Ok(()),
                // Whatever it means, as a tag may take what is no escape sequence.
                b'\\' => {
                    self.at += 1;
                    self.at = (self.at + self.character().len_utf8()).min(self.bytes.len());
                }
                b'`' => {
                    self.at += 1;
                    self.levels.pop(self.at)?;
                    self.took(Before::Operand);
                    return Ok(());
                }
                b'$' if self.byte_at(1) == b'{' => {
                    self.at += 2;
                    self.took(Before::Open);
                    return self.levels.push(Bracket::Substitution, self.at);
                }
                _ => self.at += 1,
            }
        }
    }

    /// Passes over an escape sequence; what the parser takes for one of an invalid one is not known.
    pub(super) fn escape(&mut self) -> Result<(), TooDeep> {
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
}
