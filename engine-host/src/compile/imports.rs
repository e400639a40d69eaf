//! Imports from the adaptors what the code uses and declares nowhere, and exports all that they export: an adaptor's
//! `execute` is found there.

use std::collections::BTreeSet;

use oxc::allocator::ArenaVec;
use oxc::ast::ast::{
    BindingIdentifier, ExportSpecifier, ImportDeclarationSpecifier, ImportOrExportKind, ModuleExportName, Statement,
    StringLiteral,
};
use oxc::ast::builder::AstBuilder;
use oxc::span::SPAN;
use oxc::str::{Ident, Str};

use super::{Adaptor, Job};

/// The module of the engine itself.
const RUNTIME: &str = "@openfn/runtime";

/// What an adaptor may export to run the operations itself.
const EXECUTE: &str = "execute";

/// What no import may bind, and what is a value rather than a name.
const NEVER_IMPORTED: [&str; 4] = ["undefined", "NaN", "arguments", "eval"];

/// What is not looked for in an adaptor of unknown exports: the language's globals, what the engine adds, and what other
/// engines have and code may ask for by `typeof`.
const GLOBALS: [&str; 85] = [
    "$",
    "AggregateError",
    "Array",
    "ArrayBuffer",
    "AsyncDisposableStack",
    "Atomics",
    "BigInt",
    "BigInt64Array",
    "BigUint64Array",
    "Boolean",
    "Buffer",
    "DataView",
    "Date",
    "DisposableStack",
    "Error",
    "EvalError",
    "FinalizationRegistry",
    "Float16Array",
    "Float32Array",
    "Float64Array",
    "Function",
    "Infinity",
    "Int16Array",
    "Int32Array",
    "Int8Array",
    "Intl",
    "Iterator",
    "JSON",
    "Map",
    "Math",
    "Number",
    "Object",
    "Promise",
    "Proxy",
    "RangeError",
    "ReferenceError",
    "Reflect",
    "RegExp",
    "Set",
    "SharedArrayBuffer",
    "String",
    "SuppressedError",
    "Symbol",
    "SyntaxError",
    "Temporal",
    "TypeError",
    "URIError",
    "Uint16Array",
    "Uint32Array",
    "Uint8Array",
    "Uint8ClampedArray",
    "WeakMap",
    "WeakRef",
    "WeakSet",
    "WebAssembly",
    "clearInterval",
    "clearTimeout",
    "console",
    "crypto",
    "decodeURI",
    "decodeURIComponent",
    "document",
    "encodeURI",
    "encodeURIComponent",
    "escape",
    "exports",
    "fetch",
    "global",
    "globalThis",
    "isFinite",
    "isNaN",
    "meta",
    "module",
    "parseFloat",
    "parseInt",
    "process",
    "queueMicrotask",
    "require",
    "self",
    "setInterval",
    "setTimeout",
    "state",
    "structuredClone",
    "unescape",
    "window",
];

/// Adds the imports and exports in front of the code; `own` has what the code uses of the engine's own module, and what it
/// calls that.
pub(super) fn add(job: &mut Job<'_>, adaptors: &[Adaptor<'_>], own: &[(&str, &str)]) {
    let undeclared = job.scoping.root_unresolved_references().keys().map(|name| name.to_string());
    let mut wanted: BTreeSet<String> = undeclared.filter(|name| !NEVER_IMPORTED.contains(&name.as_str())).collect();
    let builder = Builder { ast: &job.ast };
    let mut added: Vec<Statement<'_>> = Vec::new();
    if !own.is_empty() {
        added.push(builder.import(own.iter().copied(), RUNTIME));
    }
    let distinct = distinct(adaptors);
    for (adaptor, names) in distinct.iter().zip(share(&distinct, &mut wanted)) {
        if !names.is_empty() {
            added.push(builder.import(names.iter().map(|name| (name.as_str(), name.as_str())), adaptor.specifier));
        }
        added.push(builder.export_all(adaptor.specifier));
    }
    if let Some(adaptor) = executor(&distinct).filter(|_| !job.exports.iter().any(|name| name == EXECUTE)) {
        added.push(builder.export(EXECUTE, adaptor.specifier));
    }
    job.program.body.splice(0..0, added);
}

