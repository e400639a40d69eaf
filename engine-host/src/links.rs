//! What the links of a package lead to.
//!
//! In a workspace, a package finds others by links: its own `node_modules` has some, and so have those of the folders above
//! it, and each package that is found so has links of its own. Pure but for looking at the disk; nothing is changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// Links that lead to each other are followed so often, as by the kernel.
const MOST_HOPS: usize = 40;

/// Everything beside the folder `package` that must be readable to load it: the folders of the packages that its links
/// lead to, through any number of links, and the links in between.
pub fn targets(package: &Path) -> BTreeSet<PathBuf> {
    let mut walk = Walk::default();
    if let Ok(package) = package.canonicalize() {
        walk.open.push(package);
    }
    while let Some(package) = walk.open.pop() {
        if walk.seen.insert(package.clone()) {
            walk.visit(&package);
        }
    }
    walk.found
}

#[derive(Default)]
struct Walk {
    /// Packages to look at, by their real paths.
    open: Vec<PathBuf>,
    seen: BTreeSet<PathBuf>,
    found: BTreeSet<PathBuf>,
}

/// What a package says that it uses.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Manifest {
    dependencies: serde_json::Map<String, serde_json::Value>,
    optional_dependencies: serde_json::Map<String, serde_json::Value>,
    peer_dependencies: serde_json::Map<String, serde_json::Value>,
}

impl Walk {
    /// All that the package's own `node_modules` has, and of those above it what the package says that it uses.
    fn visit(&mut self, package: &Path) {
        for entry in packages(&package.join("node_modules")) {
            self.follow(&entry);
        }
        for name in dependencies(package) {
            let above = package.ancestors().skip(1).filter(|folder| !folder.ends_with("node_modules"));
            let found = above.map(|folder| folder.join("node_modules").join(&name)).find(|path| path.exists());
            if let Some(path) = found {
                self.follow(&path);
            }
        }
    }

    /// Takes a package by the path under which it is found.
    fn follow(&mut self, path: &Path) {
        let Some((real, links)) = resolve(path) else { return };
        if !links.is_empty() {
            // Whoever may read a link to a folder may read all of that folder: one that is neither a package's own nor
            // leads to packages alone would open what has nothing to do with them.
            let is_fine = |link: &PathBuf| {
                self.seen.iter().any(|package| link.starts_with(package))
                    || link.canonicalize().is_ok_and(|target| target == real || holds_packages(&target))
            };
            self.found.extend(links.into_iter().filter(is_fine));
            self.found.insert(real.clone());
        }
        self.open.push(real);
    }
}

/// Whether a folder is a `node_modules`, or a scope in one.
fn holds_packages(folder: &Path) -> bool {
    let is_scope = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    folder.ends_with("node_modules") || is_scope && folder.parent().is_some_and(|it| it.ends_with("node_modules"))
}

/// The packages in a `node_modules`.
pub(crate) fn packages(node_modules: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).map(|it| it.path()).collect()
    };
    let is_scope = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    let (scopes, packages): (Vec<_>, Vec<_>) = list(node_modules).into_iter().partition(|path| is_scope(path));
    packages.into_iter().chain(scopes.iter().flat_map(|scope| list(scope))).collect()
}

fn dependencies(package: &Path) -> BTreeSet<String> {
    let text = fs::read(package.join("package.json")).unwrap_or_default();
    let manifest: Manifest = serde_json::from_slice(&text).unwrap_or_default();
    let all = [manifest.dependencies, manifest.optional_dependencies, manifest.peer_dependencies];
    all.into_iter().flatten().map(|(name, _)| name).filter(|name| is_name(name)).collect()
}

/// Whether this is the name of a package, and leads nowhere else.
fn is_name(name: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(name).components().collect();
    matches!(parts.len(), 1 | 2) && parts.iter().all(|part| matches!(part, Component::Normal(_)))
}

