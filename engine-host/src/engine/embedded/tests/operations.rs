//! The core operations. What is expected here is what `@openfn/language-common` 3.3.4 does.

use super::*;
use crate::engine::embedded::operations::PROVIDED;

const STATE: &str = r#"{
    "data": {
        "a": {"b": 7}, "items": [{"n": 1, "t": "x", "k": {"z": [1, 2]}}, {"n": 2, "t": "y", "k": null}, {"n": 3}],
        "name": "bob", "s": "str", "odd key": 5, "zero": 0, "nul": null, "nested": [[1, [2]], [3]],
        "people": {"ann": {"age": 5}, "bob": {"age": 9}}
    },
    "references": [{"id": 9}, {"id": 8}],
    "index": 4
}"#;

/// Evaluates each expression over `c` (the core operations) and `s` (a state of its own); a throw is `"Name: message"`.
fn check(cases: &[(&str, &str)]) {
    let expressions: Vec<String> = cases.iter().map(|(expression, _)| format!("(s, rec) => ({expression})")).collect();
    let code = format!(
        "import * as c from '@openfn/language-common';
        const rec = s => ({{ seen: [...(s.seen ?? []), [s.data, s.index]] }});
        const expressions = [{}];
        const results = [];
        export default [async s => {{
            const text = JSON.stringify(s);
            for (const evaluate of expressions) {{
                try {{ results.push((await evaluate(JSON.parse(text), rec)) ?? null) }} catch (e) {{ results.push(e.name + ': ' + e.message) }}
            }}
            return {{ results }};
        }}]",
        expressions.join(",\n")
    );
    let Ok(JobEnd::Returned(result)) = Bench::new().run(module(&code, STATE)) else { panic!("it returns") };
    let result: serde_json::Value = result.state.unwrap().decode().unwrap();
    for (index, (expression, expected)) in cases.iter().enumerate() {
        assert_eq!(
            result["results"][index],
            serde_json::from_str::<serde_json::Value>(expected).unwrap(),
            "{expression}"
        );
    }
}

#[test]
fn the_names_are_those_of_the_module() {
    let names = serde_json::to_string(PROVIDED).unwrap();
    check(&[("Object.keys(c).sort()", &names)]);
}

