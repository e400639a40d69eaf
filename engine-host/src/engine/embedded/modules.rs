//! What a job may import here.

use super::operations::{LACKING, PROVIDED};
use crate::engine::Exports;

const COMMON: &str = "@openfn/language-common";
const RUNTIME: &str = "@openfn/runtime";

/// A module that a job may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    /// The core operations, under the name of the adaptor that they stand for.
    Common,
    /// What the compiler imports from.
    Runtime,
}

impl Module {
    /// Its package name.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Common => COMMON,
            Self::Runtime => RUNTIME,
        }
    }
}

/// Finds the module that an import names, with or without a version. The error says why there is none.
pub(super) fn find(specifier: &str) -> Result<Module, String> {
    match package_name(specifier) {
        Some(COMMON) => Ok(Module::Common),
        Some(RUNTIME) => Ok(Module::Runtime),
        Some(_) => Err(refusal(specifier)),
        None => Err(format!("module blacklisted: {specifier}")),
    }
}

/// What an adaptor offers to the compiler. Names that only the published adaptor has are among them, so that a job
/// which uses one fails at the import and is told where it would run.
pub(super) fn exports(adaptor: &str) -> Exports {
    match find(adaptor) {
        Ok(Module::Common) => Exports::Known(PROVIDED.iter().chain(LACKING).map(|name| (*name).to_owned()).collect()),
        Ok(Module::Runtime) => Exports::Known(Vec::new()),
        Err(why) => Exports::Refused(why),
    }
}

/// Why an adaptor cannot be used.
fn refusal(specifier: &str) -> String {
    format!(
        "{specifier} does not run in the embedded engine, which only has {COMMON}: use the Node engine (--engine node)"
    )
}

/// Whether a compiled module may use `_` of the core operations: it imports it, or all that there is.
pub(super) fn imports_lodash(code: &str) -> bool {
    let is_name = |char: char| char.is_alphanumeric() || char == '_' || char == '$';
    code.lines().filter(|line| line.contains("import")).any(|line| {
        line.contains("import(") || line.contains("* as") || line.split(|char| !is_name(char)).any(|name| name == "_")
    })
}

/// Why a name cannot be had from the core operations.
pub(super) fn lacking(name: &str) -> String {
    if !LACKING.contains(&name) && name != "default" && !name.starts_with("util.") {
        return format!("{COMMON} does not export {name}");
    }
    format!(
        "{name} of {COMMON} is not in the embedded engine: use the Node engine (--engine node), which has all of it"
    )
}

/// The name of a package that the whitelist allows, less its version: `@openfn/<name>` or `@openfn/<name>@<version>`.
fn package_name(specifier: &str) -> Option<&str> {
    let name = specifier.strip_prefix("@openfn/")?;
    let name = name.split_once('@').map_or(name, |(name, _version)| name);
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    valid.then(|| &specifier[..specifier.len().min("@openfn/".len() + name.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_by_package_name() {
        for specifier in ["@openfn/language-common", "@openfn/language-common@3.3.4", "@openfn/language-common@latest"]
        {
            assert_eq!(find(specifier), Ok(Module::Common), "{specifier}");
        }
        assert_eq!(find("@openfn/runtime"), Ok(Module::Runtime));
    }

    #[test]
    fn what_is_not_of_the_whitelist_is_blacklisted() {
        let outsiders = ["fs", "node:fs", "@openfnord/x", "@openfn", "@openfn/", "@openfn/../fs", "./job", "job", ""];
        for specifier in outsiders.into_iter().chain(["@openfn/language-common/util", "@other/language-common"]) {
            assert_eq!(find(specifier), Err(format!("module blacklisted: {specifier}")));
        }
    }

    #[test]
    fn other_adaptors_are_named_and_sent_to_node() {
        for adaptor in ["@openfn/language-http@7.2.10", "@openfn/language-commons", "@openfn/language-collections"] {
            let why = find(adaptor).unwrap_err();
            assert!(why.starts_with(adaptor) && why.contains("--engine node"), "{why}");
            assert_eq!(exports(adaptor), Exports::Refused(why));
        }
    }

    #[test]
    fn a_module_that_may_use_lodash_is_known() {
        for (code, expected) in [
            ("import { fn, _ } from '@openfn/language-common';", true),
            ("import { _ as lodash } from '@openfn/language-common';", true),
            ("import * as common from '@openfn/language-common';", true),
            ("const common = await import('@openfn/language-common');", true),
            ("import { fn } from '@openfn/language-common';\nexport default [fn((_) => _)];", false),
            ("import { fn_, _fn } from '@openfn/language-common';", false),
        ] {
            assert_eq!(imports_lodash(code), expected, "{code}");
        }
    }

    #[test]
    fn the_compiler_knows_names_that_only_the_published_adaptor_has() {
        let Exports::Known(names) = exports("@openfn/language-common@3.3.4") else { panic!("it is known") };
        for name in ["fn", "each", "execute", "dateFns", "validate"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}");
        }
    }
}
