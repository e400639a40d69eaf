use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// The code after one transform, or its error.
pub(super) fn after(source: &str, transform: impl FnOnce(&mut Job<'_>) -> Result<(), Fault>) -> String {
    let allocator = Allocator::default();
    let lines = Lines::of(source);
    let mut job = parse(&allocator, source).unwrap();
    match transform(&mut job) {
        Ok(()) => print(&job.program).0.trim_end().to_owned(),
        Err(fault) => fault.into_error(&lines).to_string(),
    }
}

/// Checks a transform on code and what becomes of it.
pub(super) fn check(transform: impl Fn(&mut Job<'_>) -> Result<(), Fault>, table: &[(&str, &str)]) {
    for (source, expected) in table {
        assert_eq!(after(source, &transform), *expected, "{source}");
    }
}

fn compiled(source: &str) -> Compiled {
    let exports = ["each", "fn", "get", "http"].map(String::from);
    let adaptor = Adaptor { specifier: "@openfn/language-common", exports: Some(&exports) };
    compile(source, &[adaptor]).unwrap_or_else(|error| panic!("{source}: {error}"))
}

#[test]
fn globals_assign_functions_and_spread_texts_as_jobs_do() {
    for (source, places, expected) in [
        (
            "export const f = x => { y = x }",
            Places::All,
            "import { _undeclared } from \"@openfn/runtime\";\nexport const f = (x) => {\n_undeclared.y = x;\n};\n",
        ),
        ("export const f = { ...g };", Places::All, "export const f = { ...g };\n"),
        (
            "export const f = { ...g };",
            Places::Few,
            "import { _spread } from \"@openfn/runtime\";\nexport const f = { ..._spread(g) };\n",
        ),
        ("export const", Places::Few, "export const"),
    ] {
        assert_eq!(compile_globals(source, places), expected);
    }
}

#[test]
fn a_job_becomes_a_module() {
    let job = compiled(
        "#!/usr/bin/env node\nget(`/a/${$.id}`).then(s => s);\nconst f = x => x;\nfn(f);\nhttp\n  .post(1)\n  .catch(f)",
    );
    assert_eq!(
        job.code,
        "import { _defer } from \"@openfn/runtime\";\n\
         import { fn, get, http } from \"@openfn/language-common\";\n\
         export * from \"@openfn/language-common\";\n\
         const f = (x) => x;\n\
         export default [\n\
         _defer(get((state) => `/a/${state.id}`), (p) => p.then((s) => s)),\n\
         fn(f),\n\
         _defer(http.post(1), undefined, f)\n\
         ];\n"
    );
    let operation = |name: &str, line| Operation { name: name.to_owned(), line };
    assert_eq!(job.operations, [operation("get", 2), operation("fn", 4), operation("http.post", 5)]);
}

#[test]
fn code_without_operations_exports_none() {
    for source in ["", "// nothing to do here", "#!/bin/node", "\u{feff}"] {
        assert_eq!(
            compiled(source).code,
            "export * from \"@openfn/language-common\";\nexport default [];\n",
            "{source:?}"
        );
    }
}

#[test]
fn compiled_code_compiles_to_itself() {
    for source in ["fn($.a).then(s => s).catch(e => e); get(1); if (x) y()", "get(f($.a.map(x => $.b)))"] {
        let once = compile(source, &[]).unwrap().code;
        assert_eq!(compile(&once, &[]).unwrap().code, once, "{source}");
    }
}

#[test]
fn all_of_todays_javascript_is_accepted() {
    for source in [
        "class A { #p = 1; static { A.x = 1 } static #q() {} get p() { return #p in this } accessor = 1 }",
        "let a; a ??= 1; a ||= 2; a &&= 3; a **= 2; a?.b?.[c]?.(d)",
        "const x = await import('x', { with: { type: 'json' } }); for await (const y of x) {}",
        "import data from './x.json' with { type: 'json' }; export { data as 'a b' }; import { 'a b' as c } from 'x'",
        "x = /(?<year>\\d{4})[\\p{L}--[a-z]]/dv.exec('') + 1_000n + 0b1_0 + 0o7 + .5e-1",
        "{ using a = b; } async function f() { await using a = b; }",
        "label: for (const [a, { b = 1, ...c }] of d) { if (e) continue label; else break label }",
        "async function* g() { yield* h(); for await (const i of j) yield i } try {} catch {} finally {}",
        "tag`a${b}\\unicode`; x = new.target === undefined",
        "export default class extends (class {}) {}",
        "x = import.meta.url; y = a => ({ b: a }); z = async a => { await a }",
        "if (a) /re/.test(b); else do c(); while (d) function e() { return /[/\"]/g }",
        "var a = 1 /* c */ / 2; a = b\n/c/g\nlet é = \"\u{2028}\", \\u0061b = 1, ünï = é / 2",
    ] {
        let source = source.replace("x = new.target === undefined", "function n() { x = new.target }");
        if let Err(error) = compile(&source, &[]) {
            panic!("{source}: {error}");
        }
    }
}

/// Where each marker of the source, an identifier such as `m1_`, ends up in the compiled code, and what it maps to.
fn check_markers(source: &str) {
    let job = compiled(source);
    let (before, after) = (Lines::of(source), Lines::of(&job.code));
    let mut markers = 0;
    for (at, _) in
        source.match_indices("m").filter(|(at, _)| source[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
    {
        let name = &source[at..=at + source[at..].find('_').unwrap()];
        let place = after.position(job.code.find(name).unwrap_or_else(|| panic!("{name} is lost in {}", job.code)));
        assert_eq!(
            job.source_position(source, place.line, place.column),
            Some(before.position(at)),
            "{name} of {source}"
        );
        markers += 1;
    }
    assert!(markers > 0);
}

#[test]
fn places_map_back_to_the_source() {
    for source in [
        "fn(m1_)",
        "\n\n  fn(s => {\n    throw new m1_('x');\n  })\nget(m2_)",
        "const s = '😀é'; fn('😀', m1_); /* 😀 */ get(`😀\n  ${m2_} ${ m3_ }`)",
        "get($.a, m1_, { b: $.m2_.c(m3_) }).then(m4_).catch(s => m5_(s))\r\nfn(m6_)\r\n",
        "get(m1_)\u{2028}fn(m2_)",
        "if (m1_) { m2_(m3_) } each(m4_, fn(() => { m5_.m6_() }))\nexport const a = m7_",
        "fn(m1_).catch(m2_).then(m3_, m4_)",
    ] {
        check_markers(source);
    }
    let job = compiled("fn(s => s)");
    assert_eq!(job.source_position("fn(s => s)", 1, 5), None, "an added import");
    assert_eq!(job.source_position("fn(s => s)", 1000, 5), None);
}

/// Code that nests, by name: what opens a level, what is in the innermost, what closes a level.
const NESTED: [(&str, &str, &str); 43] = [
    ("(", "x", ")"),
    ("[", "x", "]"),
    ("({a:", "x", "})"),
    ("{", "x", "}"),
    ("!", "x", ""),
    ("a?b:", "x", ""),
    ("a?", "x", ":b"),
    ("`${", "x", "}`"),
    ("a=>", "x", ""),
    ("async a=>", "x", ""),
    ("(a=", "x", ")=>a"),
    ("(a=", "x", ")"),
    ("([a=", "x", "])"),
    ("async(a=", "x", ")"),
    ("(function(){", "x", "})"),
    ("f(", "x", ")"),
    ("(class{x=", "x", "})"),
    ("(class{[", "x", "](){}})"),
    ("class a extends ", "x", "{}"),
    ("({a(){return ", "x", "}})"),
    ("class A{static{", "x", "}}"),
    ("switch(a){case 1:", "x", "}"),
    ("try{", "x", "}catch{}"),
    ("if(a)", "x", ""),
    ("if(a)b,c\nelse ", "x", ""),
    ("if(a){}else ", "x", ""),
    ("if(a)b;else ", "x", ""),
    ("for(;;)", "x", ""),
    ("while(1)", "x", ""),
    ("do ", "x", "\nwhile(1)"),
    ("do if(a)", "x", ";while(1)"),
    ("new ", "x", ""),
    ("typeof\u{a0}", "x", ""),
    ("await ", "x", ""),
    ("import(", "x", ")"),
    ("[...", "x", "]"),
    ("", "x", ".b"),
    ("", "x", "?.b"),
    ("", "x", "()"),
    ("", "x", "[0]"),
    ("", "x", "``"),
    ("", "x", "+a"),
    ("", "x", "**a"),
];

#[test]
fn nothing_is_too_deep_for_the_stack() {
    for (open, inner, close) in NESTED {
        let slow = open.contains("(a=") || open.contains("([a=");
        let depths: &[usize] = if slow { &[200, 100_000] } else { &[200, 490, 990, 4_900, 9_900, 100_000] };
        let code = |depth| format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
        let mut compiles: Vec<_> = depths.iter().map(|&depth| compile(&code(depth), &[])).collect();
        let _ = compile(&open.repeat(800), &[]);
        let _ = compile(&format!("{{}}/a/;{}", code(2_000)), &[]);
        let last = compiles.pop().unwrap().unwrap_err();
        assert!(last.message.starts_with("Code is nested too deeply: the limit is "), "{open}{close}: {last}");
        assert!(compiles[0].is_ok(), "{open}{close}: {:?}", compiles[0]);
    }
}

#[test]
fn long_flat_code_is_accepted() {
    let repeat = |text: &str| text.repeat(11_000);
    for source in [
        repeat("fn(s => s.a.b + 1);"),
        repeat("fn(s => s.a.b + 1)\n"),
        repeat("if (a) b; else c\n"),
        repeat("if (a) { b } else { c }\n"),
        repeat("x = a ? { b: 1 } : [!c]\n"),
        repeat("get(`a${b}c${d.e}`)\n"),
        format!("x = [{}]", repeat("{ a: -1, b: c.d, e: f => g },\n")),
        format!("x = {{{}}}", repeat("'a': -1, b: c.d, [e]: f => g,\n")),
        format!("x = `{}`", repeat("${a.b}")),
        format!("switch (x) {{{}}}", repeat("case 'a': case b: y = -1; break;\n")),
        format!("class A {{{}}}", repeat("m() { return !this.x }\nstatic y = -1\n")),
        format!("x = {}\"\"", "\"a\" + ".repeat(5_000)),
        format!("x{}", "\n  .then(a => a.b)".repeat(3_000)),
        format!("x = {}y", "a === 1 || ".repeat(2_500)),
        format!("x = {}y", "a ? b : ".repeat(5_000)),
        format!("/* {} */ // {0}\nx = '{0}' + \"{0}\" + `{0}`", repeat("([{!")),
        format!("x = /{}/", repeat("\\(a[^b]")),
        format!("i++ / 2; a[i]-- / b / c; x = i\n++y / 2\n{}", repeat("fn(s => s.a.b + 1);\n")),
        format!("x = String.raw`C:\\users\\x\\u{{ (`\n{}", repeat("fn(s => s.a.b + 1);\n")),
        format!("x = get / 2 / set\nstatic_ = async / 3\n{}", repeat("fn(s => s.a.b + 1);\n")),
        repeat("if (a) /[(]/.test(b)\nx = y / 2 / z\nwhile (n --> 0) continue;\n"),
    ] {
        if let Err(error) = compile(&source, &[]) {
            panic!("{}…: {error}", &source[..40]);
        }
    }
}

const TOKENS: [&str; 96] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "`",
    "${",
    "'",
    "\"",
    "/",
    "//",
    "/*",
    "*/",
    "\\",
    "\n",
    "\r\n",
    "\u{2028}",
    " ",
    ";",
    ",",
    ".",
    "?.",
    "...",
    "?",
    ":",
    "=",
    "=>",
    "==",
    "+",
    "++",
    "-",
    "-->",
    "<!--",
    "*",
    "**",
    "!",
    "~",
    "&&",
    "??",
    "??=",
    "<",
    ">",
    "|",
    "^",
    "%",
    "@",
    "#",
    "#x",
    "#!",
    "$",
    "$.a",
    "state",
    "a",
    "b",
    "then",
    "catch",
    "_defer",
    "p",
    "é",
    "😀",
    "0",
    "1.5",
    "1n",
    ".5",
    "0x",
    "/re/g",
    "'s'",
    "await ",
    "async ",
    "yield ",
    "function ",
    "class ",
    "extends ",
    "static ",
    "get ",
    "import ",
    "export ",
    "default ",
    "from ",
    "let ",
    "const ",
    "var ",
    "if ",
    "else ",
    "for ",
    "while ",
    "do ",
    "return ",
    "new ",
    "typeof ",
    "in ",
    "of ",
    "case ",
    "\u{feff}",
    "\u{0}",
];

/// An expression of a valid job, nested up to `depth`.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "-1",
        "'a'",
        "a",
        "state",
        "p",
        "_defer",
        "$.x",
        "$.x[0]?.y",
        "null",
        "/a/g",
        "`t`",
        "this",
        "[]",
        "{}",
    ]);
    let leaf = leaf.prop_map(|leaf| format!("({leaf})"));
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("fn({})", all.join(", "))),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(", "))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("get({a}).then({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("http.get({a}).catch({b}).then({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} ?? {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} ? {b} : {a})")),
            inner.clone().prop_map(|a| format!("fn(state => {a})")),
            inner.clone().prop_map(|a| format!("({{ k: {a}, m() {{ return fn({a}) }} }})")),
            inner.clone().prop_map(|a| format!("`t${{{a}}}`")),
            inner.prop_map(|a| format!("(async () => {{ await fn({a}) }})()")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(40)))]

    /// Were a repeated level not counted, the stack would overflow.
    #[test]
    fn repeated_soup_is_never_too_deep_for_the_stack(
        soup in prop::collection::vec(prop_oneof![prop::sample::select(TOKENS.to_vec()), nesting()], 1..7),
        end in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..3),
    ) {
        let source = soup.concat().repeat(40_000) + &end.concat();
        let _ = compile(&source, &[]);
    }
}

