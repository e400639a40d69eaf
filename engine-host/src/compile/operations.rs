//! Top-level calls move, in their order, into the array that the code exports by default.

use oxc::allocator::TakeIn;
use oxc::ast::ast::{ArrayExpression, ArrayExpressionElement, ExportDefaultDeclarationKind, Expression, Statement};
use oxc::span::GetSpan;

use super::positions::Lines;
use super::{Job, Operation};

/// Moves the calls, if the default export is written as an array. The name and line of each element of that array;
/// `defer` is what the engine's `_defer` goes by.
pub(super) fn gather(job: &mut Job<'_>, lines: &Lines<'_>, defer: Option<&str>) -> Vec<Operation> {
    let body = &mut job.program.body;
    if !body.iter_mut().any(|statement| exported_array(statement).is_some()) {
        return Vec::new();
    }
    let mut calls = Vec::new();
    for statement in body.take_in(&job.ast) {
        match statement {
            Statement::ExpressionStatement(it) if it.expression.is_call_expression() => {
                calls.push(ArrayExpressionElement::from(it.unbox().expression));
            }
            other => body.push(other),
        }
    }
    let Some(array) = body.iter_mut().find_map(exported_array) else { return Vec::new() };
    array.elements.extend(calls);
    let operations = array.elements.iter().map_while(ArrayExpressionElement::as_expression);
    operations.map(|operation| describe(operation, lines, defer)).collect()
}

fn exported_array<'t, 'a>(statement: &'t mut Statement<'a>) -> Option<&'t mut ArrayExpression<'a>> {
    match statement {
        Statement::ExportDefaultDeclaration(export) => match &mut export.declaration {
            ExportDefaultDeclarationKind::ArrayExpression(array) => Some(array),
            _ => None,
        },
        _ => None,
    }
}

fn describe(operation: &Expression<'_>, lines: &Lines<'_>, defer: Option<&str>) -> Operation {
    let name = name(operation, defer).unwrap_or_else(|| "anonymous".to_owned());
    Operation { name, line: lines.line(operation.span().start as usize) }
}

/// The function that `expression` calls or names; of a deferred chain, that of its operation.
fn name(expression: &Expression<'_>, defer: Option<&str>) -> Option<String> {
    match expression {
        Expression::Identifier(identifier) => Some(identifier.name.to_string()),
        Expression::StaticMemberExpression(member) => {
            Some(format!("{}.{}", name(&member.object, defer)?, member.property.name))
        }
        Expression::CallExpression(call) => match (&call.callee, call.arguments.first()) {
            (Expression::Identifier(callee), Some(operation)) if Some(callee.name.as_str()) == defer => {
                name(operation.as_expression()?, defer)
            }
            (callee, _) => name(callee, defer),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::exports;
    use super::super::tests::check;
    use super::*;

    #[test]
    fn top_level_calls_move_to_the_default_export() {
        let apply = |job: &mut Job<'_>| {
            exports::ensure_default(job);
            let source = job.program.source_text;
            gather(job, &Lines::of(source), None);
            Ok(())
        };
        check(
            apply,
            &[
                ("fn(a); b.c(); d()()", "export default [\nfn(a),\nb.c(),\nd()()\n];"),
                (
                    "a(); const x = b(); await c(); d?.(); if (x) e()",
                    "const x = b();\nawait c();\nd?.();\nif (x) e();\nexport default [a()];",
                ),
                ("import('x'); x = a(); `${a()}`", "import(\"x\");\nx = a();\n`${a()}`;\nexport default [];"),
                ("a(); export default [b(), c]; d()", "export default [\nb(),\nc,\na(),\nd()\n];"),
                ("export default a; b()", "export default a;\nb();"),
            ],
        );
    }

    #[test]
    fn each_has_a_name_and_a_line() {
        for (source, expected) in [
            ("get(1)\n\nhttp.get(2); a.b.c()\n  d()(1)", vec![("get", 1), ("http.get", 3), ("a.b.c", 3), ("d", 4)]),
            ("(() => 1)(); a[0]()", vec![("anonymous", 1), ("anonymous", 1)]),
            ("\nget()\n .then(f); x", vec![("get", 2)]),
            ("export default [\nget(),\n s => s, h, ...i, j]", vec![("get", 2), ("anonymous", 3), ("h", 3)]),
            ("export default a; b()", vec![]),
        ] {
            let operations = super::super::compile(source, &[]).unwrap().operations;
            let got: Vec<_> = operations.iter().map(|it| (it.name.as_str(), it.line)).collect();
            assert_eq!(got, expected, "{source}");
        }
    }
}
