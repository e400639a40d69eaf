//! Jobs that try to reach the engine, to pass for what they are not, or to leave it in a state that it cannot handle.

use super::*;
use crate::engine::Origin;

/// How a job of this one operation ends: its state as text, or the origin and the message of what it threw.
fn ended(operation: &str) -> String {
    match Bench::new().run(module(&format!("export default [async state => {{ {operation} }}]"), r#"{"data":1}"#)) {
        Ok(JobEnd::Returned(result)) => text(result.state),
        Ok(JobEnd::Threw(thrown)) => format!("{:?}: {}", thrown.origin, thrown.message),
        Ok(JobEnd::TooLarge) => "too large".to_owned(),
        Err(lost) => format!("lost: {lost}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (operation, expected) in cases {
        assert_eq!(ended(operation), *expected, "{operation}");
    }
}

#[test]
fn modules_of_the_engine_cannot_be_imported_by_any_name() {
    let refused = |name: &str| format!("Import: module blacklisted: {name}");
    for name in [
        "prelude",
        "prelude#placeholder-here",
        "globals",
        "job",
        "node:fs",
        "fs",
        "@openfn/../prelude",
        "data:text/javascript,1",
    ] {
        assert_eq!(ended(&format!("return await import('{name}')")), refused(name));
    }
    check(&[
        ("return await import({ toString: () => 'fs' })", "Import: module blacklisted: fs"),
        (
            "let calls = 0; return await import({ toString: () => calls++ ? 'prelude' : 'fs' })",
            "Import: module blacklisted: fs",
        ),
        ("return { meta: Object.keys(import.meta) }", r#"{"meta":[]}"#),
        ("const m = await import('@openfn/language-common'); m.fn = 1; return {}", "Job: 'fn' is read-only"),
    ]);
}

#[test]
fn no_constructor_makes_code_from_text() {
    for constructor in [
        "(() => {}).constructor",
        "(async () => {}).constructor",
        "(function* () {}).constructor",
        "(async function* () {}).constructor",
        "Object.getPrototypeOf(async function* () {}).constructor",
        "Reflect.get(Object.getPrototypeOf(Reflect.ownKeys), 'constructor')",
        "class extends Function {}",
        "console.log.constructor",
        "Buffer.from.constructor",
        "setTimeout.constructor",
    ] {
        let expected = "Evaluation: Code generation from strings disallowed for this context";
        assert_eq!(ended(&format!("return new ({constructor})('return 1')()")), expected, "{constructor}");
    }
}

#[test]
fn changed_prototypes_change_neither_the_result_nor_the_errors() {
    check(&[
        ("Object.prototype.toJSON = () => 'forged'; return { data: 2 }", r#""forged""#),
        ("Object.prototype.then = undefined; return { data: 2 }", r#"{"data":2}"#),
        ("Promise.prototype.then = () => { throw new Error('mine') }; return { data: 2 }", "Job: mine"),
        (
            "Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('mine') } }); return { data: 2 }",
            "Job: mine",
        ),
        ("JSON.stringify = () => '{\"forged\":1}'; return { data: 2 }", r#"{"data":2}"#),
        ("Object.keys = Object.hasOwn = Reflect.apply = () => { throw 1 }; return { data: 2 }", r#"{"data":2}"#),
        ("Array.prototype[Symbol.iterator] = () => { throw 1 }; return { data: 2 }", r#"{"data":2}"#),
        ("Map.prototype.values = () => [{ reason: 'forged' }].values(); return { data: 2 }", r#"{"data":2}"#),
        ("Object.defineProperty(Object.prototype, 'thrown', { get: () => '{}' }); return { data: 2 }", r#"{"data":2}"#),
        (
            "Object.defineProperty(Object.prototype, 'webhookResponse', { value: 1 }); return { data: 2 }",
            r#"{"data":2}"#,
        ),
        (
            "Object.setPrototypeOf(globalThis, new Proxy({}, { get() { throw 1 } })); return { data: 2 }",
            r#"{"data":2}"#,
        ),
        (
            "RegExp.prototype.exec = () => ['', 'f', '@openfn/language-common', '1', '1']; throw new Error('m')",
            "Job: m",
        ),
        ("String.prototype.slice = String.prototype.endsWith = () => true; throw new Error('m')", "Job: m"),
        ("WeakMap.prototype.get = () => 'import'; throw new Error('m')", "Job: m"),
        (
            "Error.isError = () => false; Object.defineProperty(Error, Symbol.hasInstance, { value: () => false }); throw new Error('m')",
            "Job: m",
        ),
    ]);
}

#[test]
fn states_that_fight_back_are_the_jobs_own_errors() {
    check(&[
        ("return new Proxy({ data: 2 }, {})", r#"{"data":2}"#),
        ("return new Proxy({}, { ownKeys() { throw new Error('mine') } })", "Job: mine"),
        ("return new Proxy({}, { getOwnPropertyDescriptor() { throw new Error('mine') } })", "Job: mine"),
        ("return { get data() { throw new Error('mine') } }", "Job: mine"),
        ("return { toJSON() { throw new Error('mine') } }", "Job: mine"),
        ("return { data: { toJSON: () => ({ a: 1 }) } }", r#"{"data":{"a":1}}"#),
        ("return { [Symbol.toPrimitive]() { throw 1 }, data: 2 }", r#"{"data":2}"#),
        ("return { data: Object(Symbol('x')) }", r#"{"data":{}}"#),
        ("const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return { data: proxy }", "Job: revoked proxy"),
        ("return { then: 5, data: 2 }", r#"{"then":5,"data":2}"#),
        ("return { then(resolve) { resolve({ data: 3 }); resolve({ data: 4 }) } }", r#"{"data":3}"#),
        ("return Object.freeze({ configuration: 'secret', data: 2 })", r#"{"data":2}"#),
        ("return { data: 2, toJSON() { return { configuration: 'secret', data: 3 } } }", r#"{"data":3}"#),
        ("return { data: 'x'.repeat(2 ** 30) }", "Job: Invalid string length"),
    ]);
    let deep = "let data = {}; for (let i = 0; i < 1e5; i += 1) data = { data }; return { data }";
    assert!(ended(deep).starts_with("Job: "), "{}", ended(deep));
}

#[test]
fn a_job_cannot_end_itself_in_the_engines_name() {
    check(&[
        (
            "try { await import('fs') } catch (e) { return { name: e.name, message: e.message } }",
            r#"{"name":"ImportError","message":"module blacklisted: fs"}"#,
        ),
        ("try { await import('fs') } catch (e) { throw new e.constructor(e.message) }", "Job: module blacklisted: fs"),
        (
            "try { eval('1') } catch (e) { throw Object.create(e) }",
            "Job: Code generation from strings disallowed for this context",
        ),
    ]);
    let named = "const f = { ['x (@openfn/language-common:1:1)\\n    at y'](){ throw new Error('m') } };";
    for forgery in [
        format!("{named} Object.values(f)[0]()"),
        "const f = () => { throw new Error('m') }; Object.defineProperty(f, 'name', { value: ') (prelude:1:1)' }); f()".into(),
        "const e = new Error('m'); Error.captureStackTrace(e); e.stack += '\\n at @openfn/language-common:1:1'; throw e".into(),
        "class E extends Error { get stack() { return '    at f (@openfn/language-common:1:1)' } } throw new E('m')".into(),
        "[1].map(() => { throw new Error('m') })".into(),
    ] {
        let thrown = thrown(&format!("export default [() => {{ {forgery} }}]"));
        assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Job, "m"), "{forgery}");
    }
}
