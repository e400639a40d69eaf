//! What code reaches that breaks out of its context, as code can through any function of an adaptor's: a process of its
//! own, without secrets, that may read the adaptors and write a private folder.

use super::*;

const ADAPTOR: &str = "exports.fn = (f) => f;";

/// Runs code that has Node's own `process` and `require`.
async fn escaped(body: &str) -> serde_json::Value {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", ADAPTOR);
    let mut bench = Bench::start(&[&adaptor]).await;
    outcome(&mut bench, body).await
}

async fn outcome(bench: &mut Bench, body: &str) -> serde_json::Value {
    let code = format!(
        "import {{ fn }} from '@openfn/language-a';
        const process = fn.constructor('return process')();
        const require = (name) => process.getBuiltinModule?.(name) ?? process.mainModule?.require(name) ?? fn.constructor('return require')()(name);
        const attempt = (f) => {{ try {{ return f(); }} catch (e) {{ return e.code ?? e.message; }} }};
        export default [async () => {{ {body} }}];"
    );
    serde_json::from_str(&bench.result(&code).await).unwrap()
}

/// How a test of this file gets at Node's modules, which Node 20 gives only to an adaptor.
const READER: &str = "
exports.fn = (f) => f;
const fs = require('node:fs');
const attempt = (f) => { try { return f(); } catch (e) { return e.code ?? e.message; } };
exports.read = (file) => attempt(() => fs.readFileSync(file, 'utf8'));
exports.list = (folder) => attempt(() => fs.readdirSync(folder));
exports.write = (file) => attempt(() => fs.writeFileSync(file, 'x'));
exports.spawn = () => attempt(() => require('node:child_process').execFileSync('/bin/true').length);
exports.thread = () => attempt(() => new (require('node:worker_threads').Worker)('1', { eval: true }).threadId);
exports.addon = () => attempt(() => process.dlopen({ exports: {} }, '/nothing.node'));
";

async fn calls(bench: &mut Bench, calls: &str) -> serde_json::Value {
    let code = format!(
        "import {{ read, list, write, spawn, thread, addon }} from '@openfn/language-a';
        export default [() => ({calls})];"
    );
    serde_json::from_str(&bench.result(&code).await).unwrap()
}

#[tokio::test]
async fn the_environment_has_no_more_than_an_allow_list() {
    let found = escaped("return { names: Object.keys(process.env), argv: process.argv.slice(1) };").await;
    let allowed = [
        "HOME",
        "TMPDIR",
        "NODE_EXTRA_CA_CERTS",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TZ",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    let names: Vec<&str> = found["names"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(names.contains(&"HOME") && names.iter().all(|name| allowed.contains(name)), "{names:?}");
    assert_eq!(found["argv"], serde_json::json!([]));
}

#[tokio::test]
async fn files_outside_are_out_of_reach() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", READER);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let mut bench = Bench::start(&[&adaptor]).await;
    let other = Bench::start(&[&adaptor]).await;
    let parent = std::process::id();
    for file in [
        secret.path().display().to_string(),
        "/etc/passwd".to_owned(),
        format!("/proc/{parent}/environ"),
        format!("/proc/{parent}/mem"),
        "/proc/self/environ".to_owned(),
        "/proc/self/fd/3".to_owned(),
    ] {
        let found = calls(&mut bench, &format!("{{ read: read('{file}'), write: write('{file}') }}")).await;
        assert!(is_denial(&found["read"]) && is_denial(&found["write"]), "{file}: {found}");
    }
    // Node 20 lists the root when it may read something in it: the names, no more.
    for folder in [
        "/etc",
        "/proc",
        "/tmp",
        &other.folder.path().display().to_string(),
        &bench.folder.path().display().to_string(),
    ] {
        let found = calls(&mut bench, &format!("{{ list: list('{folder}'), write: write('{folder}/x') }}")).await;
        assert!(is_denial(&found["list"]) && is_denial(&found["write"]), "{folder}: {found}");
    }
    let bundle = adaptor.bundle.as_ref().unwrap().display();
    let found = calls(&mut bench, &format!("{{ read: typeof read('{bundle}'), write: write('{bundle}') }}")).await;
    assert!(found["read"] == "string" && is_denial(&found["write"]), "{found}");
    assert_eq!(std::fs::read(secret.path()).unwrap(), b"secret");
}

