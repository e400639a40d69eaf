//! How a Node process ends, and what that means for its run.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Code that gets Node's own `process` through an adaptor's function.
const ESCAPE: &str = "import { fn } from '@openfn/language-a'; const process = fn.constructor('return process')();\n";

async fn lost(adaptor_source: &str, code: &str) -> (EngineLost, Vec<String>) {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", adaptor_source);
    let mut bench = Bench::start(&[&adaptor]).await;
    let lost = bench.run(job(code)).await.unwrap_err();
    assert!(bench.engine.is_lost());
    // It stays lost.
    assert_eq!(bench.run(job("export default [];")).await, Err(lost.clone()));
    (lost, bench.lines())
}

#[tokio::test]
async fn an_exit_has_its_code_and_loses_no_line() {
    for (adaptor, code) in [
        ("exports.fn = (f) => f; exports.quit = (n) => () => process.exit(n);", 3),
        ("exports.quit = (n) => () => { process.exitCode = n; process.reallyExit(n); };", 0),
        ("exports.quit = (n) => () => { setTimeout(() => process.exit(n), 1); return new Promise(() => {}); };", 255),
    ] {
        let job = format!(
            "import {{ quit }} from '@openfn/language-a'; for (let i = 0; i < 100; i += 1) console.log(i); export default [quit({code})];"
        );
        let (lost, lines) = lost(adaptor, &job).await;
        assert_eq!(lost, EngineLost::Exited(code));
        assert_eq!((lines.len(), lines[99].as_str()), (100, "JOB info [99]"));
    }
}

#[tokio::test]
async fn a_signal_has_its_name() {
    for (signal, name) in [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL"), ("SIGTERM", "SIGTERM")] {
        let code = format!(
            "{ESCAPE} export default [() => {{ process.kill(process.pid, '{signal}'); return new Promise(() => {{}}); }}];"
        );
        let (lost, _) = lost("exports.fn = (f) => f;", &code).await;
        assert_eq!(lost, EngineLost::Signalled(name.into()));
    }
    let code = format!("{ESCAPE} export default [() => process.abort()];");
    assert_eq!(lost("exports.fn = (f) => f;", &code).await.0, EngineLost::Signalled("SIGABRT".into()));
}

#[tokio::test]
async fn what_ends_the_process_at_once_loses_no_line_of_many() {
    for end in ["process.kill(process.pid, 'SIGKILL')", "process.abort()", "process.reallyExit(3)"] {
        let code = format!("{ESCAPE} for (let i = 0; i < 2000; i += 1) console.log(i); {end}; export default [];");
        let (_, lines) = lost("exports.fn = (f) => f;", &code).await;
        assert_eq!((lines.len(), lines[1999].as_str()), (2000, "JOB info [1999]"), "{end}");
    }
}

#[tokio::test]
async fn the_process_and_its_folder_go_with_the_engine() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", "exports.fn = (f) => f; exports.process = process;");
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { process } from '@openfn/language-a'; export default [() => {
        process.mainModule; process.chdir(process.env.HOME);
        return { pid: process.pid, home: process.env.HOME };
    }];";
    let found: serde_json::Value = serde_json::from_str(&bench.result(code).await).unwrap();
    let home = PathBuf::from(found["home"].as_str().unwrap());
    assert!(home.is_dir() && home.starts_with(bench.folder.path().canonicalize().unwrap()));
    let process = PathBuf::from(format!("/proc/{}", found["pid"]));
    assert!(process.exists());
    // It is busy when it is given up.
    let busy = bench.engine.run_job(job("export default [() => { for (;;); }];"));
    assert!(tokio::time::timeout(Duration::from_millis(200), busy).await.is_err());
    let Bench { engine, folder, .. } = bench;
    drop(engine);
    until(|| !process.exists()).await;
    assert!(!home.exists());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn descendants_go_with_the_engine() {
    let repo = Repo::new();
    let source = "const { spawn } = require('node:child_process');
        exports.start = () => ['sleep 600', 'setsid sleep 600'].map((line) => spawn('sh', ['-c', 'exec ' + line], { stdio: 'ignore' }).pid);";
    let mut adaptor = repo.bundled("@openfn/language-a", source);
    adaptor.needs.child_processes = true;
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { start } from '@openfn/language-a'; export default [() => ({ pids: start() })];";
    let found: serde_json::Value = serde_json::from_str(&bench.result(code).await).unwrap();
    let processes: Vec<PathBuf> =
        found["pids"].as_array().unwrap().iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))).collect();
    assert!(processes.len() == 2 && processes.iter().all(|process| process.exists()));
    drop(bench);
    until(|| processes.iter().all(|process| is_gone(process))).await;
}

#[tokio::test]
async fn nothing_keeps_a_finished_process_alive_or_ends_a_waiting_one() {
    let mut bench = Bench::start(&[]).await;
    let waiting = bench.engine.run_job(job("export default [() => new Promise(() => {})];"));
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    assert!(!bench.engine.is_lost());
}

#[tokio::test]
async fn a_process_that_is_held_is_of_no_use() {
    let mut bench = Bench::start(&[]).await;
    assert!(!bench.engine.is_lost());
    let id = bench.engine.process_id();
    let process = Pid::from_raw(id.cast_signed()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    within(async {
        while !bench.engine.is_lost() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(bench);
    until(|| is_gone(Path::new(&format!("/proc/{id}")))).await;
}

#[tokio::test]
async fn a_process_that_is_held_while_it_starts_is_replaced() {
    let repo = Repo::new();
    let (script, held) = (repo.path().join("node"), repo.path().join("held"));
    let line = format!("mkdir '{}' 2>&- && kill -STOP $$; exec '{}' \"$@\"", held.display(), program().display());
    std::fs::write(&script, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut bench = Bench::with_spec(NodeSpec { program: script, ..spec(&[]) }, 500 * MB).await;
    assert_eq!(bench.result("export default [() => ({ data: 1 })];").await, r#"{"data":1}"#);
    assert!(held.exists(), "the first one was");

    let holds = repo.bundled("@openfn/language-a", "process.kill(process.pid, 'SIGSTOP');");
    let folder = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        spec: spec(&[&holds]),
        memory_bytes: 500 * MB,
        folder: folder.path().to_owned(),
        scratch_bytes: None,
        forks: None,
    };
    let lost = within(NodeEngine::start(options, Arc::new(Lines::default()))).await.unwrap_err();
    assert_eq!(lost, EngineLost::Failed("it was held by a signal each time that it started".into()));
}

/// Whether a process has ended: whoever inherited it may not have looked yet.
fn is_gone(process: &Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(process.join("stat")) else { return true };
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Waits until something holds.
async fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "it never comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
