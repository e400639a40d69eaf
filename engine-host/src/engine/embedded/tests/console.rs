//! What the consoles log.

use protocol::run::{LogLevel, LogSource};

use super::*;

/// The lines that a statement logs.
fn logged(statement: &str, state: &str) -> Vec<String> {
    let mut bench = Bench::new();
    let end = bench.run(job(&format!("fn(s => {{ {statement}; return s; }})"), state));
    assert!(matches!(end, Ok(JobEnd::Returned(_))), "{statement}: {end:?}");
    bench.lines()
}

#[test]
fn levels() {
    let lines = logged(
        "for (const l of ['debug', 'log', 'info', 'print', 'success', 'always', 'warn', 'error']) console[l](l)",
        "{}",
    );
    let expected = [
        "debug [\"debug\"]",
        "info [\"log\"]",
        "info [\"info\"]",
        "info [\"print\"]",
        "success [\"success\"]",
        "always [\"always\"]",
        "warn [\"warn\"]",
        "error [\"error\"]",
    ];
    assert_eq!(lines, expected.map(|line| format!("JOB {line}")));
}

#[test]
fn values() {
    let cases = [
        (
            "console.log('a', 1, true, null, undefined, { x: { y: [1, { z: 2 }] } }, [1])",
            r#"["a",1,true,null,null,{"x":{"y":[1,{"z":2}]}},[1]]"#,
        ),
        ("console.log(undefined)", "[null]"),
        ("console.log(s => s)", "[null]"),
        ("console.log(Symbol('q').toString(), Symbol('q'))", r#"["Symbol(q)",null]"#),
        ("console.log(new TypeError('err'))", r#"[{ "name":"TypeError","message":"err"}]"#),
        ("console.log({ e: [new Error('in')] })", r#"[{"e":[{"name":"Error","message":"in"}]}]"#),
        (
            "console.log(Object.assign(new Error('axios'), { config: { auth: 1 }, toJSON() { return { stack: 1 } } }))",
            r#"[{ "name":"Error","message":"axios"}]"#,
        ),
        ("const o = { a: 1 }; o.o = o; console.log(o)", r#"[{"a":1,"o":"[Circular]"}]"#),
        ("console.log(5n, { n: 5n }, NaN, new Date(0))", r#"["5",{"n":"5"},null,"1970-01-01T00:00:00.000Z"]"#),
        ("console.log(s)", r#"[{"configuration":{"user":"****","list":"****"},"data":{}}]"#),
        ("console.log({ deep: [s] })", r#"[{"deep":[{"configuration":{"user":"****","list":"****"},"data":{}}]}]"#),
        (
            "console.log({ configuration: 'text' }, { configuration: null })",
            r#"[{"configuration":"****"},{"configuration":null}]"#,
        ),
        ("console.log({ a: 1, get b() { throw new Error('no') } }, 2)", r#"["[cannot be shown: no]",2]"#),
        ("console.log(new Proxy({}, { ownKeys() { throw 5 } }))", r#"["[cannot be shown: 5]"]"#),
        ("console.log('line\\nbreak \\u2028 \\ud800')", "[\"line\\nbreak \u{2028} \\ud800\"]"),
    ];
    for (statement, expected) in cases {
        let lines = logged(statement, r#"{"configuration":{"user":"ann","list":[1]},"data":{}}"#);
        assert_eq!(lines, [format!("JOB info {expected}")], "{statement}");
    }
}

#[test]
fn nothing_is_logged_for_nothing() {
    assert_eq!(logged("console.log(); console.warn(null)", "{}"), Vec::<String>::new());
}

#[test]
fn adaptors_have_a_console_of_their_own() {
    let mut bench = Bench::new();
    let operations =
        "log('from op', s => s.data, { n: s => 2 }), fn(s => { console.log = () => {}; return s }), log('still')";
    bench.run(job(operations, r#"{"data":1}"#)).unwrap();
    assert_eq!(bench.lines(), [r#"ADA info ["from op",1,{"n":2}]"#, r#"ADA info ["still"]"#]);
}

#[test]
fn lines_that_nobody_wants_are_not_made() {
    struct Deaf;
    impl LogSink for Deaf {
        fn wants(&self, _source: LogSource, _level: LogLevel) -> bool {
            false
        }
        fn write(&self, _source: LogSource, _level: LogLevel, message: String) {
            panic!("{message} was not wanted");
        }
    }
    let (mut engine, _interrupt) =
        EmbeddedEngine::start(EmbeddedOptions { memory_bytes: 1 << 26 }, Arc::new(Deaf)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let job =
        module("let read = 0; export default [s => { console.log({ get x() { read += 1 } }); return { read } }]", "{}");
    match runtime.block_on(engine.run_job(job)) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"read":0}"#),
        other => panic!("{other:?}"),
    }
}
