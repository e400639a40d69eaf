//! What several transforms need of the syntax tree.

use oxc::ast::ast::{
    ArrowFunctionBody, ArrowFunctionExpression, AwaitExpression, BindingPattern, Class, Declaration, Expression,
    FormalParameter, FormalParameterKind, FormalParameters, Function, Program, Statement, VariableDeclaration,
    YieldExpression,
};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{Visit, VisitMut};
use oxc::semantic::ScopeFlags;
use oxc::span::SPAN;
use oxc::str::Ident;

/// Visits a job's code but for object literals that initialise top-level variables: they are data for the job.
pub(super) fn visit_job<'a>(visitor: &mut impl VisitMut<'a>, program: &mut Program<'a>) {
    for statement in &mut program.body {
        match top_level_variables(statement) {
            Some(variables) => {
                let visited = variables.declarations.iter_mut().filter(|it| !is_object(it.init.as_ref()));
                visited.for_each(|declarator| visitor.visit_variable_declarator(declarator));
            }
            None => visitor.visit_statement(statement),
        }
    }
}

fn top_level_variables<'t, 'a>(statement: &'t mut Statement<'a>) -> Option<&'t mut VariableDeclaration<'a>> {
    match statement {
        Statement::VariableDeclaration(variables) => Some(variables),
        Statement::ExportDeclaration(export) => match &mut export.declaration {
            Declaration::VariableDeclaration(variables) => Some(variables),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the whole of a script is a function in parentheses.
pub(super) fn is_function(program: &Program<'_>) -> bool {
    let [Statement::ExpressionStatement(statement)] = program.body.as_slice() else { return false };
    matches!(statement.expression, Expression::FunctionExpression(_))
}

fn is_object(expression: Option<&Expression<'_>>) -> bool {
    matches!(expression, Some(Expression::ObjectExpression(_)))
}

/// `parameter => body`.
pub(super) fn arrow<'a>(parameter: &str, is_async: bool, body: Expression<'a>, ast: &AstBuilder<'a>) -> Expression<'a> {
    let name = Ident::from_str_in(parameter, ast);
    let pattern = BindingPattern::new_binding_identifier(SPAN, name, ast);
    let items = [FormalParameter::new_plain(SPAN, pattern, ast)];
    let kind = FormalParameterKind::ArrowFormalParameters;
    let parameters = FormalParameters::boxed(SPAN, kind, items, None, ast);
    Expression::new_arrow_function_expression(
        SPAN,
        is_async,
        None,
        parameters,
        None,
        ArrowFunctionBody::from(body),
        ast,
    )
}

/// Whether `expression` waits (or yields) itself, not in a function of its own: such code cannot move into an arrow.
pub(super) fn awaits(expression: &Expression<'_>) -> bool {
    struct Awaits(bool);
    impl<'a> Visit<'a> for Awaits {
        fn visit_await_expression(&mut self, _: &AwaitExpression<'a>) {
            self.0 = true;
        }
        fn visit_yield_expression(&mut self, _: &YieldExpression<'a>) {
            self.0 = true;
        }
        fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}
        fn visit_arrow_function_expression(&mut self, _: &ArrowFunctionExpression<'a>) {}
        fn visit_class(&mut self, _: &Class<'a>) {}
    }
    let mut visitor = Awaits(false);
    visitor.visit_expression(expression);
    visitor.0
}
