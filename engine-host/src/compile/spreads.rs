//! `{ ...value }` becomes `{ ..._spread(value) }`: QuickJS spreads nothing of a text into an object, where its characters
//! belong.

use oxc::allocator::{ArenaVec, TakeIn};
use oxc::ast::ast::{Argument, Expression, ObjectExpression, ObjectPropertyKind, SpreadElement};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::span::{GetSpan, SPAN};
use oxc::str::Ident;

use super::{Job, imports};

/// Rewrites all spreads into objects, and imports what does it from the engine's own module.
pub(super) fn apply(job: &mut Job<'_>) {
    let mut spreads = Spreads { ast: &job.ast, function: job.names.fresh("_spread"), used: false };
    spreads.visit_program(&mut job.program);
    if spreads.used {
        let function = spreads.function;
        imports::add_runtime(job, "_spread", &function);
    }
}

struct Spreads<'a, 's> {
    ast: &'s AstBuilder<'a>,
    function: String,
    used: bool,
}

impl<'a> VisitMut<'a> for Spreads<'a, '_> {
    fn visit_object_expression(&mut self, object: &mut ObjectExpression<'a>) {
        walk_mut::walk_object_expression(self, object);
        for property in &mut object.properties {
            if let ObjectPropertyKind::SpreadProperty(spread) = property {
                self.wrap(spread);
            }
        }
    }
}

impl<'a> Spreads<'a, '_> {
    fn wrap(&mut self, spread: &mut SpreadElement<'a>) {
        // These are objects already.
        if matches!(spread.argument, Expression::ObjectExpression(_) | Expression::ArrayExpression(_)) {
            return;
        }
        let span = spread.argument.span();
        let value = Argument::from(spread.argument.take_in(self.ast));
        let function = Expression::new_identifier(SPAN, Ident::from_str_in(&self.function, self.ast), self.ast);
        let arguments = ArenaVec::from_iter_in([value], self.ast);
        spread.argument = Expression::new_call_expression(span, function, None, arguments, false, self.ast);
        self.used = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Job;

    #[test]
    fn what_is_spread_into_objects_is_wrapped() {
        let table = [
            (
                "x({ ...state, a: 1 })",
                "import { _spread } from \"@openfn/runtime\";\nx({\n..._spread(state),\na: 1\n});",
            ),
            ("x({ ...{ b: 1 }, ...[c] })", "x({\n...{ b: 1 },\n...[c]\n});"),
            ("x({ ...{ ...b } })", "import { _spread } from \"@openfn/runtime\";\nx({ ...{ ..._spread(b) } });"),
            ("x([...a], ...b)", "x([...a], ...b);"),
            (
                "const _spread = 1; x({ ...a })",
                "import { _spread as _spread1 } from \"@openfn/runtime\";\nconst _spread = 1;\nx({ ..._spread1(a) });",
            ),
            ("const { a, ...rest } = b", "const { a, ...rest } = b;"),
        ];
        let apply = |job: &mut Job<'_>| {
            super::apply(job);
            Ok(())
        };
        check(apply, &table);
    }
}
