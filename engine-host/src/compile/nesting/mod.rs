//! Bounds how deeply code nests, before anything recursive sees it.
//!
//! The parser, the scope analysis and the printer recurse over the code's structure and check no stack. One linear pass
//! over the bytes adds up, at each place, everything that may be an open level there: brackets, and in each of them
//! the operators, member accesses, prefix keywords and brace-less statements since the last point where the grammar
//! must have closed them. The sum never falls short of the true depth; where the meaning of a character hangs on more
//! grammar than this pass knows (is the `/` after `}` a division?), it takes no closing bracket as such any more.

mod literals;
mod scan;

use super::Fault;
use scan::Scan;

/// How many levels may be open in one another: few enough for [`super::STACK`], enough for generated chains.
const MAX_LEVELS: usize = 10_000;

/// How many of these may be brackets.
const MAX_BRACKETS: usize = 1_000;

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
    fn levels() -> Self {
        Self(format!("{MAX_LEVELS} operators, calls or statements in one another"))
    }

    fn brackets() -> Self {
        Self(format!("{MAX_BRACKETS} brackets in one another"))
    }

    fn size() -> Self {
        Self(format!("{} MB within brackets, {} MB within parentheses", MAX_NESTED >> 20, MAX_REREAD >> 20))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Bracket {
    /// What may be a call's, or just group.
    Paren,
    /// What may hold an arrow function's parameters.
    Parameters,
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
    /// Operators and prefixes of the current expression.
    expression: usize,
    /// Brace-less statements around it, and labels.
    statement: usize,
    /// `statement` before the last `;`, for the `else` that may follow.
    before_semicolon: usize,
    /// Those that a `;` does not close: `do`.
    kept: usize,
}

impl Frame {
    fn new(bracket: Bracket, start: usize) -> Self {
        Self { bracket, start, expression: 0, statement: 0, before_semicolon: 0, kept: 0 }
    }

    fn levels(&self) -> usize {
        1 + self.expression + self.statement + self.kept
    }
}

/// All that is open at a place.
struct Levels {
    /// The innermost bracket, or the code as a whole.
    top: Frame,
    around: Vec<Frame>,
    /// The sum of levels in `around`.
    below: usize,
    /// See [`MAX_NESTED`].
    nested: usize,
    /// See [`MAX_REREAD`].
    reread: usize,
}

impl Levels {
    fn new() -> Self {
        Self { top: Frame::new(Bracket::Brace, 0), around: Vec::new(), below: 0, nested: 0, reread: 0 }
    }

    fn push(&mut self, bracket: Bracket, at: usize) -> Result<(), TooDeep> {
        self.below += self.top.levels();
        self.around.push(std::mem::replace(&mut self.top, Frame::new(bracket, at)));
        self.check()
    }

    fn pop(&mut self, at: usize) -> Result<(), TooDeep> {
        let Some(outer) = self.around.pop() else { return Ok(()) };
        let closed = std::mem::replace(&mut self.top, outer);
        self.below -= self.top.levels();
        let length = at - closed.start;
        self.nested += length;
        if closed.bracket == Bracket::Parameters {
            self.reread += length;
        }
        self.check()
    }

    /// Closes what nothing in the code does: the parser reads on to the end in it.
    fn pop_all(&mut self, at: usize) -> Result<(), TooDeep> {
        (0..self.around.len()).try_for_each(|_| self.pop(at))
    }

    fn read_again(&mut self, bytes: usize) -> Result<(), TooDeep> {
        self.reread += bytes;
        self.check()
    }

    fn brackets(&self) -> usize {
        self.around.len()
    }

    fn total(&self) -> usize {
        self.below + self.top.levels()
    }

    fn check(&self) -> Result<(), TooDeep> {
        if self.brackets() > MAX_BRACKETS {
            Err(TooDeep::brackets())
        } else if self.total() > MAX_LEVELS {
            Err(TooDeep::levels())
        } else if self.nested > MAX_NESTED || self.reread > MAX_REREAD {
            Err(TooDeep::size())
        } else {
            Ok(())
        }
    }
}
