/// Code in an operation, and what the next operation of the job tells of `x`, as it was seen on the reference worker with
/// Node 20, 22 and 24.
const UNDECLARED: &[(&str, Result<&str, &str>)] = &[
    ("x = n => n / 2", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = function () {}", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = function y() {}", Ok(r#"{"type":"function","name":"y"}"#)),
    ("x = class {}", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = async () => 1", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = function* () {}", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = async function* () {}", Ok(r#"{"type":"function","name":"x"}"#)),
    ("x = (() => 1).bind(null)", Ok(r#"{"type":"function","name":"bound "}"#)),
    ("x = ({ m() {} }).m", Ok(r#"{"type":"function","name":"m"}"#)),
    ("x = Math.max", Ok(r#"{"type":"function","name":"max"}"#)),
    ("x = new Proxy(Math.max, {})", Ok(r#"{"type":"function","name":"max"}"#)),
    ("y = x = Math.max", Ok(r#"{"type":"function","name":"max"}"#)),
    ("[x] = [Math.max]", Ok(r#"{"type":"function","name":"max"}"#)),
    ("({ x } = { x: Math.max })", Ok(r#"{"type":"function","name":"max"}"#)),
    ("({ a: [x] } = { a: [Math.max] })", Ok(r#"{"type":"function","name":"max"}"#)),
    ("for (x of [Math.max]) {}", Ok(r#"{"type":"function","name":"max"}"#)),
    ("x = true ? Math.max : 1", Ok(r#"{"type":"function","name":"max"}"#)),
    ("x = () => 1; x = 5", Ok(r#"{"type":"number"}"#)),
    ("x = () => 1; x = {}", Ok(r#"{"type":"object"}"#)),
    ("globalThis.x = 5", Ok(r#"{"type":"number"}"#)),
    ("x = () => x; if (x() !== x) throw new Error('not visible')", Ok(r#"{"type":"function","name":"x"}"#)),
    ("console = () => 1; x = console", Ok(r#"{"type":"function","name":"console"}"#)),
    ("x = new Proxy({}, {})", Err("ReferenceError: x is not defined")),
    ("x = {}", Err("ReferenceError: x is not defined")),
    ("x = []", Err("ReferenceError: x is not defined")),
    ("x = 1", Err("ReferenceError: x is not defined")),
    ("x = undefined", Err("ReferenceError: x is not defined")),
    ("x = null", Err("ReferenceError: x is not defined")),
    ("x = 'a'", Err("ReferenceError: x is not defined")),
    ("x = Symbol()", Err("ReferenceError: x is not defined")),
    ("x = new Date()", Err("ReferenceError: x is not defined")),
    ("x = /a/", Err("ReferenceError: x is not defined")),
    ("x = Promise.resolve()", Err("ReferenceError: x is not defined")),
    ("[x] = [1]", Err("ReferenceError: x is not defined")),
    ("for (x in { a: 1 }) {}", Err("ReferenceError: x is not defined")),
    ("x += 1", Err("ReferenceError: x is not defined")),
    ("x ??= () => 1", Err("ReferenceError: x is not defined")),
    ("x++", Err("ReferenceError: x is not defined")),
];

fn undeclared_job(code: &str) -> String {
    format!(
        "export default [() => {{ {code}; return {{}}; }},
            () => ({{ type: typeof x, name: typeof x === 'function' ? x.name : undefined }})];"
    )
}
