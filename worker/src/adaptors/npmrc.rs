//! Variables that npm's settings files name, as in `//registry.example.org/:_authToken=${NAME}`: npm needs their values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of variables in the settings files that npm reads, each with the first file that has it.
pub(super) type Named = BTreeMap<String, PathBuf>;

/// Looks through the settings files that npm reads for a repo: the repo's own, the user's, and that of all users.
pub(super) fn named(repo: &Path, node: &Path, home: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Named {
    let mut named = Named::new();
    for file in files(repo, node, home, variable) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for name in names(&text) {
            named.entry(name.to_owned()).or_insert_with(|| file.clone());
        }
    }
    named
}

/// `variable` gives npm's settings by their names in the environment, in lower case.
fn files(
    repo: &Path,
    node: &Path,
    home: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> impl Iterator<Item = PathBuf> {
    let set = |name: &str| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let user = set("npm_config_userconfig").or_else(|| Some(home?.join(".npmrc")));
    let prefix = set("npm_config_prefix").or_else(|| Some(node.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    let global = set("npm_config_globalconfig").or_else(|| Some(prefix?.join("etc/npmrc")));
    [Some(repo.join(".npmrc")), user, global].into_iter().flatten()
}

/// The names in one file's text. As with npm, a backslash before takes the meaning away, `?` after a name says that it may
/// be unset, and lines that begin with `;` or `#` are comments.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with([';', '#']));
    lines.flat_map(|line| {
        line.match_indices("${").filter_map(|(at, _)| {
            let before = &line[..at];
            let is_escaped = (before.len() - before.trim_end_matches('\\').len()) % 2 == 1;
            let (name, _) = line[at + 2..].split_once('}')?;
            let name = name.strip_suffix('?').unwrap_or(name);
            let is_name = !name.is_empty() && !name.contains(['$', '{', '?']);
            (is_name && !is_escaped).then_some(name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_npm_reads_them() {
        for (text, expected) in [
            ("//r/:_authToken=${A_TOKEN}", vec!["A_TOKEN"]),
            ("a=${A}${B}\n  b = x${C?}y", vec!["A", "B", "C"]),
            ("; a=${A}\n  # b=${B}", vec![]),
            ("a=\\${A}\nb=\\\\${B}", vec!["B"]),
            ("a=${}\nb=${A\nc=$A", vec![]),
            ("${NAME}=1", vec!["NAME"]),
            ("a=${${B}}", vec!["B"]),
        ] {
            assert_eq!(names(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn the_repos_the_users_and_the_global_settings_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().canonicalize().unwrap().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let repo = write("repo/.npmrc", "a=${A}");
        let user = write("home/.npmrc", "a=${A} ${B}");
        let global = write("node/etc/npmrc", "c=${C}");
        let node = write("node/bin/node", "");
        let other = write("other", "d=${D}");
        let look = |set: &[(&str, &Path)]| {
            let variable =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, path)| path.display().to_string());
            named(repo.parent().unwrap(), &node, user.parent(), variable).into_iter().collect::<Vec<_>>()
        };
        let of = |name: &str, path: &PathBuf| (name.to_owned(), path.clone());
        assert_eq!(look(&[]), [of("A", &repo), of("B", &user), of("C", &global)]);
        let set = [("npm_config_userconfig", other.as_path())];
        assert_eq!(look(&set), [of("A", &repo), of("C", &global), of("D", &other)]);
        let set = [("npm_config_globalconfig", other.as_path())];
        assert_eq!(look(&set), [of("A", &repo), of("B", &user), of("D", &other)]);
        let set = [("npm_config_prefix", Path::new("/nowhere"))];
        assert_eq!(look(&set), [of("A", &repo), of("B", &user)]);
    }
}
