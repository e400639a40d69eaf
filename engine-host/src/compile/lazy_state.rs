//! `get($.data.url)` becomes `get(state => state.data.url)`: a member chain on `$` is read from the state that the
//! operation gets.

use oxc::allocator::TakeIn;
use oxc::ast::ast::{
    Argument, BindingPattern, CallExpression, ChainElement, Expression, FormalParameters, IdentifierReference,
    MemberExpression, Statement,
};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::semantic::Scoping;
use oxc::span::GetSpan;

use super::syntax::{arrow, awaits, visit_job};
use super::{Fault, Job};

/// Rewrites the chains on `$` where no declaration of the user's own is meant.
pub(super) fn apply(job: &mut Job<'_>) -> Result<(), Fault> {
    let mut visitor = LazyState {
        scoping: &job.scoping,
        ast: &job.ast,
        source: job.program.source_text,
        place: Place::Statement,
        fault: None,
    };
    visit_job(&mut visitor, &mut job.program);
    visitor.fault.map_or(Ok(()), Err)
}

/// What a `$` would be an argument of.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// No call between it and its statement.
    Statement,
    /// A call's argument.
    Argument,
    /// A call's argument that has a `$` already.
    LazyArgument,
}

struct LazyState<'a, 's> {
    scoping: &'s Scoping,
    ast: &'s AstBuilder<'a>,
    source: &'a str,
    place: Place,
    /// The first one.
    fault: Option<Fault>,
}

impl<'a> VisitMut<'a> for LazyState<'a, '_> {
    fn visit_statement(&mut self, statement: &mut Statement<'a>) {
        let place = std::mem::replace(&mut self.place, Place::Statement);
        walk_mut::walk_statement(self, statement);
        self.place = place;
    }

    fn visit_call_expression(&mut self, call: &mut CallExpression<'a>) {
        // In `get($.data.items.map(f))`, the inner call is part of the chain.
        if self.is_on_lazy_chain(&call.callee) {
            return walk_mut::walk_call_expression(self, call);
        }
        self.visit_expression(&mut call.callee);
        for argument in &mut call.arguments {
            let place = std::mem::replace(&mut self.place, Place::Argument);
            self.visit_argument(argument);
            if std::mem::replace(&mut self.place, place) == Place::LazyArgument {
                self.open(argument);
            }
        }
    }

    fn visit_member_expression(&mut self, member: &mut MemberExpression<'a>) {
        if let Expression::Identifier(root) = member.object_mut()
            && is_dollar(root, self.scoping)
        {
            root.name = "state".into();
            match self.place {
                Place::Statement => self.fail("Lazy State Error: Must be inside an operation", root.span.start),
                Place::Argument | Place::LazyArgument => self.place = Place::LazyArgument,
            }
        }
        walk_mut::walk_member_expression(self, member);
    }
}

impl<'a> LazyState<'a, '_> {
    /// Makes `argument` a function of state, if it is none yet.
    fn open(&mut self, argument: &mut Argument<'a>) {
        let start = argument.span().start;
        match argument {
            Argument::SpreadElement(_) => self.fail("Lazy State Error: $ cannot be used in a spread argument", start),
            Argument::ArrowFunctionExpression(arrow) => self.check_parameters(&arrow.params, start),
            _ => {
                let value = argument.to_expression_mut();
                if awaits(value) {
                    self.fail("Lazy State Error: An argument cannot use both $ and await", start);
                }
                let body = value.take_in(self.ast);
                *value = arrow("state", false, body, self.ast);
            }
        }
    }

    fn check_parameters(&mut self, parameters: &FormalParameters<'a>, start: u32) {
        match (&parameters.rest, &parameters.items[..]) {
            (None, [only]) => {
                let span = only.pattern.span();
                let named = matches!(&only.pattern, BindingPattern::BindingIdentifier(it) if it.name == "state");
                if !named {
                    let name = span.source_text(self.source);
                    self.fail(format!("parameter \"{name}\" should be called \"state\""), span.start);
                }
            }
            _ => self.fail("parent has wrong arity", start),
        }
    }

    fn is_on_lazy_chain(&self, callee: &Expression<'a>) -> bool {
        let mut link = callee;
        while let Some(below) = receiver(link) {
            link = below;
        }
        !std::ptr::eq(link, callee) && matches!(link, Expression::Identifier(root) if is_dollar(root, self.scoping))
    }

    fn fail(&mut self, message: impl Into<String>, offset: u32) {
        self.fault.get_or_insert_with(|| Fault::new(message, offset));
    }
}

/// What a member access or call is made on.
fn receiver<'t, 'a>(expression: &'t Expression<'a>) -> Option<&'t Expression<'a>> {
    match expression {
        Expression::CallExpression(call) => Some(&call.callee),
        Expression::ChainExpression(chain) => match &chain.expression {
            ChainElement::CallExpression(call) => Some(&call.callee),
            element => element.as_member_expression().map(MemberExpression::object),
        },
        _ => expression.as_member_expression().map(MemberExpression::object),
    }
}