#[tokio::test]
async fn the_private_folder_can_be_used() {
    let repo = Repo::new();
    let source = "const { writeFileSync, readFileSync, mkdtempSync } = require('node:fs'); const { tmpdir, homedir } = require('node:os');
        exports.use = () => { const folder = mkdtempSync(tmpdir() + '/x-'); writeFileSync(folder + '/a', 'kept'); return { text: readFileSync(folder + '/a', 'utf8'), same: homedir() === tmpdir() && process.cwd() === tmpdir() }; };";
    let adaptor = repo.bundled("@openfn/language-a", source);
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { use } from '@openfn/language-a'; export default [() => use()];";
    assert_eq!(bench.result(code).await, r#"{"text":"kept","same":true}"#);
}

#[tokio::test]
async fn processes_threads_and_native_code_are_for_who_needs_them() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", READER);
    let mut bench = Bench::start(&[&adaptor]).await;
    let found = calls(&mut bench, "{ spawn: spawn(), thread: thread(), addon: addon() }").await;
    assert_eq!((&found["spawn"], &found["thread"]), (&"ERR_ACCESS_DENIED".into(), &"ERR_ACCESS_DENIED".into()));
    assert!(["ERR_DLOPEN_DISABLED", "ERR_DLOPEN_FAILED"].contains(&found["addon"].as_str().unwrap()), "{found}");

    let needs = Needs { child_processes: true, workers: true, addons: true };
    let mut bench = Bench::start(&[&Adaptor { needs, ..adaptor }]).await;
    let found = calls(&mut bench, "{ spawn: spawn(), thread: typeof thread() }").await;
    assert_eq!(found, serde_json::json!({ "spawn": 0, "thread": "number" }));
}

#[tokio::test]
async fn the_globals_lead_nowhere() {
    let mut bench = Bench::start(&[]).await;
    let code = "const outside = (value) => { try { return typeof value.constructor.constructor('return process')(); } catch (e) { return e.name; } };
        const values = [globalThis, console, console.log, setTimeout, clearInterval, setTimeout(() => {}, 1), Buffer, Buffer.from, state, JSON, Math, new Error('x'), (() => { try { Buffer.from(5) } catch (e) { return e } })()];
        export default [async (s) => {
            const module = await import('@openfn/runtime');
            try { await import('fs') } catch (e) { values.push(e) }
            return { found: [...new Set([...values, s, module._defer, module._defer(() => 1)(s)].map(outside))] };
        }];";
    assert_eq!(bench.result(code).await, r#"{"found":["EvalError"]}"#);
}

#[tokio::test]
async fn other_processes_get_no_signal() {
    let found = escaped(
        "return {
            parent: attempt(() => process.kill(process.ppid, 0)), all: attempt(() => process.kill(-1, 0)),
            first: attempt(() => process.kill(1, 0)), own: attempt(() => process.kill(process.pid, 0)),
        };",
    )
    .await;
    assert_eq!(found, serde_json::json!({ "parent": "EPERM", "all": "EPERM", "first": "EPERM", "own": true }));
}

#[tokio::test]
async fn forged_frames_harm_nobody_but_the_job() {
    let repo = Repo::new();
    let source = "const fs = require('node:fs'); exports.send = (...bytes) => fs.writeSync(4, Buffer.from(bytes));";
    let adaptor = repo.bundled("@openfn/language-a", source);
    for bytes in [
        "255, 255, 255, 255",
        "0, 0, 0, 0",
        "1, 0, 0, 0, 113",
        "3, 0, 0, 0, 108, 1, 0",
        "6, 0, 0, 0, 114, 1, 0, 0, 0, 123",
    ] {
        let mut bench = Bench::start(&[&adaptor]).await;
        let code = format!(
            "import {{ send }} from '@openfn/language-a'; export default [() => {{ send({bytes}); return new Promise(() => {{}}); }}];"
        );
        let lost = bench.run(job(&code)).await.unwrap_err();
        assert!(matches!(lost, EngineLost::Failed(_)), "{lost:?}");
    }
}

#[tokio::test]
async fn an_import_from_outside_is_refused_in_the_adaptors_realm_too() {
    let found = escaped("return { mainModule: attempt(() => typeof process.mainModule), binding: attempt(() => typeof process.binding('fs')), inspector: attempt(() => require('node:inspector').open(0)) };").await;
    assert_eq!(found["binding"], "ERR_ACCESS_DENIED");
    assert_ne!(found["inspector"], serde_json::Value::Null);
}
