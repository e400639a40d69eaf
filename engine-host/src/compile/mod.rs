//! Compiles a job, a script of operation calls, to a module.
//!
//! Never runs user code and has no state. After one parse, each transform, a module of its own, changes the
//! syntax tree, and one print at the end gives the module and the map back to the user's source.

use std::any::Any;
use std::thread;

use oxc::allocator::Allocator;
use oxc::ast::ast::Program;
use oxc::ast::builder::AstBuilder;
use oxc::codegen::{Codegen, CodegenOptions, CommentOptions};
use oxc::parser::{ParseOptions, Parser, ParserReturn};
use oxc::semantic::{Scoping, SemanticBuilder};
use oxc::span::SourceType;

mod errors;
mod exports;
mod imports;
mod lazy_state;
mod marks;
mod names;
mod nesting;
mod operations;
mod positions;
mod promises;
mod spreads;
mod syntax;
#[cfg(test)]
mod tests;
mod undeclared;
mod unsupported;

use names::Names;
use positions::{Lines, SourceMap};

/// Stack for the recursive parts, in bytes; only what is used of it takes memory. Four times what the deepest code takes
/// that [`nesting::check`] lets pass, in a build without optimisation.
const STACK: usize = 64 << 20;

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
    map: SourceMap,
    places: Places,
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
    pub fn source_position(&self, source: &str, line: u32, column: u32) -> Option<Position> {
        self.map.look_up(source, &self.code, line, column)
    }

    /// The place where `property` was read of what has none, if the engine only knows that it was in what begins at
    /// `position`.
    pub fn property_position(&self, source: &str, position: Position, property: &str) -> Position {
        let found = (self.places == Places::Few).then(|| positions::property(source, position, property)).flatten();
        found.unwrap_or(position)
    }
}

/// Compiles `source` for the given adaptors, in their order of preference.
pub fn compile(source: &str, adaptors: &[Adaptor<'_>]) -> Result<Compiled, CompileError> {
    compile_for(source, adaptors, Places::All)
}

/// Of what an engine knows the place in its code, for the stacks of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Of everything, as V8.
    All,
    /// Of some expressions, as QuickJS. Other statements are marked with one of those.
    Few,
}

/// As [`compile`], for an engine that knows these places.
pub fn compile_for(source: &str, adaptors: &[Adaptor<'_>], places: Places) -> Result<Compiled, CompileError> {
    let lines = Lines::of(source);
    let compile = || compile_here(source, &lines, adaptors, places);
    on_own_stack(source, compile).map_err(|fault| fault.into_error(&lines))
}

/// The module whose exports are a run's globals, which does what a job does in the places where no engine knows it. Code
/// that is no JavaScript stays as it is: the engine tells what is wrong.
pub fn compile_globals(source: &str, places: Places) -> String {
    let compiled = on_own_stack(source, || {
        let allocator = Allocator::default();
        let mut globals = parse(&allocator, source)?;
        let undeclared = undeclared::apply(&mut globals, &[]);
        if let Some(local) = undeclared {
            imports::add_runtime(&mut globals, "_undeclared", &local);
        }
        if places == Places::Few {
            spreads::apply(&mut globals);
        }
        Ok(print(&globals.program).0)
    });
    compiled.unwrap_or_else(|_| source.to_owned())
}

/// Checks the syntax of an edge's condition, which is what follows `return` in a function. The error is the message
/// alone, as `Unexpected end of input`.
pub fn check_condition(expression: &str) -> Result<(), String> {
    let body = format!("return {}", condition(expression));
    on_own_stack(&body, || {
        let allocator = Allocator::default();
        let options = ParseOptions { allow_return_outside_function: true, ..parse_options() };
        let parsed = Parser::new(&allocator, &body, SourceType::script()).with_options(options).parse();
        check_syntax(&body, &parsed).map(drop).or_else(|fault| check_function(&body).map_err(|()| fault))
    })
    .map_err(|fault| fault.message)
}

/// Checks code that may only stand in a function, such as `new.target`.
fn check_function(body: &str) -> Result<(), ()> {
    let allocator = Allocator::default();
    let script = format!("(function () {{ {body}\n}})");
    let parsed = Parser::new(&allocator, &script, SourceType::script()).with_options(parse_options()).parse();
    check_syntax(&script, &parsed).map_err(drop)?;
    // Otherwise the body ends the function itself, and goes on outside of it.
    if syntax::is_function(&parsed.program) { Ok(()) } else { Err(()) }
}

/// An edge's condition less what comes before its first token: the end of a line would end the `return` before it.
pub fn condition(expression: &str) -> &str {
    let trimmed =
        |text: &'_ str| text.trim_start_matches(|char: char| char.is_whitespace() || char == '\u{feff}').len();
    let mut rest = &expression[expression.len() - trimmed(expression)..];
    loop {
        let after = if let Some(line) = rest.strip_prefix("//") {
            line.find(['\n', '\r', '\u{2028}', '\u{2029}']).map_or("", |end| &line[end..])
        } else if let Some((_, after)) = rest.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
            after
        } else {
            return rest;
        };
        rest = &after[after.len() - trimmed(after)..];
    }
}

