//! What jobs and conditions see, and what they leave.

use super::*;

#[tokio::test]
async fn a_job_makes_a_state_of_a_state() {
    let mut bench = Bench::start(&[]).await;
    assert_eq!(bench.engine.version(), ("node".to_owned(), version()));
    let call = job_with(
        "export default [async (s) => ({ ...s, b: 2 }), (s) => ({ ...s, c: s.b + 1, configuration: { secret: 1 }, webhookResponse: { ok: true } })]",
        &[],
        r#"{"a":1}"#,
    );
    let Ok(JobEnd::Returned(result)) = bench.run(call).await else { panic!("it returns") };
    assert_eq!(text(result.state), r#"{"a":1,"b":2,"c":3}"#);
    assert_eq!(text(result.webhook_response), r#"{"ok":true}"#);
    assert!(bench.engine.peak_heap_bytes().unwrap() > MB);
}

#[tokio::test]
async fn results_are_what_json_makes_of_them() {
    let mut bench = Bench::start(&[]).await;
    for (returned, expected) in [
        ("undefined", "undefined"),
        ("null", "null"),
        ("5", "5"),
        ("'x'", r#""x""#),
        (
            "({ a: NaN, b: undefined, c: () => 1, d: new Date(0), e: 10n })",
            r#"{"a":null,"d":"1970-01-01T00:00:00.000Z","e":"10"}"#,
        ),
        ("({ bytes: new Uint8Array([1, 2]) })", r#"{"bytes":{"0":1,"1":2}}"#),
        ("({ buffer: Buffer.from('a') })", r#"{"buffer":{"type":"Buffer","data":[97]}}"#),
        ("({ toJSON: () => ({ x: 1 }) })", r#"{"x":1}"#),
        ("(() => { const a = { b: {} }; a.b.c = a; return a; })()", r#"{"b":{"c":"[Circular]"}}"#),
        ("Object.freeze({ a: 1, configuration: { secret: 'x' }, response: 1 })", r#"{"a":1}"#),
        ("new Proxy({ configuration: 1 }, { deleteProperty: () => true })", "{}"),
        // Text that is none is mended where it is read.
        ("({ text: '\\ud800 ü' })", r#"{"text":"\ufffd ü"}"#),
    ] {
        assert_eq!(bench.result(&format!("export default [() => {returned}];")).await, expected, "{returned}");
    }
}

#[tokio::test]
async fn the_globals_are_those_of_every_engine() {
    let mut bench = Bench::start(&[]).await;
    let code = "const known = new Set(Object.getOwnPropertyNames(globalThis));
        const absent = ['process', 'require', 'fetch', 'global', 'URL', 'structuredClone', 'TextEncoder', 'crypto', 'AbortController', 'queueMicrotask', 'module'];
        const present = ['console', 'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'parseInt', 'parseFloat', 'Buffer', 'state', 'Intl', 'globalThis'];
        export default [(s) => ({
            absent: absent.filter((name) => known.has(name) || name in globalThis),
            present: present.filter((name) => !known.has(name)),
            same: state === s,
        })];";
    assert_eq!(bench.result(code).await, r#"{"absent":[],"present":[],"same":true}"#);
}

#[tokio::test]
async fn meta_can_be_read_and_not_changed() {
    let mut bench = Bench::start(&[]).await;
    let meta = Json::parse(r#"{"runId":"r","startTime":"2026-11-28T10:00:00.000Z","workflowId":"w"}"#).unwrap();
    let call = JobCall { meta, ..job(META) };
    let Ok(JobEnd::Returned(result)) = bench.run(call).await else { panic!("it returns") };
    assert_eq!(
        text(result.state),
        r#"{"thrown":["TypeError","TypeError","TypeError"],"meta":{"runId":"r","startTime":"2026-11-28T10:00:00.000Z","workflowId":"w"}}"#
    );
}

const META: &str = "
    const thrown = (change) => { try { change() } catch (error) { return error.name } };
    export default [() => ({
        thrown: [
            thrown(() => { meta.runId = 'x' }),
            thrown(() => { meta.more = 'x' }),
            thrown(() => { meta = 'x' }),
        ],
        meta,
    })];";

#[tokio::test]
async fn nothing_of_a_job_is_left_for_the_next() {
    let mut bench = Bench::start(&[]).await;
    bench.result("globalThis.left = 1; Object.prototype.left = 2; Array.prototype.map = null; setInterval(() => console.log('tick'), 1); export default [(s) => s];").await;
    let code = "export default [async () => { await new Promise((r) => setTimeout(r, 20)); return { a: typeof left, b: {}.left, c: typeof [].map }; }];";
    assert_eq!(bench.result(code).await, r#"{"a":"undefined","c":"function"}"#);
    assert_eq!(bench.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn timers_fire_repeat_and_are_cleared() {
    let mut bench = Bench::start(&[]).await;
    let code = "export default [() => new Promise((resolve) => {
        const seen = [];
        const never = setTimeout(() => seen.push('never'), 5);
        clearTimeout(never);
        clearTimeout(undefined);
        clearTimeout({});
        let ticks = 0;
        const id = setInterval((x) => { seen.push(x); ticks += 1; if (ticks === 3) { clearInterval(id); setTimeout(resolve, 15, { seen, kind: typeof id }); } }, 1, 't');
    })];";
    assert_eq!(bench.result(code).await, r#"{"seen":["t","t","t"],"kind":"number"}"#);
    assert_eq!(bench.thrown("export default [() => setTimeout(5)];").await.name, "TypeError");
}

#[tokio::test]
async fn buffers_are_nodes_own() {
    let repo = Repo::new();
    let adaptor =
        repo.common_js("@openfn/language-a", "exports.check = (b) => Buffer.isBuffer(b) && b instanceof Uint8Array;");
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { check } from '@openfn/language-a';
        const attempt = (f) => { try { return f(); } catch (e) { return `${e.name} ${e instanceof TypeError}`; } };
        export default [() => ({
            known: check(Buffer.from('a')),
            text: Buffer.from('aGk=', 'base64').toString(),
            of: Buffer.from('x') instanceof Buffer,
            called: attempt(() => Buffer('x')),
            constructed: attempt(() => new Buffer(5)),
            bad: attempt(() => Buffer.from(5)),
            joined: Buffer.concat([Buffer.from('a'), Buffer.from('b')]).toString('hex'),
        })];";
    let expected = r#"{"known":true,"text":"hi","of":true,"called":"TypeError true","constructed":"TypeError true","bad":"TypeError true","joined":"6162"}"#;
    assert_eq!(bench.result(code).await, expected);
}

#[tokio::test]
async fn the_plans_globals_are_there() {
    let mut bench = Bench::start(&[]).await;
    let mut call = job("export default [() => ({ x, y: double(x) })];");
    call.globals = Some("export const x = 4; export const double = (n) => n * 2; export default 1;".into());
    let Ok(JobEnd::Returned(result)) = bench.run(call.clone()).await else { panic!() };
    assert_eq!(text(result.state), r#"{"x":4,"y":8}"#);
    call.globals = Some("throw new Error('bad globals')".into());
    let Ok(JobEnd::Threw(thrown)) = bench.run(call).await else { panic!() };
    assert_eq!((thrown.origin, thrown.message.as_str()), (Origin::Job, "[globals] bad globals"));
}

#[tokio::test]
async fn conditions_see_the_state_and_where_it_comes_from() {
    let mut bench = Bench::start(&[]).await;
    for (expression, expected) in [
        ("state.data.a > 1", true),
        ("state.data.a > 2 // more", false),
        ("upstreamStepId === 'up'", true),
        ("!state.errors?.[upstreamStepId]", true),
        ("typeof process === 'undefined' && typeof console === 'undefined' && typeof Buffer === 'undefined'", true),
        ("'text'", true),
        ("0", false),
    ] {
        let value = bench.test(expression, r#"{"data":{"a":2}}"#).await.unwrap();
        assert_eq!(value, ConditionEnd::Value(expected), "{expression}");
    }
    for (expression, name) in [("nope.x", "ReferenceError"), ("state.a.b", "TypeError"), ("eval('1')", "EvalError")] {
        let Ok(ConditionEnd::Threw(thrown)) = bench.test(expression, "{}").await else { panic!("{expression}") };
        assert_eq!(thrown.name, name, "{expression}");
    }
}
