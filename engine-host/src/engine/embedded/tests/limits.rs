//! What stops a job.

use std::time::Instant;

use super::*;

/// Runs a module and stops the engine while it is under way.
fn stopped(code: &str) -> (Result<JobEnd, EngineLost>, Duration) {
    let mut bench = Bench::new();
    let interrupt = bench.interrupt.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        interrupt.stop();
        start
    });
    let end = bench.run(module(code, "{}"));
    let start = stopper.join().unwrap();
    (end, start.elapsed())
}

#[test]
fn an_interrupt_ends_every_loop() {
    for code in [
        "for (;;) {}",
        "export default [() => { for (;;) {} }]",
        "export default [() => { for (;;) { try { for (;;) {} } catch { } finally { continue; } } }]",
        "export default [async () => { for (;;) { try { for (;;) {} } catch {} } }]",
        "export default [async () => { for (;;) { try { await 1; } catch {} } }]",
        "const again = () => Promise.resolve().then(again); export default [() => { again(); return new Promise(() => {}) }]",
        "export default [() => { setInterval(() => {}, 0); return new Promise(() => {}) }]",
        "export default [() => { setTimeout(() => { for (;;) {} }); return new Promise(() => {}) }]",
        "export default [() => new Promise(() => {})]",
        "export default [() => new Promise(resolve => setTimeout(resolve, 1e6))]",
        "export default [() => { const p = new Proxy({}, { get: (t, k, r) => { for (;;) {} } }); return p.x }]",
        "export default [() => ({ get a() { for (;;) {} } })]",
        "export default [() => ({ toJSON() { for (;;) {} } })]",
        "export default [() => ({ then() { for (;;) {} } })]",
        "export default [() => { const g = function* () { try { for (;;) yield 1 } finally { for (;;) {} } }; for (const x of g()) {} }]",
        "export default [() => { throw { get message() { for (;;) {} } } }]",
        "export default [() => { console.log({ get a() { for (;;) {} } }) }]",
        "export default [() => /^(a+)+$/.test('a'.repeat(40) + 'b')]",
        "export default [() => [3, 2, 1].sort(() => { for (;;) {} })]",
        "export default [() => { let s = 0; const a = new Array(2 ** 32 - 1); for (const x of a) s += 1; }]",
        "export default [() => { new Array(2 ** 32 - 1).indexOf(5) }]",
        "export default [() => { Array.prototype.includes.call({ length: 2 ** 52 }, 5) }]",
        "export default [() => { Array.prototype.lastIndexOf.call({ length: 2 ** 52 }, 5) }]",
        "export default [() => { Reflect.apply(Array.prototype.forEach, { length: 2 ** 52 }, [() => {}]) }]",
        "export default [() => { class A { static { for (;;) {} } } }]",
        "export default [() => { label: for (;;) continue label }]",
        "export default [() => { const f = () => g(), g = () => { try { f() } catch { f() } finally { f() } }; f() }]",
    ] {
        let (end, latency) = stopped(code);
        assert!(matches!(end, Err(EngineLost::Failed(_) | EngineLost::OutOfMemory)), "{code}: {end:?}");
        assert!(latency < Duration::from_secs(2), "{code}: {latency:?}");
    }
}

#[test]
fn an_interrupt_does_not_wait_for_functions_that_never_look() {
    let (end, latency) = stopped("export default [() => { new Array(2 ** 27).reverse() }]");
    assert!(matches!(end, Err(EngineLost::Failed(_))), "{end:?}");
    assert!(latency < Duration::from_secs(1), "{latency:?}");
}

#[test]
fn going_over_the_memory_ends_the_engine_whatever_the_job_catches() {
    for code in [
        "const all = []; for (;;) all.push(new Array(1000).fill(1))",
        "export default [() => { const all = []; for (;;) all.push({ x: all.length }) }]",
        "export default [s => { try { const all = []; for (;;) all.push(new Array(1000).fill(1)) } catch {} return s }]",
        "export default [s => { try { for (const all = [];;) all.push('x'.repeat(1e6)) } catch {} return s }]",
        "export default [s => { const all = []; for (;;) try { all.push(new Uint8Array(1e6)) } catch {} }]",
        "export default [s => { const all = []; for (;;) try { all.push(Buffer.from('x'.repeat(1e6))) } catch {} }]",
        "export default [async s => { const all = []; for (;;) { all.push(new Uint8Array(1e6)); await 1 } }]",
        "export default [s => new Array(1e9).fill(0)]",
        "export default [s => { try { new Array(1e9).fill(0) } catch {} return s }]",
        "export default [s => { try { new ArrayBuffer(1e9) } catch {} return s }]",
        "export default [s => ({ data: Array(3e6).fill('0123456789') })]",
        "export default [s => { try { JSON.stringify(Array(5e6).fill('0123456789')) } catch {} return s }]",
        "export default [s => { const m = new Map(); for (let i = 0;; i += 1) m.set(i, i) }]",
        "export default [() => { const f = () => { const o = {}; o.me = o; o.big = new Uint8Array(1e5); keep.push(o) }; const keep = []; for (;;) f() }]",
        "export default [s => { const all = []; const step = () => { all.push(new Uint8Array(1e6)); return Promise.resolve().then(step, step) }; return step() }]",
    ] {
        let end = Bench::new().run(module(code, "{}"));
        assert_eq!(end, Err(EngineLost::OutOfMemory), "{code}");
    }
}