/// What opens a level, and what may seem to end one.
fn nesting() -> impl Strategy<Value = &'static str> {
    let ends = [
        "a",
        "a\n",
        "a;",
        "{}",
        "(a)",
        "x,",
        "a:b\n",
        "while(a)",
        "else ",
        "/a/",
        "a?b:c",
        "`a`",
        "i++\n",
        "i++/",
        "++",
        "--/a/",
        "typ\\u0065of ",
        "i\\u0066(a)\n",
        "i\\u{66}(a)/`/;",
        "`\\u`",
        "get/",
        "=>",
    ];
    prop::sample::select(NESTED.iter().map(|(open, ..)| *open).chain(ends).collect::<Vec<_>>())
}

/// The usual number of cases, unless the environment wants another.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #[test]
    fn token_soup_never_panics(soup in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..60)) {
        let source = soup.concat();
        for result in [compile(&source, &[]).map(drop).map_err(|it| it.to_string()), check_condition(&source)] {
            prop_assert!(!result.is_err_and(|message| message.contains("compiler failed")), "{source:?}");
        }
    }

    #[test]
    fn compiled_jobs_are_modules(expressions in prop::collection::vec(expression(), 0..5)) {
        let mut source = String::new();
        for expression in expressions {
            writeln!(source, "fn({expression});").unwrap();
        }
        match compile(&source, &[Adaptor { specifier: "a", exports: None }]) {
            Ok(job) => {
                let again = compile(&job.code, &[]);
                prop_assert!(again.is_ok(), "{source}\n{}\n{again:?}", job.code);
            }
            Err(error) => prop_assert!(error.message.contains("Lazy State Error"), "{source}: {error}"),
        }
    }
}

#[test]
fn a_condition_begins_at_its_first_token() {
    for (expression, expected) in [
        ("state.a", "state.a"),
        (" \n\u{feff}\u{2028}state.a ", "state.a "),
        ("// why\nstate.a // c", "state.a // c"),
        ("/* why\n */ // more\r\n/**/state.a", "state.a"),
        ("// c", ""),
        ("/* c", "/* c"),
        ("/x/.test(state.a)", "/x/.test(state.a)"),
        ("", ""),
    ] {
        assert_eq!(condition(expression), expected, "{expression:?}");
    }
}
