//! Gives statements a place of their own in QuickJS's tables: it knows those of names, calls and operators, and takes an
//! error in what has none, such as the pattern of a declaration, for one of the statement before. So a `0;` with the
//! statement's place goes before it.

use oxc::allocator::{ArenaVec, TakeIn};
use oxc::ast::ast::{
    BindingPattern, Expression, ForStatementInit, ForStatementLeft, NumberBase, Statement, VariableDeclaration,
};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::span::{GetSpan, Span};

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
}

impl<'a> Marks<'a, '_> {
    fn mark(&self, span: Span) -> Statement<'a> {
        let zero = Expression::new_numeric_literal(span, 0.0, None, NumberBase::Decimal, self.ast);
        Statement::new_expression_statement(span, zero, self.ast)
    }
}

fn needs_mark(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::VariableDeclaration(variables) => {
            has_pattern(variables)
                || variables.declarations.iter().filter_map(|it| it.init.as_ref()).any(reads_of_no_name)
        }
        Statement::ReturnStatement(statement) => statement.argument.as_ref().is_some_and(reads_of_no_name),
        Statement::ForStatement(statement) => {
            matches!(&statement.init, Some(ForStatementInit::VariableDeclaration(variables)) if has_pattern(variables))
        }
        Statement::ForInStatement(statement) => binds_pattern(&statement.left),
        Statement::ForOfStatement(statement) => binds_pattern(&statement.left),
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

/// Whether an expression reads a property of what is neither a name nor called, such as `this.a`.
fn reads_of_no_name(expression: &Expression<'_>) -> bool {
    let mut innermost = expression;
    while let Some(member) = innermost.as_member_expression() {
        innermost = member.object();
    }
    let is_read = !std::ptr::eq(innermost, expression);
    is_read && !matches!(innermost, Expression::Identifier(_) | Expression::CallExpression(_))
}
