//! Engines that start from a snapshot.

use engine_host::engine::Exports;
use engine_host::engine::node::snapshot::{self, SnapshotError};

use super::*;

const ADAPTOR: &str = "
exports.fn = (f) => f;
exports.fail = () => () => { throw Object.assign(new Error('it failed'), { status: 7 }); };
exports.say = (text) => (state) => { console.log(text); return state; };
exports.path = () => ({ path: require('node:path').join('a', 'b'), fetch: typeof fetch, age: Date.now() > 0 });
";

/// The blob of a snapshot with this adaptor in it.
async fn built(repo: &Repo, adaptors: &[&Adaptor]) -> PathBuf {
    let blob = repo.path().join("snapshot.blob");
    let adaptors: Vec<Adaptor> = adaptors.iter().map(|adaptor| (*adaptor).clone()).collect();
    within(snapshot::build(&program(), &adaptors, &[], &blob)).await.unwrap();
    within(snapshot::verify(&program(), &adaptors, &blob, repo.path())).await.unwrap();
    blob
}

#[tokio::test]
async fn jobs_run_from_a_snapshot() {
    if !has_snapshots() {
        return;
    }
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", ADAPTOR);
    let blob = built(&repo, &[&adaptor]).await;
    // Proof that the adaptor is in the snapshot.
    std::fs::remove_file(adaptor.bundle.as_ref().unwrap()).unwrap();
    let spec = NodeSpec { snapshot: Some(blob), ..spec(&[&adaptor]) };
    let mut bench = Bench::with_spec(spec, 500 * MB).await;
    let names = ["fn", "fail", "say", "path"].map(str::to_owned).to_vec();
    assert_eq!(bench.engine.exports("@openfn/language-a@1.0.0"), Exports::Known(names));

    let code = "import { fn, path } from '@openfn/language-a'; export * from '@openfn/language-a';
        export default [fn(() => path()), fn(async (s) => { await new Promise((r) => setTimeout(r, 2)); console.log('on', Buffer.from('a').toString('hex')); return s; })];";
    assert_eq!(bench.result(code).await, r#"{"path":"a/b","fetch":"function","age":true}"#);
    assert_eq!(bench.lines(), [r#"JOB info ["on","61"]"#]);
    bench.result("import { say } from '@openfn/language-a'; export default [say('hello')];").await;
    assert_eq!(bench.lines(), [r#"ADA info ["hello"]"#]);

    let thrown = bench.thrown("import { fail } from '@openfn/language-a';\nexport default [fail()];").await;
    assert_eq!((thrown.origin, thrown.message.as_str(), thrown.operation), (Origin::Adaptor, "it failed", Some(0)));
    assert_eq!(thrown.details.as_deref(), Some(r#"{"message":"it failed","status":7}"#));
    let eval = bench.thrown("export default [() => new Function('return 1')()];").await;
    assert_eq!(eval.name, "EvalError");
    assert_eq!(bench.test("state.a === 1", r#"{"a":1}"#).await.unwrap(), ConditionEnd::Value(true));
}

#[tokio::test]
async fn a_snapshot_that_is_of_no_use_is_done_without() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", ADAPTOR);
    let blob = repo.path().join("broken.blob");
    std::fs::write(&blob, "not a snapshot").unwrap();
    let adaptors = [adaptor.clone()];
    assert!(within(snapshot::verify(&program(), &adaptors, &blob, repo.path())).await.is_err());
    let spec = NodeSpec { snapshot: Some(blob), ..spec(&[&adaptor]) };
    let mut bench = Bench::with_spec(spec, 500 * MB).await;
    assert_eq!(
        bench.result("import { fn } from '@openfn/language-a'; export default [fn(() => ({ a: 1 }))];").await,
        r#"{"a":1}"#
    );
}

#[tokio::test]
async fn what_cannot_be_in_a_snapshot_is_told() {
    let repo = Repo::new();
    let blob = repo.path().join("snapshot.blob");
    let installed = repo.common_js("@openfn/language-installed", "");
    let throwing = repo.bundled("@openfn/language-throwing", "throw new Error('not in a snapshot')");
    let exiting = repo.bundled("@openfn/language-exiting", "process.exit(0)");
    for (adaptor, expected) in [
        (installed, "@openfn/language-installed@1.0.0 has no bundle, so it cannot be in a snapshot"),
        (throwing, "not in a snapshot"),
        (exiting, "cannot put the snapshot at"),
    ] {
        let error = within(snapshot::build(&program(), &[adaptor], &[], &blob)).await.unwrap_err();
        match error {
            SnapshotError::TooOld(_) => assert!(!has_snapshots()),
            error => assert!(error.to_string().contains(expected), "{error}"),
        }
        assert!(!blob.exists());
    }
    let left: Vec<_> = repo.path().read_dir().unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("openfn-node")), "{left:?}");
}

#[tokio::test]
async fn a_snapshot_that_lacks_exports_is_not_verified() {
    if !has_snapshots() {
        return;
    }
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", ADAPTOR);
    let blob = built(&repo, &[&adaptor]).await;
    let more = Adaptor { exports: Some(vec!["fn".into(), "more".into()]), ..adaptor.clone() };
    let error = within(snapshot::verify(&program(), &[more], &blob, repo.path())).await.unwrap_err();
    assert_eq!(error.to_string(), "@openfn/language-a@1.0.0 in the snapshot does not export more");
    let other = repo.bundled("@openfn/language-b", "");
    assert!(within(snapshot::verify(&program(), &[other], &blob, repo.path())).await.is_err());
}

#[tokio::test]
async fn what_differs_from_process_to_process_is_in_no_snapshot() {
    for (source, reads) in [
        ("const { randomUUID } = require('crypto'); exports.id = randomUUID();", "crypto.randomUUID"),
        ("exports.id = require('node:crypto').randomBytes(8).toString('hex');", "crypto.randomBytes"),
        ("exports.id = require('crypto').randomInt(5);", "crypto.randomInt"),
        ("exports.id = require('crypto').webcrypto.randomUUID();", "crypto.randomUUID"),
        ("exports.id = crypto.getRandomValues(new Uint8Array(4));", "crypto.getRandomValues"),
        ("exports.id = globalThis.crypto.randomUUID();", "crypto.randomUUID"),
        ("exports.id = Math.random();", "Math.random"),
        ("exports.at = Date.now();", "Date.now"),
        ("exports.at = new Date();", "new Date"),
        ("exports.at = new (class extends Date {})();", "new Date"),
        ("exports.at = Date();", "Date"),
        ("exports.at = performance.now();", "performance.now"),
        ("exports.at = process.hrtime();", "process.hrtime"),
        ("exports.at = process.hrtime.bigint();", "process.hrtime.bigint"),
        ("exports.at = process.uptime();", "process.uptime"),
        ("exports.id = process.pid;", "process.pid"),
        ("exports.id = process.ppid;", "process.ppid"),
        ("exports.home = process.env.HOME;", "process.env.HOME"),
        ("const { env } = process; exports.home = env['HOME'];", "process.env.HOME"),
        ("exports.home = require('os').tmpdir();", "os.tmpdir"),
        ("exports.host = require('node:os').hostname();", "os.hostname"),
        ("exports.up = require('os').uptime();", "os.uptime"),
        ("exports.folder = process.cwd();", "process.cwd"),
        ("exports.file = require('path').resolve('a');", "process.cwd"),
        ("exports.used = process.memoryUsage();", "process.memoryUsage"),
        ("exports.at = new (new Date(0).constructor)();", "new Date"),
        ("exports.today = new Intl.DateTimeFormat('en').format();", "Intl.DateTimeFormat"),
        ("exports.id = require('module').createRequire(__filename)('crypto').randomUUID();", "crypto.randomUUID"),
        ("Promise.resolve().then(() => { exports.id = Math.random(); });", "Math.random"),
        ("setImmediate(() => { exports.at = Date.now(); });", "Date.now"),
        ("(async () => { await null; exports.id = require('crypto').randomUUID(); })();", "crypto.randomUUID"),
        ("exports.zone = process.env.PASSED_ON;", "process.env.PASSED_ON"),
        ("exports.id = Math.random() + process.pid;", "Math.random, process.pid"),
        // Older versions of Node have no such function.
        (
            "exports.id = (process.getBuiltinModule ?? require)('node:crypto').randomBytes(4).toString('hex');",
            "crypto.randomBytes",
        ),
    ] {
        // V8 takes code that it made of another source if that is as long.
        let repo = Repo::new();
        let adaptor = repo.bundled("@openfn/language-a", source);
        let trial = within(engine_host::engine::node::loads(&program(), &adaptor, repo.path())).await.unwrap();
        if !reads.contains("PASSED_ON") {
            assert_eq!(trial.reads.unwrap().join(", "), reads, "{source}");
        }
        if !has_snapshots() {
            continue;
        }
        let blob = repo.path().join("snapshot.blob");
        let variables = ["PASSED_ON".to_owned()];
        let error = within(snapshot::build(&program(), &[adaptor], &variables, &blob)).await.unwrap_err().to_string();
        let expected =
            format!("@openfn/language-a@1.0.0 reads {reads} when it is imported, which would be the same in every run");
        assert_eq!(error, expected, "{source}");
        assert!(!blob.exists());
    }
}

#[tokio::test]
async fn what_is_the_same_in_every_process_may_be_in_a_snapshot() {
    for source in [
        "exports.fn = () => Math.random() + Date.now() + process.pid;",
        "exports.debug = process.env.DEBUG; exports.production = process.env.NODE_ENV === 'production';",
        "exports.names = Object.keys(process.env).filter((name) => /^debug_/i.test(name));",
        "exports.epoch = new Date(0); exports.isDate = (it) => it instanceof Date; exports.parse = Date.parse('2020-01-01');",
        "exports.hash = require('crypto').createHash('sha256').update('a').digest('hex');",
        "var basePath = process.cwd(); exports.folder = require('path').resolve('/a', 'b');",
        "exports.format = new Intl.DateTimeFormat('en').format(0);",
        "const nativeNow = Date.now; var stamp = nativeNow(), remaining = 16 - (stamp - 0);",
    ] {
        // V8 takes code that it made of another source if that is as long.
        let repo = Repo::new();
        let adaptor = repo.bundled("@openfn/language-a", source);
        let trial = within(engine_host::engine::node::loads(&program(), &adaptor, repo.path())).await.unwrap();
        assert_eq!(trial.reads, Some(vec![]), "{source}");
        if has_snapshots() {
            built(&repo, &[&adaptor]).await;
        }
    }
}

#[tokio::test]
async fn runs_that_begin_with_one_snapshot_have_random_values_of_their_own() {
    if !has_snapshots() {
        return;
    }
    let repo = Repo::new();
    // What an adaptor took before it was imported works afterwards as ever, and is none of the engine's.
    let source = "const crypto = require('crypto'); const { randomUUID } = crypto; const { random } = Math; const RealDate = Date;
        exports.draw = () => ({ uuid: randomUUID(), other: crypto.randomUUID(), int: crypto.randomInt(2 ** 40), random: random(),
            bytes: crypto.randomBytes(8).toString('hex'), web: globalThis.crypto.randomUUID(), pid: process.pid,
            year: new RealDate().getFullYear() > 2000, same: new Date() instanceof RealDate });";
    let adaptor = repo.bundled("@openfn/language-a", source);
    let blob = built(&repo, &[&adaptor]).await;
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let spec = NodeSpec { snapshot: Some(blob.clone()), ..spec(&[&adaptor]) };
        let mut bench = Bench::with_spec(spec, 500 * MB).await;
        let text = bench.result("import { draw } from '@openfn/language-a'; export default [() => draw()];").await;
        drawn.push(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).unwrap());
    }
    for (name, value) in &drawn[0] {
        match name.as_str() {
            "year" | "same" => assert_eq!((value, &drawn[1][name]), (&true.into(), &true.into()), "{name}"),
            _ => assert_ne!(value, &drawn[1][name], "{name}"),
        }
    }
}

/// An adaptor that makes a client when it is imported, as the reference worker's own test has one.
const STATEFUL: &str = "const clientId = randomUUID(); const { port1: client } = new MessageChannel(); client.close();
    const made = [Math.random(), Date.now(), process.hrtime().join(), performance.now(), process.pid, process.cwd()];";

#[tokio::test]
async fn a_stateful_adaptor_makes_a_new_client_for_each_run() {
    let repo = Repo::new();
    let common_js = "exports.see = () => () => ({ clientId, made: made.join() });";
    let dependency = format!("const {{ randomUUID }} = require('crypto'); {STATEFUL} {common_js}");
    let module = format!(
        "import {{ randomUUID }} from 'node:crypto'; {STATEFUL} export const see = () => () => ({{ clientId, made: made.join() }});"
    );
    let adaptors = [
        repo.common_js("@openfn/language-plain", &dependency),
        repo.bundled("@openfn/language-bundled", &dependency),
        repo.add("@openfn/language-module", "1.0.0", r#"{"main":"index.mjs"}"#, &[("index.mjs", module.as_str())]),
        repo.add(
            "@openfn/language-dependent",
            "1.0.0",
            r#"{"main":"index.js"}"#,
            &[
                ("index.js", "module.exports = require('stateful');"),
                ("node_modules/stateful/index.js", dependency.as_str()),
            ],
        ),
    ];
    for adaptor in &adaptors {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let mut bench = Bench::start(&[adaptor]).await;
            let code = format!("import {{ see }} from '{}'; export default [see()];", adaptor.name);
            seen.push(bench.result(&code).await);
            assert_eq!(bench.result(&code).await, *seen.last().unwrap(), "{}", adaptor.name);
        }
        assert_ne!(seen[0], seen[1], "{}", adaptor.name);
        assert!(seen[0].contains("clientId"), "{}", seen[0]);
        let blob = repo.path().join("snapshot.blob");
        let refused = within(snapshot::build(&program(), std::slice::from_ref(adaptor), &[], &blob)).await;
        assert!(refused.is_err() && !blob.exists(), "{}", adaptor.name);
    }
}
