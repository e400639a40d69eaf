//! What becomes of the state.

use super::*;

#[test]
fn states_are_what_json_makes_of_them() {
    let cases = [
        ("fn(s => s)", r#"{"data":{"x":1}}"#, r#"{"data":{"x":1}}"#),
        (
            "fn(() => ({ f: () => 1, u: undefined, n: null, d: new Date(0), nan: NaN, inf: Infinity, re: /x/g, big: 1e21, neg: -0, m: new Map([[1, 2]]), set: new Set([1]), sym: Symbol('x') }))",
            "{}",
            r#"{"n":null,"d":"1970-01-01T00:00:00.000Z","nan":null,"inf":null,"re":{},"big":1e+21,"neg":0,"m":{},"set":{}}"#,
        ),
        (
            "fn(s => { s.data.self = s.data; s.data.deep = { up: s }; return s; })",
            r#"{"data":{}}"#,
            r#"{"data":{"self":"[Circular]","deep":{"up":"[Circular]"}}}"#,
        ),
        (
            "fn(() => { const shared = { a: 1 }; const loop = []; loop.push(loop); return { one: shared, two: [shared, shared], loop }; })",
            "{}",
            r#"{"one":{"a":1},"two":[{"a":1},{"a":1}],"loop":["[Circular]"]}"#,
        ),
        (
            "fn(() => ({ b: new Uint8Array([1, 2, 255]), buf: Buffer.from('hi') }))",
            "{}",
            r#"{"b":{"0":1,"1":2,"2":255},"buf":{"type":"Buffer","data":[104,105]}}"#,
        ),
        ("fn(() => ({ x: { toJSON() { return 'custom'; } } }))", "{}", r#"{"x":"custom"}"#),
        (
            "fn(() => ({ data: JSON.parse('{\"__proto__\": {\"polluted\": 1}, \"a\": 1}') }))",
            "{}",
            r#"{"data":{"__proto__":{"polluted":1},"a":1}}"#,
        ),
        (
            "fn(s => ({ ...s, back: JSON.stringify(s) }))",
            r#"{"data":{"__proto__":{"p":1}}}"#,
            r#"{"data":{"__proto__":{"p":1}},"back":"{\"data\":{\"__proto__\":{\"p\":1}}}"}"#,
        ),
        (
            "fn(() => ({ n: 12345678901234567890n, loop: { more: [1n] } }))",
            "{}",
            r#"{"n":"12345678901234567890","loop":{"more":["1"]}}"#,
        ),
        ("fn(() => ({ lone: '\\ud800', pair: '\\ud83d\\ude00' }))", "{}", "{\"lone\":\"\\ufffd\",\"pair\":\"😀\"}"),
        (
            "fn(s => ({ ...s, configuration: 1, response: 2 }))",
            r#"{"configuration":{"p":1},"data":{}}"#,
            r#"{"data":{}}"#,
        ),
        ("fn(() => Object.freeze({ configuration: 1, a: 2 }))", "{}", r#"{"a":2}"#),
        ("fn(() => new Proxy({ configuration: 1, a: 2 }, { deleteProperty: () => true }))", "{}", r#"{"a":2}"#),
        ("fn(() => Object.create({ configuration: 1 }, { a: { value: 2, enumerable: true } }))", "{}", r#"{"a":2}"#),
        ("fn(() => new Proxy({ a: [1, new Proxy({ b: 2 }, {})] }, {}))", "{}", r#"{"a":[1,{"b":2}]}"#),
        ("fn(() => 42)", "{}", "42"),
        ("fn(() => 'done')", "{}", r#""done""#),
        ("fn(() => null)", "{}", "null"),
        ("fn(() => 7n)", "{}", r#""7""#),
        ("fn(() => [1, { configuration: 1 }])", "{}", r#"[1,{"configuration":1}]"#),
        ("fn(() => {})", "{}", "undefined"),
        ("fn(() => () => 1)", "{}", "undefined"),
        ("fn(() => Symbol('x'))", "{}", "undefined"),
        ("", r#"{"data":{}}"#, r#"{"data":{}}"#),
        ("fn(() => ({ then: resolve => resolve({ thenable: 1 }) }))", "{}", r#"{"thenable":1}"#),
        ("fn(async () => ({ later: 1 }))", "{}", r#"{"later":1}"#),
        ("fn(() => null), fn(s => ({ t: typeof s, keys: Object.keys(s) }))", "{}", r#"{"t":"object","keys":[]}"#),
        (
            "fn(s => ({ data: { same: s.data === state.data, ...state.data } }))",
            r#"{"data":{"x":1}}"#,
            r#"{"data":{"same":true,"x":1}}"#,
        ),
    ];
    for (operations, state, expected) in cases {
        let result = result(operations, state);
        assert_eq!((text(result.state).as_str(), result.webhook_response), (expected, None), "{operations}");
    }
}

#[test]
fn meta_can_be_read_and_not_changed() {
    let code = "
        const thrown = (change) => { try { change() } catch (error) { return error.name } };
        export default [() => ({
            thrown: [
                thrown(() => { meta.runId = 'x' }),
                thrown(() => { meta.more = 'x' }),
                thrown(() => { meta = 'x' }),
            ],
            meta,
        })];";
    let meta = Json::parse(r#"{"runId":"r","startTime":1795860000000}"#).unwrap();
    let ended = Bench::new().run(JobCall { meta, ..module(code, "{}") });
    let Ok(JobEnd::Returned(result)) = ended else { panic!("{ended:?}") };
    let expected = r#"{"thrown":["TypeError","TypeError","TypeError"],"meta":{"runId":"r","startTime":1795860000000}}"#;
    assert_eq!(text(result.state), expected);
}

#[test]
fn the_webhook_response_is_taken_out() {
    let result = result("fn(s => ({ ...s, webhookResponse: { status: 201, body: { ok: true } } }))", r#"{"data":{}}"#);
    assert_eq!(text(result.state), r#"{"data":{}}"#);
    assert_eq!(text(result.webhook_response), r#"{"status":201,"body":{"ok":true}}"#);
    let hidden = self::result("fn(() => ({ toJSON: () => ({ webhookResponse: 1, data: 2 }) }))", "{}");
    assert_eq!(text(hidden.state), r#"{"data":2}"#);
}

#[test]
fn what_throws_while_the_result_is_read_is_the_jobs_error() {
    for operations in [
        "fn(() => ({ get a() { throw new Error('mine') } }))",
        "fn(() => ({ a: { toJSON() { throw new Error('mine') } } }))",
        "fn(() => ({ get webhookResponse() { throw new Error('mine') } }))",
        "fn(() => new Proxy({}, { ownKeys() { throw new Error('mine') } }))",
        "fn(() => ({ then() { throw new Error('mine') } }))",
    ] {
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(job(operations, "{}")) else { panic!("{operations}") };
        assert_eq!(thrown.message, "mine", "{operations}");
    }
}

#[test]
fn deep_states_are_errors_and_not_crashes() {
    let deep = "fn(() => { let top = {}; for (let i = 0; i < 1e6; i += 1) top = { top }; return top; })";
    let loops = "fn(() => { const top = {}; let at = top; for (let i = 0; i < 1e5; i += 1) at = at.next = {}; at.next = top; return top; })";
    for operations in [deep, loops] {
        let Ok(JobEnd::Threw(thrown)) = Bench::with_memory(1 << 30).run(job(operations, "{}")) else {
            panic!("{operations}")
        };
        assert_eq!((thrown.name.as_str(), thrown.message.as_str()), ("RangeError", "Maximum call stack size exceeded"));
    }
    let input = format!("{{\"data\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
    let Ok(JobEnd::Threw(thrown)) = Bench::with_memory(1 << 30).run(job("fn(s => s)", &input)) else {
        panic!("it throws")
    };
    assert_eq!(thrown.name, "RangeError");
}

#[test]
fn deep_values_take_no_time_by_the_square_of_their_depth() {
    const DEEP: &str = "let deep = {}; for (let i = 0; i < 50000; i += 1) deep = { deep };";
    // Each a hundred times: with the square of the depth a minute would not be enough.
    for each in [
        "try { JSON.stringify(deep) } catch (error) { if (error.name !== 'RangeError') throw error }",
        "try { JSON.stringify(deep, null, 2) } catch (error) { if (error.name !== 'RangeError') throw error }",
        "try { JSON.stringify([deep], (key, value) => value) } catch (error) { if (error.name !== 'RangeError') throw error }",
        "console.log(deep, { deep })",
    ] {
        let operation = format!("fn(s => {{ {DEEP} for (let i = 0; i < 100; i += 1) {{ {each} }} return s; }})");
        let end = Bench::with_memory(1 << 30).run(job(&operation, "{}"));
        assert!(matches!(end, Ok(JobEnd::Returned(_))), "{each}: {end:?}");
    }
    let shallow = "fn(s => { let deep = 1; for (let i = 0; i < 4000; i += 1) deep = [deep]; return { data: deep }; })";
    assert!(matches!(Bench::new().run(job(shallow, "{}")), Ok(JobEnd::Returned(_))), "V8 takes that, too");
}

#[test]
fn json_text_is_made_wherever_there_is_stack() {
    // Far down in a recursion, and from within a `toJSON`.
    let operations = "fn(s => { const down = n => n === 0 ? JSON.stringify({ a: { toJSON: () => JSON.stringify([1]) } }) : down(n - 1);
        return { data: [down(9000), JSON.stringify.name, JSON.stringify.length] }; })";
    let Ok(JobEnd::Returned(result)) = Bench::new().run(job(operations, "{}")) else { panic!("it returns") };
    assert_eq!(text(result.state), r#"{"data":["{\"a\":\"[1]\"}","stringify",3]}"#);
}

#[test]
fn large_states_pass() {
    let operations = "fn(() => ({ data: Array.from({ length: 200000 }, (_, i) => ({ i, name: `item ${i}` })) })), fn(s => ({ data: s.data, n: s.data.length }))";
    let result = match Bench::with_memory(1 << 29).run(job(operations, "{}")) {
        Ok(JobEnd::Returned(result)) => text(result.state),
        other => panic!("{other:?}"),
    };
    assert!(result.len() > 5_000_000 && result.ends_with(r#""n":200000}"#));
}

#[test]
fn an_operation_that_gets_no_state_is_warned_of() {
    let mut bench = Bench::new();
    let end = bench.run(job("fn(() => {}), fn(s => s), fn(() => {})", "{}")).unwrap();
    assert_eq!(end, JobEnd::Returned(JobResult { state: None, webhook_response: None }));
    let lines = bench.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("R/T warn [\"Warning: operation 2 got no state"), "{lines:?}");
}

#[test]
fn a_custom_execute_does_the_chaining() {
    let code = "export const execute = (...operations) => async state => { for (const run of operations.reverse()) state = await run(state); return state; };
        export default [s => ({ order: [...(s.order ?? []), 1] }), s => ({ order: [...(s.order ?? []), 2] })]";
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"order":[2,1]}"#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn deferred_operations() {
    let cases = [
        ("_defer(() => ({ n: 1 }), p => p.then(s => ({ n: s.n + 1 })))", r#"{"n":2}"#),
        (
            "_defer(() => { throw new Error('x') }, undefined, (e, s) => ({ caught: e.message, had: typeof s }))",
            r#"{"caught":"x","had":"object"}"#,
        ),
        (
            "_defer(() => { throw new Error('x') }, p => p.then(s => ({ ...s, then: 1 })), e => ({ caught: e.message }))",
            r#"{"caught":"x","then":1}"#,
        ),
        (
            "_defer(async () => { throw new Error('x') }, p => p.catch(e => ({ chained: e.message })))",
            r#"{"chained":"x"}"#,
        ),
    ];
    for (operation, expected) in cases {
        let code = format!("import {{ _defer }} from '@openfn/runtime';\nexport default [{operation}]");
        match Bench::new().run(module(&code, "{}")) {
            Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), expected, "{operation}"),
            other => panic!("{operation}: {other:?}"),
        }
    }
}

#[test]
fn exports_of_the_globals_module_are_globals() {
    let mut call = module("export default [s => ({ v: double(4), c: K, hidden: typeof local })]", "{}");
    call.globals = Some(
        "export const double = x => x * 2; export const K = await Promise.resolve('const'); const local = 1;"
            .to_owned(),
    );
    match Bench::new().run(call.clone()) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"v":8,"c":"const","hidden":"undefined"}"#),
        other => panic!("{other:?}"),
    }
    call.globals = Some("throw new Error('broken globals')".to_owned());
    let Ok(JobEnd::Threw(thrown)) = Bench::new().run(call) else { panic!("it throws") };
    assert_eq!((thrown.message.as_str(), thrown.position), ("[globals] broken globals", None));
}

include!("../../../../tests/data/undeclared.rs");

#[test]
fn a_function_assigned_to_an_undeclared_name_becomes_a_global_and_nothing_else_does() {
    for (code, expected) in UNDECLARED {
        let code = undeclared_job(code);
        let compiled = crate::compile::compile_for(&code, &[], crate::compile::Places::Few).unwrap();
        let found = match Bench::new().run(module(&compiled.code, "{}")) {
            Ok(JobEnd::Returned(result)) => Ok(text(result.state)),
            Ok(JobEnd::Threw(thrown)) => Err(format!("{}: {}", thrown.name, thrown.message)),
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{code}");
    }
}

#[test]
fn what_new_makes_is_made_anew() {
    for made in [
        "new (new A().constructor)()",
        "new (new A()['constructor'])()",
        "new new A().constructor()",
        "new (new (new A().constructor)().constructor)()",
        "new (new A().self.constructor)()",
        "new ((() => A)())()",
        "new (new A().made().constructor)()",
        "new (new (class { constructor() { this.B = A; } })().B)()",
    ] {
        let class = "class A { get self() { return this; } made() { return new A(); } constructor() { this.x = 1; } }";
        let code = format!("{class}\nfn(() => ({{ data: {made} }}));");
        let adaptor = crate::compile::Adaptor { specifier: "@openfn/language-common@3.3.4", exports: None };
        let compiled = crate::compile::compile_for(&code, &[adaptor], crate::compile::Places::Few).unwrap();
        match Bench::new().run(module(&compiled.code, "{}")) {
            Ok(JobEnd::Returned(result)) => {
                assert_eq!(result.state.as_ref().map(Json::as_str), Some(r#"{"data":{"x":1}}"#), "{made}");
            }
            other => panic!("{made}: {other:?}\n{}", compiled.code),
        }
    }
}
