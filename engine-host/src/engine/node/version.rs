//! What a version of Node can do.

use std::str::FromStr;

/// A version of Node, such as 22.13.0.
#[derive(derive_more::Display, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[display("{major}.{minor}.{patch}")]
pub(super) struct NodeVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A text that is not the version of a Node that this engine can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVersion {
    /// It is no version.
    #[error("{0:?} is not a version of Node such as 22.13.0")]
    Unreadable(String),
    /// It is too old.
    #[error("Node {0} is too old: 20 or newer is needed")]
    TooOld(String),
}

impl FromStr for NodeVersion {
    type Err = BadVersion;

    /// With or without the `v` that Node puts before it; what follows a `-` or `+` does not count.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let unreadable = || BadVersion::Unreadable(text.chars().take(100).collect());
        let numbers = text.trim().trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
        let numbers: Result<Vec<u32>, _> = numbers.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, patch]) if major >= OLDEST => Ok(Self { major, minor, patch }),
            Ok(&[_, _, _]) => Err(BadVersion::TooOld(text.trim().to_owned())),
            _ => Err(unreadable()),
        }
    }
}

/// The oldest major version that runs the engine.
const OLDEST: u32 = 20;

impl NodeVersion {
    fn since(self, releases: &[(u32, u32)]) -> bool {
        // A feature came with a minor version of each line that was maintained then, and is in all later lines.
        let newest = releases.iter().map(|(major, _)| *major).max().unwrap_or(OLDEST);
        self.major > newest || releases.iter().any(|(major, minor)| self.major == *major && self.minor >= *minor)
    }

    /// Whether a snapshot can be made that has the engine in it.
    pub(super) fn has_snapshots(self) -> bool {
        self.major >= 22
    }

    /// Whether a process of it can be forked: the lines that were tried at length, once they can do without the thread
    /// that waits for a debugger.
    pub(super) fn has_forks(self) -> bool {
        (self.major == 22 && self.minor >= 14) || self.major == 24
    }

    /// The flag that takes away all permissions.
    pub(super) fn permission_flag(self) -> &'static str {
        if self.since(&[(22, 13), (23, 5)]) { "--permission" } else { "--experimental-permission" }
    }

    /// Whether native addons are a permission of their own; before, they cannot be had with permissions at all.
    pub(super) fn has_addon_permission(self) -> bool {
        self.since(&[(20, 12), (21, 6)])
    }

    /// Whether the network is a permission.
    pub(super) fn has_net_permission(self) -> bool {
        self.since(&[(25, 0)])
    }

    /// Flags that keep Node from warning of what the engine is built on.
    pub(super) fn quiet_flags(self) -> &'static [&'static str] {
        if self.since(&[(20, 11), (21, 3)]) {
            &["--disable-warning=ExperimentalWarning", "--disable-warning=SecurityWarning"]
        } else {
            &["--no-warnings"]
        }
    }

    /// Flags that keep the environment out of the report that tells a lack of memory.
    pub(super) fn report_flags(self) -> &'static [&'static str] {
        if self.since(&[(22, 13), (23, 3)]) { &["--report-exclude-env"] } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> NodeVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read() {
        for text in ["24.4.1", "v24.4.1", " v24.4.1\n", "24.4.1-nightly2026"] {
            assert_eq!(version(text), NodeVersion { major: 24, minor: 4, patch: 1 }, "{text}");
        }
        assert_eq!(version("v22.13.0").to_string(), "22.13.0");
    }

    #[test]
    fn what_is_no_node_is_refused() {
        for text in ["", "24", "24.x.1", "v", "24.1.2.3", "-1.0.0", "99999999999.0.0"] {
            assert_eq!(text.parse::<NodeVersion>(), Err(BadVersion::Unreadable(text.into())));
        }
        assert_eq!("18.20.1".parse::<NodeVersion>(), Err(BadVersion::TooOld("18.20.1".into())));
    }

    #[test]
    fn each_version_has_its_flags() {
        for (text, permission, addons, quiet) in [
            ("20.0.0", "--experimental-permission", false, 1),
            ("20.12.0", "--experimental-permission", true, 2),
            ("21.2.0", "--experimental-permission", false, 1),
            ("22.12.0", "--experimental-permission", true, 2),
            ("22.13.0", "--permission", true, 2),
            ("23.4.0", "--experimental-permission", true, 2),
            ("24.0.0", "--permission", true, 2),
            ("25.1.0", "--permission", true, 2),
        ] {
            let version = version(text);
            assert_eq!(version.permission_flag(), permission, "{text}");
            assert_eq!(version.has_addon_permission(), addons, "{text}");
            assert_eq!(version.quiet_flags().len(), quiet, "{text}");
            assert_eq!(version.has_net_permission(), text.starts_with("25"));
        }
        assert!(!version("20.20.2").has_snapshots() && version("22.0.0").has_snapshots());
        for (text, expected) in [
            ("20.20.2", false),
            ("22.13.1", false),
            ("22.14.0", true),
            ("23.11.0", false),
            ("24.0.0", true),
            ("25.1.0", false),
        ] {
            assert_eq!(version(text).has_forks(), expected, "{text}");
        }
    }
}