#[test]
fn no_allocation_that_fails_crashes_the_engine() {
    for code in [
        "Array.prototype.fill.call({ length: 2 ** 53 - 1 }, 1)",
        "for (let length = 1e7;; length *= 2) try { new ArrayBuffer(length) } catch {}",
        "try { new ArrayBuffer(2e9) } catch {}",
        "try { 'x'.repeat(2 ** 29) } catch {}",
        "try { JSON.stringify('\\0'.repeat(3e7)) } catch {}",
    ] {
        for megabytes in 76..=80 {
            let mut bench = Bench::with_memory(megabytes * 1_000_000);
            let job = module(&format!("export default [s => {{ {code}; return s }}]"), "{}");
            for again in [false, true] {
                let end = bench.run(job.clone());
                assert!(matches!(end, Err(EngineLost::OutOfMemory)) || again && end.is_err(), "{code}: {end:?}");
            }
        }
    }
}

#[test]
fn what_is_collected_in_time_does_not_count() {
    let code = "export default [() => { for (let i = 0; i < 500; i += 1) { const o = { bytes: new Uint8Array(1e6) }; o.me = o } return { done: true } }]";
    let end = Bench::new().run(module(code, "{}"));
    assert!(matches!(end, Ok(JobEnd::Returned(_))), "{end:?}");
}

#[test]
fn demands_that_cannot_be_met_are_errors() {
    for code in [
        "new ArrayBuffer(1e10)",
        "'x'.repeat(2 ** 40)",
        "new Array(2 ** 32)",
        "const f = () => { f() }; f()",
        "let d = '('.repeat(1e5); new RegExp(d + ')'.repeat(1e5))",
        "JSON.parse('['.repeat(1e6))",
        "let a = []; for (let i = 0; i < 1e5; i += 1) a = [a]; a.flat(Infinity)",
        "let a = []; for (let i = 0; i < 1e5; i += 1) a = [a]; String(a)",
        "let p = {}; for (let i = 0; i < 1e5; i += 1) p = new Proxy(p, {}); p.x",
        "let f = () => 1; for (let i = 0; i < 1e5; i += 1) f = new Proxy(f, {}); f()",
        "const o = { get x() { return this.x } }; o.x",
        "const o = { toString() { return `${o}` } }; `${o}`",
        "class A { constructor() { new A() } } new A()",
        "function* g() { yield* g() } [...g()]",
        "const e = []; e[Symbol.iterator] = () => [...e]; [...e]",
    ] {
        let end = Bench::with_memory(1 << 30).run(module(&format!("export default [() => {{ {code} }}]"), "{}"));
        assert!(matches!(end, Ok(JobEnd::Threw(_))), "{code}: {end:?}");
    }
}

#[test]
fn recursion_goes_as_deep_as_in_v8() {
    let code = "let depth = 0; const down = n => { depth += 1; return down(n + 1) + 1 };
        export default [() => { try { down(0) } catch {} return { deep: depth > 10000, depth } }]";
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => assert!(text(result.state.clone()).contains("true"), "{}", text(result.state)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn timers_wait_and_are_dropped_with_the_job() {
    let code = "export default [async () => {
        const order = [];
        setTimeout(() => order.push('never'), 1e6);
        const gone = setTimeout(() => order.push('cleared'), 5);
        clearTimeout(gone); clearTimeout(undefined); clearInterval('x');
        let ticks = 0;
        await new Promise(resolve => { const id = setInterval(() => { order.push('tick'); ticks += 1; if (ticks === 3) { clearInterval(id); resolve() } }, 2) });
        await Promise.all([[30, 'c'], [10, 'a'], [20, 'b']].map(([ms, name]) => new Promise(resolve => setTimeout((n) => { order.push(n); resolve() }, ms, name))));
        for (const ms of [undefined, 'x', -5, 0]) await new Promise(resolve => setTimeout(resolve, ms));
        setTimeout(() => { throw new Error('too late') }, 50);
        return { order };
    }]";
    let start = Instant::now();
    let mut bench = Bench::new();
    match bench.run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => {
            assert_eq!(text(result.state), r#"{"order":["tick","tick","tick","a","b","c"]}"#)
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn many_timers_fire_in_order() {
    // Which delay comes first depends on how fast they are set; among equal ones the first comes first.
    let code = "export default [() => new Promise(resolve => {
        const fired = Array.from({ length: 60 }, () => []);
        let left = 5000;
        const done = () => resolve({ sorted: fired.every(group => group.every((n, i) => i === 0 || group[i - 1] < n)) });
        for (let i = 0; i < 5000; i += 1) {
            const delay = (i * 7919) % 60;
            setTimeout(() => { fired[delay].push(i); left -= 1; if (left === 0) done() }, 1 + delay);
        }
    })]";
    match Bench::new().run(module(code, "{}")) {
        Ok(JobEnd::Returned(result)) => assert_eq!(text(result.state), r#"{"sorted":true}"#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_engine_that_is_lost_stays_lost() {
    let mut bench = Bench::new();
    bench.interrupt.stop();
    for _ in 0..2 {
        assert!(matches!(bench.run(module("export default []", "{}")), Err(EngineLost::Failed(_))));
    }
    assert!(matches!(bench.test("true", "{}"), Err(EngineLost::Failed(_))));
}

#[test]
fn the_peak_of_a_jobs_memory_is_known() {
    let mut bench = Bench::new();
    bench.run(module("export default [() => { new Uint8Array(2e7) }]", "{}")).unwrap();
    let large = bench.engine.peak_heap_bytes().unwrap();
    bench.run(module("export default []", "{}")).unwrap();
    let small = bench.engine.peak_heap_bytes().unwrap();
    assert!(large > 20_000_000 && small < 2_000_000, "{large} {small}");
}
