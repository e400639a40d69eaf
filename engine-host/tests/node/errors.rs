//! What is told of an error: where it comes from, and where in the job it was thrown.

use super::*;

async fn thrown(code: &str) -> Thrown {
    Bench::start(&[]).await.thrown(code).await
}

#[tokio::test]
async fn errors_of_a_job_have_their_place() {
    for (code, name, message, position) in [
        ("export default [\n() => { throw new Error('oh no') }];", "Error", "oh no", Some((2, 15))),
        (
            "export default [\n(s) => s.a.b];",
            "TypeError",
            "Cannot read properties of undefined (reading 'b')",
            Some((2, 12)),
        ),
        (
            "export default [async () => {\nawait null;\nnope; }];",
            "ReferenceError",
            "nope is not defined",
            Some((3, 1)),
        ),
        ("export default [() => {\nJSON.parse('{'); }];", "SyntaxError", "", Some((2, 6))),
        ("export default [() => { throw 'text'; }];", "", "text", None),
        ("export default [() => { throw { code: 5 }; }];", "", r#"{"code":5}"#, None),
        ("export default [() => { throw undefined; }];", "", "undefined", None),
        ("export default [() => Promise.reject(\nnew RangeError('far'))];", "RangeError", "far", Some((2, 1))),
        (
            "export default [() => { throw Object.assign(new Error('x\\n    at y (/z/a.js:1:2)'), { a: 1 }); }];",
            "Error",
            "x\n    at y (/z/a.js:1:2)",
            Some((1, 45)),
        ),
    ] {
        let thrown = thrown(code).await;
        assert_eq!((thrown.origin, thrown.name.as_str(), thrown.position), (Origin::Job, name, position), "{code}");
        assert!(message.is_empty() || thrown.message == message, "{code}: {}", thrown.message);
        assert_eq!(thrown.operation, Some(0), "{code}");
    }
}

#[tokio::test]
async fn what_is_no_operation_is_told() {
    let exports = thrown("export default 5;").await;
    assert_eq!((exports.origin, exports.name.as_str()), (Origin::Exports, "InvalidExportsError"));
    let operation = thrown("export default [() => 1, 5];").await;
    assert_eq!((operation.origin, operation.operation), (Origin::Operation, Some(1)));
}

#[tokio::test]
async fn code_from_strings_is_refused() {
    for code in [
        "eval('1')",
        "new Function('return 1')",
        "(() => {}).constructor('return 1')",
        "(async () => {}).constructor('return 1')",
        "setTimeout('1', 1)",
    ] {
        let thrown = thrown(&format!("export default [() => {code}];")).await;
        assert_eq!(thrown.name, "EvalError", "{code}: {thrown:?}");
    }
    let wasm = "new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))";
    assert_eq!(thrown(&format!("export default [() => {wasm}];")).await.name, "CompileError");
}

#[tokio::test]
async fn imports_are_of_the_workflows_adaptors_only() {
    let repo = Repo::new();
    let adaptor = repo.common_js("@openfn/language-a", "exports.fn = (f) => f;");
    let mut bench = Bench::start(&[&adaptor]).await;
    for (code, message) in [
        ("import 'fs'; export default [];", "module blacklisted: fs"),
        ("import 'node:fs'; export default [];", "module blacklisted: node:fs"),
        ("import '/etc/passwd'; export default [];", "module blacklisted: /etc/passwd"),
        ("import '@openfnord/x'; export default [];", "module blacklisted: @openfnord/x"),
        ("import '@openfn/../x'; export default [];", "module blacklisted: @openfn/../x"),
        (
            "import '@openfn/language-b'; export default [];",
            "module not found: @openfn/language-b is not among the adaptors of this workflow",
        ),
        ("import { get } from '@openfn/language-a'; export default [];", "@openfn/language-a does not export get"),
        ("export default [() => import('fs')];", "module blacklisted: fs"),
    ] {
        let thrown = bench.thrown(code).await;
        assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Import, message), "{code}");
    }
    let code = "export default [async () => ({ a: typeof (await import('@openfn/language-a')).fn })];";
    assert_eq!(bench.result(code).await, r#"{"a":"function"}"#);
}

const FAILING: &str = "
class HttpError extends Error { constructor() { super('not there'); this.statusCode = 404; this.body = { a: [1] }; } }
exports.fail = () => () => { throw new HttpError(); };
exports.later = () => async () => { await new Promise((r) => setTimeout(r, 1)); throw new HttpError(); };
exports.fn = (f) => async (s) => f(s);
exports.type = () => (s) => s.a.b.c;
exports.plain = () => () => { throw { code: 7 }; };
exports.network = () => () => new Promise((_, reject) => require('node:net').connect(1, '127.0.0.1').on('error', reject));
exports.leak = () => (s) => { setTimeout(() => { throw new Error('nobody waits'); }, 1); return new Promise(() => {}); };
exports.reject = () => (s) => { Promise.reject(new Error('nobody handles')); return new Promise(() => {}); };
exports.behind = () => (s) => { setTimeout(() => { throw new Error('late'); }, 30); return s; };
";

