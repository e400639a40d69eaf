//! Runs on Node get the adaptors that they name.

use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, messages, one_job, queue};
use tests::registry::Registry;
use tests::worker::Worker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use worker::mock_lightning::RunState;

const COMMON: &str = "@openfn/language-common";
const SOURCE: &str = "exports.fn = (f) => async (state) => f(state); exports.version = () => '1.0.0';";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// A plan of one job with this adaptor; the job's own default if none.
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
    let plans = [None, Some(COMMON), Some(latest.as_str())].map(|adaptor| with_adaptor(adaptor, body));
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

/// With the real registry: the two adaptors that most workflows use.
#[tokio::test(flavor = "multi_thread")]
async fn real_adaptors_run() {
    let repo = folder();
    let repo = repo.path().display().to_string();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_with(&lightning, &["--engine", "node", "--repo-dir", &repo], &[]).await;
    let service = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}/", service.local_addr().expect("a listener has an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = service.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}{{\"patients\": 42}}").as_bytes()).await;
        }
    });

    let get = format!("get('{url}')");
    let mut plan = chain(&[("fetch", &get), ("count", "fn((state) => ({ data: { n: state.data.patients + 1 } }))")]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-http@7.2.10".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan.clone())).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    assert_eq!(record.final_state, Some(json!({ "data": { "n": 43 } })));
    // Whatever it is loaded from now, it does the same. Node 20 makes no snapshots.
    if !messages(&record, "VER").join(" ").contains(" 20.") {
        worker.printed("start-up snapshot").await;
    }
    let again = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(again.final_state, Some(json!({ "data": { "n": 43 } })), "{again:?}\n{}", worker.output());
    worker.stop().await;
}
