//! What a step or an operator asks for.

use std::fmt;

use protocol::run::{Exit, ExitReason};
use protocol::specifier::{InvalidSpecifier, Specifier};
use semver::Version;

/// The scope whose packages may be used.
const SCOPE: &str = "@openfn/";

/// A package, and which of its versions would do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The package's name.
    pub name: String,
    /// Which version.
    pub requirement: Requirement,
}

/// Which version of a package would do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The newest one that is installed; if none is, the latest.
    Any,
    /// The newest one that is installed; nothing is asked or installed for it.
    Installed,
    /// The one that the registry's tag stands for.
    Tag(String),
    /// This one.
    Exact(Version),
    /// The one that a developer works on, in a monorepo on this machine.
    Local,
}

/// Why something cannot be had. Its text begins with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no adaptor.
    #[error("module blacklisted: {0}")]
    Blacklisted(String),
    /// What is asked for cannot be read.
    #[error("Error installing {text}: {why}")]
    Unreadable {
        /// What is asked for.
        text: String,
        /// Why.
        why: InvalidSpecifier,
    },
    /// It cannot be installed: why, in one line.
    #[error("Error installing {wanted}: {why}")]
    NotInstalled {
        /// What is asked for.
        wanted: Wanted,
        /// Why.
        why: String,
    },
    /// Nothing would confine it.
    #[error(
        "{adaptor} starts processes or loads native code, which could read and change what other runs and the worker \
         have, because {why}. Whoever operates the worker can allow it by --allow-unconfined-adaptors \
         (WORKER_ALLOW_UNCONFINED_ADAPTORS)"
    )]
    Unconfined {
        /// Its name and version.
        adaptor: String,
        /// What does not confine it.
        why: &'static str,
    },
}

impl Refused {
    /// How a run ends that needs it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Blacklisted(_) => Exit::error(ExitReason::Crash, "ImportError", self.to_string()),
            Self::Unconfined { .. } => Exit::error(ExitReason::Kill, "SecurityError", self.to_string()),
            _ => Exit::error(ExitReason::Exception, "AutoinstallError", self.to_string()),
        }
    }
}

impl Wanted {
    /// Reads `name` or `name@version`. Refuses what is not on the whitelist before anything else is looked at.
    pub fn read(text: &str) -> Result<Self, Refused> {
        let unreadable = |why| Refused::Unreadable { text: text.to_owned(), why };
        let specifier: Specifier = text.parse().map_err(unreadable)?;
        if !is_listed(&specifier.name) {
            return Err(Refused::Blacklisted(specifier.name));
        }
        let requirement = match specifier.version.as_deref() {
            None => Requirement::Any,
            Some("local") => Requirement::Local,
            Some(version) => match Version::parse(version) {
                Ok(version) => Requirement::Exact(version),
                Err(_) if version.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                    Requirement::Tag(version.to_owned())
                }
                Err(_) => return Err(unreadable(InvalidSpecifier::Version(version.to_owned()))),
            },
        };
        Ok(Self { name: specifier.name, requirement })
    }

    /// An error about this.
    pub(super) fn refused(&self, why: impl Into<String>) -> Refused {
        Refused::NotInstalled { wanted: self.clone(), why: why.into() }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, requirement } = self;
        match requirement {
            Requirement::Any | Requirement::Installed => out.write_str(name),
            Requirement::Tag(tag) => write!(out, "{name}@{tag}"),
            Requirement::Exact(version) => write!(out, "{name}@{version}"),
            Requirement::Local => write!(out, "{name}@local"),
        }
    }
}

/// Whether a package is one of the scope: by its name, not by what it begins with.
fn is_listed(name: &str) -> bool {
    name.strip_prefix(SCOPE).is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_exact_or_tags_or_local_or_none() {
        let exact = |text| Requirement::Exact(Version::parse(text).unwrap());
        for (text, expected) in [
            ("@openfn/language-http", Requirement::Any),
            ("@openfn/language-http@latest", Requirement::Tag("latest".into())),
            ("@openfn/language-http@next", Requirement::Tag("next".into())),
            ("@openfn/language-http@7.2.0", exact("7.2.0")),
            ("@openfn/language-http@7.2.0-rc.1", exact("7.2.0-rc.1")),
            ("@openfn/language-http@local", Requirement::Local),
        ] {
            let wanted = Wanted::read(text).unwrap();
            assert_eq!((wanted.name.as_str(), &wanted.requirement), ("@openfn/language-http", &expected));
            assert_eq!(wanted.to_string(), text);
        }
    }

    #[test]
    fn only_the_scope_is_listed() {
        for name in ["left-pad", "@openfnord/x", "openfn", "@other/language-http", "@openfn-x/y"] {
            let refused = Wanted::read(&format!("{name}@1.0.0")).unwrap_err();
            assert_eq!(refused, Refused::Blacklisted(name.into()));
            assert_eq!(
                refused.exit(),
                Exit::error(ExitReason::Crash, "ImportError", format!("module blacklisted: {name}"))
            );
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_run_before_it_starts() {
        for text in ["@openfn/x@^1.0.0", "@openfn/x@7", "@openfn/../x@1.0.0", "@openfn/x@1.0.0 --registry=x", ""] {
            let exit = Wanted::read(text).unwrap_err().exit();
            let error = exit.error.unwrap();
            assert_eq!((exit.reason, error.kind.as_str()), (ExitReason::Exception, "AutoinstallError"));
            assert!(error.message.starts_with(&format!("Error installing {text}: ")), "{}", error.message);
        }
    }
}
