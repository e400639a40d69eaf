//! The names that the user's code has, so that added ones do not clash with them.

use std::collections::HashSet;

use oxc::semantic::Scoping;

/// Every name that the user's code declares or refers to.
pub(super) struct Names(HashSet<String>);

impl Names {
    pub(super) fn of(scoping: &Scoping) -> Self {
        let declared = scoping.symbol_names().map(str::to_owned);
        let undeclared = scoping.root_unresolved_references().keys().map(|name| name.as_str().to_owned());
        Self(declared.chain(undeclared).collect())
    }

    /// `name`, or one like it that the code does not have.
    pub(super) fn fresh(&self, name: &str) -> String {
        let numbered = (1..).map(|number| format!("{name}{number}"));
        let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
        candidates.find(|candidate| !self.0.contains(candidate)).expect("only finitely many names are taken")
    }
}
