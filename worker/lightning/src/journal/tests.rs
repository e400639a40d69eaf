use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;

fn endpoint() -> Endpoint {
    "ws://localhost:4000/worker".parse().unwrap()
}

fn journal(folder: &TempDir) -> Journal {
    Journal::open(&folder.path().join("journal"), &endpoint()).unwrap()
}

fn names(journal: &Journal) -> Vec<String> {
    let entries = fs::read_dir(&journal.folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn enter(journal: &Journal, run: &str) -> Entry {
    journal.enter(run, &format!("token of {run}").into(), Some(Duration::from_secs(100))).unwrap()
}

fn ids(orphans: &[Orphan]) -> Vec<&str> {
    orphans.iter().map(|orphan| orphan.run.id.as_str()).collect()
}

#[test]
fn a_run_in_flight_is_a_private_file_that_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(&folder);
    assert_eq!(fs::metadata(&journal.folder).unwrap().permissions().mode() & 0o777, 0o700);
    let entry = enter(&journal, "a");
    assert_eq!(names(&journal).len(), 1);
    assert_eq!(fs::metadata(&entry.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(journal.orphans().len(), 0, "its owner lives");
    entry.remove();
    assert_eq!(names(&journal), [""; 0]);
}

#[test]
fn what_a_dead_worker_left_is_found_once() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (journal(&folder), journal(&folder));
    drop(enter(&first, "a"));
    let alive = enter(&first, "b");
    let orphans = second.orphans();
    assert_eq!(ids(&orphans), ["a"]);
    let orphan = &orphans[0];
    assert_eq!(orphan.run.token.expose_secret(), "token of a");
    assert!(orphan.left.unwrap() <= Duration::from_secs(100) && orphan.left.unwrap() > Duration::from_secs(50));
    assert_eq!(orphan.pid, std::process::id());
    assert_eq!(first.orphans().len(), 0, "somebody sees to it");
    drop(orphans);
    assert_eq!(ids(&first.orphans()), ["a"], "who did not come to an end with it");
    first.orphans().into_iter().for_each(|orphan| orphan.entry.remove());
    assert_eq!(names(&first).len(), 1);
    alive.remove();
}

#[test]
fn what_cannot_be_read_is_set_aside_and_the_rest_found() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(&folder);
    drop(enter(&journal, "a"));
    let put = |name: &str, text: &str| fs::write(journal.folder.join(name), text).unwrap();
    put("run-empty.json", "");
    put("run-cut.json", r#"{"format":1,"lightning":"ws://"#);
    put("run-other.json", r#"[1,2]"#);
    put("run-long.json", &" ".repeat(100_000));
    put("notes.txt", "not ours");
    let future = r#"{"format":2,"lightning":"x","run":"a","token":"t","expires":null,"worker":{"pid":1,"since":1}}"#;
    put("run-future.json", future);
    fs::create_dir(journal.folder.join("run-folder.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", journal.folder.join("run-link.json")).unwrap();
    let orphans = journal.orphans();
    assert_eq!(ids(&orphans), ["a"]);
    let aside: Vec<_> = names(&journal).into_iter().filter(|name| name.ends_with(".json.aside")).collect();
    let expected = ["cut", "empty", "folder", "future", "link", "long", "other"];
    assert_eq!(aside, expected.map(|name| format!("run-{name}.json.aside")));
    assert!(names(&journal).contains(&"notes.txt".to_owned()));
    drop(orphans);
    assert_eq!(ids(&journal.orphans()), ["a"]);
}

#[test]
fn a_token_is_never_taken_to_another_lightning() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = "wss://app.openfn.org/worker".parse().unwrap();
    let other = Journal::open(&folder.path().join("journal"), &elsewhere).unwrap();
    drop(enter(&other, "a"));
    assert_eq!(journal(&folder).orphans().len(), 0);
    assert_eq!(ids(&other.orphans()), ["a"], "it is still there for who may have it");
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::open(&file, &endpoint()).unwrap_err().to_string();
    assert!(error.contains("--journal-dir") && error.contains("file"), "{error}");
}

#[test]
fn files_that_were_never_completed_go_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(&folder);
    let (old, new) = (journal.folder.join(".run-old.tmp"), journal.folder.join(".run-new.tmp"));
    for path in [&old, &new] {
        fs::write(path, "").unwrap();
    }
    let long_ago = SystemTime::now() - 2 * STALE;
    File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(journal.orphans().len(), 0);
    assert_eq!(names(&journal), [".run-new.tmp"]);
}
