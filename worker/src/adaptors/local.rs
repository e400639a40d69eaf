//! Adaptors that a developer works on: `name@local`, found in a monorepo on this machine.

use std::path::{Path, PathBuf};

use protocol::engine::{Adaptor, Needs};

/// Where a monorepo has its packages.
pub const PACKAGES: &str = "packages";

/// The package in the first of the monorepos that has it.
pub(super) fn find(name: &str, roots: &[PathBuf]) -> Result<Adaptor, String> {
    if roots.is_empty() {
        return Err("--monorepo-dir (OPENFN_ADAPTORS_REPO) names no folder with local adaptors".to_owned());
    }
    let inner = Path::new(PACKAGES).join(short_name(name));
    let folder = roots.iter().find_map(|root| root.join(&inner).canonicalize().ok().filter(|path| path.is_dir()));
    let none = || {
        let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        format!("there is no {} in {}", inner.display(), roots.join(", "))
    };
    let folder = folder.ok_or_else(none)?;
    let needs = Needs::declared(&std::fs::read(folder.join("package.json")).unwrap_or_default());
    Ok(Adaptor {
        name: name.to_owned(),
        version: "local".to_owned(),
        folder,
        // It changes while it is worked on, so nothing is known of it.
        bundle: None,
        exports: None,
        needs,
    })
}

/// What the monorepo calls a package: `http` for `@openfn/language-http`.
fn short_name(name: &str) -> &str {
    let bare = name.rsplit('/').next().unwrap_or(name);
    bare.strip_prefix("language-").unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_monorepo_with_the_package_wins() {
        let root = tempfile::tempdir().unwrap();
        let roots = ["a", "b", "c"].map(|name| root.path().join(name));
        for place in ["b/packages/http", "c/packages/http", "c/packages/common"] {
            std::fs::create_dir_all(root.path().join(place)).unwrap();
        }
        std::fs::write(
            root.path().join("b/packages/http/package.json"),
            r#"{ "openfn": { "needs": { "workers": true } } }"#,
        )
        .unwrap();
        let needs = |name| find(name, &roots).unwrap().needs;
        assert_eq!(needs("@openfn/language-http"), Needs { workers: true, ..Needs::default() });
        assert_eq!(needs("@openfn/language-common"), Needs::default());
        let folder = |name| find(name, &roots).unwrap().folder;
        let real = root.path().canonicalize().unwrap();
        assert_eq!(folder("@openfn/language-http"), real.join("b/packages/http"));
        assert_eq!(folder("@openfn/language-common"), real.join("c/packages/common"));
        let missing = find("@openfn/language-x", &roots).unwrap_err();
        assert!(missing.starts_with("there is no packages/x in "), "{missing}");
        assert!(find("@openfn/language-x", &[]).unwrap_err().contains("--monorepo-dir"));
    }
}
