//! `op().then(f).catch(g)` becomes `_defer(op(), p => p.then(f).catch(g))`: an operation cannot be chained before it runs,
//! so the chain waits for it. A `catch` right on the operation is given apart, as its handler gets the state too.

use oxc::allocator::{ArenaVec, TakeIn};
use oxc::ast::ast::{Argument, ArrowFunctionExpression, BlockStatement, Class, Expression, Function, StaticBlock};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::semantic::ScopeFlags;
use oxc::span::{GetSpan, SPAN};
use oxc::str::Ident;

use super::Job;
use super::syntax::{arrow, awaits, visit_job};

/// Rewrites the chains that are in no function or block. The name that `_defer` then goes by, if there were any.
pub(super) fn apply(job: &mut Job<'_>) -> Option<String> {
    let mut visitor =
        Promises { ast: &job.ast, defer: job.names.fresh("_defer"), promise: job.names.fresh("p"), used: false };
    visit_job(&mut visitor, &mut job.program);
    visitor.used.then_some(visitor.defer)
}

struct Promises<'a, 's> {
    ast: &'s AstBuilder<'a>,
    defer: String,
    promise: String,
    used: bool,
}

impl<'a> VisitMut<'a> for Promises<'a, '_> {
    fn visit_expression(&mut self, expression: &mut Expression<'a>) {
        if is_chain(expression) {
            self.visit_chain(expression);
            self.defer(expression);
        } else {
            walk_mut::walk_expression(self, expression);
        }
    }

    fn visit_function(&mut self, _: &mut Function<'a>, _: ScopeFlags) {}
    fn visit_arrow_function_expression(&mut self, _: &mut ArrowFunctionExpression<'a>) {}
    fn visit_class(&mut self, _: &mut Class<'a>) {}
    fn visit_block_statement(&mut self, _: &mut BlockStatement<'a>) {}
    fn visit_static_block(&mut self, _: &mut StaticBlock<'a>) {}
}

impl<'a> Promises<'a, '_> {
    /// Visits the arguments all along a chain, and what its operation is called on.
    fn visit_chain(&mut self, expression: &mut Expression<'a>) {
        match chained_on_mut(expression) {
            Some(below) => self.visit_chain(below),
            None => return walk_mut::walk_expression(self, expression),
        }
        if let Expression::CallExpression(call) = expression {
            self.visit_arguments(&mut call.arguments);
        }
    }

    fn defer(&mut self, expression: &mut Expression<'a>) {
        let span = expression.span();
        let Some((operation, handler)) = self.take_operation(expression) else { return };
        // The handler may have been all of the chain.
        let chain = if expression.is_identifier_reference() {
            Expression::new_identifier(SPAN, "undefined", self.ast)
        } else {
            let chain = expression.take_in(self.ast);
            arrow(&self.promise, awaits(&chain), chain, self.ast)
        };
        let arguments = [Some(operation), Some(chain), handler].into_iter().flatten().map(Argument::from);
        let arguments = ArenaVec::from_iter_in(arguments, self.ast);
        *expression = Expression::new_call_expression(span, self.name(&self.defer), None, arguments, false, self.ast);
        self.used = true;
    }

    /// Takes a chain's operation, and the handler of a `catch` right on it; the promise stands in for them.
    fn take_operation(&self, link: &mut Expression<'a>) -> Option<(Expression<'a>, Option<Expression<'a>>)> {
        if chained_on(link).is_some_and(|below| chained_on(below).is_some()) {
            return self.take_operation(chained_on_mut(link)?);
        }
        let handler = take_handler(link);
        let operation = std::mem::replace(chained_on_mut(link)?, self.name(&self.promise));
        if handler.is_some() {
            *link = self.name(&self.promise);
        }
        Some((operation, handler))
    }

    fn name(&self, name: &str) -> Expression<'a> {
        Expression::new_identifier(SPAN, Ident::from_str_in(name, self.ast), self.ast)
    }
}

/// Whether an expression is `then` or `catch` on an operation, a named function's call.
fn is_chain(expression: &Expression<'_>) -> bool {
    let Some(mut operation) = chained_on(expression) else { return false };
    while let Some(below) = chained_on(operation) {
        operation = below;
    }
    let Expression::CallExpression(call) = operation else { return false };
    call.callee.is_identifier_reference() || call.callee.is_member_expression()
}

/// What a call of `then` or `catch` is made on.
fn chained_on<'t, 'a>(expression: &'t Expression<'a>) -> Option<&'t Expression<'a>> {
    match expression {
        Expression::CallExpression(call) => match &call.callee {
            Expression::StaticMemberExpression(member) => is_link(&member.property.name).then_some(&member.object),
            _ => None,
        },
        _ => None,
    }
}

fn chained_on_mut<'t, 'a>(expression: &'t mut Expression<'a>) -> Option<&'t mut Expression<'a>> {
    match expression {
        Expression::CallExpression(call) => match &mut call.callee {
            Expression::StaticMemberExpression(member) => is_link(&member.property.name).then_some(&mut member.object),
            _ => None,
        },
        _ => None,
    }
}

fn is_link(method: &str) -> bool {
    matches!(method, "then" | "catch")
}

/// The first argument of a `catch`.
fn take_handler<'a>(link: &mut Expression<'a>) -> Option<Expression<'a>> {
    let Expression::CallExpression(call) = link else { return None };
    let catches = matches!(&call.callee, Expression::StaticMemberExpression(it) if it.property.name == "catch");
    let given = catches && call.arguments.first().is_some_and(Argument::is_expression);
    given.then(|| call.arguments.swap_remove(0).into_expression())
}

#[cfg(test)]
mod tests {
    use super::super::Job;
    use super::super::tests::check;

