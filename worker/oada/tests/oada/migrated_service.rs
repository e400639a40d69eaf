//! A service that was written for `@oada/jobs`, with packages from npm, runs with no change but to its `service.on` lines.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;

use crate::support::{body, finished, place, statuses};

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oada-service")
}

/// The service's folder, with its packages, if the registry serves them.
fn install() -> Result<tempfile::TempDir, String> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::create_dir(folder.path().join("handlers")).expect("it can be written");
    for file in ["package.json", "handlers/greet.mjs"] {
        std::fs::copy(data().join(file), folder.path().join(file)).expect("it can be copied");
    }
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent"]);
    let output = command.current_dir(folder.path()).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(folder),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_work_is_the_same_word_for_word() {
    let read = |file: &str| std::fs::read_to_string(data().join(file)).expect("it is there");
    let (before, after) = (read("service.mjs"), read("handlers/greet.mjs"));
    let kept: Vec<&str> = after.lines().filter(|line| before.lines().any(|it| it == *line)).collect();
    let changed: Vec<&str> = after.lines().filter(|line| !kept.contains(line)).collect();
    assert_eq!(
        changed,
        [
            "// A handler: it greets everybody in a list, three at a time, and keeps what it said.",
            "export const timeout = 10 * 1000;",
            "export default async (job, { jobId, log, oada }) => {",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_with_its_packages() {
    let folder = match tokio::task::spawn_blocking(install).await.expect("it does not panic") {
        Ok(folder) => folder,
        Err(why) => {
            println!("skipped: npm did not install the service's packages: {why}");
            return;
        }
    };
    let oada = Oada::start().await;
    let worker = OadaWorker::start_in(&oada, folder, &["--handler-engine", "node"]).await;
    place(&oada, "JOB", body("greet", json!({ "names": ["Amina", "Ben", "Chi", "Dee"] })));
    let job = finished(&oada, "JOB").await;
    let expected = json!({
        "texts": ["Hello, Amina!", "Hello, Ben!", "Hello, Chi!", "Hello, Dee!"],
        "missing": { "status": 404, "code": "404" },
        "summary": 0,
    });
    assert_eq!(job.result, Some(expected), "{}", worker.output());
    assert_eq!(statuses(&job), ["started", "started", "greeted all", "success"]);
    assert_eq!(job.updates[2].meta, Some(json!({ "count": 4 })));
    let greetings = oada.get("/bookmarks/greetings").expect("they are there");
    let links: Vec<_> = greetings.as_object().into_iter().flatten().filter(|(key, _)| !key.starts_with('_')).collect();
    assert_eq!(links.len(), 5, "{greetings}");
    assert!(links.iter().all(|(_, link)| link["_rev"].is_u64()), "{greetings}");
    worker.stop().await;
}
