//! Assignments to names that nothing declares: a function becomes a global of the job, as on the reference worker.

use engine_host::compile::{Places, compile, compile_globals};

use super::*;

include!("../data/undeclared.rs");

async fn run(bench: &mut Bench, source: &str) -> Result<String, String> {
    match bench.run(job(&compile(source, &[]).unwrap().code)).await {
        Ok(JobEnd::Returned(JobResult { state, .. })) => Ok(text(state)),
        Ok(JobEnd::Threw(thrown)) => Err(format!("{}: {}", thrown.name, thrown.message)),
        other => panic!("{source}: {other:?}"),
    }
}

#[tokio::test]
async fn a_function_becomes_a_global_and_nothing_else_does() {
    let mut bench = Bench::start(&[]).await;
    for (code, expected) in UNDECLARED {
        assert_eq!(
            run(&mut bench, &undeclared_job(code)).await,
            expected.map(str::to_owned).map_err(str::to_owned),
            "{code}"
        );
    }
    assert_eq!(
        run(&mut bench, "export default [() => ({ later: typeof x })]").await,
        Ok(r#"{"later":"undefined"}"#.into())
    );
    assert_eq!(bench.test("typeof x === 'undefined'", "{}").await, Ok(ConditionEnd::Value(true)));
}

#[tokio::test]
async fn so_it_does_in_the_plans_globals() {
    let mut bench = Bench::start(&[]).await;
    for (code, expected) in UNDECLARED {
        let mut call = job("export default [() => (set(), {}), () => ({ type: typeof x })];");
        call.globals = Some(compile_globals(&format!("export const set = () => {{ {code}; }};"), Places::All));
        match bench.run(call).await {
            Ok(JobEnd::Returned(_)) => assert!(expected.is_ok(), "{code}"),
            Ok(JobEnd::Threw(thrown)) => {
                assert_eq!(Err(&*format!("{}: {}", thrown.name, thrown.message)), expected.map(drop), "{code}");
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}
