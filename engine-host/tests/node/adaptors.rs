//! Adaptors of every kind, from bundles and as they are installed.

use engine_host::engine::Exports;
use engine_host::engine::node::loads;

use super::*;

#[tokio::test]
async fn packages_load_as_they_are_published() {
    let repo = Repo::new();
    let dual = r#"{"type":"module","exports":{".":{"import":"./m.js","require":"./c.cjs"},"./package.json":"./package.json"}}"#;
    let adaptors = [
        repo.common_js("@openfn/language-cjs", "exports.name = () => 'cjs'; exports.__esModule = true;"),
        repo.add(
            "@openfn/language-esm",
            "1.0.0",
            r#"{"type":"module","main":"dist/index.js"}"#,
            &[
                (
                    "dist/index.js",
                    "import { helper } from './helper.js'; export const name = helper; export default 5;",
                ),
                ("dist/helper.js", "export const helper = () => 'esm';"),
            ],
        ),
        repo.add(
            "@openfn/language-dual",
            "1.0.0",
            dual,
            &[("m.js", "throw new Error('not this one')"), ("c.cjs", "exports.name = () => 'dual';")],
        ),
        repo.add(
            "@openfn/language-mjs",
            "1.0.0",
            r#"{"exports":"./a.mjs"}"#,
            &[("a.mjs", "export const name = () => 'mjs';")],
        ),
        repo.add(
            "@openfn/language-plain",
            "1.0.0",
            "{}",
            &[
                ("index.js", "module.exports = { name: require('./lib').name };"),
                ("lib.js", "exports.name = () => 'plain';"),
            ],
        ),
        repo.bundled("@openfn/language-bundled", "exports.name = () => require('node:path').basename('a/bundled');"),
    ];
    let all: Vec<&Adaptor> = adaptors.iter().collect();
    let mut bench = Bench::start(&all).await;
    for adaptor in all {
        assert_eq!(bench.engine.exports(&adaptor.specifier()), Exports::Known(vec!["name".into()]), "{adaptor:?}");
        let code = format!("import {{ name }} from '{}'; export default [() => ({{ name: name() }})];", adaptor.name);
        let kind = adaptor.name.strip_prefix("@openfn/language-").unwrap();
        assert_eq!(bench.result(&code).await, format!(r#"{{"name":"{kind}"}}"#));
        assert_eq!(within(loads(&program(), adaptor, repo.path())).await.unwrap().exports, ["name"]);
    }
    let code = "import five from '@openfn/language-esm'; export default [() => ({ five })];";
    assert_eq!(bench.result(code).await, r#"{"five":5}"#);
}

#[tokio::test]
async fn an_adaptor_that_fails_to_load_fails_who_imports_it() {
    let repo = Repo::new();
    let bad = repo.common_js("@openfn/language-bad", "throw new TypeError('no such thing');");
    let good = repo.common_js("@openfn/language-good", "exports.fn = (f) => f;");
    let mut bench = Bench::start(&[&bad, &good]).await;
    let why = "@openfn/language-bad@1.0.0 cannot be loaded: TypeError: no such thing";
    assert_eq!(bench.engine.exports("@openfn/language-bad@1.0.0"), Exports::Refused(why.into()));
    assert!(matches!(bench.engine.exports("@openfn/language-other@1.0.0"), Exports::Refused(_)));
    let thrown = bench.thrown("import '@openfn/language-bad'; export default [];").await;
    assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Import, why));
    assert_eq!(
        bench.result("import { fn } from '@openfn/language-good'; export default [fn(() => ({}))];").await,
        "{}"
    );
    let error = within(loads(&program(), &bad, repo.path())).await.unwrap_err();
    assert_eq!(error.to_string(), why);
}

#[tokio::test]
async fn a_program_that_is_no_node_is_told() {
    let repo = Repo::new();
    let adaptor = repo.common_js("@openfn/language-a", "");
    for (program, why) in [("/nothing/here", "No such file or directory"), ("/bin/true", "is not a version of Node")] {
        let error = within(loads(Path::new(program), &adaptor, repo.path())).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{program} is no Node that can be used: ")) && error.contains(why),
            "{error}"
        );
    }
}