    fn apply(job: &mut Job<'_>) -> Result<(), super::super::Fault> {
        super::apply(job);
        Ok(())
    }

    #[test]
    fn chains_are_deferred() {
        check(
            apply,
            &[
                ("get(1).then(f)", "_defer(get(1), (p) => p.then(f));"),
                ("http.get(1).then(f).catch(g)", "_defer(http.get(1), (p) => p.then(f).catch(g));"),
                ("get().catch(g)", "_defer(get(), undefined, g);"),
                ("get().catch(g).then(f)", "_defer(get(), (p) => p.then(f), g);"),
                ("get().catch(g).catch(h).then(f)", "_defer(get(), (p) => p.catch(h).then(f), g);"),
                ("get().catch()", "_defer(get(), (p) => p.catch());"),
                ("get().catch(...a)", "_defer(get(), (p) => p.catch(...a));"),
                ("get().then(await f())", "_defer(get(), async (p) => p.then(await f()));"),
                ("(get()).then(f)", "_defer(get(), (p) => p.then(f));"),
                ("const x = get().then(f)", "const x = _defer(get(), (p) => p.then(f));"),
                ("if (a) get().then(f)", "if (a) _defer(get(), (p) => p.then(f));"),
                ("export default [get().then(f)]", "export default [_defer(get(), (p) => p.then(f))];"),
            ],
        );
    }

    #[test]
    fn chains_in_arguments_are_too() {
        check(
            apply,
            &[
                ("each(a, get().then(f))", "each(a, _defer(get(), (p) => p.then(f)));"),
                ("each(get().then(f)).then(g)", "_defer(each(_defer(get(), (p) => p.then(f))), (p) => p.then(g));"),
                ("get().then(each(a().catch(f)))", "_defer(get(), (p) => p.then(each(_defer(a(), undefined, f))));"),
                ("get().catch(a().then(f))", "_defer(get(), undefined, _defer(a(), (p) => p.then(f)));"),
            ],
        );
    }

    #[test]
    fn what_is_no_operations_chain_stays() {
        check(
            apply,
            &[
                ("x.then(f)", "x.then(f);"),
                ("(() => 1)().then(f)", "(() => 1)().then(f);"),
                ("get()?.then(f)", "get()?.then(f);"),
                ("get()['then'](f)", "get()[\"then\"](f);"),
                ("fn(() => get().then(f))", "fn(() => get().then(f));"),
                ("{ get().then(f) }", "{\nget().then(f);\n}"),
                ("function a() { b().then(c) }", "function a() {\nb().then(c);\n}"),
                ("class A { x = b().then(c) }", "class A {\nx = b().then(c);\n}"),
                ("const o = { a: get().then(f) }", "const o = { a: get().then(f) };"),
            ],
        );
    }

    #[test]
    fn added_names_do_not_clash() {
        check(
            apply,
            &[
                (
                    "const p = 1, _defer = 2; get().then(p)",
                    "const p = 1, _defer = 2;\n_defer1(get(), (p1) => p1.then(p));",
                ),
                ("fn(p, p1); get().then(f)", "fn(p, p1);\n_defer(get(), (p2) => p2.then(f));"),
            ],
        );
    }
}