/// The real path, and every link on the way to it, wherever in the path it is. None if that leads nowhere.
fn resolve(path: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
    let mut links = Vec::new();
    let mut real = PathBuf::new();
    let mut rest: Vec<PathBuf> = parts(path);
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            real.pop();
            continue;
        }
        let next = real.join(part);
        match fs::symlink_metadata(&next).ok()?.is_symlink() {
            false => real = next,
            true if links.len() == MOST_HOPS => return None,
            true => {
                // A target that is absolute takes the place of what is above the link.
                rest.extend(parts(&fs::read_link(&next).ok()?));
                links.push(next);
            }
        }
    }
    real.is_dir().then_some((real, links))
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| !matches!(part, Component::CurDir));
    named.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of packages and links.
    struct Space(tempfile::TempDir);

    impl Space {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        fn package(&self, path: &str, dependencies: &[&str]) {
            let folder = self.path(path);
            fs::create_dir_all(&folder).unwrap();
            let dependencies: serde_json::Map<_, _> =
                dependencies.iter().map(|name| ((*name).to_owned(), "1".into())).collect();
            let manifest = serde_json::json!({ "dependencies": dependencies });
            fs::write(folder.join("package.json"), manifest.to_string()).unwrap();
        }

        fn link(&self, from: &str, to: &str) {
            let from = self.path(from);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            symlink(to, from).unwrap();
        }

        fn targets(&self, package: &str) -> Vec<String> {
            let root = self.path("");
            let found = targets(&self.path(package));
            found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
        }
    }

    #[test]
    fn packages_may_link_each_other() {
        let space = Space::new();
        for (name, other) in [("a", "b"), ("b", "c"), ("c", "a")] {
            space.package(&format!("packages/{name}"), &[]);
            space.link(&format!("packages/{name}/node_modules/@s/{other}"), &format!("../../../{other}"));
        }
        space.package("packages/other", &[]);
        let expected = [
            "packages/a",
            "packages/a/node_modules/@s/b",
            "packages/b",
            "packages/b/node_modules/@s/c",
            "packages/c",
            "packages/c/node_modules/@s/a",
        ];
        assert_eq!(space.targets("packages/a"), expected);
    }

    #[test]
    fn a_store_of_packages_is_followed_by_what_they_say_that_they_use() {
        let space = Space::new();
        let store = "node_modules/.pnpm";
        space.package("packages/a", &["x"]);
        space.package(&format!("{store}/x@1/node_modules/x"), &["@s/y"]);
        space.package(&format!("{store}/y@1/node_modules/@s/y"), &["packages"]);
        space.package(&format!("{store}/z@1/node_modules/z"), &[]);
        space.link("packages/a/node_modules/x", "../../../node_modules/.pnpm/x@1/node_modules/x");
        space.link(&format!("{store}/x@1/node_modules/@s/y"), "../../../y@1/node_modules/@s/y");
        space.link(&format!("{store}/x@1/node_modules/z"), "../../z@1/node_modules/z");
        let found = space.targets("packages/a");
        let expected = [
            "node_modules/.pnpm/x@1/node_modules/@s/y",
            "node_modules/.pnpm/x@1/node_modules/x",
            "node_modules/.pnpm/y@1/node_modules/@s/y",
            "packages/a/node_modules/x",
        ];
        assert_eq!(found, expected, "z is not used");
    }

    #[test]
    fn links_lead_through_links_and_in_circles_nowhere_but_open_no_folder_of_others() {
        let space = Space::new();
        space.package("elsewhere/b", &[]);
        space.package("a", &["up", "../elsewhere/b"]);
        space.link("a/node_modules/b", "../../hop/b");
        space.link("hop", "way");
        space.link("way", "elsewhere");
        space.link("a/node_modules/loop", "loop");
        space.link("a/node_modules/gone", "../nowhere");
        space.link("node_modules/up", "../elsewhere/b");
        space.link("a/node_modules/c", "../../c1");
        space.link("c1", "c2");
        space.link("c2", "elsewhere/c");
        space.package("elsewhere/c", &[]);
        let expected =
            ["a/node_modules/b", "a/node_modules/c", "c1", "c2", "elsewhere/b", "elsewhere/c", "node_modules/up"];
        assert_eq!(space.targets("a"), expected, "`hop` and `way` would open all that is elsewhere");
    }

    #[test]
    fn a_package_without_links_leads_nowhere_else() {
        let space = Space::new();
        space.package("a", &["x"]);
        space.package("a/node_modules/x", &[]);
        assert_eq!(space.targets("a"), Vec::<String>::new());
        assert_eq!(targets(Path::new("/nowhere/at/all")), BTreeSet::new());
    }
}