#[tokio::test]
async fn two_versions_of_an_adaptor_are_two_adaptors() {
    let repo = Repo::new();
    let version = |version: &str| {
        let source = format!("exports.version = () => '{version}';");
        repo.add("@openfn/language-a", version, "{}", &[("index.js", &source)])
    };
    let (one, two) = (version("1.0.0"), version("2.0.0"));
    let mut bench = Bench::start(&[&one, &two]).await;
    let code = "import { version } from '@openfn/language-a'; export default [() => ({ version: version() })];";
    for adaptor in [&one, &two, &one] {
        let Ok(JobEnd::Returned(result)) = bench.run(job_with(code, &[adaptor], "{}")).await else { panic!() };
        assert_eq!(text(result.state), format!(r#"{{"version":"{}"}}"#, adaptor.version));
    }
    let exact = "import { version } from '@openfn/language-a@2.0.0'; export default [() => ({ version: version() })];";
    let Ok(JobEnd::Returned(result)) = bench.run(job_with(exact, &[&one], "{}")).await else { panic!() };
    assert_eq!(text(result.state), r#"{"version":"2.0.0"}"#);
}

#[tokio::test]
async fn a_job_may_have_several_adaptors_and_the_first_execute() {
    let repo = Repo::new();
    let chain =
        "(...operations) => async (state) => { for (const o of operations) state = await o(state); return state; }";
    let a = repo.common_js(
        "@openfn/language-a",
        &format!("exports.fn = (f) => f; exports.both = 1; exports.execute = (...o) => async (s) => ({{ ...await ({chain})(...o)(s), by: 'a' }});"),
    );
    let b = repo.common_js(
        "@openfn/language-b",
        &format!("exports.b = (s) => s; exports.both = 2; exports.execute = {chain};"),
    );
    let mut bench = Bench::start(&[&a, &b]).await;
    let code = "import { fn } from '@openfn/language-a'; export * from '@openfn/language-a';
        import { b } from '@openfn/language-b'; export * from '@openfn/language-b'; export { execute } from '@openfn/language-a';
        export default [fn((s) => ({ ...s, one: 1 })), b];";
    let Ok(JobEnd::Returned(result)) = bench.run(job_with(code, &[&a, &b], "{}")).await else { panic!() };
    assert_eq!(text(result.state), r#"{"one":1,"by":"a"}"#);
}

#[tokio::test]
async fn an_adaptors_instance_is_the_same_for_all_jobs_of_a_run() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", "let count = 0; exports.next = () => (count += 1);");
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { next } from '@openfn/language-a'; globalThis.seen = (globalThis.seen ?? 0) + 1;
        export default [() => ({ count: next(), seen: globalThis.seen })];";
    assert_eq!(bench.result(code).await, r#"{"count":1,"seen":1}"#);
    assert_eq!(bench.result(code).await, r#"{"count":2,"seen":1}"#);
}

#[tokio::test]
async fn a_bundle_may_require_what_it_finds_out_late() {
    let repo = Repo::new();
    let adaptor = repo.bundled(
        "@openfn/language-a",
        "const names = ['os', 'url']; exports.late = (at) => typeof require('node:' + names[at]); exports.missing = () => require('not-there');",
    );
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { late } from '@openfn/language-a'; export default [() => ({ late: late(1) })];";
    assert_eq!(bench.result(code).await, r#"{"late":"object"}"#);
    let code = "import { missing } from '@openfn/language-a'; export default [() => missing()];";
    let thrown = bench.thrown(code).await;
    assert_eq!(thrown.origin, Origin::Adaptor);
    assert!(thrown.message.starts_with("Cannot find module 'not-there'"), "{}", thrown.message);
}

#[tokio::test]
async fn loading_leaves_code_that_other_processes_use() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", "exports.fn = (f) => f;");
    let cache = adaptor.bundle.as_ref().unwrap().with_added_extension("v8");
    within(loads(&program(), &adaptor, repo.path())).await.unwrap();
    let made = std::fs::read(&cache).unwrap();
    assert!(made.len() > 100);
    // What is no code of this V8's is passed over.
    std::fs::write(&cache, "not code").unwrap();
    let mut bench = Bench::start(&[&adaptor]).await;
    assert_eq!(
        bench.result("import { fn } from '@openfn/language-a'; export default [fn(() => ({ a: 1 }))];").await,
        r#"{"a":1}"#
    );
}

/// A bundle as esbuild makes it, of an adaptor that uses a network client.
const WITH_CLIENT: &str = "
var loaded = 0;
var __toESM = (module) => ({ ...module, default: module });
var require_undici = () => { loaded += 1; return { request: (url) => `got ${url}`, FormData: class {} }; };
var import_undici = require_undici();
var import_undici2 = __toESM(require_undici(), 1);
var originals = 0;
var load = () => ((originals += 1), { Client: 1 });
var require_undici2 = () => Object.defineProperty({}, 'Client', { enumerable: true, get: () => load().Client });
var import_undici3 = require_undici2();
exports.late = () => originals;
exports.count = () => loaded;
exports.get = (url) => [import_undici.request(url), import_undici2.default.request(url), 'FormData' in import_undici, loaded];
";

#[tokio::test]
async fn a_network_client_is_loaded_when_it_is_used_or_nobody_waits() {
    let repo = Repo::new();
    let adaptor = repo.bundled("@openfn/language-a", WITH_CLIENT);
    let code =
        "import { count, get } from '@openfn/language-a'; export default [() => ({ before: count(), got: get('x') })];";
    let mut bench = Bench::start(&[&adaptor]).await;
    let got: serde_json::Value = serde_json::from_str(&bench.result(code).await).unwrap();
    assert_eq!(got["got"], serde_json::json!(["got x", "got x", true, 2]));

    let count = "import { count } from '@openfn/language-a'; export default [() => ({ count: count() })];";
    let loaded = async || {
        let mut bench = Bench::start(&[&adaptor]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.result(count).await == r#"{"count":2}"#
    };
    // It depends on the machine how long that takes.
    while !loaded().await {}
}

#[tokio::test]
async fn what_the_links_of_an_adaptor_lead_to_is_readable_and_nothing_else_is() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let link = |from: &str, to: &str| {
        let from = root.join(from);
        std::fs::create_dir_all(from.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    };
    // Each of three packages has the next one, and the last one a package from a store.
    for (name, source) in [
        (
            "a",
            "export { name } from '@openfn/b'; import fs from 'node:fs'; export const read = (f) => { try { return fs.readFileSync(f, 'utf8') } catch (e) { return e.code } };",
        ),
        ("b", "import { c } from '@openfn/c'; export const name = () => c();"),
        ("c", "import x from 'x'; import * as a from '@openfn/a'; export const c = () => x.name + typeof a.read;"),
        ("d", "export {};"),
    ] {
        let manifest = format!(r#"{{"name":"@openfn/{name}","type":"module","main":"index.js"}}"#);
        write(&format!("packages/{name}/package.json"), &manifest);
        write(&format!("packages/{name}/index.js"), source);
    }
    link("packages/a/node_modules/@openfn/b", "../../../../links/b");
    link("links/b", "../packages/b");
    link("packages/b/node_modules/@openfn/c", "../../../c");
    link("packages/c/node_modules/@openfn/a", "../../../a");
    link("packages/c/node_modules/x", "../../../store/x@1/node_modules/x");
    write("store/x@1/node_modules/x/package.json", r#"{"main":"x.js","dependencies":{"y":"1"}}"#);
    write("store/x@1/node_modules/x/x.js", "exports.name = require('y');");
    link("store/x@1/node_modules/y", "../../y@1/node_modules/y");
    write("store/y@1/node_modules/y/index.js", "module.exports = 'y ';");
    write("links/secret", "secret");
    let adaptor = Adaptor {
        name: "@openfn/language-a".into(),
        version: "local".into(),
        folder: root.join("packages/a"),
        bundle: None,
        exports: None,
        needs: Needs::default(),
    };
    let mut bench = Bench::start(&[&adaptor]).await;
    let files: Vec<String> = ["packages/b/index.js", "packages/d/index.js", "links/secret", "store/x@1/secret"]
        .iter()
        .map(|path| format!("typeof read('{0}') + read('{0}')", root.join(path).display()))
        .collect();
    let code = format!(
        "import {{ name, read }} from '@openfn/language-a';
        export default [() => ({{ name: name(), files: [{}].map((it) => it.slice(0, 23)) }})];",
        files.join(", ")
    );
    let found: serde_json::Value = serde_json::from_str(&bench.result(&code).await).unwrap();
    assert_eq!((&found["name"], &found["files"][0]), (&"y function".into(), &"stringimport { c } from".into()));
    for refused in &found["files"].as_array().unwrap()[1..] {
        let refused = refused.as_str().unwrap().trim_start_matches("string");
        assert!(is_denial(&refused.into()), "{found}");
    }
}
