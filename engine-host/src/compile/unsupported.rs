//! Syntax that the parser takes but no engine does: refused here, with its place, rather than when the step runs.

use oxc::ast::ast::{AccessorProperty, Decorator, ImportDeclaration, ImportExpression, ImportPhase, Program};
use oxc::ast_visit::{Visit, walk};
use oxc::span::Span;

use super::Fault;

/// Refuses code with proposed syntax: the first of it is the fault.
pub(super) fn check(program: &Program<'_>) -> Result<(), Fault> {
    let mut visitor = Unsupported { first: None };
    visitor.visit_program(program);
    match visitor.first {
        Some((offset, what)) => Err(Fault::new(format!("{what} are not supported"), offset)),
        None => Ok(()),
    }
}

struct Unsupported {
    /// Where, and what it is.
    first: Option<(u32, &'static str)>,
}

impl Unsupported {
    fn found(&mut self, span: Span, what: &'static str) {
        if self.first.is_none_or(|(offset, _)| span.start < offset) {
            self.first = Some((span.start, what));
        }
    }

    fn found_phase(&mut self, span: Span, phase: Option<ImportPhase>) {
        match phase {
            Some(ImportPhase::Defer) => self.found(span, "Deferred imports"),
            Some(ImportPhase::Source) => self.found(span, "Source phase imports"),
            None => {}
        }
    }
}

impl<'a> Visit<'a> for Unsupported {
    fn visit_decorator(&mut self, decorator: &Decorator<'a>) {
        self.found(decorator.span, "Decorators");
    }

    fn visit_accessor_property(&mut self, property: &AccessorProperty<'a>) {
        self.found(property.span, "Accessor fields");
        walk::walk_accessor_property(self, property);
    }

    fn visit_import_declaration(&mut self, import: &ImportDeclaration<'a>) {
        self.found_phase(import.span, import.phase);
    }

    fn visit_import_expression(&mut self, import: &ImportExpression<'a>) {
        self.found_phase(import.span, import.phase);
        walk::walk_import_expression(self, import);
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile;

    #[test]
    fn proposed_syntax_is_refused_with_its_place() {
        for (source, expected) in [
            ("fn(s => s)\n@dec class A {}", "Decorators are not supported (2:0)"),
            ("class A { @dec m() {} }", "Decorators are not supported (1:10)"),
            ("export default @dec class {}", "Decorators are not supported (1:15)"),
            ("class A { accessor x = 1 }", "Accessor fields are not supported (1:10)"),
            ("import defer * as x from 'x'", "Deferred imports are not supported (1:0)"),
            ("fn();\nimport source x from 'x'", "Source phase imports are not supported (2:0)"),
            ("fn(() => import.defer('x'))", "Deferred imports are not supported (1:9)"),
            ("import(import.source('x')); @dec class A {}", "Source phase imports are not supported (1:7)"),
            ("import defer from 'x'; import source from 'y'; fn(s => s)", ""),
        ] {
            let got = compile(source, &[]).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(got, expected, "{source}");
        }
    }
}