/// Imports a name of the engine's own module, which the code calls `local`.
pub(super) fn add_runtime(job: &mut Job<'_>, name: &'static str, local: &str) {
    let import = Builder { ast: &job.ast }.import([(name, local)], RUNTIME);
    job.program.body.insert(0, import);
}

fn distinct<'t, 'a>(adaptors: &'t [Adaptor<'a>]) -> Vec<&'t Adaptor<'a>> {
    let mut distinct: Vec<&Adaptor<'_>> = Vec::new();
    for adaptor in adaptors {
        if distinct.iter().all(|known| known.specifier != adaptor.specifier) {
            distinct.push(adaptor);
        }
    }
    distinct
}

/// Which of the wanted names each adaptor gives: the first that exports a name; of the rest, all that may be meant, the
/// first whose exports are unknown.
fn share(adaptors: &[&Adaptor<'_>], wanted: &mut BTreeSet<String>) -> Vec<Vec<String>> {
    let known = adaptors.iter().map(|adaptor| {
        let exported = adaptor.exports.into_iter().flatten();
        exported.filter_map(|name| wanted.take(name)).collect::<BTreeSet<_>>().into_iter().collect()
    });
    let mut shares: Vec<Vec<String>> = known.collect();
    if let Some(unknown) = adaptors.iter().position(|adaptor| adaptor.exports.is_none()) {
        shares[unknown].extend(wanted.iter().filter(|name| !GLOBALS.contains(&name.as_str())).cloned());
    }
    shares
}

/// The adaptor whose `execute` must be named, as more than one `export *` may offer it, which would leave none.
fn executor<'t, 'a>(adaptors: &[&'t Adaptor<'a>]) -> Option<&'t Adaptor<'a>> {
    let exports = |adaptor: &&&Adaptor<'_>| adaptor.exports.into_iter().flatten().any(|name| name == EXECUTE);
    adaptors.iter().find(exports).copied().filter(|_| adaptors.len() > 1)
}

struct Builder<'a, 's> {
    ast: &'s AstBuilder<'a>,
}

impl<'a> Builder<'a, '_> {
    /// `import { exported as local } from "specifier"`.
    fn import<'n>(&self, names: impl IntoIterator<Item = (&'n str, &'n str)>, specifier: &str) -> Statement<'a> {
        let kind = ImportOrExportKind::Value;
        let specifiers = names.into_iter().map(|(exported, local)| {
            let local = BindingIdentifier::new(SPAN, Ident::from_str_in(local, self.ast), self.ast);
            ImportDeclarationSpecifier::new_import_specifier(SPAN, self.name(exported), local, kind, self.ast)
        });
        let specifiers = ArenaVec::from_iter_in(specifiers, self.ast);
        Statement::new_import_declaration(SPAN, Some(specifiers), self.literal(specifier), None, None, kind, self.ast)
    }

    /// `export * from "specifier"`.
    fn export_all(&self, specifier: &str) -> Statement<'a> {
        let kind = ImportOrExportKind::Value;
        Statement::new_export_all_declaration(SPAN, None, self.literal(specifier), None, kind, self.ast)
    }

    /// `export { name } from "specifier"`.
    fn export(&self, name: &str, specifier: &str) -> Statement<'a> {
        let kind = ImportOrExportKind::Value;
        let specifiers = [ExportSpecifier::new(SPAN, self.name(name), self.name(name), kind, self.ast)];
        Statement::new_export_from_declaration(SPAN, specifiers, self.literal(specifier), kind, None, self.ast)
    }

    fn name(&self, name: &str) -> ModuleExportName<'a> {
        ModuleExportName::new_identifier_name(SPAN, Ident::from_str_in(name, self.ast), self.ast)
    }

    fn literal(&self, text: &str) -> StringLiteral<'a> {
        StringLiteral::new(SPAN, Str::from_str_in(text, self.ast), None, self.ast)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::after;
    use super::*;

    fn imported(source: &str, adaptors: &[(&str, Option<&[&str]>)]) -> String {
        let exports: Vec<Option<Vec<String>>> = adaptors
            .iter()
            .map(|(_, exports)| exports.map(|names| names.iter().map(|name| (*name).to_owned()).collect()))
            .collect();
        let adaptors: Vec<Adaptor<'_>> = adaptors
            .iter()
            .zip(&exports)
            .map(|((specifier, _), exports)| Adaptor { specifier, exports: exports.as_deref() })
            .collect();
        after(source, |job| {
            job.program.body.clear();
            add(job, &adaptors, &[]);
            Ok(())
        })
    }

    #[test]
    fn one_adaptor_gives_what_is_used_and_not_declared() {
        let exports = ["fn", "get", "each", "undefined", "execute"];
        for (source, expected) in [
            ("fn(get)", "import { fn, get } from \"a\";"),
            ("fn(x, y.get, { each: 1 }, z?.get)", "import { fn } from \"a\";"),
            ("get[fn], { each }, `${undefined}`", "import { each, fn, get } from \"a\";"),
            ("const each = () => fn(); each()", "import { fn } from \"a\";"),
            ("{ let get; get() } get()", "import { get } from \"a\";"),
            ("{ let get; get() } (each => each)(fn)", "import { fn } from \"a\";"),
            ("import { get } from 'a'; get(); function fn() {} fn()", ""),
            ("import { get as g } from 'a'; g()", ""),
            ("get = 1; typeof fn", "import { fn, get } from \"a\";"),
            ("get: for (;;) break get; class A { each() {} #fn }", ""),
        ] {
            let expected = format!("{expected}\nexport * from \"a\";");
            assert_eq!(imported(source, &[("a", Some(&exports))]), expected.trim_start(), "{source}");
        }
    }

    #[test]
    fn unknown_exports_give_all_but_globals() {
        let source = "fn(get, Array, console, undefined, NaN, eval, state, $.x, typeof process, setTimeout, foo.bar)";
        let expected = "import { fn, foo, get } from \"a\";\nexport * from \"a\";";
        assert_eq!(imported(source, &[("a", None)]), expected);
    }

    #[test]
    fn a_name_goes_to_the_first_adaptor_that_has_it() {
        for (adaptors, expected) in [
            (
                vec![("a", Some(&["fn", "get"][..])), ("b", Some(&["get", "each"][..]))],
                "import { fn, get } from \"a\";\nexport * from \"a\";\nimport { each } from \"b\";\nexport * from \"b\";",
            ),
            (
                vec![("a", None), ("b", Some(&["get"][..]))],
                "import { each, fn } from \"a\";\nexport * from \"a\";\nimport { get } from \"b\";\nexport * from \"b\";",
            ),
            (
                vec![("a", Some(&["get"][..])), ("a", Some(&["fn"][..]))],
                "import { get } from \"a\";\nexport * from \"a\";",
            ),
            (vec![], ""),
        ] {
            assert_eq!(imported("fn(); get(); each()", &adaptors), expected);
        }
    }

    #[test]
    fn the_first_execute_is_named_where_there_may_be_more() {
        let execute = Some(&["execute"][..]);
        let stars = "export * from \"a\";\nexport * from \"b\";";
        let named = |from: &str| format!("{stars}\nexport {{ execute }} from \"{from}\";");
        for (source, a, b, expected) in [
            ("", execute, execute, named("a")),
            ("", Some(&[][..]), execute, named("b")),
            ("", None, execute, named("b")),
            ("", None, None, stars.to_owned()),
            ("export const execute = 1", execute, execute, stars.to_owned()),
        ] {
            assert_eq!(imported(source, &[("a", a), ("b", b)]), expected, "{source}");
        }
    }

    #[test]
    fn the_runtimes_defer_is_imported_by_its_name() {
        let add_defer = |local: &'static str| {
            after("", move |job| {
                add(job, &[], &[("_defer", local)]);
                Ok(())
            })
        };
        assert_eq!(add_defer("_defer"), "import { _defer } from \"@openfn/runtime\";");
        assert_eq!(add_defer("_defer1"), "import { _defer as _defer1 } from \"@openfn/runtime\";");
    }
}
