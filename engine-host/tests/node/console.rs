//! What jobs and adaptors log and print.

use super::*;

#[tokio::test]
async fn a_jobs_console_gives_lines_in_order() {
    let mut bench = Bench::start(&[]).await;
    let code = "export default [async (s) => {
        console.log('a', 1, null, undefined, () => 1);
        console.info({ configuration: { password: 'x' } });
        console.debug(new Error('e')); console.warn([new TypeError('t')]); console.error('bad');
        console.success('done'); console.always('yes'); console.print('shown', { a: 1 });
        console.log(); console.log(null);
        const cycle = {}; cycle.self = cycle; console.log(cycle, 5n);
        await new Promise((r) => setTimeout(r, 2));
        console.log(s);
        return s;
    }];";
    bench.run(job_with(code, &[], r#"{"z":1}"#)).await.unwrap();
    assert_eq!(
        bench.lines(),
        [
            r#"JOB info ["a",1,null,null,null]"#,
            r#"JOB info [{"configuration":{"password":"****"}}]"#,
            r#"JOB debug [{ "name":"Error","message":"e"}]"#,
            r#"JOB warn [[{"name":"TypeError","message":"t"}]]"#,
            r#"JOB error ["bad"]"#,
            r#"JOB success ["done"]"#,
            r#"JOB always ["yes"]"#,
            r#"JOB info ["shown",{"a":1}]"#,
            r#"JOB info [{"self":"[Circular]"},"5"]"#,
            r#"JOB info [{"z":1}]"#,
        ]
    );
}

#[tokio::test]
async fn an_adaptors_console_is_told_apart_and_what_it_prints_is_no_line() {
    let repo = Repo::new();
    let source = "
        console.log('while it loads');
        exports.speak = () => (s) => {
            console.log('log', { a: 1 }); console.warn('warn'); console.error(new Error('e'));
            process.stdout.write('printed\\n'); process.stderr.write('printed too\\n');
            return s;
        };";
    for adaptor in [repo.common_js("@openfn/language-a", source), repo.bundled("@openfn/language-a", source)] {
        let mut bench = Bench::start(&[&adaptor]).await;
        let code = "import { speak } from '@openfn/language-a'; export default [(s) => { console.log('job'); return s; }, speak()];";
        bench.run(job(code)).await.unwrap();
        let expected = [
            r#"JOB info ["job"]"#,
            r#"ADA info ["log",{"a":1}]"#,
            r#"ADA warn ["warn"]"#,
            r#"ADA error [{ "name":"Error","message":"e"}]"#,
        ];
        assert_eq!(bench.lines(), expected);
    }
}

#[tokio::test]
async fn an_operation_without_a_state_is_warned_of() {
    let mut bench = Bench::start(&[]).await;
    assert_eq!(bench.result("export default [() => {}, (s) => ({ s })];").await, r#"{"s":{}}"#);
    let lines = bench.lines();
    assert!(lines.len() == 1 && lines[0].starts_with("R/T warn [\"Warning: operation 2 got no state"), "{lines:?}");
}

#[tokio::test]
async fn many_lines_and_much_output_come_through() {
    let repo = Repo::new();
    let adaptor = repo.common_js(
        "@openfn/language-a",
        "exports.print = () => { for (let i = 0; i < 2000; i += 1) process.stderr.write('x'.repeat(1000) + '\\n'); };",
    );
    let mut bench = Bench::start(&[&adaptor]).await;
    let code = "import { print } from '@openfn/language-a';
        export default [() => { print(); for (let i = 0; i < 10000; i += 1) console.log(i); return {}; }];";
    bench.result(code).await;
    let lines = bench.lines();
    assert_eq!(lines.len(), 10_000);
    assert!(lines.iter().enumerate().all(|(i, line)| *line == format!("JOB info [{i}]")));
}