async fn adaptors(repo: &Repo) -> [Adaptor; 2] {
    [repo.common_js("@openfn/language-a", FAILING), repo.bundled("@openfn/language-a", FAILING)]
}

fn calling(operation: &str) -> String {
    let name = operation.split('(').next().unwrap();
    format!("import {{ {name} }} from '@openfn/language-a';\nexport default [\n(s) => s,\n{operation}];")
}

#[tokio::test]
async fn errors_of_adaptors_are_known_by_their_frames() {
    let repo = Repo::new();
    for adaptor in adaptors(&repo).await {
        let mut bench = Bench::start(&[&adaptor]).await;
        let details = r#"{"message":"not there","statusCode":404,"body":{"a":[1]}}"#;
        for operation in ["fail()", "later()"] {
            let thrown = bench.thrown(&calling(operation)).await;
            assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Adaptor, "not there"), "{operation}");
            assert_eq!((thrown.details.as_deref(), thrown.operation), (Some(details), Some(1)), "{operation}");
            assert_eq!(thrown.position, None, "{operation}");
            assert_eq!(thrown.state.as_deref(), Some("{}"));
        }
        for (operation, origin, name) in [
            ("type()", Origin::Adaptor, "TypeError"),
            ("fn((s) => s.x.y)", Origin::Job, "TypeError"),
            ("fn(() => { throw 'text' })", Origin::Job, ""),
            ("plain()", Origin::Job, ""),
            // As on the reference: nothing of the adaptor is on the stack.
            ("network()", Origin::Job, "Error"),
        ] {
            let thrown = bench.thrown(&calling(operation)).await;
            assert_eq!((thrown.origin, thrown.name.as_str()), (origin, name), "{operation}: {thrown:?}");
        }
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_the_job() {
    let repo = Repo::new();
    for adaptor in adaptors(&repo).await {
        for (operation, message) in [
            ("leak()", "nobody waits"),
            ("reject()", "nobody handles"),
            (
                "fn(() => { setTimeout(() => { throw new Error('of a timer') }, 1); return new Promise(() => {}); })",
                "of a timer",
            ),
            ("fn((s) => { Promise.reject(new Error('at the end')); return s; })", "at the end"),
            ("fn((s) => { setTimeout(async () => { throw 'text' }, 1); return new Promise(() => {}); })", "text"),
        ] {
            let mut bench = Bench::start(&[&adaptor]).await;
            let thrown = bench.thrown(&calling(operation)).await;
            assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Uncaught, message), "{operation}");
        }
        // Thrown when the job is over: whatever comes next is told.
        let mut bench = Bench::start(&[&adaptor]).await;
        bench.result(&calling("behind()")).await;
        let code = "export default [() => new Promise(() => {})];";
        assert_eq!(bench.thrown(code).await.origin, Origin::Uncaught);
    }
}

#[tokio::test]
async fn a_rejection_that_is_handled_later_is_none() {
    let mut bench = Bench::start(&[]).await;
    let code = "export default [async () => { const p = Promise.reject(new Error('x')); await null; try { await p } catch (e) { return { m: e.message } } }];";
    assert_eq!(bench.result(code).await, r#"{"m":"x"}"#);
}

#[tokio::test]
async fn a_defer_has_the_state_in_its_handler() {
    let mut bench = Bench::start(&[]).await;
    let code = "import { _defer } from '@openfn/runtime';
        export default [_defer(() => { throw new Error('x') }, undefined, (e, s) => ({ m: e.message, s })), _defer((s) => s, (p) => p.then((s) => ({ ...s, then: 1 })))];";
    let Ok(JobEnd::Returned(result)) = bench.run(job_with(code, &[], r#"{"a":1}"#)).await else { panic!() };
    assert_eq!(text(result.state), r#"{"m":"x","s":{"a":1},"then":1}"#);
}

#[tokio::test]
async fn a_job_cannot_make_its_errors_look_like_an_adaptors() {
    let mut bench = Bench::start(&[]).await;
    for code in [
        "Error.prepareStackTrace = () => 'Error: x\\n    at get (/repo/a.cjs:1:1)'; export default [() => { throw new Error('x') }];",
        "export default [() => { throw new Error('x\\n    at get (/repo/node_modules/a.cjs:1:1)') }];",
        "const o = { 'get (/repo/a.cjs:1:1)': () => { throw new Error('x') } }; export default [() => o['get (/repo/a.cjs:1:1)']()];",
    ] {
        assert_eq!(bench.thrown(code).await.origin, Origin::Job, "{code}");
    }
}
