//! `worker demo` shows a run to people, with nothing installed.

use std::process::{Command, Output};

use tests::binaries;

/// Runs the demo as on a machine that has no Node.
fn demo(arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(binaries::worker());
    command.arg("demo").args(arguments).env("PATH", "/nowhere");
    let output = command.output().expect("the worker was just built");
    let text = String::from_utf8(output.stdout.clone()).expect("the demo prints UTF-8");
    (output, text)
}

fn example(name: &str) -> String {
    format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_bundled_workflow_fails_in_the_middle_and_recovers() {
    let (output, text) = demo(&[]);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let parts = [
        "Register patients",
        "run started",
        "▸ Fetch patients",
        "3 patients of Kijiji Health Centre",
        "✔ success Fetch patients",
        "▸ Validate",
        "✘ fail [JobError: Grace Okafor has no date of birth] Validate",
        "▸ Report the problem",
        "✔ success Report the problem",
        "✔ success run",
        "Final state",
        "\"message\": \"Grace Okafor has no date of birth\"",
    ];
    let mut rest = text.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or out of order, in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!text.contains('\x1b'), "no colours into a pipe:\n{text}");
}

#[test]
fn the_examples_run() {
    for (name, expected) in [
        ("hello.json", "\"greeting\": \"Hello, world!\""),
        ("branches.json", "✔ success Big order"),
        ("credential.json", "password is ***"),
    ] {
        let (output, text) = demo(&[&example(name)]);
        assert_eq!(output.status.code(), Some(0), "{name}\n{text}");
        assert!(text.contains(expected), "{name} does not print {expected:?}:\n{text}");
    }
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let (output, text) = demo(&[&example("mistake.json")]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["✘ fail [RuntimeError: TypeError:", "return { data: { city: patient.address.city } };", "^"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn files_that_are_no_workflows_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let cases = [("{ \"jobs\": [", "is not JSON"), ("{ \"jobs\": 5 }", "jobs"), ("[]", "object")];
    for (content, expected) in cases {
        let file = folder.path().join("plan.json");
        std::fs::write(&file, content).expect("the folder can be written to");
        let (output, _) = demo(&[file.to_str().expect("the path is UTF-8")]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("plan.json") && error.contains(expected), "{error}");
    }
    let (output, _) = demo(&["/nowhere/plan.json"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/plan.json"));
}
