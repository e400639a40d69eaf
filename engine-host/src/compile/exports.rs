//! `export default []` at the end of code that exports no default: the array of its operations.

use oxc::ast::ast::{ExportDefaultDeclarationKind, Expression, Statement};
use oxc::span::SPAN;
use oxc::syntax::module_record::{ExportExportName, ModuleRecord};

use super::Job;

/// Adds the array, unless the code has a default export: then it counts as compiled.
pub(super) fn ensure_default(job: &mut Job<'_>) {
    if !job.exports.iter().any(|name| name == "default") {
        let operations = ExportDefaultDeclarationKind::from(Expression::new_array_expression(SPAN, [], &job.ast));
        job.program.body.push(Statement::new_export_default_declaration(SPAN, operations, &job.ast));
    }
}

/// The names that a module exports itself, not by an `export *`.
pub(super) fn names(module: &ModuleRecord<'_>) -> Vec<String> {
    let entries = module.local_export_entries.iter().chain(&module.indirect_export_entries);
    let name = entries.filter_map(|entry| match &entry.export_name {
        ExportExportName::Name(name) => Some(name.name.to_string()),
        ExportExportName::Default(_) => Some("default".to_owned()),
        ExportExportName::Null => None,
    });
    name.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn a_default_export_is_ensured() {
        let apply = |job: &mut super::Job<'_>| {
            super::ensure_default(job);
            Ok(())
        };
        check(
            apply,
            &[
                ("", "export default [];"),
                ("fn()", "fn();\nexport default [];"),
                ("export const a = 1", "export const a = 1;\nexport default [];"),
                ("export * from 'a'", "export * from \"a\";\nexport default [];"),
                ("export default [fn()]", "export default [fn()];"),
                ("export default 5; fn()", "export default 5;\nfn();"),
                ("const a = []; export { a as default }", "const a = [];\nexport { a as default };"),
                ("export { default } from 'a'", "export { default } from \"a\";"),
                ("export * as default from 'a'", "export * as default from \"a\";"),
            ],
        );
    }
}
