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
    check_results(cases, &code, STATE);
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
        ("c.fn(5)(s)", r#""TypeError: func is not a function""#),
        ("c.alterState(() => 5)(s)", "5"),
        ("c.fnIf(true, () => 1)(s)", "1"),
        ("c.fnIf(0, () => 1)({ z: 2 })", r#"{"z":2}"#),
        ("c.fnIf(s => s.z, () => 1)({ z: 2 })", "1"),
        ("c.fnIf(s => s.q, () => 1)({ z: 2 })", r#"{"z":2}"#),
        ("c.fnIf(true, 5)(s)", r#""TypeError: operation is not a function""#),
        ("c.combine(s => ({ x: 1 }), async s => ({ ...s, y: s.x + 1 }))({})", r#"{"x":1,"y":2}"#),
        ("typeof c.combine(s => s, s => s)({}).then", r#""undefined""#),
        ("c.combine(s => {}, s => ({ got: 1 }))({})", r#""TypeError: cannot read property 'then' of undefined""#),
        ("c.combine(s => {})({}) === undefined", "true"),
        ("c.combine()({ a: 1 })", r#"{"a":1}"#),
        ("[c.combine(s => { s.x = 1; return s })(s).x, s.x]", "[1,null]"),
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
        ("c.each(null, rec)(s)", r#""TypeError: dataSource argument for each operation is invalid.""#),
        ("c.each(5, rec)(s)", r#""TypeError: cannot read property 'reduce' of undefined""#),
        ("c.each(async () => [1], rec)(s)", r#""TypeError: asData(...).reduce is not a function""#),
        ("c.each([1, 2], () => {})(s)", r#""TypeError: cannot read property 'then' of undefined""#),
        ("c.each([1], () => { throw new Error('mine') })(s)", r#""Error: mine""#),
        ("c.index()(s)", "4"),
        ("c.map('$.data.items[*]', (d, i, s) => [d.n, i, s.index])(s).then(s => s.data)", "[[1,0,4],[2,1,4],[3,2,4]]"),
        ("c.map([1, 2], async d => d + 1)({ z: 1 })", r#"{"z":1,"data":[2,3]}"#),
        ("c.map(new Set([1, 2]), d => d + 1)({})", r#"{"data":[2,3]}"#),
        ("c.map({}, d => d)({})", r#""TypeError: values is not iterable""#),
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
        ("c.merge('$.missing', {})(0 / 0)", r#""TypeError: cannot read property 'reduce' of undefined""#),
        (
            "c.merge('$.data.items[1]', { n: 9, y: { deep: s => s.data.name, l: [s => 1] } })(s)",
            r#"[{"n":9,"t":"y","k":null,"y":{"deep":"bob","l":[1]}}]"#,
        ),
        ("c.join('$.data.items[1]', '$.data.name', 'ex')(s)", r#"[{"ex":"bob","n":2,"t":"y","k":null}]"#),
        ("c.dataPath('$.a.b')", r#""$.data.a.b""#),
        ("c.dataPath('')", r#""TypeError: cannot read property '1' of null""#),
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
        ("c.group([{ 'a.b': 1 }, { 'a.b': 2 }], 'a.b', s => s.data)({})", r#"{"1":[{"a.b":1}],"2":[{"a.b":2}]}"#),
        ("c.group([{ k: { z: 1 } }], ['k', 'z'], s => s.data)({})", r#"{"1":[{"k":{"z":1}}]}"#),
        ("c.group([{ k: { 'a.b': 1 } }], 'k[\"a.b\"]', s => s.data)({})", r#"{"1":[{"k":{"a.b":1}}]}"#),
        ("c.group([{ l: [0, 7] }], 'l[1]', s => s.data)({})", r#"{"7":[{"l":[0,7]}]}"#),
        (
            "c.group(['constructor', '__proto__'].map(c => ({ c })), 'c', s => s.data)({})",
            r#"{"constructor":[{"c":"constructor"}],"__proto__":[{"c":"__proto__"}]}"#,
        ),
        ("c.group(s => s.l, s => 'c.d', s => s.data)({ l: [{ c: { d: 1 } }] })", r#"{"1":[{"c":{"d":1}}]}"#),
    ]);
}

#[test]
fn texts_of_records() {
    check(&[
        (r"c.parseCsv('a,b\n1,2\n3,4')(s).then(s => s.data)", r#"[{"a":"1","b":"2"},{"a":"3","b":"4"}]"#),
        (r"c.parseCsv('\uFEFFa,b\r\n1,2\r\n\r\n')(s).then(s => s.data)", r#"[{"a":"1","b":"2"}]"#),
        (r"c.parseCsv(' a ;b\n 1 ;2', { delimiter: ';', trim: false })(s).then(s => s.data)", r#"[{"a":"1","b":"2"}]"#),
        (r"c.parseCsv('a\n 1 ', { ltrim: false, rtrim: false })(s).then(s => s.data)", r#"[{"a":" 1 "}]"#),
        (r#"c.parseCsv('a,b\n"1,""1","x\ny" ')(s).then(s => s.data)"#, r#"[{"a":"1,\"1","b":"x\ny"}]"#),
        (r#"c.parseCsv('a\n"1\\"1"', { escape: '\\' })(s).then(s => s.data)"#, r#"[{"a":"1\"1"}]"#),
        (r"c.parseCsv('1,2\n3,4', { columns: false })(s).then(s => s.data)", r#"[["1","2"],["3","4"]]"#),
        (r"c.parseCsv('1,2', { columns: ['x', null] })(s).then(s => s.data)", r#"[{"x":"1"}]"#),
        (r"c.parseCsv(s => 'n\n' + s.data)({ data: 'bob' })", r#"{"data":[{"n":"bob"}],"references":["bob"]}"#),
        (
            r"c.parseCsv('a\n1\n2\n3', { chunkSize: 2 }, (s, rows) => [...(s.length ? s : []), rows.length])({})",
            "[2,1]",
        ),
        ("c.parseCsv('')({ z: 1 })", r#"{"z":1}"#),
        (r"c.parseCsv('a\n1,2')(s)", r#""Error: Invalid Record Length: columns length is 1, got 2 on line 2""#),
        (
            r#"c.parseCsv('a\n"1')(s)"#,
            r#""Error: Quote Not Closed: the parsing is finished with an opening quote at line 2""#,
        ),
        (
            r#"c.parseCsv('a,b\n1,2"')(s)"#,
            r#""Error: Invalid Opening Quote: a quote is found on field \"b\" at line 2, value is \"2\"""#,
        ),
        ("c.parseCsv(5)(s)", r#""TypeError: stream.pipe is not a function""#),
    ]);
}

#[test]
fn positions_and_symbols() {
    check(&[
        ("c.cursor(5)({})", r#"{"cursor":5}"#),
        ("c.cursor(s => s.page, { defaultValue: 1, key: 'page' })({})", r#"{"page":1}"#),
        ("c.cursor('abc', { format: x => x + 'd', key: 'cursor' })({})", r#"{"cursor":"abcd"}"#),
        ("c.cursor('today', { format: d => [d.getHours(), new Date() - d < 864e5] })({})", r#"{"cursor":[0,true]}"#),
        ("c.cursor('2 hours ago', { format: d => Math.round((new Date() - d) / 1e3) })({})", r#"{"cursor":7200}"#),
        ("isNaN(new Date(c.cursor('now')({}).cursor))", "false"),
        ("c.scrubEmojis('a✅b😀')", r#""a\ufffdb\ufffd""#),
        ("c.scrubEmojis('a✅b', '')", r#""ab""#),
        ("c.scrubEmojis('')", r#""""#),
    ]);
}

#[test]
fn dates_are_shown_by_pattern() {
    let cases = [
        ("yyyy-MM-dd HH:mm:ss.SSS", "2020-01-02 15:04:05.006"),
        ("d/M/yy h:mm a", "2/1/20 3:04 PM"),
        ("EEEE, MMMM do, yyyy", "Thursday, January 2nd, 2020"),
        ("EEE MMM EEEEEE MMMMM haaa haaaa haaaaa", "Thu Jan Th J 3pm 3p.m. 3p"),
        ("'it''s' QQQ, QQQQ, DDD, I R i", "it's Q1, 1st quarter, 002, 1 2020 4"),
        ("PPpp", "Jan 2, 2020, 3:04:05 PM"),
        ("k K S SS ''", "15 3 0 00 '"),
    ];
    let cases = cases.map(|(pattern, expected)| {
        let pattern = serde_json::to_string(pattern).unwrap();
        let call = format!("c.dateFns.format(new Date(2020, 0, 2, 15, 4, 5, 6), {pattern})");
        (call, serde_json::to_string(expected).unwrap())
    });
    check(&cases.iter().map(|(call, expected)| (call.as_str(), expected.as_str())).collect::<Vec<_>>());
    check(&[
        ("c.dateFns.format(new Date(NaN), 'y')", r#""RangeError: Invalid time value""#),
        ("c.dateFns.format('2020-01-02', 'y')", r#""RangeError: Invalid time value""#),
        (
            "c.dateFns.format(new Date(0), 'YYYY')",
            r#""RangeError: Use `yyyy` instead of `YYYY` (in `YYYY`) for formatting years to the input `Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)`; see: https://github.com/date-fns/date-fns/blob/master/docs/unicodeTokens.md""#,
        ),
    ]);
}

#[test]
fn dates_are_read_by_pattern() {
    let cases = [
        ("02/01/2020", "dd/MM/yyyy", "2020-01-02 00:00:00.000"),
        ("2/1/80", "d/M/yy", "1980-01-02 00:00:00.000"),
        ("2/1/75", "d/M/yy", "2075-01-02 00:00:00.000"),
        ("january 5th, 2020", "MMMM do, yyyy", "2020-01-05 00:00:00.000"),
        ("202001021530", "yyyyMMddHHmm", "2020-01-02 15:30:00.000"),
        ("12:30 AM", "h:mm a", "2026-11-23 00:30:00.000"),
        ("03", "MM", "2026-03-01 00:00:00.000"),
        ("2020-02-30", "yyyy-MM-dd", "invalid"),
        ("25:00", "HH:mm", "invalid"),
        ("2020-01-02 more", "yyyy-MM-dd", "invalid"),
    ];
    let cases = cases.map(|(text, pattern, expected)| {
        let call = format!("c.dateFns.parse('{text}', '{pattern}', new Date(2026, 10, 23, 13, 5, 6, 7))");
        let show = format!("(d => isNaN(d) ? 'invalid' : c.dateFns.format(d, 'yyyy-MM-dd HH:mm:ss.SSS'))({call})");
        (show, serde_json::to_string(expected).unwrap())
    });
    check(&cases.iter().map(|(call, expected)| (call.as_str(), expected.as_str())).collect::<Vec<_>>());
    check(&[
        (
            "c.dateFns.parse('2020-01-02T03:04:05+02:00', \"yyyy-MM-dd'T'HH:mm:ssxxx\", new Date())",
            r#""2020-01-02T01:04:05.000Z""#,
        ),
        (
            "c.dateFns.parse('2020-01-02T03:04:05.678Z', \"yyyy-MM-dd'T'HH:mm:ss.SSSX\", new Date())",
            r#""2020-01-02T03:04:05.678Z""#,
        ),
    ]);
}

#[test]
fn utilities() {
    check(&[
        ("c.util.decode(c.util.encode({ a: 1 }))", r#"{"a":1}"#),
        ("c.util.decode('aGk=')", r#""hi""#),
        ("c.util.makeBasicAuthHeader('u', 'p')", r#"{"Authorization":"Basic dTpw"}"#),
        ("c.util.expandReferences({ a: 1 }, s => s.a, [{ b: s => s.a }])", r#"[1,[{"b":1}]]"#),
        ("c.util.throwError('C', { description: 'd' })", r#""Error: C: d""#),
        ("/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(c.util.uuid())", "true"),
        ("c.util.uuid() === c.util.uuid()", "false"),
        (
            "c.util.get('https://example.org')",
            r#""ImportError: util.get of @openfn/language-common is not in the embedded engine: use the Node engine (--engine node), which has all of it""#,
        ),
    ]);
}

#[test]
fn buffers() {
    check(&[
        ("Buffer.from('é😀').toString('base64')", r#""w6nwn5iA""#),
        ("Buffer.from('w6nwn5iA', 'base64').toString()", r#""é😀""#),
        ("Buffer.from('6869', 'hex').toString('latin1')", r#""hi""#),
        (
            r"['😀 smile', 'łódź smile', 'Ł', 'sm-_ile', 'aa\ud83daa'].map((text) => Buffer.from(text, 'base64').toString('hex'))",
            r#"["","05dcec9a295e","","b26fbf8a57","69"]"#,
        ),
        (
            "['6ı7a', '616é62', 'é1', '61İ1'].map((text) => Buffer.from(text, 'hex').toString('hex'))",
            r#"["617a","61","","6101"]"#,
        ),
        ("Buffer.from([104, 105]).toString()", r#""hi""#),
        ("[Buffer.from('hi')].toLocaleString()", r#""hi""#),
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
        (
            "Buffer.from(5)",
            r#""TypeError: The first argument must be of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object. Received type number (5)""#,
        ),
    ]);
}

#[test]
fn buffers_are_searched_and_filled() {
    check(&[
        ("Buffer.alloc(5,'ab').toString()", r#""ababa""#),
        ("Buffer.from('abcdef').fill('xy').toString()", r#""xyxyxy""#),
        ("Buffer.from('abcdef').fill('xy', 1).toString()", r#""axyxyx""#),
        ("Buffer.from('abcdef').fill('xy', 1, 4).toString()", r#""axyxef""#),
        ("Buffer.from('abcdef').fill('7a', 'hex').toString()", r#""zzzzzz""#),
        ("Buffer.from('abcdef').fill('7a', 2, 'hex').toString()", r#""abzzzz""#),
        ("Buffer.from('abcdef').fill('7a', 2, 3, 'hex').toString()", r#""abzdef""#),
        ("Buffer.from('abc').fill('').toString('hex')", r#""000000""#),
        ("Buffer.from('abc').fill(353).toString('hex')", r#""616161""#),
        ("Buffer.from('abc').fill().toString('hex')", r#""000000""#),
        ("Buffer.from('abcabc').lastIndexOf('abc')", "3"),
        ("Buffer.from('abcabc').lastIndexOf('b')", "4"),
        ("Buffer.from('abcabc').lastIndexOf('b', 3)", "1"),
        ("Buffer.from('abcabc').lastIndexOf('b', -3)", "1"),
        ("Buffer.from('abcabc').lastIndexOf('b', -9)", "-1"),
        ("Buffer.from('abcabc').lastIndexOf('x')", "-1"),
        ("Buffer.from('abcabc').lastIndexOf('')", "6"),
        ("Buffer.from('abcabc').lastIndexOf(99)", "5"),
        ("Buffer.from('abcabc').lastIndexOf(Buffer.from('ca'))", "2"),
        ("Buffer.from('abcabc').lastIndexOf('6263', undefined, 'hex')", "4"),
        ("Buffer.from('abcabc').lastIndexOf('6263', 'hex')", "4"),
        ("Buffer.from('abc').lastIndexOf('abcd')", "-1"),
        ("Buffer.from('abcabc').indexOf('c', 3)", "5"),
        ("Buffer.from('abcabc').indexOf('c', -1)", "5"),
        ("Buffer.from('abcabc').indexOf('c', -99)", "2"),
        ("Buffer.from('abcabc').indexOf('63', 0, 'hex')", "2"),
        ("Buffer.from('abcabc').indexOf('63', 'hex')", "2"),
        ("Buffer.from('abcabc').indexOf('', 4)", "4"),
        ("Buffer.from('a').compare(Buffer.from('b'))", "-1"),
        ("Buffer.from('ab').compare(Buffer.from('a'))", "1"),
        ("Buffer.from('ab').compare(Buffer.from('ab'))", "0"),
        ("Buffer.from('abc').includes('bc')", "true"),
        (
            "[String(Buffer), String(console.log), String(c.each)].map(code => /native code/.test(code))",
            "[true,true,true]",
        ),
    ]);
}

#[test]
fn lodash_is_there_for_jobs_that_import_it() {
    let code = "import { _, fn } from '@openfn/language-common';
        export default [fn(() => ({ grouped: _.groupBy([1.2, 1.8, 2.1], Math.floor), name: _.camelCase('some name') }))]";
    let Ok(JobEnd::Returned(result)) = Bench::new().run(module(code, "{}")) else { panic!("it returns") };
    assert_eq!(text(result.state), r#"{"grouped":{"1":[1.2,1.8],"2":[2.1]},"name":"someName"}"#);
}
