//! Engines that start from a snapshot.

use engine_host::engine::Exports;
use engine_host::engine::node::snapshot::{self, SnapshotError};

use super::*;

const ADAPTOR: &str = "
const loadedAt = Date.now();
exports.fn = (f) => f;
exports.fail = () => () => { throw Object.assign(new Error('it failed'), { status: 7 }); };
exports.say = (text) => (state) => { console.log(text); return state; };
exports.path = () => ({ path: require('node:path').join('a', 'b'), fetch: typeof fetch, age: Date.now() - loadedAt >= 0 });
";

/// The blob of a snapshot with this adaptor in it.
async fn built(repo: &Repo, adaptors: &[&Adaptor]) -> PathBuf {
    let blob = repo.path().join("snapshot.blob");
    let adaptors: Vec<Adaptor> = adaptors.iter().map(|adaptor| (*adaptor).clone()).collect();
    within(snapshot::build(&program(), &adaptors, &blob)).await.unwrap();
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
        let error = within(snapshot::build(&program(), &[adaptor], &blob)).await.unwrap_err();
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
