//! Folders of the user's own.

use std::path::PathBuf;

/// The user's home: `HOME`, and without that what the password database says.
pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|path| path.is_absolute())
}

/// Where the user's programs keep their data.
pub fn data() -> Option<PathBuf> {
    below(variable("XDG_DATA_HOME"), home(), ".local/share")
}

/// Where the user's programs keep what they can make again.
pub fn cache() -> Option<PathBuf> {
    below(variable("XDG_CACHE_HOME"), home(), ".cache")
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The folder that a variable names, as long as it is an absolute one, else the usual one in the home.
fn below(named: Option<PathBuf>, home: Option<PathBuf>, usual: &str) -> Option<PathBuf> {
    named.filter(|path| path.is_absolute()).or_else(|| Some(home?.join(usual)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_variable_beats_the_home_if_it_is_absolute() {
        for (named, home, expected) in [
            (Some("/data"), Some("/home/x"), Some("/data")),
            (Some("relative"), Some("/home/x"), Some("/home/x/.local/share")),
            (None, Some("/home/x"), Some("/home/x/.local/share")),
            (None, None, None),
        ] {
            let found = below(named.map(PathBuf::from), home.map(PathBuf::from), ".local/share");
            assert_eq!(found.as_deref(), expected.map(Path::new));
        }
    }
}
