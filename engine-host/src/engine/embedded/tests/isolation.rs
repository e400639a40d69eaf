//! What job code can try, and cannot.

use super::*;
use crate::engine::Origin;

#[test]
fn globals_are_the_languages_and_ours() {
    let code = "export default [() => ({ names: Object.getOwnPropertyNames(globalThis).sort() })]";
    let Ok(JobEnd::Returned(result)) = Bench::new().run(module(code, "{}")) else { panic!("it returns") };
    let names: serde_json::Value = result.state.unwrap().decode().unwrap();
    let names: Vec<&str> = names["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let ours = ["Buffer", "clearInterval", "clearTimeout", "console", "setInterval", "setTimeout", "meta", "state"];
    for name in ours {
        assert!(names.contains(&name), "{name}");
    }
    let foreign: Vec<&&str> = names.iter().filter(|name| !ours.contains(name) && !LANGUAGE.contains(name)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// The globals of a bare V8 context that this engine may have.
const LANGUAGE: [&str; 67] = [
    "AggregateError",
    "Array",
    "ArrayBuffer",
    "AsyncDisposableStack",
    "Atomics",
    "BigInt",
    "BigInt64Array",
    "BigUint64Array",
    "Boolean",
    "DataView",
    "Date",
    "DisposableStack",
    "Error",
    "EvalError",
    "FinalizationRegistry",
    "Float16Array",
    "Float32Array",
    "Float64Array",
    "Function",
    "Infinity",
    "Int16Array",
    "Int32Array",
    "Int8Array",
    "Iterator",
    "JSON",
    "Map",
    "Math",
    "NaN",
    "Number",
    "Object",
    "Promise",
    "Proxy",
    "RangeError",
    "ReferenceError",
    "Reflect",
    "RegExp",
    "Set",
    "SharedArrayBuffer",
    "String",
    "SuppressedError",
    "Symbol",
    "SyntaxError",
    "TypeError",
    "URIError",
    "Uint16Array",
    "Uint32Array",
    "Uint8Array",
    "Uint8ClampedArray",
    "WeakMap",
    "WeakRef",
    "WeakSet",
    "decodeURI",
    "decodeURIComponent",
    "encodeURI",
    "encodeURIComponent",
    "escape",
    "eval",
    "globalThis",
    "isFinite",
    "isNaN",
    "parseFloat",
    "parseInt",
    "undefined",
    "unescape",
    "Intl",
    "WebAssembly",
    "console",
];

/// Breaks everything that can be broken, and keeps what it is called with in `seen`.
const VANDAL: &str = "
    const seen = [];
    const spied = new Set();
    for (const owner of [Array, Array.prototype, Promise, Promise.prototype, JSON, Function.prototype, Object, Object.prototype,
        Reflect, Map.prototype, Set.prototype, WeakMap.prototype, RegExp.prototype, String, String.prototype, Error, Error.prototype,
        Symbol, Uint8Array, Uint8Array.prototype, Object.getPrototypeOf(Uint8Array.prototype), Number.prototype, console,
        Object.getPrototypeOf([][Symbol.iterator]()), Object.getPrototypeOf(new Map().values()), Object.getPrototypeOf(function* () {}).prototype]) {
        for (const key of Reflect.ownKeys(owner)) {
            const { value, configurable, writable } = Object.getOwnPropertyDescriptor(owner, key);
            if (typeof value !== 'function' || !(configurable || writable) || key === 'constructor') continue;
            spied.add([owner, key]);
        }
    }
    const { defineProperty } = Object;
    const { apply } = Reflect;
    let active = false;
    const watch = (self, values) => { if (active) { active = false; seen[seen.length] = { self, values }; active = true } };
    const trap = () => {
        for (const [owner, key] of spied) {
            const original = owner[key];
            defineProperty(owner, key, { __proto__: null, value: function (...values) { watch(this, values); return apply(original, this, values) }, configurable: true, writable: true });
        }
        for (const key of ['0', '1', 'state', 'thrown', 'value', 'get', 'toJSON', 'origin', 'name', 'callback', 'reason', 'then', 'isError', 'console', 'adaptors']) {
            defineProperty(Object.prototype, key, { __proto__: null, get() { watch(this, [key]); return undefined }, set(v) { watch(this, [key, v]); defineProperty(this, key, { __proto__: null, value: v, configurable: true, writable: true, enumerable: true }) }, configurable: true });
        }
        active = true;
    };
";

#[test]
fn the_prelude_uses_nothing_that_a_job_can_change() {
    for (body, expected) in [
        (
            "return { data: { a: [1, 'x'], d: new Date(0) } }",
            r#"{"data":{"a":[1,"x"],"d":"1970-01-01T00:00:00.000Z"}}"#,
        ),
        ("console.log('x', { a: [1] }, new Error('e')); return { ok: 1 }", r#"{"ok":1}"#),
        (
            "const loop = {}; loop.loop = loop; loop.big = 1n; return { loop }",
            r#"{"loop":{"loop":"[Circular]","big":"1"}}"#,
        ),
        (
            "const loop = {}; loop.loop = loop; for (const name of ['Set', 'Map', 'JSON', 'Reflect', 'Object', 'Array']) delete globalThis[name]; return { loop }",
            r#"{"loop":{"loop":"[Circular]"}}"#,
        ),
        ("await new Promise(resolve => setTimeout(resolve, 1)); return { ok: 1 }", r#"{"ok":1}"#),
    ] {
        let code = format!("{VANDAL} export default [async () => {{ trap(); {body} }}]");
        let mut bench = Bench::new();
        match bench.run(module(&code, "{}")) {
            Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), expected, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
        assert!(bench.lines().iter().all(|line| line == r#"JOB info ["x",{"a":[1]},{ "name":"Error","message":"e"}]"#));
    }
    let code = format!("{VANDAL} export default [async () => {{ trap(); throw new TypeError('as it is') }}]");
    let thrown = thrown(&code);
    assert_eq!((thrown.origin, thrown.name.as_str(), thrown.message.as_str()), (Origin::Job, "TypeError", "as it is"));
    assert!(thrown.position.is_some());
}

#[test]
fn no_trick_keeps_what_is_taken_out_of_the_state() {
    let spy = "const spy = { set(v) { globalThis.stolen = v }, get() { return undefined }, configurable: true };";
    let state = r#"{"configuration":{"password":"hush"},"data":{}}"#;
    for (trick, operation) in [
        ("Object.defineProperty(Array.prototype, '0', spy)", "s => ({ ...s, stolen: globalThis.stolen })"),
        ("Object.defineProperty(Object.prototype, '0', spy)", "s => ({ ...s, stolen: globalThis.stolen })"),
        ("Object.prototype.hasOwnProperty = Object.hasOwn = () => false", "s => ({ ...s })"),
        ("", "s => ({ toJSON: () => s })"),
        (
            "",
            "s => new Proxy(s, { getOwnPropertyDescriptor: (t, k) => (t.looked ??= new Set()).has(k) ? Reflect.getOwnPropertyDescriptor(t, k) : void t.looked.add(k) })",
        ),
        (
            "",
            "s => { s.toJSON = () => ({ ...s, toJSON: 1 }); const all = { ...s }; delete s.configuration; s.toJSON = () => all; throw new Error() }",
        ),
    ] {
        let end = Bench::new().run(module(&format!("{spy} {trick}; export default [{operation}]"), state));
        let left = match &end {
            Ok(JobEnd::Returned(result)) => text(result.state.clone()),
            Ok(JobEnd::Threw(thrown)) => thrown.state.clone().expect("the state as it is"),
            lost => panic!("{trick} {operation}: {lost:?}"),
        };
        assert!(left.starts_with('{') && !left.contains("hush"), "{trick} {operation}: {left}");
    }
}

#[test]
fn a_jobs_spies_never_see_what_is_the_engines() {
    // Whatever the spies saw while the engine worked (console, timers, errors, imports), none of it does a thing that
    // the job could not do before.
    let code = format!(
        "{VANDAL} export default [async () => {{
        trap();
        console.log('x', {{ a: [1n] }}, new Error('e'));
        await new Promise(resolve => setTimeout(resolve, 1));
        try {{ null.x }} catch (e) {{ e.stack }}
        try {{ eval('1') }} catch {{}}
        await import('fs').catch(() => {{}});
        active = false;
        const found = [];
        const look = (value, depth) => {{
            if (depth > 4 || value === null || (typeof value !== 'object' && typeof value !== 'function')) return;
            for (const key of Reflect.ownKeys(value)) {{
                if (['log', 'wants', 'token', 'lacking', 'now', 'thrown', 'refused', 'rejected', 'outcome', 'begin'].includes(key) && value !== console) found.push(String(key));
                let inner; try {{ inner = value[key] }} catch {{ continue }}
                look(inner, depth + 1);
            }}
        }};
        for (const call of seen) {{ look(call.self, 0); look(call.values, 0) }}
        return {{ found: [...new Set(found)].sort() }};
    }}]"
    );
    match Bench::new().run(module(&code, "{}")) {
        Ok(JobEnd::Returned(result)) => {
            let found = text(result.state);
            assert!(found == r#"{"found":[]}"# || found == r#"{"found":["log"]}"#, "{found}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_the_engine_can_be_found() {
    let code = "export default [() => {
        const seen = new Set(); const found = [];
        const look = (value, path) => {
            if (value === null || (typeof value !== 'object' && typeof value !== 'function') || seen.has(value)) return;
            seen.add(value);
            for (const key of Reflect.ownKeys(value)) {
                if (['wants', 'token', 'lacking', 'refused', 'rejected', 'outcome', 'begin', 'host'].includes(key)) found.push(path + '.' + String(key));
                const { value: inner, get, set } = Object.getOwnPropertyDescriptor(value, key);
                for (const next of [inner, get, set]) look(next, path + '.' + String(key));
            }
            look(Object.getPrototypeOf(value), path + '.__proto__');
        };
        look(globalThis, 'globalThis');
        try { null.x } catch (e) { look(e, 'error'); if (/#|prelude/.test(e.stack)) found.push(e.stack) }
        try { console.log.call(); setTimeout(5) } catch (e) { if (/#|prelude/.test(e.stack)) found.push(e.stack) }
        const holder = {}; Error.captureStackTrace(holder); if (/#|prelude/.test(holder.stack)) found.push(holder.stack);
        Error.prepareStackTrace = (e, frames) => { found.push('frames'); return 'forged' };
        if (new Error('x').stack === 'forged') found.push('prepareStackTrace');
        return { found };
    }]";
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"found":[]}"#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn functions_that_refuse_code_look_native() {
    let code = "export default [() => ({ wrong: [Function, eval, (async () => {}).constructor].map(f => [f.name, f.length, String(f)])
        .filter(([name, length, text]) => length !== 1 || !text.startsWith(`function ${name}()`) || !text.includes('[native code]')),
        is: (() => {}) instanceof Function && Function.prototype === Object.getPrototypeOf(() => {}) })]";
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"wrong":[],"is":true}"#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_cannot_pass_for_what_they_are_not() {
    let forgeries = [
        "throw Object.assign(new Error('m'), { origin: 'adaptor', stack: 'Error: m\\n    at f (@openfn/language-common:1:1)' })",
        "throw Object.assign(new Error('m'), { name: 'ImportError' })",
        "throw Object.assign(new Error('m'), { name: 'InvalidExportsError', origin: 'exports' })",
        "throw new EvalError('Code generation from strings disallowed for this context')",
        "throw new SyntaxError(\"Could not find export 'x' in module '@openfn/language-common'\")",
        "const f = () => { throw new Error('m') }; Object.defineProperty(f, 'name', { value: 'f (@openfn/language-common#0:1:1)\\n    at g' }); f()",
        "const e = new Error('m'); e.stack = 'at @openfn/language-common#0123456789abcdef:1:1'; throw e",
        "Error.prepareStackTrace = () => '    at f (@openfn/language-common:1:1)'; throw new Error('m')",
        "Object.defineProperty(Error.prototype, 'stack', { get: () => '    at f (@openfn/language-common:1:1)' }); throw new Error('m')",
        "throw { __proto__: Error.prototype, name: 'ImportError', message: 'm' }",
        "throw new Proxy(new Error('m'), { get: (t, k) => k === 'name' ? 'ImportError' : t[k] })",
        "Error.stackTraceLimit = 0; throw new Error('m')",
        "throw '{\"origin\":\"import\"}'",
        "throw { toJSON: () => ({ origin: 'import' }) }",
    ];
    for forgery in forgeries {
        let thrown = thrown(&format!("export default [() => {{ {forgery} }}]"));
        assert_eq!(thrown.origin, Origin::Job, "{forgery}: {thrown:?}");
    }
}

#[test]
fn describing_a_thrown_value_never_fails() {
    for value in [
        "new Proxy({}, { get() { throw 1 }, getPrototypeOf() { throw 2 }, ownKeys() { throw 3 }, has() { throw 4 } })",
        "new Proxy(function () {}, { get() { throw 1 }, getPrototypeOf() { throw 2 } })",
        "Object.create(null)",
        "Object.assign(Object.create(null), { message: {} })",
        "{ get message() { throw 1 }, toJSON() { throw 2 }, toString() { throw 3 } }",
        "Object.defineProperty(new Error('m'), 'message', { get() { throw 1 } })",
        "Object.defineProperty(new Error('m'), 'name', { get() { throw 1 } })",
        "Object.assign(new Error('m'), { name: 5 })",
        "Object.assign(new Error('m'), { name: { toString() { throw 1 } } })",
        "Object.assign(new Error('m'), { message: Symbol('x') })",
        "new Error('\\ud800')",
        "(() => { const e = new Error('m'); e.e = e; return e })()",
        "class X {}",
        "new Error('x'.repeat(1e6))",
    ] {
        let thrown = thrown(&format!("const v = {value}; export default [() => {{ throw v }}]"));
        assert_eq!(thrown.origin, Origin::Job, "{value}");
    }
}

#[test]
fn nothing_is_left_for_the_next_job() {
    let mut bench = Bench::new();
    let first = "globalThis.leak = 1; Array.prototype.leak = 2; Object.prototype.leak = 3; console.leak = 4;
        setInterval(() => console.log('from the first'), 1);
        const again = () => Promise.resolve().then(() => { console.log('job'); return new Promise(r => setTimeout(r, 1)) }).then(again); again();
        import('@openfn/language-common').then(m => { m.fn.leak = 5 });
        export default [async s => { await new Promise(r => setTimeout(r, 3)); return s }]";
    assert!(matches!(bench.run(module(first, "{}")), Ok(JobEnd::Returned(_))));
    bench.lines();
    let second = "import { fn } from '@openfn/language-common';
        export default [async () => { await new Promise(r => setTimeout(r, 10)); return { leaks: [globalThis.leak, [].leak, ({}).leak, console.leak, fn.leak].map(l => typeof l) } }]";
    match bench.run(module(second, "{}")) {
        Ok(JobEnd::Returned(result)) => {
            assert_eq!(text(result.state), format!("{{\"leaks\":[{}]}}", [r#""undefined""#; 5].join(",")))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.lines(), Vec::<String>::new());
}

#[test]
fn a_job_cannot_log_as_another_source() {
    let mut bench = Bench::new();
    let code = "import * as common from '@openfn/language-common'; import { log } from '@openfn/language-common';
        export default [s => {
            console.log.call({ source: 'R/T' }, 'one'); Reflect.apply(console.log, 'ADA', ['two']);
            console.constructor?.log?.('no'); import.meta.console?.log('no');
            try { common.console.log('no') } catch {}
            return s;
        }]";
    bench.run(module(code, "{}")).unwrap();
    assert_eq!(bench.lines(), [r#"JOB info ["one"]"#, r#"JOB info ["two"]"#]);
}

#[test]
fn imports_are_for_the_whitelist_only() {
    for (code, ok) in [
        ("import { fn } from '@openfn/language-common@1.0.0'; export default [fn(s => s)]", true),
        (
            "export default [async s => { const { fn } = await import('@openfn/language-common'); return fn(s => s)(s) }]",
            true,
        ),
        ("import '@openfnord/language-common'; export default []", false),
        ("import './job'; export default []", false),
        ("import 'job'; export default []", false),
        ("import 'prelude'; export default []", false),
        ("import * as std from 'std'; export default []", false),
        ("import * as os from 'os'; export default []", false),
        ("import x from '@openfn/language-common' with { type: 'json' }; export default []", false),
        ("import x from 'data:text/javascript,export default 1'; export default []", false),
        ("export * from '/etc/passwd'; export default []", false),
    ] {
        match Bench::new().run(module(code, "{}")) {
            Ok(JobEnd::Returned(_)) => assert!(ok, "{code}"),
            Ok(JobEnd::Threw(thrown)) => assert_eq!((ok, thrown.origin), (false, Origin::Import), "{code}: {thrown:?}"),
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[test]
fn conditions_see_the_state_and_nothing_else() {
    let state = r#"{"data":{"n":5},"errors":{"b":{}}}"#;
    for (expression, expected) in [
        ("state.data.n > 3", true),
        ("state.data.n > 3 && upstreamStepId === 'up'", true),
        ("!state.errors[upstreamStepId]", true),
        ("state.nope", false),
        ("''", false),
        ("({})", true),
        ("{}", true),
        ("{ a: 1, b: 2 }", true),
        ("function () {}", true),
        ("state.data.n;", true),
        ("!state.data.n; // a comment", false),
        ("typeof console === 'undefined' && typeof setTimeout === 'undefined' && typeof Buffer === 'undefined'", true),
        ("(state.data.n = 0, state.data.n)", false),
        ("state.data.n // a comment", true),
        ("state.data.items?.some(i => i.ok) ?? false", false),
    ] {
        assert_eq!(Bench::new().test(expression, state), Ok(ConditionEnd::Value(expected)), "{expression}");
    }
    let mut bench = Bench::new();
    assert_eq!(bench.test("(state.data.n = 0, globalThis.leak = 1)", state), Ok(ConditionEnd::Value(true)));
    assert_eq!(bench.test("state.data.n === 5 && typeof leak === 'undefined'", state), Ok(ConditionEnd::Value(true)));
}

#[test]
fn a_spy_in_a_condition_never_sees_what_is_the_engines() {
    let names = "['isError', 'console', 'adaptors', 'then', 'toJSON', 'get', 'value', 'thrown', 'state']";
    let expression = format!(
        "(() => {{
            const seen = [];
            const spy = {{ __proto__: null, get() {{ seen.push(this); return undefined }}, set() {{ seen.push(this) }}, configurable: true }};
            for (const name of {names}) Object.defineProperty(Object.prototype, name, spy);
            try {{ null.x }} catch (e) {{ e.stack }}
            for (const name of {names}) delete Object.prototype[name];
            return seen.some(it => it?.token !== undefined || typeof it?.log === 'function');
        }})()"
    );
    assert_eq!(Bench::new().test(&expression, "{}"), Ok(ConditionEnd::Value(false)));
}

#[test]
fn conditions_that_throw() {
    for (expression, origin, name) in [
        ("state.nope.deep", Origin::Job, "TypeError"),
        ("eval('1')", Origin::Evaluation, "EvalError"),
        ("(() => {}).constructor('return 1')()", Origin::Evaluation, "EvalError"),
        ("new Function('return 1')", Origin::Evaluation, "EvalError"),
        ("state.", Origin::Job, "SyntaxError"),
        ("console.log(1)", Origin::Job, "ReferenceError"),
    ] {
        match Bench::new().test(expression, "{}") {
            Ok(ConditionEnd::Threw(thrown)) => {
                assert_eq!((thrown.origin, thrown.name.as_str()), (origin, name), "{expression}")
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
}
