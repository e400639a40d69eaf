//! Gives statements a place of their own in QuickJS's tables: it knows those of names, calls and operators, and takes an
//! error in what has none, such as the pattern of a declaration, for one of the statement before. So a `0;` with the
//! statement's place goes before it. What an arrow function consists of becomes a statement for that.
//!
//! And sets apart what QuickJS would read in another way than it is meant.

use oxc::allocator::{ArenaVec, TakeIn};
use oxc::ast::ast::{
    ArrowFunctionBody, ArrowFunctionExpression, BindingPattern, Expression, ForStatementInit, ForStatementLeft,
    NewExpression, NumberBase, Statement, VariableDeclaration,
};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::span::{GetSpan, SPAN, Span};

use super::Job;

/// Marks all statements that need it.
pub(super) fn apply(job: &mut Job<'_>) {
    Marks { ast: &job.ast }.visit_program(&mut job.program);
}

struct Marks<'a, 's> {
    ast: &'s AstBuilder<'a>,
}

impl<'a> VisitMut<'a> for Marks<'a, '_> {
    fn visit_statements(&mut self, statements: &mut ArenaVec<'a, Statement<'a>>) {
        walk_mut::walk_statements(self, statements);
        if !statements.iter().any(needs_mark) {
            return;
        }
        let marked = statements.take_in(self.ast).into_iter().flat_map(|statement| {
            let mark = needs_mark(&statement).then(|| self.mark(statement.span()));
            mark.into_iter().chain([statement])
        });
        *statements = ArenaVec::from_iter_in(marked, self.ast);
    }

    fn visit_arrow_function_expression(&mut self, function: &mut ArrowFunctionExpression<'a>) {
        walk_mut::walk_arrow_function_expression(self, function);
        if !function.body.as_expression().is_some_and(begins_without_place) {
            return;
        }
        let span = function.body.span();
        let expression = function.body.take_in(self.ast).into_expression();
        let statements = [self.mark(span), Statement::new_return_statement(span, Some(expression), self.ast)];
        let statements = ArenaVec::from_iter_in(statements, self.ast);
        // The printer maps one of what has the same place: not the body, but the mark.
        function.body = ArrowFunctionBody::new_function_body(SPAN, ArenaVec::new_in(self.ast), statements, self.ast);
    }

    fn visit_new_expression(&mut self, expression: &mut NewExpression<'a>) {
        walk_mut::walk_new_expression(self, expression);
        self.set_apart(&mut expression.callee);
    }
}

impl<'a> Marks<'a, '_> {
    /// QuickJS reads `new new A().b()` as a call of `new A().b`. The printer has no parentheses, but around a sequence.
    fn set_apart(&self, callee: &mut Expression<'a>) {
        if let Expression::NewExpression(inner) = callee {
            let span = inner.span;
            let expressions = ArenaVec::from_iter_in([self.zero(span), callee.take_in(self.ast)], self.ast);
            *callee = Expression::new_sequence_expression(span, expressions, self.ast);
        } else if let Some(member) = callee.as_member_expression_mut() {
            self.set_apart(member.object_mut());
        }
    }

    fn mark(&self, span: Span) -> Statement<'a> {
        Statement::new_expression_statement(span, self.zero(span), self.ast)
    }

    fn zero(&self, span: Span) -> Expression<'a> {
        Expression::new_numeric_literal(span, 0.0, None, NumberBase::Decimal, self.ast)
    }
}

fn needs_mark(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::VariableDeclaration(variables) => {
            has_pattern(variables)
                || variables.declarations.iter().filter_map(|it| it.init.as_ref()).any(begins_without_place)
        }
        Statement::ReturnStatement(statement) => statement.argument.as_ref().is_some_and(begins_without_place),
        Statement::IfStatement(statement) => begins_without_place(&statement.test),
        Statement::WhileStatement(statement) => begins_without_place(&statement.test),
        Statement::SwitchStatement(statement) => begins_without_place(&statement.discriminant),
        Statement::ForStatement(statement) => {
            matches!(&statement.init, Some(ForStatementInit::VariableDeclaration(variables)) if has_pattern(variables))
                || statement.test.as_ref().is_some_and(begins_without_place)
        }
        Statement::ForInStatement(statement) => {
            binds_pattern(&statement.left) || begins_without_place(&statement.right)
        }
        Statement::ForOfStatement(statement) => {
            binds_pattern(&statement.left) || begins_without_place(&statement.right)
        }
        _ => false,
    }
}

fn binds_pattern(left: &ForStatementLeft<'_>) -> bool {
    matches!(left, ForStatementLeft::VariableDeclaration(variables) if has_pattern(variables))
}

fn has_pattern(variables: &VariableDeclaration<'_>) -> bool {
    let is_pattern = |pattern: &BindingPattern<'_>| !matches!(pattern, BindingPattern::BindingIdentifier(_));
    variables.declarations.iter().any(|it| is_pattern(&it.id))
}

/// Whether what an expression does first may throw, and has no place: neither a name, a call nor an operator.
fn begins_without_place(expression: &Expression<'_>) -> bool {
    match expression {
        Expression::Identifier(_)
        | Expression::NewExpression(_)
        | Expression::AssignmentExpression(_)
        | Expression::FunctionExpression(_)
        | Expression::ArrowFunctionExpression(_)
        | Expression::ThisExpression(_)
        | Expression::RegExpLiteral(_) => false,
        Expression::AwaitExpression(it) => begins_without_place(&it.argument),
        Expression::BinaryExpression(it) => begins_without_place(&it.left),
        Expression::CallExpression(it) => begins_without_place(&it.callee),
        Expression::ConditionalExpression(it) => begins_without_place(&it.test),
        Expression::LogicalExpression(it) => begins_without_place(&it.left),
        Expression::SequenceExpression(it) => it.expressions.iter().any(begins_without_place),
        Expression::TaggedTemplateExpression(it) => begins_without_place(&it.tag),
        expression if expression.is_literal() => false,
        expression => match expression.as_member_expression().map(|member| member.object()) {
            Some(Expression::Identifier(_)) => false,
            Some(object @ Expression::CallExpression(_)) => begins_without_place(object),
            Some(object) => !object.is_member_expression() || begins_without_place(object),
            None => true,
        },
    }
}
