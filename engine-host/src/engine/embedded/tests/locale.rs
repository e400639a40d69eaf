//! Texts that depend on a locale, and what else of the language QuickJS has otherwise. What is expected is what Node says.

use super::*;

/// Evaluates each expression over `d`, the first minutes of 29 February 2024; a throw is `"Name: message"`.
fn check(cases: &[(&str, &str)]) {
    let expressions: Vec<String> = cases.iter().map(|(expression, _)| format!("(d) => ({expression})")).collect();
    let code = format!(
        "const evaluate = (expression) => {{
            try {{ return expression(new Date(Date.UTC(2024, 1, 29, 0, 5, 9))) ?? null; }} catch (e) {{ return `${{e.name}}: ${{e.message}}`; }}
        }};
        export default [() => ({{ results: [{}].map(evaluate) }})]",
        expressions.join(",\n")
    );
    check_results(cases, &code, "{}");
}

#[test]
fn english_needs_no_tables() {
    check(&[
        ("(1234567.891).toLocaleString()", r#""1,234,567.891""#),
        ("(-0.5).toLocaleString('en-US')", r#""-0.5""#),
        ("(0).toLocaleString()", r#""0""#),
        ("(-0).toLocaleString()", r#""-0""#),
        ("(1e21).toLocaleString()", r#""1,000,000,000,000,000,000,000""#),
        ("(1e-7).toLocaleString()", r#""0""#),
        ("NaN.toLocaleString()", r#""NaN""#),
        ("(-Infinity).toLocaleString()", r#""-∞""#),
        ("(1.005).toLocaleString('en-US', { maximumFractionDigits: 2 })", r#""1.01""#),
        ("(2.5).toLocaleString('en-US', { maximumFractionDigits: 0 })", r#""3""#),
        ("(999.995).toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })", r#""1,000.00""#),
        ("(5).toLocaleString(['en'], { minimumFractionDigits: 2 })", r#""5.00""#),
        ("(5).toLocaleString(undefined, { minimumIntegerDigits: 3 })", r#""005""#),
        ("(123456).toLocaleString('en-US', { maximumSignificantDigits: 2 })", r#""120,000""#),
        (
            "(0.00123456).toLocaleString('en-US', { minimumSignificantDigits: 2, maximumSignificantDigits: 3 })",
            r#""0.00123""#,
        ),
        ("(1.2).toLocaleString('en-US', { minimumSignificantDigits: 4 })", r#""1.200""#),
        ("(1234.5).toLocaleString('en-US', { useGrouping: false })", r#""1234.5""#),
        ("(0.256).toLocaleString('en-US', { style: 'percent' })", r#""26%""#),
        ("(0.2567).toLocaleString('en-US', { style: 'percent', maximumFractionDigits: 1 })", r#""25.7%""#),
        ("(-1234.5).toLocaleString('en-US', { style: 'currency', currency: 'USD' })", r#""-$1,234.50""#),
        ("(1234.5).toLocaleString('en-US', { style: 'currency', currency: 'JPY' })", r#""¥1,235""#),
        ("(1234.5).toLocaleString('en-US', { style: 'currency', currency: 'kes' })", r#""KES 1,234.50""#),
        (
            "(1234.5).toLocaleString('en-US', { style: 'currency', currency: 'EUR', minimumFractionDigits: 0 })",
            r#""€1,234.5""#,
        ),
        ("(12345678901234567890n).toLocaleString()", r#""12,345,678,901,234,567,890""#),
        ("[1234.5, new Date(0), 'x'].toLocaleString()", r#""1,234.5,1/1/1970, 12:00:00 AM,x""#),
        (
            "(5).toLocaleString('en-US', { style: 'currency' })",
            r#""TypeError: Currency code is required with currency style.""#,
        ),
        (
            "(5).toLocaleString('en-US', { maximumFractionDigits: 101 })",
            r#""RangeError: maximumFractionDigits value is out of range.""#,
        ),
        (
            "(5).toLocaleString('en-US', { minimumFractionDigits: 3, maximumFractionDigits: 1 })",
            r#""RangeError: maximumFractionDigits value is out of range.""#,
        ),
        ("(5).toLocaleString('x')", r#""RangeError: Incorrect locale information provided""#),
        ("String(d)", r#""Thu Feb 29 2024 00:05:09 GMT+0000 (Coordinated Universal Time)""#),
        ("d.toTimeString()", r#""00:05:09 GMT+0000 (Coordinated Universal Time)""#),
        ("`${new Date(NaN)}`", r#""Invalid Date""#),
        ("d.toLocaleString()", r#""2/29/2024, 12:05:09 AM""#),
        ("d.toLocaleDateString()", r#""2/29/2024""#),
        ("d.toLocaleTimeString()", r#""12:05:09 AM""#),
        ("d.toLocaleDateString('en-US', { year: 'numeric', month: 'long', day: 'numeric' })", r#""February 29, 2024""#),
        (
            "d.toLocaleDateString('en-US', { weekday: 'short', year: 'numeric', month: 'short', day: '2-digit' })",
            r#""Thu, Feb 29, 2024""#,
        ),
        ("d.toLocaleDateString('en-US', { weekday: 'long' })", r#""Thursday""#),
        ("d.toLocaleDateString('en-US', { month: 'long' })", r#""February""#),
        ("d.toLocaleDateString('en-US', { month: 'long', year: 'numeric' })", r#""February 2024""#),
        ("d.toLocaleDateString('en-US', { year: '2-digit', month: '2-digit', day: '2-digit' })", r#""02/29/24""#),
        ("d.toLocaleDateString(undefined, { timeZone: 'UTC' })", r#""2/29/2024""#),
        ("d.toLocaleDateString('en-US', { dateStyle: 'full' })", r#""Thursday, February 29, 2024""#),
        ("d.toLocaleString('en-US', { dateStyle: 'long', timeStyle: 'short' })", r#""February 29, 2024 at 12:05 AM""#),
        ("d.toLocaleString('en-US', { dateStyle: 'short', timeStyle: 'long' })", r#""2/29/24, 12:05:09 AM UTC""#),
        ("d.toLocaleString('en-US', { dateStyle: 'medium', timeStyle: 'medium' })", r#""Feb 29, 2024, 12:05:09 AM""#),
        (
            "d.toLocaleString('en-US', { month: 'long', day: 'numeric', hour: 'numeric', minute: '2-digit' })",
            r#""February 29 at 12:05 AM""#,
        ),
        ("d.toLocaleTimeString('en-US', { hour: '2-digit', minute: '2-digit' })", r#""12:05 AM""#),
        ("d.toLocaleTimeString('en-US', { hour12: false })", r#""00:05:09""#),
        ("d.toLocaleTimeString('en-US', { hour: 'numeric', hour12: true })", r#""12 AM""#),
        ("d.toLocaleTimeString('en-US', { hourCycle: 'h23', hour: '2-digit', minute: '2-digit' })", r#""00:05""#),
        ("d.toLocaleTimeString('en-US', { timeZoneName: 'short' })", r#""12:05:09 AM UTC""#),
        ("new Date(NaN).toLocaleString()", r#""Invalid Date""#),
        ("new Date(-62198755200000).toLocaleDateString()", r#""1/1/2""#),
        ("d.toLocaleDateString('en-US', { hour: 'numeric' })", r#""2/29/2024, 12 AM""#),
        ("d.toLocaleTimeString('en-US', { dateStyle: 'short' })", r#""TypeError: Invalid option : dateStyle""#),
        (
            "d.toLocaleString('en-US', { dateStyle: 'short', year: 'numeric' })",
            r#""TypeError: Invalid option : option""#,
        ),
        (
            "d.toLocaleString('en-US', { month: 'x' })",
            r#""RangeError: Value x out of range for Date.prototype.toLocaleString options property month""#,
        ),
        (
            r#"['b', 'B', 'a', 'á', 'A', 'ab', 'a b', 'a-b', '_', '10', '9', '', 'z', 'ø', 'o', 'straße', 'strasse', 'æ', 'ae', 'ñ', 'n', 'я', 'б', 'α', '€', '$', 'é', 'e\u0301'].sort((x, y) => x.localeCompare(y)).join('|')"#,
            r#""|_|$|€|10|9|a|A|á|a b|a-b|ab|ae|æ|b|B|é|é|n|ñ|o|ø|strasse|straße|z|α|б|я""#,
        ),
        (
            "['item 10', 'item 9', 'item 010', 'Item 1'].sort((x, y) => x.localeCompare(y, 'en', { numeric: true })).join('|')",
            r#""Item 1|item 9|item 10|item 010""#,
        ),
        (
            "[...'łl Łl ŁL łL øo đd Ａa ªa ſs éE ßs ςσ Яя'.split(' '), ['æ', 'ae'], ['Æ', 'ae'], ['æ', 'AE'], ['ﬁ', 'fi'], ['ß', 'SS']].map(([x, y]) => x.localeCompare(y, undefined, { sensitivity: 'case' })).join()",
            r#""0,1,0,-1,0,0,1,0,0,-1,1,0,1,0,1,-1,0,-1""#,
        ),
        (
            "['base', 'accent', 'case', 'variant'].map((sensitivity) => ['aA', 'aá', 'ab'].map(([x, y]) => x.localeCompare(y, undefined, { sensitivity })).join())",
            r#"["0,0,-1","0,-1,-1","-1,0,-1","-1,-1,-1"]"#,
        ),
        ("'a'.localeCompare()", "-1"),
        ("[...'😀★→✓❤1$`!a日'].sort((a, b) => a.localeCompare(b)).join('')", r#""!`→★✓❤😀$1a日""#),
        (r#"'é'.localeCompare('e\u0301', 'fr')"#, "0"),
        (
            "String.prototype.localeCompare.length + Date.prototype.toLocaleString.length + Number.prototype.toLocaleString.name",
            r#""1toLocaleString""#,
        ),
        ("'i'.toLocaleUpperCase('en')", r#""I""#),
        ("'Iß'.toLocaleLowerCase()", r#""iß""#),
        (
            "['Milliseconds', 'Hours', 'Date', 'Month', 'FullYear'].map((part) => new Date(0)[`set${part}`](undefined) + new Date(0)[`setUTC${part}`](NaN))",
            "[null,null,null,null,null]",
        ),
        ("new Date(0).setHours(1, NaN)", "null"),
        ("new Date(0).setDate(1, NaN)", "0"),
        ("new Date(NaN).setFullYear(2024)", "1704067200000"),
        ("Date.prototype.setUTCHours.length", "4"),
        ("Date.prototype.setMonth.name", r#""setMonth""#),
        ("String(Math.max)", r#""function max() { [native code] }""#),
        ("String(parseInt.bind(1))", r#""function () { [native code] }""#),
        ("String((a) => a)", r#""(a) => a""#),
    ]);
}

#[test]
fn what_needs_tables_is_refused() {
    for (expression, what) in [
        ("(1.5).toLocaleString('de-DE')", "The locale de-DE"),
        ("(1.5).toLocaleString('en-IN')", "The locale en-IN"),
        ("(1.5).toLocaleString('en-US', { notation: 'compact' })", "The option notation"),
        ("(1.5).toLocaleString('en-US', { style: 'unit', unit: 'liter' })", "The option unit"),
        (
            "(1.5).toLocaleString('en-US', { style: 'currency', currency: 'USD', currencyDisplay: 'name' })",
            "The currencyDisplay name",
        ),
        ("d.toLocaleDateString('en-GB')", "The locale en-GB"),
        ("d.toLocaleString('en-US', { timeZone: 'Africa/Nairobi' })", "The time zone Africa/Nairobi"),
        ("d.toLocaleString('en-US', { era: 'short' })", "The option era"),
        (
            "d.toLocaleDateString('en-US', { year: 'numeric', day: 'numeric' })",
            "That choice of weekday, year, month and day",
        ),
        ("d.toLocaleTimeString('en-US', { minute: 'numeric' })", "That choice of hour, minute and second"),
        ("'a'.localeCompare('b', 'sv')", "The locale sv"),
        ("'a'.localeCompare('b', 'en', { caseFirst: 'upper' })", "The option caseFirst"),
        ("'i'.toLocaleUpperCase('tr')", "The locale tr"),
    ] {
        let expected = format!(
            "\"RangeError: {what} is not possible in the embedded engine, which has no tables of locales: use the Node engine (--engine node)\""
        );
        check(&[(expression, &expected)]);
    }
}
