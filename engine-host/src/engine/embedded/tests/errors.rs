//! What is told of errors.

use super::*;
use crate::compile::{self, Adaptor, Places};
use crate::engine::Origin;

/// Origin, name and message of what a module throws.
fn told(code: &str) -> (Origin, String, String) {
    let thrown = thrown(code);
    (thrown.origin, thrown.name, thrown.message)
}

#[test]
fn origin_name_and_message() {
    use Origin::*;
    let cases = [
        ("export default [s => s.nope.deep]", Job, "TypeError", "Cannot read properties of undefined (reading 'deep')"),
        (
            "export default [s => { s.nope.x = 1 }]",
            Job,
            "TypeError",
            "Cannot set properties of undefined (setting 'x')",
        ),
        ("export default [() => { throw new Error('oh no') }]", Job, "Error", "oh no"),
        ("export default [() => Promise.reject(new Error('rejected'))]", Job, "Error", "rejected"),
        ("export default [async () => { await 1; throw new RangeError('late') }]", Job, "RangeError", "late"),
        ("export default [() => { throw 'just text' }]", Job, "", "just text"),
        ("export default [() => { throw { message: 'in an object' } }]", Job, "", "in an object"),
        ("export default [() => { throw { code: 5 } }]", Job, "", r#"{"code":5}"#),
        ("export default [() => { throw undefined }]", Job, "", "undefined"),
        ("export default [() => { throw null }]", Job, "", "null"),
        ("export default [() => { throw Symbol('s') }]", Job, "", "Symbol(s)"),
        ("export default [() => { throw 5n }]", Job, "", "5"),
        ("export default [() => nowhere]", Job, "ReferenceError", "nowhere is not defined"),
        ("export default [() => { x; let x; }]", Job, "ReferenceError", "Cannot access 'x' before initialization"),
        ("export default [() => { let x = 'abc'; while (true) x += x }]", Job, "RangeError", "Invalid string length"),
        (
            "export default [() => { try { let x = 'abc'; while (true) x += x } catch (e) { throw [e instanceof RangeError, e.constructor.name] } }]",
            Job,
            "",
            r#"[true,"RangeError"]"#,
        ),
        ("export default [() => new Array(-1)]", Job, "RangeError", "Invalid array length"),
        (
            "export default [() => { const f = () => f(); return f(); }]",
            Job,
            "RangeError",
            "Maximum call stack size exceeded",
        ),
        ("throw new TypeError('at load'); export default []", Job, "TypeError", "at load"),
        ("await Promise.reject(new Error('top')); export default []", Job, "Error", "top"),
        ("export default [() => JSON.parse('{')]", Job, "SyntaxError", "Expected property name or '}'"),
        ("export default [() => { class E extends Error { name = 'Mine' } throw new E('m') }]", Job, "Mine", "m"),
        (
            "export default 5",
            Exports,
            "InvalidExportsError",
            "Invalid exports in job expression: exports must be an array",
        ),
        (
            "export const a = 1",
            Exports,
            "InvalidExportsError",
            "Invalid exports in job expression: exports must be an array",
        ),
        ("export default [s => s, 5]", Operation, "InvalidOperationError", "Invalid operation at statement 1"),
        ("import fs from 'fs'; export default []", Import, "ImportError", "module blacklisted: fs"),
        ("export default [() => import('node:fs')]", Import, "ImportError", "module blacklisted: node:fs"),
        (
            "setTimeout(() => { throw new Error('in a timer') }); export default [() => new Promise(() => {})]",
            Uncaught,
            "Error",
            "in a timer",
        ),
        (
            "export default [() => { Promise.reject(new Error('floating')); return new Promise(() => {}) }]",
            Uncaught,
            "Error",
            "floating",
        ),
        (
            "export default [() => { Promise.reject('first'); Promise.reject('second'); return {} }]",
            Uncaught,
            "",
            "first",
        ),
        ("export default [s => { Promise.reject('at the end'); return s }]", Uncaught, "", "at the end"),
    ];
    for (code, origin, name, message) in cases {
        let (told_origin, told_name, told_message) = told(code);
        assert_eq!((told_origin, told_name.as_str()), (origin, name), "{code}: {told_message}");
        assert!(told_message.starts_with(message), "{code}: {told_message}");
    }
}

#[test]
fn imports_that_the_engine_cannot_serve_point_to_node() {
    for code in [
        "import { validate } from '@openfn/language-common'; export default []",
        "import { get } from '@openfn/language-http@7.2.10'; export default []",
    ] {
        let thrown = thrown(code);
        assert_eq!(thrown.origin, Origin::Import, "{code}");
        assert!(thrown.message.contains("--engine node"), "{}", thrown.message);
        assert!(thrown.message.contains("validate") || thrown.message.contains("@openfn/language-http@7.2.10"));
        assert!(!thrown.message.contains('#'), "{}", thrown.message);
    }
}

#[test]
fn a_name_that_no_adaptor_exports_is_not_promised_in_node() {
    let thrown = thrown("import { nowhere } from '@openfn/language-common'; export default []");
    let told = (thrown.origin, thrown.message.as_str());
    assert_eq!(told, (Origin::Import, "@openfn/language-common does not export nowhere"));
    for wanted in ["{ http }", "common"] {
        let told = self::thrown(&format!("import {wanted} from '@openfn/language-common'; export default []"));
        assert!(told.origin == Origin::Import && told.message.contains("--engine node"), "{}", told.message);
    }
}

#[test]
fn code_from_strings_is_refused_in_all_its_forms() {
    for code in [
        "new Function('return 1')",
        "Function('return 1')",
        "eval('1')",
        "(0, eval)('1')",
        "globalThis.eval('1')",
        "(() => {}).constructor('return 1')",
        "(async () => {}).constructor('return 1')",
        "(function* () {}).constructor('return 1')",
        "(async function* () {}).constructor('return 1')",
        "Reflect.construct(Function, ['return 1'])",
        "Reflect.construct(Object.getPrototypeOf(async () => {}).constructor, ['return 1'])",
        "new (class extends Function {})('return 1')",
        "Reflect.apply((() => {}).constructor, null, ['return 1'])",
        "[].map.constructor('return 1')",
        "console.log.constructor('return 1')",
        "Object.getPrototypeOf((async () => {}).constructor)('return 1')",
        "setTimeout('1')",
        "setInterval('1', 5)",
    ] {
        let thrown = thrown(&format!("export default [() => {{ {code} }}]"));
        assert_eq!(
            (thrown.origin, thrown.name.as_str()),
            (Origin::Evaluation, "EvalError"),
            "{code}: {}",
            thrown.message
        );
    }
}

#[test]
fn the_first_frame_that_is_a_jobs_or_an_adaptors_decides() {
    let state = r#"{"data":[1]}"#;
    let cases = [
        ("assert(false, 'must hold')", Origin::Adaptor),
        ("each(5, s => s)", Origin::Adaptor),
        ("each('$.data[*]', 5)", Origin::Adaptor),
        ("each('$.data[*]', fn(() => { throw new Error('mine') }))", Origin::Job),
        ("fn(() => [1].forEach(() => { throw new Error('mine') }))", Origin::Job),
        ("fn(s => dataValue(5)(s))", Origin::Adaptor),
    ];
    for (operations, origin) in cases {
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(job(operations, state)) else { panic!("{operations}") };
        assert_eq!(thrown.origin, origin, "{operations}: {thrown:?}");
        assert_eq!(thrown.details.is_some(), origin == Origin::Adaptor);
    }
}

#[test]
fn position_operation_and_stack() {
    let code = "fn(s => s),\nfn(s => {\n  return s.nope.deep;\n})";
    let Ok(JobEnd::Threw(thrown)) = Bench::new().run(job(code, "{}")) else { panic!("it throws") };
    let (line, column) = thrown.position.unwrap();
    assert_eq!((line, thrown.operation), (HEAD_LINES + 3, Some(1)));
    assert!(column > 1);
    let stack = thrown.stack.unwrap();
    assert!(stack.starts_with("TypeError: Cannot read"), "{stack}");
    assert!(stack.contains(&format!("job:{line}:{column}")) && !stack.contains("prelude"), "{stack}");
    assert!(stack.contains("@openfn/language-common:") && !stack.contains('#'), "{stack}");
}

#[test]
fn an_adaptors_error_has_details() {
    let operations = "assert(true), assert(() => { throw Object.assign(new Error('no'), { code: 7 }) })";
    let Ok(JobEnd::Threw(mine)) = Bench::new().run(job(operations, "{}")) else { panic!("it throws") };
    assert_eq!((mine.origin, mine.details), (Origin::Job, None));
    let Ok(JobEnd::Threw(its)) = Bench::new().run(job("assert(false, 'must hold')", "{}")) else { panic!("it throws") };
    assert_eq!(its.details.as_deref(), Some(r#"{"message":"must hold"}"#));
    assert_eq!((its.operation, its.message.as_str()), (Some(0), "must hold"));
}

#[test]
fn syntax_errors_that_only_this_engine_sees_have_a_position() {
    let thrown = thrown("export default [];\nlet a = 1; let a = 2;");
    assert_eq!((thrown.origin, thrown.name.as_str()), (Origin::Job, "SyntaxError"));
    assert_eq!(thrown.position.map(|(line, _)| line), Some(2));
}

#[test]
fn the_line_is_that_of_the_users_source() {
    for (source, expected) in [
        ("fn(s => {\n  const a = 1;\n\n\n  const { y } = s.data.nope;\n  return s;\n})", 5),
        ("fn(s => {\n\n  console.log(s);\n\n  const { y } = s.data.nope;\n  return s;\n})", 5),
        ("fn(s => {\n\n  const b = s.b;\n\n  const [ y ] = s.data.nope;\n  return s;\n})", 5),
        (
            "fn(s => {\n  s.l = [1];\n  s.l.forEach(it => {\n    const k = it;\n\n    const { p: { q } } = k;\n  });\n})",
            6,
        ),
        ("class A {\n  m() {\n    const a = 1;\n\n    return this.x.y;\n  }\n}\nfn(() => new A().m())", 5),
        ("fn(s => {\n  s.a = 1;\n\n  return null.x;\n})", 4),
        ("fn(s => {\n  s.a = 1;\n\n  return [1][5].y;\n})", 4),
        ("fn(async s => {\n  s.a = 1;\n\n  return (await null).y;\n})", 4),
        ("fn(s => {\n  s.a = 1;\n\n  for (const { a } of [1, null]) s.a = a;\n})", 4),
        ("fn(s => {\n  s.a = 1;\n\n  const b = this.a.b;\n})", 4),
        ("const a = 1;\n\nconst { b } = null;\nfn(s => s)", 3),
        ("class E extends Error {\n  constructor(m) {\n    super(m);\n  }\n}\nfn(s => {\n  throw new E('m');\n})", 7),
        (
            "class E extends Error {}\nclass F extends E {\n  constructor() {\n    super('m');\n  }\n}\nfn(s => {\n  throw new F();\n})",
            8,
        ),
        ("class E extends Error {}\nfn(s => {\n  throw new E('m');\n})", 3),
        ("fn(s => {\n  switch (s.a) {\n    default:\n      const { b } = s.b;\n  }\n})", 4),
    ] {
        let adaptor = Adaptor { specifier: "@openfn/language-common", exports: None };
        let compiled = compile::compile_for(source, &[adaptor], Places::Few).unwrap();
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(module(&compiled.code, r#"{"data":{}}"#)) else {
            panic!("{source}: it throws")
        };
        let (line, column) = thrown.position.unwrap_or_else(|| panic!("{source}: {thrown:?}"));
        let found = compiled.source_position(source, line, column - 1).map(|it| it.line);
        assert_eq!(found, Some(expected), "{source}\n{}\n{:?}", compiled.code, thrown.position);
    }
}

#[test]
fn errors_are_on_the_line_where_v8_finds_them_in_the_source() {
    #[derive(serde::Deserialize)]
    struct Case {
        source: String,
        line: u32,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../../tests/data/error_places.json")).unwrap();
    let exports = ["fn".to_owned()];
    let mut wrong = Vec::new();
    for Case { source, line } in cases {
        let adaptor = Adaptor { specifier: "@openfn/language-common", exports: Some(&exports) };
        let compiled = compile::compile_for(&source, &[adaptor], Places::Few).unwrap();
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(module(&compiled.code, r#"{"data":{},"text":"text"}"#)) else {
            panic!("{source} throws")
        };
        let place = format!("{:?}", thrown.position);
        let job = crate::errors::Job { name: "A", source: &source, compiled: &compiled };
        let failure: serde_json::Value =
            serde_json::from_str(crate::errors::classify(thrown, job).to_raw().get()).unwrap();
        let found = failure["pos"]["line"].as_u64();
        // Others have their place in the log alone.
        let is_shown = failure["name"] == "RuntimeError" || failure["name"] == "RuntimeCrash";
        if is_shown && found != Some(line.into()) {
            wrong.push(format!("{source}\n  {failure} is not on line {line}: {place} of\n{}", compiled.code));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// Those of these jobs whose error is not on the line that its source has `HERE` on.
fn elsewhere(sources: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let line = source.lines().position(|line| line.contains("HERE")).unwrap() as u32 + 1;
        let source = source.replace("HERE", "");
        let adaptor = Adaptor { specifier: "@openfn/language-common", exports: None };
        let compiled = compile::compile_for(&source, &[adaptor], Places::Few).unwrap();
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(module(&compiled.code, r#"{"data":{}}"#)) else {
            panic!("{source} throws")
        };
        let found = thrown.position.and_then(|(line, column)| compiled.source_position(&source, line, column - 1));
        if found.as_ref().map(|it| it.line) != Some(line) {
            wrong.push(format!(
                "{source}\n  {} is not on line {line}: {found:?}; {:?} in\n{}",
                thrown.message, thrown.position, compiled.code
            ));
        }
    }
    wrong
}

#[test]
fn an_error_is_in_its_own_statement_whatever_that_begins_with() {
    let expressions = [
        "null.x",
        "[null.x]",
        "({ b: null.x })",
        "`${null.x}`",
        "1 + null.x",
        "null.x + 1",
        "!null.x",
        "-null.x",
        "null.x ? 1 : 2",
        "a && null.x",
        "null.x || a",
        "(1, null.x)",
        "(null.x, 1)",
        "await null.x",
        "null.x.y.z",
        "null.x()",
        "f(null.x)",
        "f([null.x])",
        "new (null.x)()",
        "delete null.x",
        "typeof null.x",
        "[...null.x]",
        "f`${null.x}`",
        "f(...null.x)",
        "null.x++",
        "(q = null.x)",
        "null[f(1)]",
        "('a' in null)",
        "Symbol() + ''",
        "(() => null.x)()",
        "(() => [null.x])()",
        "await (async () => null.x)()",
        "this.x.y",
        "[].x.y",
    ];
    let statements = [
        "return EXPRESSION;",
        "const b = EXPRESSION;",
        "let b; b = EXPRESSION;",
        "throw EXPRESSION;",
        "if (EXPRESSION) {}",
        "while (EXPRESSION) {}",
        "switch (EXPRESSION) {}",
        "for (; EXPRESSION;) {}",
        "for (const b of EXPRESSION) {}",
        "for (const b in EXPRESSION) {}",
        "const { b } = EXPRESSION;",
        "const g = async () => EXPRESSION; await g();",
        "await f(null).then(async () => EXPRESSION);",
    ];
    let wrong = elsewhere(statements.iter().flat_map(|statement| {
        expressions.map(|expression| {
            let statement = statement.replace("EXPRESSION", expression);
            format!("let q;\nfn(async a => {{\nconst f = async x => x;\nawait f(1);\n\n{statement}HERE\n\nf(2);\n}})")
        })
    }));
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_error_in_an_operation_that_is_an_expression_is_on_its_line() {
    let operations = [
        "fn(s => (null.x))",
        "fn(s => [null.x])",
        "fn(s => null.x).then(s => s)",
        "fn(s => !null.x).catch(e => { throw e; })",
    ];
    let wrong =
        elsewhere(operations.map(|it| format!("fn(s => s);\nfn(s => ({{ ...s, a: s.b }}));\n{it};HERE\nfn(s => s);")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
