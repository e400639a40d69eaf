//! How steps and operators name adaptors: `name` or `name@version`.

use std::fmt;
use std::str::FromStr;

/// A package, and which of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Specifier {
    /// The package's name, such as `@openfn/language-http`.
    pub name: String,
    /// An exact version, a tag such as `latest`, or `local`; none if nothing is said.
    pub version: Option<String>,
}

/// A text that names no package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpecifier {
    /// What stands before the version is no package name.
    #[error("{0:?} is not the name of a package, such as @openfn/language-http")]
    Name(String),
    /// What stands after the name is no version.
    #[error("{0:?} is neither a version, such as 7.2.0, nor a tag, such as latest")]
    Version(String),
}

impl Specifier {
    /// A specifier of checked parts. Both can be part of a path, and neither looks like an option.
    pub fn new(name: &str, version: Option<&str>) -> Result<Self, InvalidSpecifier> {
        if !is_package_name(name) {
            return Err(InvalidSpecifier::Name(name.to_owned()));
        }
        match version {
            Some(version) if !is_version(version) => Err(InvalidSpecifier::Version(version.to_owned())),
            version => Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) }),
        }
    }
}

impl FromStr for Specifier {
    type Err = InvalidSpecifier;

    fn from_str(text: &str) -> Result<Self, InvalidSpecifier> {
        match text.rfind('@') {
            None | Some(0) => Self::new(text, None),
            Some(at) => Self::new(&text[..at], Some(&text[at + 1..])),
        }
    }
}

impl fmt::Display for Specifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(out, "{}@{version}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

fn is_package_name(name: &str) -> bool {
    const LONGEST: usize = 214;
    let parts = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').map(|(scope, name)| vec![scope, name]).unwrap_or_default(),
        None => vec![name],
    };
    name.len() <= LONGEST && !parts.is_empty() && parts.into_iter().all(|part| is_word(part, "-._~"))
}

fn is_version(version: &str) -> bool {
    const LONGEST: usize = 100;
    version.len() <= LONGEST && is_word(version, "-.+_")
}

/// Whether a text starts with a letter or digit, and has nothing else but those and `more`.
fn is_word(text: &str, more: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || more.contains(each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_told_apart() {
        for (text, name, version) in [
            ("@openfn/language-http@7.2.0", "@openfn/language-http", Some("7.2.0")),
            ("@openfn/language-http", "@openfn/language-http", None),
            ("@openfn/language-http@latest", "@openfn/language-http", Some("latest")),
            ("left-pad@1.0.0-beta.1+7", "left-pad", Some("1.0.0-beta.1+7")),
            ("left-pad", "left-pad", None),
        ] {
            let specifier: Specifier = text.parse().unwrap();
            assert_eq!((specifier.name.as_str(), specifier.version.as_deref()), (name, version));
            assert_eq!(specifier.to_string(), text);
        }
    }

    #[test]
    fn what_could_be_a_path_or_an_option_or_a_place_is_refused() {
        let long = "x".repeat(300);
        for text in [
            "",
            "@",
            "@x",
            "@/x",
            "@x/",
            "@x/y/z",
            "../x",
            "x/../y",
            "-g",
            ".hidden",
            "x y",
            "x@",
            "x@^1.0.0",
            "x@-1",
            "x@1 || 2",
            "x@../y",
            "x@http://h/p.tgz",
            "x@file:/tmp",
            "@x/../../etc",
            "x@npm:y",
            "x\0",
            &long,
        ] {
            assert!(text.parse::<Specifier>().is_err(), "{text}");
        }
    }
}