/// The line `number`, from 1, of a source, without its end.
pub fn source_line(source: &str, number: u32) -> Option<&str> {
    Lines::of(source).text(number)
}

/// What is wrong, and the byte of the source where.
#[derive(Debug)]
struct Fault {
    message: String,
    offset: usize,
}

impl Fault {
    fn new(message: impl Into<String>, offset: u32) -> Self {
        Self { message: message.into(), offset: offset as usize }
    }

    fn into_error(self, lines: &Lines<'_>) -> CompileError {
        CompileError { message: self.message, position: lines.position(self.offset) }
    }
}

/// A job between parse and print.
struct Job<'a> {
    program: Program<'a>,
    /// Declarations and references as they were in the user's code.
    scoping: Scoping,
    names: Names,
    /// What the code itself exports.
    exports: Vec<String>,
    ast: AstBuilder<'a>,
}

fn compile_here(source: &str, lines: &Lines<'_>, adaptors: &[Adaptor<'_>], places: Places) -> Result<Compiled, Fault> {
    let allocator = Allocator::default();
    let mut job = parse(&allocator, source)?;
    let operations = transform(&mut job, lines, adaptors)?;
    if places == Places::Few {
        spreads::apply(&mut job);
        marks::apply(&mut job);
    }
    let (code, map) = print(&job.program);
    Ok(Compiled { code, operations, map, places })
}

fn parse<'a>(allocator: &'a Allocator, source: &'a str) -> Result<Job<'a>, Fault> {
    let parsed = Parser::new(allocator, source, SourceType::mjs()).with_options(parse_options()).parse();
    let scoping = check_syntax(source, &parsed)?;
    let mut program = parsed.program;
    program.hashbang = None;
    let names = Names::of(&scoping);
    let exports = exports::names(&parsed.module_record);
    Ok(Job { program, scoping, names, exports, ast: AstBuilder::new(allocator) })
}

/// Refuses what is no JavaScript, or none that the engines know. Returns the declarations and references.
fn check_syntax(source: &str, parsed: &ParserReturn<'_>) -> Result<Scoping, Fault> {
    if parsed.diagnostics.has_errors() {
        return Err(errors::first(source, &parsed.diagnostics));
    }
    let checked = SemanticBuilder::new_compiler().build(&parsed.program);
    if checked.diagnostics.has_errors() {
        return Err(errors::first(source, &checked.diagnostics));
    }
    unsupported::check(&parsed.program)?;
    Ok(checked.semantic.into_scoping())
}

fn parse_options() -> ParseOptions {
    ParseOptions { preserve_parens: false, parse_regular_expression: true, ..ParseOptions::default() }
}

fn transform(job: &mut Job<'_>, lines: &Lines<'_>, adaptors: &[Adaptor<'_>]) -> Result<Vec<Operation>, Fault> {
    let undeclared = undeclared::apply(job, adaptors);
    lazy_state::apply(job)?;
    let defer = promises::apply(job);
    exports::ensure_default(job);
    let operations = operations::gather(job, lines, defer.as_deref());
    let own = [("_defer", defer.as_deref()), ("_undeclared", undeclared.as_deref())];
    let own: Vec<_> = own.into_iter().filter_map(|(name, local)| Some((name, local?))).collect();
    imports::add(job, adaptors, &own);
    Ok(operations)
}

fn print(program: &Program<'_>) -> (String, SourceMap) {
    let options = CodegenOptions {
        comments: CommentOptions::disabled(),
        source_map_path: Some("job.js".into()),
        // Deep code would be mostly indentation.
        indent_width: 0,
        ..CodegenOptions::default()
    };
    let printed = Codegen::new().with_options(options).build(program);
    let map = printed.map.map(|map| {
        SourceMap::new(
            map.get_tokens().map(|it| [(it.get_dst_line(), it.get_dst_col()), (it.get_src_line(), it.get_src_col())]),
        )
    });
    (printed.code, map.unwrap_or_default())
}

/// Runs `work` on `source` where nothing it does can overflow the caller's stack, or unwind it.
fn on_own_stack<T: Send>(source: &str, work: impl FnOnce() -> Result<T, Fault> + Send) -> Result<T, Fault> {
    nesting::check(source)?;
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("compile".into()).stack_size(STACK);
        match builder.spawn_scoped(scope, work) {
            Ok(running) => running.join().unwrap_or_else(|panic| Err(Fault::new(describe(&panic), 0))),
            Err(error) => Err(Fault::new(format!("Cannot start a thread to compile on: {error}"), 0)),
        }
    })
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("The compiler failed on this code: {}", text.unwrap_or("no reason given"))
}
