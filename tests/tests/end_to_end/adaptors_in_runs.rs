//! Runs on Node get the adaptors that they name.

use std::path::Path;
use std::process::Command;

use mock_lightning::{MockLightning, RunState};
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, messages, one_job, queue};
use tests::registry::Registry;
use tests::worker::Worker;

const COMMON: &str = "@openfn/language-common";
const SOURCE: &str = "exports.fn = (f) => async (state) => f(state); exports.version = () => '1.0.0';";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// A plan of one job with this adaptor, if any.
fn with_adaptor(adaptor: Option<&str>, body: &str) -> Value {
    let mut plan = one_job(body);
    plan["jobs"][0]["adaptor"] = adaptor.map_or(Value::Null, Value::from);
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_share_one_installation_and_are_told_exact_versions() {
    let (registry, repo, cache) = (Registry::start().await, folder(), folder());
    registry.publish(COMMON, "1.0.0", SOURCE);
    let lightning = lightning::start(LightningOptions::default()).await;
    let repo = repo.path().display().to_string();
    let cache = cache.path().display().to_string();
    let environment = [("npm_config_registry", registry.url()), ("npm_config_cache", cache.as_str())];
    let options = ["--engine", "node", "--repo-dir", &repo, "--capacity", "3"];
    let worker = Worker::start_with(&lightning, &options, &environment).await;

    let body = "fn((state) => ({ data: { n: 1 } }))";
    let latest = format!("{COMMON}@latest");
    let plans = [Some(COMMON), Some(latest.as_str())].map(|adaptor| with_adaptor(adaptor, body));
    let ids = plans.map(|plan| queue(&lightning, plan));
    for id in &ids {
        let record = end(&lightning, &worker, id).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
        assert_eq!(record.final_state, Some(json!({ "data": { "n": 1 } })));
        let versions = messages(&record, "VER").join("\n");
        assert!(versions.contains(COMMON) && versions.contains("1.0.0"), "{versions}");
    }
    assert_eq!(registry.downloads(), 1);

    let before = registry.requests().len();
    let without = end(&lightning, &worker, &queue(&lightning, with_adaptor(None, body))).await;
    assert_eq!(without.state, RunState::Success, "{without:?}");
    let foreign = end(&lightning, &worker, &queue(&lightning, with_adaptor(Some("left-pad@1.0.0"), body))).await;
    assert_eq!(foreign.state, RunState::Crashed);
    let told = (foreign.error_type.as_deref(), foreign.error_message.as_deref());
    assert_eq!(told, (Some("ImportError"), Some("module blacklisted: left-pad")));
    assert_eq!(registry.requests().len(), before);

    let missing = with_adaptor(Some("@openfn/language-none@1.0.0"), body);
    let missing = end(&lightning, &worker, &queue(&lightning, missing)).await;
    assert_eq!(missing.state, RunState::Exception);
    assert_eq!(missing.error_type.as_deref(), Some("AutoinstallError"));
    let message = missing.error_message.unwrap_or_default();
    assert!(message.starts_with("Error installing @openfn/language-none@1.0.0: Not Found - GET"), "{message}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_may_use_two_versions_of_one_adaptor() {
    let (registry, repo, cache) = (Registry::start().await, folder(), folder());
    for version in ["1.0.0", "2.0.0"] {
        let source = format!(
            "exports.add = () => (state) => ({{ data: [...(state.data.length ? state.data : []), '{version}'] }});"
        );
        registry.publish("@openfn/language-x", version, &source);
    }
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = on(&lightning, &registry, repo.path(), cache.path()).await;
    let mut plan = chain(&[("a", "add()"), ("b", "add()"), ("c", "add()")]);
    for (at, version) in ["2.0.0", "1.0.0", "2.0.0"].into_iter().enumerate() {
        plan["jobs"][at]["adaptor"] = format!("@openfn/language-x@{version}").into();
    }
    // The first run waits for both to be installed; the next finds a host with both of them ready.
    for _ in 0..2 {
        let record = end(&lightning, &worker, &queue(&lightning, plan.clone())).await;
        let told = format!("{record:?}\n{}", worker.output());
        assert_eq!(record.final_state, Some(json!({ "data": ["2.0.0", "1.0.0", "2.0.0"] })), "{told}");
    }
    worker.stop().await;
}

/// The source of an addon that exports nothing but can be told from one that was not loaded.
const NATIVE: &str = "void *napi_register_module_v1(void *environment, void *exports) { return exports; }";

#[tokio::test(flavor = "multi_thread")]
async fn native_code_is_found_in_a_package_and_loaded_for_it_alone() {
    let (registry, repo, cache, built) = (Registry::start().await, folder(), folder(), folder());
    let (source, addon) = (built.path().join("native.c"), built.path().join("native.node"));
    std::fs::write(&source, NATIVE).expect("there is room for a file");
    // The compiler that Rust links with.
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&addon).arg(&source).status();
    assert!(made.expect("there is a C compiler").success());
    let addon = std::fs::read(addon).expect("it was made");
    let index = "const name = ['native', 'node'].join('.');
        exports.native = () => (state) => ({ data: { ...state.data, loaded: typeof require('./' + name) } });
        exports.open = () => (state) => {
            const module = { exports: {} };
            process.dlopen(module, require('path').join(__dirname, name));
            return { data: { ...state.data, opened: typeof module.exports } };
        };";
    let main = || json!({ "main": "index.js" });
    let files: [(&str, &[u8]); 2] = [("index.js", index.as_bytes()), ("native.node", &addon)];
    registry.publish_files("@openfn/language-native", "1.0.0", main(), &files);
    let thief = "exports.steal = (file) => () => { process.dlopen({ exports: {} }, file); };";
    registry.publish("@openfn/language-thief", "1.0.0", thief);

    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = on(&lightning, &registry, repo.path(), cache.path()).await;
    let plan = with_adaptor(Some("@openfn/language-native@1.0.0"), "native(); open();");
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    let expected = json!({ "data": { "loaded": "object", "opened": "object" } });
    assert_eq!(record.final_state, Some(expected), "{record:?}\n{}", worker.output());

    let file = built.path().join("native.node").display().to_string();
    let plan = with_adaptor(Some("@openfn/language-thief@1.0.0"), &format!("steal('{file}')"));
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(record.state, RunState::Failed, "{record:?}\n{}", worker.output());
    assert_eq!(record.error_type.as_deref(), Some("AdaptorError"));
    worker.stop().await;
}

/// A worker whose adaptors come from this registry.
async fn on(lightning: &MockLightning, registry: &Registry, repo: &Path, cache: &Path) -> Worker {
    let (repo, cache) = (repo.display().to_string(), cache.display().to_string());
    let environment = [("npm_config_registry", registry.url()), ("npm_config_cache", cache.as_str())];
    Worker::start_with(lightning, &["--engine", "node", "--repo-dir", &repo], &environment).await
}
