//! Adaptors that a developer works on: `@local`, from the folders of `--monorepo-dir`.

use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, queue};
use tests::node::write_local as add;
use tests::worker::Worker;

const ECHO: &str =
    "(...steps) => async (state) => { for (const step of steps) state = await step(state); return state; }";

/// A plan of jobs one after the other: adaptor and code of each.
fn plan(jobs: &[(&str, &str)]) -> Value {
    let names: Vec<String> = (0..jobs.len()).map(|at| format!("job-{at}")).collect();
    let pairs: Vec<_> = names.iter().zip(jobs).map(|(name, (_, body))| (name.as_str(), *body)).collect();
    let mut plan = chain(&pairs);
    for (at, (adaptor, _)) in jobs.iter().enumerate() {
        plan["jobs"][at]["adaptor"] = format!("@openfn/language-{adaptor}@local").into();
    }
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_folder_that_has_an_adaptor_gives_it_as_it_is_now() {
    let (one, two, repo) = (folder(), folder(), folder());
    let common_js = json!({ "name": "@openfn/language-a", "version": "1.0.0", "main": "index.js" });
    let module = json!({ "name": "@openfn/language-b", "version": "1.0.0", "type": "module", "main": "index.js" });
    let of = |place: &str| format!("exports.a = () => (state) => ({{ data: {{ ...state.data, a: '{place}' }} }});");
    add(one.path(), "a", &common_js, &of("one"));
    add(two.path(), "a", &common_js, &of("two"));
    let b = format!(
        "export const b = () => (state) => ({{ data: {{ ...state.data, b: 'two' }} }}); export const execute = {ECHO};"
    );
    add(two.path(), "b", &module, &b);
    add(two.path(), "quits", &common_js, "exports.quit = (code) => () => process.exit(code);");

    let lightning = lightning::start(LightningOptions::default()).await;
    let roots = format!("{}:{}", one.path().display(), two.path().display());
    let repo = repo.path().display().to_string();
    let options = ["--engine", "node", "--repo-dir", &repo, "--monorepo-dir", &roots, "--offline"];
    let worker = Worker::start(&lightning, &options).await;

    let both = plan(&[("a", "a()"), ("b", "b()")]);
    let record = end(&lightning, &worker, &queue(&lightning, both.clone())).await;
    assert_eq!(
        record.final_state,
        Some(json!({ "data": { "a": "one", "b": "two" } })),
        "{record:?}\n{}",
        worker.output()
    );

    // It is being worked on.
    add(one.path(), "a", &common_js, &of("changed"));
    let record = end(&lightning, &worker, &queue(&lightning, both)).await;
    let first = &record.final_state.as_ref().expect("it succeeded")["data"]["a"];
    assert_eq!(first, "changed", "{record:?}\n{}", worker.output());

    let record = end(&lightning, &worker, &queue(&lightning, plan(&[("quits", "quit(7)")]))).await;
    assert_eq!(record.state, RunState::Crashed);
    let told = (record.error_type.as_deref(), record.error_message.as_deref());
    assert_eq!(told, (Some("ExitError"), Some("Process exited with code: 7")));

    let record = end(&lightning, &worker, &queue(&lightning, plan(&[("none", "fn()")]))).await;
    assert_ne!(record.state, RunState::Success);
    let message = record.error_message.unwrap_or_default();
    assert!(message.contains("there is no packages/none in "), "{message}");
    worker.stop().await;
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}
