//! A function that is assigned to a name that nothing declares becomes a global of the job, as in `half = n => n / 2`.
//!
//! Modules are strict, so by the language such an assignment fails whatever the value is. In a context of Node's `vm`, where
//! the reference worker runs jobs, one of a function succeeds, and jobs rely on it. So it is made one to a property of
//! `_undeclared`, an object of the engine's own that does the same.

use oxc::ast::ast::{
    AssignmentExpression, AssignmentOperator, AssignmentTarget, AssignmentTargetMaybeDefault, AssignmentTargetProperty,
    Expression, IdentifierName, IdentifierReference, PropertyKey,
};
use oxc::ast::builder::AstBuilder;
use oxc::ast_visit::{VisitMut, walk_mut};
use oxc::semantic::Scoping;
use oxc::str::Ident;

use super::{Adaptor, Job};

/// Rewrites the assignments. The name that `_undeclared` then goes by, if there were any. To be called before all other
/// transforms: what they add has no references.
pub(super) fn apply(job: &mut Job<'_>, adaptors: &[Adaptor<'_>]) -> Option<String> {
    let local = job.names.fresh("_undeclared");
    let mut visitor = Undeclared { scoping: &job.scoping, ast: &job.ast, adaptors, local: &local, used: false };
    visitor.visit_program(&mut job.program);
    visitor.used.then_some(local)
}

struct Undeclared<'a, 's> {
    scoping: &'s Scoping,
    ast: &'s AstBuilder<'a>,
    adaptors: &'s [Adaptor<'s>],
    local: &'s str,
    used: bool,
}

impl<'a> VisitMut<'a> for Undeclared<'a, '_> {
    fn visit_assignment_expression(&mut self, it: &mut AssignmentExpression<'a>) {
        let may_be_function = it.operator == AssignmentOperator::Assign && !is_no_function(&it.right);
        if matches!(it.left, AssignmentTarget::AssignmentTargetIdentifier(_)) && !may_be_function {
            // The engine's own error is the right one.
            return self.visit_expression(&mut it.right);
        }
        walk_mut::walk_assignment_expression(self, it);
    }

    fn visit_assignment_target(&mut self, target: &mut AssignmentTarget<'a>) {
        match target {
            AssignmentTarget::AssignmentTargetIdentifier(name) if self.is_undeclared(name) => {
                *target = self.property(name);
            }
            _ => walk_mut::walk_assignment_target(self, target),
        }
    }

    fn visit_assignment_target_property(&mut self, property: &mut AssignmentTargetProperty<'a>) {
        walk_mut::walk_assignment_target_property(self, property);
        let AssignmentTargetProperty::AssignmentTargetPropertyIdentifier(shorthand) = property else { return };
        if !self.is_undeclared(&shorthand.binding) {
            return;
        }
        let (span, name) = (shorthand.span, shorthand.binding.name);
        let target = self.property(&shorthand.binding);
        let binding = match shorthand.init.take() {
            Some(init) => {
                AssignmentTargetMaybeDefault::new_assignment_target_with_default(span, target, init, self.ast)
            }
            None => AssignmentTargetMaybeDefault::from(target),
        };
        let key = PropertyKey::new_static_identifier(span, name, self.ast);
        *property =
            AssignmentTargetProperty::new_assignment_target_property_property(span, key, binding, false, self.ast);
    }
}

impl<'a> Undeclared<'a, '_> {
    /// Neither the code declares it, nor is it imported from an adaptor.
    fn is_undeclared(&self, name: &IdentifierReference<'a>) -> bool {
        let reference = name.reference_id.get();
        let is_global = reference.is_some_and(|id| self.scoping.get_reference(id).symbol_id().is_none());
        let exported =
            |adaptor: &Adaptor<'_>| adaptor.exports.into_iter().flatten().any(|it| *it == name.name.as_str());
        is_global && !self.adaptors.iter().any(exported)
    }

    /// `_undeclared.name`.
    fn property(&mut self, name: &IdentifierReference<'a>) -> AssignmentTarget<'a> {
        self.used = true;
        let object = Expression::new_identifier(name.span, Ident::from_str_in(self.local, self.ast), self.ast);
        let property = IdentifierName::new(name.span, name.name, self.ast);
        AssignmentTarget::new_static_member_expression(name.span, object, property, false, self.ast)
    }
}

/// Whether the value of an expression is no function whatever happens.
fn is_no_function(expression: &Expression<'_>) -> bool {
    expression.is_literal()
        || matches!(
            expression,
            Expression::TemplateLiteral(_)
                | Expression::ArrayExpression(_)
                | Expression::ObjectExpression(_)
                | Expression::BinaryExpression(_)
                | Expression::UnaryExpression(_)
        )
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn only_assignments_to_names_that_nothing_declares_change() {
        let exports = ["fn".to_owned()];
        let transform = |job: &mut Job<'_>| {
            apply(job, &[Adaptor { specifier: "a", exports: Some(&exports) }]);
            Ok(())
        };
        check(
            transform,
            &[
                ("x = f", "_undeclared.x = f;"),
                ("x = n => n", "_undeclared.x = (n) => n;"),
                ("y = x = f()", "_undeclared.y = _undeclared.x = f();"),
                ("fn(() => { x = y = () => 1 })", "fn(() => {\n_undeclared.x = _undeclared.y = () => 1;\n});"),
                ("[x, ...y] = f", "[_undeclared.x, ..._undeclared.y] = f;"),
                (
                    "({ x, y = 1, z: { w } } = f)",
                    "({x: _undeclared.x, y: _undeclared.y = 1, z: {w: _undeclared.w}} = f);",
                ),
                ("for (x of f) y = x", "for (_undeclared.x of f) _undeclared.y = x;"),
                ("for (x in f);", "for (_undeclared.x in f);"),
                ("let x; x = f; ({ x } = f)", "let x;\nx = f;\n({x} = f);"),
                ("fn = f", "fn = f;"),
                ("x = 1; x = {}; x = [f]; x = `${f}`; x = !f", "x = 1;\nx = {};\nx = [f];\nx = `${f}`;\nx = !f;"),
                ("x += f; x ??= f; x++", "x += f;\nx ??= f;\nx++;"),
                ("x.y = f; x[y = f] = 1", "x.y = f;\nx[_undeclared.y = f] = 1;"),
                ("_undeclared = 1; x = f", "_undeclared = 1;\n_undeclared1.x = f;"),
            ],
        );
    }
}
