//! Compiles a job, a script of operation calls, to a module.
//!
//! Never runs user code and has no state. Each transform is a module of its own; they run in the order of this list.

/// What an adaptor offers to the code.
#[derive(Debug, Clone)]
pub struct Adaptor<'a> {
    /// What the module imports it by.
    pub specifier: &'a str,
    /// Its exports; none when they are not known before it is loaded.
    pub exports: Option<&'a [String]>,
}

/// A compiled job.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The module's source.
    pub code: String,
    /// The operations, in the order of the default export.
    pub operations: Vec<Operation>,
}

/// A top-level operation, for error messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The function called, such as `get` or `http.get`.
    pub name: String,
    /// Its line in the user's source, from 1.
    pub line: u32,
}

/// A place in the user's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 0, in UTF-16 code units, as JavaScript counts.
    pub column: u32,
}

/// Code that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({}:{})", position.line, position.column)]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub position: Position,
}

impl Compiled {
    /// The place in the user's source of a place in the compiled module (line from 1, column from 0), if it comes
    /// from there.
    pub fn source_position(&self, _line: u32, _column: u32) -> Option<Position> {
        None
    }
}

/// Compiles `source` for the given adaptors, in their order of preference.
pub fn compile(_source: &str, _adaptors: &[Adaptor<'_>]) -> Result<Compiled, CompileError> {
    Err(CompileError { message: String::new(), position: Position { line: 1, column: 0 } })
}

/// Checks the syntax of an edge's condition. The error is the message alone, as `Unexpected end of input`.
pub fn check_condition(_expression: &str) -> Result<(), String> {
    Ok(())
}
