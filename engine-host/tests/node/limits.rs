//! Memory: of V8's heap and outside of it, of the process and of what it starts.

use super::*;

const LIMIT: u64 = 200 * MB;

async fn lost(code: &str) -> EngineLost {
    let mut bench = Bench::with_memory(&[], LIMIT).await;
    let lost = bench.run(job(code)).await.unwrap_err();
    assert!(bench.engine.is_lost());
    lost
}

#[tokio::test]
async fn a_heap_that_grows_is_out_of_memory() {
    for code in [
        "export default [() => { const all = []; for (;;) all.push({ x: Math.random(), y: [1, 2, 3] }); }];",
        "export default [() => { let text = 'x'; for (;;) { text += text; text.charCodeAt(5); globalThis[text.length] = [...text]; } }];",
        "export default [async () => { const all = []; for (;;) { all.push(new Array(1000).fill({})); await null; } }];",
        "export default [() => { const all = []; const more = () => { all.push(new Array(100000).fill(0)); setTimeout(more, 0); }; more(); return new Promise(() => {}); }];",
    ] {
        assert_eq!(lost(code).await, EngineLost::OutOfMemory, "{code}");
    }
}

#[tokio::test]
async fn one_piece_that_is_too_large_is_out_of_memory() {
    let code = "export default [() => { const all = new Array(2 ** 26).fill(0); return { n: all.map((x) => x + 1).length }; }];";
    assert_eq!(lost(code).await, EngineLost::OutOfMemory);
}

#[tokio::test]
async fn buffers_count_though_they_are_not_in_the_heap() {
    for code in [
        "export default [() => { globalThis.all = []; for (let i = 0; i < 200; i += 1) all.push(Buffer.alloc(10 * 2 ** 20, 1)); return { length: all.length }; }];",
        "export default [() => { globalThis.one = Buffer.alloc(2 ** 31, 1); return {}; }];",
        "export default [() => { globalThis.all = []; for (let i = 0; i < 200; i += 1) all.push(new Uint8Array(10 * 2 ** 20).fill(1)); return {}; }];",
        "export default [async () => { globalThis.all = []; for (let i = 0; i < 200; i += 1) { all.push(Buffer.alloc(10 * 2 ** 20, 1)); await new Promise((r) => setTimeout(r, 1)); } return {}; }];",
    ] {
        assert_eq!(lost(code).await, EngineLost::OutOfMemory, "{code}");
    }
}

#[tokio::test]
async fn lines_before_too_much_memory_are_not_lost() {
    let mut bench = Bench::with_memory(&[], LIMIT).await;
    let code = "export default [() => {
        for (let i = 0; i < 1000; i += 1) console.log(i);
        for (let all = []; ;) all.push(Buffer.alloc(10 * 2 ** 20, 1));
    }];";
    assert_eq!(bench.run(job(code)).await, Err(EngineLost::OutOfMemory));
    assert_eq!(bench.lines().last().map(String::as_str), Some("JOB info [999]"));
}

#[tokio::test]
async fn what_an_adaptor_starts_counts_too() {
    let repo = Repo::new();
    let source = "const { spawn } = require('node:child_process');
        const script = 'globalThis.all = []; setInterval(() => all.push(Buffer.alloc(10 * 2 ** 20, 1)), 5)';
        exports.start = () => { spawn(process.execPath, ['-e', script], { env: {}, stdio: 'ignore' }); return new Promise(() => {}); };";
    let mut adaptor = repo.bundled("@openfn/language-a", source);
    adaptor.needs.child_processes = true;
    let mut bench = Bench::with_memory(&[&adaptor], LIMIT).await;
    let code = "import { start } from '@openfn/language-a'; export default [() => start()];";
    assert_eq!(bench.run(job(code)).await, Err(EngineLost::OutOfMemory));
}

#[tokio::test]
async fn what_fits_is_no_excess() {
    let mut bench = Bench::with_memory(&[], LIMIT).await;
    let code = "export default [() => { const all = []; for (let i = 0; i < 12; i += 1) all.push(Buffer.alloc(10 * 2 ** 20, 1)); return { n: all.length }; }];";
    assert_eq!(bench.result(code).await, r#"{"n":12}"#);
    let garbage =
        "export default [() => { let n = 0; for (let i = 0; i < 3e6; i += 1) n += [i, i].length; return { n }; }];";
    assert_eq!(bench.result(garbage).await, r#"{"n":6000000}"#);
}

#[tokio::test]
async fn large_states_come_through() {
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    let large = format!(r#"{{"data":"{}"}}"#, "ä".repeat(10 * MB as usize));
    let call = job_with("export default [(s) => s];", &[], &large);
    let Ok(JobEnd::Returned(result)) = bench.run(call).await else { panic!("it returns") };
    assert!(text(result.state) == large);
}

#[tokio::test]
async fn a_state_of_a_third_of_the_memory_gets_from_step_to_step() {
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    let code = "export default [() => ({ data: 'x'.repeat(150e6) })];";
    let Ok(JobEnd::Returned(result)) = bench.run(job(code)).await else { panic!("it returns") };
    let state = text(result.state);
    let call = job_with("export default [(s) => ({ length: s.data.length })];", &[], &state);
    let Ok(JobEnd::Returned(result)) = bench.run(call).await else { panic!("it gets its state") };
    assert_eq!(text(result.state), r#"{"length":150000000}"#);
}

#[tokio::test]
async fn recursion_without_end_is_an_error_of_the_job() {
    let mut bench = Bench::start(&[]).await;
    let thrown = bench.thrown("const f = () => f() + 1; export default [f];").await;
    assert_eq!((thrown.name.as_str(), thrown.message.as_str()), ("RangeError", "Maximum call stack size exceeded"));
    assert_eq!(bench.result("export default [() => ({})];").await, "{}");
}

#[tokio::test]
async fn a_state_beyond_its_limit_is_not_told_and_one_within_it_is_told_in_pieces() {
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    let limited = |code: &str| JobCall { state_bytes: 40 * MB, ..job(code) };
    let large = bench.run(limited("export default [() => ({ data: 'x'.repeat(50e6) })];")).await;
    assert_eq!(large, Ok(JobEnd::TooLarge));
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    let code = "export default [(s) => { s.data = 'x'.repeat(50e6); throw new Error('as it is') }];";
    match bench.run(limited(code)).await {
        Ok(JobEnd::Threw(thrown)) => assert_eq!((thrown.state, thrown.is_too_large), (None, true)),
        other => panic!("{other:?}"),
    }
    // Characters of two units stand across all borders of pieces.
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    match bench.run(limited("export default [() => ({ data: 'x' + '\u{1f600}'.repeat(2e6) })];")).await {
        Ok(JobEnd::Returned(result)) => {
            let expected = format!(r#"{{"data":"x{}"}}"#, "\u{1f600}".repeat(2_000_000));
            assert!(text(result.state) == expected, "it is told as it is");
        }
        other => panic!("{other:?}"),
    }
    let mut bench = Bench::with_memory(&[], 500 * MB).await;
    match bench.run(limited("export default [() => ({ data: 'x'.repeat(30e6) })];")).await {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state).len(), 30_000_000 + r#"{"data":""}"#.len()),
        other => panic!("{other:?}"),
    }
}
