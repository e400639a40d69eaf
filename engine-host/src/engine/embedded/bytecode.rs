//! The engine's own modules, compiled when the program was built.
//!
//! The name of each ends with a token that is made anew for every engine, so that a frame of a stack tells beyond doubt
//! which module it belongs to: a job can give its functions names that look like frames, but cannot guess the token.

// Bytecode is only safe to load because it was made by this very program's build, and QuickJS cannot check that.
#![allow(unsafe_code)]

use std::hash::{BuildHasher as _, RandomState};

use rquickjs::module::Declared;
use rquickjs::{Ctx, Module, Result};

const PRELUDE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prelude.bytecode"));
const RUNTIME: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime.bytecode"));
const COMMON: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/language-common.bytecode"));

/// What is loaded when it is first needed, by name: what the published adaptor is made with, and methods of locales.
const LIBRARIES: &[(&str, &[u8])] = &[
    ("csv-parse", include_bytes!(concat!(env!("OUT_DIR"), "/csv-parse.bytecode"))),
    ("date-fns", include_bytes!(concat!(env!("OUT_DIR"), "/date-fns.bytecode"))),
    ("jsonpath-plus", include_bytes!(concat!(env!("OUT_DIR"), "/jsonpath-plus.bytecode"))),
    ("locale", include_bytes!(concat!(env!("OUT_DIR"), "/locale.bytecode"))),
    ("lodash", include_bytes!(concat!(env!("OUT_DIR"), "/lodash.bytecode"))),
];

/// Stands in the bytecode for the token.
const PLACEHOLDER: &str = env!("BYTECODE_PLACEHOLDER");

/// Where the checksum of bytecode is, and what it says where there is none to be checked.
const CHECKSUM: std::ops::Range<usize> = 1..5;
const UNCHECKED: [u8; 4] = [0xff; 4];

/// The modules, for one engine.
#[derive(Debug)]
pub(super) struct OwnModules {
    /// Ends the modules' names.
    pub(super) token: String,
    /// Exports one function, which makes a new context the one that jobs get.
    pub(super) prelude: OwnModule,
    /// What the compiler imports from.
    pub(super) runtime: OwnModule,
    /// The core operations.
    pub(super) common: OwnModule,
}

/// A module's bytecode.
#[derive(Debug)]
pub(super) struct OwnModule(Vec<u8>);

impl OwnModules {
    /// The modules, with a token of their own.
    pub(super) fn new() -> Self {
        let token = token();
        let named = |bytecode| OwnModule(with_token(bytecode, &token));
        Self { prelude: named(PRELUDE), runtime: named(RUNTIME), common: named(COMMON), token }
    }

    /// What is loaded later by that name, with the engine's token.
    pub(super) fn later(&self, name: &str) -> Option<OwnModule> {
        let (_, bytecode) = LIBRARIES.iter().find(|(known, _)| *known == name)?;
        Some(OwnModule(with_token(bytecode, &self.token)))
    }
}

impl OwnModule {
    /// Declares the module under its name.
    pub(super) fn declare<'js>(&self, ctx: &Ctx<'js>) -> Result<Module<'js, Declared>> {
        // SAFETY: The bytes are those that the build script had from the same QuickJS, but for a text in them, which
        // another one of the same length has replaced.
        unsafe { Module::load(ctx.clone(), &self.0) }
    }
}

/// A text that a job cannot guess.
fn token() -> String {
    let width = PLACEHOLDER.len() - 1;
    let token = format!("#{:0width$x}", RandomState::new().hash_one(()));
    debug_assert_eq!(token.len(), PLACEHOLDER.len());
    token
}

fn with_token(bytecode: &[u8], token: &str) -> Vec<u8> {
    let mut bytecode = bytecode.to_vec();
    bytecode[CHECKSUM].copy_from_slice(&UNCHECKED);
    let mut at = 0;
    while let Some(place) = bytecode.get(at..).and_then(find_placeholder) {
        at += place + PLACEHOLDER.len();
        bytecode[at - PLACEHOLDER.len()..at].copy_from_slice(token.as_bytes());
    }
    bytecode
}

/// Looks for the first byte alone at first: every host comes past here, and few bytes are like it.
fn find_placeholder(bytes: &[u8]) -> Option<usize> {
    let first = PLACEHOLDER.as_bytes()[0];
    let mut from = 0;
    while let Some(place) = bytes[from..].iter().position(|byte| *byte == first) {
        from += place + 1;
        if bytes[from - 1..].starts_with(PLACEHOLDER.as_bytes()) {
            return Some(from - 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_token_of_its_own_in_all_modules() {
        let (one, other) = (OwnModules::new(), OwnModules::new());
        assert_ne!(one.token, other.token);
        for OwnModule(bytes) in [&one.prelude, &one.runtime, &one.common] {
            assert_eq!(find_placeholder(bytes), None);
            assert!(bytes.windows(one.token.len()).any(|window| window == one.token.as_bytes()));
        }
    }
}