#[test]
fn control() {
    check(&[
        ("c.fn(s => ({ x: 1 }))(s)", r#"{"x":1}"#),
        ("c.fn(5)(s)", r#""TypeError: fn takes a function, not number""#),
        ("c.alterState(() => 5)(s)", "5"),
        ("c.fnIf(true, () => 1)(s)", "1"),
        ("c.fnIf(0, () => 1)({ z: 2 })", r#"{"z":2}"#),
        ("c.fnIf(s => s.z, () => 1)({ z: 2 })", "1"),
        ("c.fnIf(s => s.q, () => 1)({ z: 2 })", r#"{"z":2}"#),
        ("c.fnIf(true, 5)(s)", r#""TypeError: fnIf takes an operation, not number""#),
        ("c.combine(s => ({ x: 1 }), async s => ({ ...s, y: s.x + 1 }))({})", r#"{"x":1,"y":2}"#),
        ("typeof c.combine(s => s, s => s)({}).then", r#""undefined""#),
        ("c.combine(s => {}, s => ({ got: 1 }))({})", r#""TypeError: Operation 1 in combine returned no state""#),
        ("c.combine(s => {})({}) === undefined", "true"),
        ("c.combine()({ a: 1 })", r#"{"a":1}"#),
        ("c.execute(s => ({ x: 1 }), async s => ({ ...s, y: 2 }))({})", r#"{"x":1,"y":2}"#),
        ("c.as('k', async s => ({ ...s, data: 5, more: 1 }))({ data: 1, z: 2 })", r#"{"data":1,"z":2,"k":5,"more":1}"#),
        ("c.as(s => s.z, s => ({ data: 5 }))({ data: 1, z: 'key' })", r#"{"data":1,"z":"key","key":5}"#),
        ("c.assert(true)({ a: 1 })", r#"{"a":1}"#),
        ("c.assert(s => s.a === 1, 'no')({ a: 1 })", r#"{"a":1}"#),
        ("c.assert(s => s.a === 2, s => 'a is ' + s.a)({ a: 1 })", r#""Error: a is 1""#),
        ("c.assert(0)({})", r#""Error: assertion statement failed with 0""#),
    ]);
}

#[test]
fn each_scopes_data_to_the_item() {
    let seen = r#"{"seen":[[1,0],[2,1],[3,2]]}"#;
    check(&[
        ("c.each('$.data.items[*].n', rec)(s)", seen),
        ("c.each('data.items[*].n', rec)(s)", seen),
        ("c.each([1, 2, 3], rec)(s)", seen),
        ("c.each(s => s.data.items.map(i => i.n), rec)(s)", seen),
        ("c.each([1, 2, 3], async s => rec(s))(s)", seen),
        ("c.each([1, 2, 3], s => s.data === 2 ? Promise.resolve(rec(s)) : rec(s))(s)", seen),
        ("c.each('$.data.zero', rec)(s)", r#"{"seen":[[0,0]]}"#),
        ("c.each([], rec)({ a: 1 })", r#"{"a":1}"#),
        ("c.each([[1, 2], [3]], c.each(s => s.data, rec))(s)", r#"{"seen":[[1,0],[2,1],[3,0]]}"#),
        ("c.each([1, 2], s => s)({ data: 0, z: 1 })", r#"{"data":2,"index":1,"z":1}"#),
        ("c.beta.each([1, 2], s => s)({ data: 0, z: 1 })", r#"{"data":0,"index":1,"z":1}"#),
        ("c.each(null, rec)(s)", r#""TypeError: each cannot take its items from null""#),
        ("c.each(5, rec)(s)", r#""TypeError: each needs an array of items, not undefined""#),
        ("c.each(async () => [1], rec)(s)", r#""TypeError: each needs an array of items, not a promise""#),
        ("c.each([1, 2], () => {})(s)", r#""TypeError: The operation in each returned no state for item 0""#),
        ("c.each([1], () => { throw new Error('mine') })(s)", r#""Error: mine""#),
        ("c.index()(s)", "4"),
        ("c.map('$.data.items[*]', (d, i, s) => [d.n, i, s.index])(s).then(s => s.data)", "[[1,0,4],[2,1,4],[3,2,4]]"),
        ("c.map([1, 2], async d => d + 1)({ z: 1 })", r#"{"z":1,"data":[2,3]}"#),
        ("c.map({}, d => d)({})", r#""TypeError: map needs a JSON path or an array, not object""#),
    ]);
}

#[test]
fn data() {
    check(&[
        ("c.field('k', 5)", r#"["k",5]"#),
        ("c.fields(c.field('a', 1), c.field('b', 2))", r#"{"a":1,"b":2}"#),
        (
            "c.merge('$.data.items[*]', c.fields(c.field('e', c.sourceValue('$.data.name'))))(s).map(i => i.e + i.n)",
            r#"["bob1","bob2","bob3"]"#,
        ),
        (
            "c.merge('$.data.items[1]', { n: 9, y: { deep: s => s.data.name, l: [s => 1] } })(s)",
            r#"[{"n":9,"t":"y","k":null,"y":{"deep":"bob","l":[1]}}]"#,
        ),
        ("c.join('$.data.items[1]', '$.data.name', 'ex')(s)", r#"[{"ex":"bob","n":2,"t":"y","k":null}]"#),
        ("c.dataPath('$.a.b')", r#""$.data.a.b""#),
        ("c.dataPath('')", r#""TypeError: A JSON path must be a string with a name in it, not ""#),
        ("c.dataValue('a.b')(s)", "7"),
        ("c.dataValue(\"['odd key']\")(s)", "5"),
        ("c.dataValue('[0]')({ data: [6, 7] })", "6"),
        ("c.dataValue('nope')(s)", "null"),
        ("c.dataValue('a')({})", "null"),
        ("c.referencePath('a')", r#""$.referencesa""#),
        ("c.lastReferenceValue('id')(s)", "9"),
        ("c.lastReferenceValue('id')({})", "null"),
        ("c.source('$.data.items[*].n')(s)", "[1,2,3]"),
        ("c.sourceValue('$.data.items[*].n')(s)", "1"),
        ("c.jsonValue({ a: [{ b: 1 }] }, 'a[*].b')", "1"),
        ("c.asData('$.data.items[*].n', s)", "[1,2,3]"),
        ("c.asData(s => s.index, s)", "4"),
        ("c.asData(5, s)", "null"),
        ("c.composeNextState({ data: [1], references: [2], z: 3 }, 4)", r#"{"data":4,"references":[2,[1]],"z":3}"#),
        ("c.arrayToString([1, 'a', null], ', ')", r#""1, a, ""#),
        ("[5, [1], null, 'x'].map(c.toArray)", r#"[[5],[1],[null],["x"]]"#),
        (
            "['hello_world', 'the big CAT', \"it's-me\", ''].map(c.humanProper)",
            r#"["Hello World","The Big Cat","It's Me",""]"#,
        ),
        ("c.splitKeys({ a: 1, b: 2, c: 3 }, ['b', 'z'])", r#"[{"a":1,"c":3},{"b":2}]"#),
        ("c.chunk([1, 2, 3, 4, 5], 2)", "[[1,2],[3,4],[5]]"),
        ("c.chunk([1], 0)", r#""RangeError: chunk needs a size of 1 or more, not 0""#),
        (
            "c.group([{ c: 'x', n: 1 }, { c: 'y' }, { c: 'x', n: 3 }, {}], 'c')({ z: 1 })",
            r#"{"z":1,"data":{"x":[{"c":"x","n":1},{"c":"x","n":3}],"y":[{"c":"y"}]}}"#,
        ),
        ("c.group(s => s.l, s => 'c.d', s => s.data)({ l: [{ c: { d: 1 } }] })", r#"{"1":[{"c":{"d":1}}]}"#),
    ]);
}

#[test]
fn json_paths() {
    let cases = [
        ("$.data.a.b", "[7]"),
        ("data.a.b", "[7]"),
        ("$data.zero", "[]"),
        ("$.nope", "[]"),
        ("", "[]"),
        ("$.data.nul", "[null]"),
        ("$.data.items.1.n", "[2]"),
        ("$.data.items[0,2].n", "[1,3]"),
        ("$.data.items[1:].n", "[2,3]"),
        ("$.data.items[:-1].n", "[1,2]"),
        ("$.data.items[-1:].n", "[3]"),
        ("$.data.items[::2].n", "[1,3]"),
        ("$.data.items.length", "[3]"),
        ("$.data.items[(@.length-1)].n", "[3]"),
        ("$['data'][\"odd key\"]", "[5]"),
        ("$.data.people.*.age", "[5,9]"),
        ("$.data.people[*]~", r#"["ann","bob"]"#),
        ("$..age", "[5,9]"),
        ("$.data.nested..[0]", "[[1,[2]],1,2,3]"),
        ("$.data.a.b^", r#"[{"b":7}]"#),
        ("$.data.items[?(@.n>1)].n", "[2,3]"),
        ("$.data.items[?(@.t=='x' || @.n === 3)].n", "[1,3]"),
        ("$.data.items[?(@.t && @.t.match(/^[xz]$/))].n", "[1]"),
        ("$.data.items[?(@.k && @.k.z.includes(2))].n", "[1]"),
        ("$.data.items[?(!@.t)].n", "[3]"),
        ("$.data.items[?(@.n * 2 - 1 == 3)].n", "[2]"),
        ("$.data.items[?(@property > 0)].n", "[2,3]"),
        ("$.data.people[?(@property == 'ann')].age", "[5]"),
        ("$.data.items[?(@['n'] == @root.index - 3)].n", "[1]"),
    ];
    let cases =
        cases.map(|(path, expected)| (format!("c.source({})(s)", serde_json::to_string(path).unwrap()), expected));
    check(&cases.iter().map(|(expression, expected)| (expression.as_str(), *expected)).collect::<Vec<_>>());
}

#[test]
fn json_paths_that_are_not_understood_are_errors() {
    for path in [
        "$.data.items[?(@.n",
        "$.data.items[?(@.n in [1])]",
        "$.data.items[?(@.n > $.index)]",
        "$.data.items[?(@.n; 1)]",
        "$.data.items[?(globalThis)]",
        "$.data.items[?(@.constructor('return 1')())]",
        "$.data.items[?(@['__proto__'])]",
        "$.data.items[?(@.t.match(/x/))]",
        "$.data@string()",
    ] {
        let operation = format!("fn(sourceValue({}))", serde_json::to_string(path).unwrap());
        let Ok(JobEnd::Threw(thrown)) = Bench::new().run(job(&operation, STATE)) else { panic!("{path}") };
        assert_eq!(thrown.origin, crate::engine::Origin::Adaptor, "{path}: {thrown:?}");
    }
}

#[test]
fn buffers() {
    check(&[
        ("Buffer.from('é😀').toString('base64')", r#""w6nwn5iA""#),
        ("Buffer.from('w6nwn5iA', 'base64').toString()", r#""é😀""#),
        ("Buffer.from('6869', 'hex').toString('latin1')", r#""hi""#),
        ("Buffer.from([104, 105]).toString()", r#""hi""#),
        ("Buffer.from(new Uint8Array([104]).buffer).toString()", r#""h""#),
        ("Buffer.from(JSON.parse(JSON.stringify(Buffer.from('hi')))).toString()", r#""hi""#),
        (
            "[Buffer.from('a') instanceof Uint8Array, Buffer.isBuffer(Buffer.from('')), Buffer.byteLength('é')]",
            "[true,true,2]",
        ),
        ("Buffer.concat([Buffer.from('a'), Buffer.from('bc')]).slice(1).toString('utf8', 0, 1)", r#""b""#),
        ("['b', 'bc', 'x', '', 99].map(part => Buffer.from('abc').indexOf(part))", "[1,1,-1,0,2]"),
        ("[[2], [-2], [-9], [9]].map(from => Buffer.from('abab').indexOf('b', ...from))", "[3,3,1,-1]"),
        ("[Buffer.from('abc').indexOf('6263', 'hex'), Buffer.from('abc').indexOf(Buffer.from('c'))]", "[1,2]"),
        ("[Buffer.from('abc').includes('bc'), Buffer.from('abc').includes('a', 1)]", "[true,false]"),
        (
            "[0, 2, 3, 5].map(n => Buffer.concat([Buffer.from('a'), Buffer.from('bc')], n).toString('hex'))",
            r#"["","6162","616263","6162630000"]"#,
        ),
        (
            "[[-1], [-3, -1], [1, 99], [2, 1], ['1']].map(range => Buffer.from('abc').toString('utf8', ...range))",
            r#"["abc","","bc","","bc"]"#,
        ),
        ("['ab', 'abc', 'ac'].map(other => Buffer.from('ab').equals(Buffer.from(other)))", "[true,false,false]"),
        (
            "[[2], [3, 'ab'], [2, 255], [2, '']].map(of => Buffer.alloc(...of).toString('hex'))",
            r#"["0000","616261","ffff","0000"]"#,
        ),
        ("Buffer.from('\\ud800').toString('hex')", r#""efbfbd""#),
        ("Buffer.from('x'.repeat(10000)).toString('latin1').length", "10000"),
        ("Buffer.from('a').map(b => b + 1)[0]", "98"),
        ("new Buffer('a')", r#""TypeError: Buffer cannot be constructed here: use Buffer.from""#),
        ("Buffer.from('a', 'utf7')", r#""TypeError: Unknown encoding: utf7""#),
        ("Buffer.from(5)", r#""TypeError: Buffer.from takes a string, an array, an ArrayBuffer or a Buffer""#),
    ]);
}