fn is_dollar(identifier: &IdentifierReference<'_>, scoping: &Scoping) -> bool {
    let reference = identifier.reference_id.get().map(|id| scoping.get_reference(id));
    identifier.name == "$" && reference.is_some_and(|reference| reference.symbol_id().is_none())
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::apply;

    #[test]
    fn the_argument_becomes_a_function_of_state() {
        check(
            apply,
            &[
                ("get($.data.x)", "get((state) => state.data.x);"),
                ("get($['a'].b?.c)", "get((state) => state[\"a\"].b?.c);"),
                ("get($?.a)", "get((state) => state?.a);"),
                ("get(1, $.a, $.b)", "get(1, (state) => state.a, (state) => state.b);"),
                ("get(`/${$.a}/${$.b}`)", "get((state) => `/${state.a}/${state.b}`);"),
                ("get({ a: $.a })", "get((state) => ({ a: state.a }));"),
                ("get([$.a, new X($.b)])", "get((state) => [state.a, new X(state.b)]);"),
                ("get($.a + x, (1, $.b))", "get((state) => state.a + x, (state) => (1, state.b));"),
                ("get(state => $.a)", "get((state) => state.a);"),
                ("get((state = {}) => $.a)", "get((state = {}) => state.a);"),
                ("get(f($.a))", "get(f((state) => state.a));"),
                ("a($.b, c($.d))", "a((state) => state.b, c((state) => state.d));"),
                ("a(b($.c).d, $.e)", "a(b((state) => state.c).d, (state) => state.e);"),
                ("get($.a).then(f)", "get((state) => state.a).then(f);"),
                ("x.y($.a)", "x.y((state) => state.a);"),
                ("const x = get($.a)", "const x = get((state) => state.a);"),
                ("function f() { return get($.a) }", "function f() {\nreturn get((state) => state.a);\n}"),
                ("fn(state => { get($.a)(state) })", "fn((state) => {\nget((state) => state.a)(state);\n});"),
                ("export default [get($.a)]", "export default [get((state) => state.a)];"),
            ],
        );
    }

    #[test]
    fn calls_along_the_chain_belong_to_it() {
        check(
            apply,
            &[
                ("each($.a.map(x => x * 2), f)", "each((state) => state.a.map((x) => x * 2), f);"),
                ("each($.a.b().c?.().d, f)", "each((state) => state.a.b().c?.().d, f);"),
                ("each($.a.filter(x => x > $.b))", "each((state) => state.a.filter((x) => x > state.b));"),
                ("each(g($.a.map(h)))", "each(g((state) => state.a.map(h)));"),
            ],
        );
    }

    #[test]
    fn what_is_no_lazy_state_stays() {
        check(
            apply,
            &[
                ("get($)", "get($);"),
                ("get(a.$.b, $a.b)", "get(a.$.b, $a.b);"),
                ("const $ = 1; get($.a)", "const $ = 1;\nget($.a);"),
                ("import $ from 'x'; get($.a)", "import $ from \"x\";\nget($.a);"),
                ("get($ => $.a)", "get(($) => $.a);"),
                ("get(function () { var $; return $.a })", "get(function() {\nvar $;\nreturn $.a;\n});"),
                ("const o = { a: $.a }", "const o = { a: $.a };"),
                ("export let o = { a: $.a }, p = get($.b)", "export let o = { a: $.a }, p = get((state) => state.b);"),
            ],
        );
    }

    #[test]
    fn misuse_is_an_error() {
        check(
            apply,
            &[
                ("const x = $.data.x;", "Lazy State Error: Must be inside an operation (1:10)"),
                ("$.a = get()", "Lazy State Error: Must be inside an operation (1:0)"),
                ("\n$.a()", "Lazy State Error: Must be inside an operation (2:0)"),
                ("if ($.a) get()", "Lazy State Error: Must be inside an operation (1:4)"),
                ("fn(state => { return $.a })", "Lazy State Error: Must be inside an operation (1:21)"),
                ("const o = [{ a: $.a }]", "Lazy State Error: Must be inside an operation (1:16)"),
                ("fn(x => $.a)", "parameter \"x\" should be called \"state\" (1:3)"),
                ("fn(({ data }) => $.a)", "parameter \"{ data }\" should be called \"state\" (1:4)"),
                ("fn(() => $.a)", "parent has wrong arity (1:3)"),
                ("fn((state, b) => $.a)", "parent has wrong arity (1:3)"),
                ("fn((...state) => $.a)", "parent has wrong arity (1:3)"),
                ("fn(...$.a)", "Lazy State Error: $ cannot be used in a spread argument (1:3)"),
                ("fn(await x + $.a)", "Lazy State Error: An argument cannot use both $ and await (1:3)"),
            ],
        );
    }
}
