//! Adaptors of the real registry, against a service on loopback: what most workflows use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, logged, messages, queue};
use tests::worker::Worker;

const HTTP: &str = "@openfn/language-http@7.2.10";

/// `{"zipped":true}`, by gzip.
const ZIPPED: &str = "H4sIAAAAAAAAA6tWqsosKEhNUbIqKSpNrQUAhCi8CA8AAAA=";

/// A collection, and how each request for it was authorised.
#[derive(Debug, Default)]
struct Collection {
    items: BTreeMap<String, String>,
    authorisations: Vec<String>,
}

async fn serve(router: Router) -> String {
    format!("http://{}", tests::served::serve(router).await)
}

fn web() -> Router {
    let zipped = || async {
        let body = BASE64_STANDARD.decode(ZIPPED).expect("it is base64");
        ([("content-type", "application/json"), ("content-encoding", "gzip")], body)
    };
    let who = |headers: HeaderMap| async move {
        let who = headers.get("authorization").and_then(|value| value.to_str().ok());
        // Basic `ann:sesame`.
        if who == Some("Basic YW5uOnNlc2FtZQ==") {
            Json(json!({ "who": "ann" })).into_response()
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        }
    };
    Router::new()
        .route("/patients", get(|| async { Json(json!({ "patients": 42 })) }))
        .route(
            "/patients",
            post(|Json(body): Json<Value>| async move { (StatusCode::CREATED, Json(json!({ "made": body }))) }),
        )
        .route("/moved", get(|| async { Redirect::temporary("/patients") }))
        .route("/zipped", get(zipped))
        .route("/who", get(who))
        .route("/slow", get(std::future::pending::<StatusCode>))
}

#[tokio::test(flavor = "multi_thread")]
async fn http_asks_a_service() {
    let repo = tempfile::tempdir().expect("there is room for a folder");
    let repo = repo.path().display().to_string();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_with(&lightning, &["--engine", "node", "--repo-dir", &repo], &[]).await;
    let url = serve(web()).await;
    lightning.add_credential("ann", json!({ "baseUrl": url, "username": "ann", "password": "sesame" }));

    let code = "get('/patients'); fn((state) => ({ ...state, seen: [state.data] }));
        post('/patients', { name: 'Bo' }); fn((state) => ({ ...state, seen: [...state.seen, state.data] }));
        get('/moved'); fn((state) => ({ ...state, seen: [...state.seen, state.data] }));
        get('/zipped'); fn((state) => ({ ...state, seen: [...state.seen, state.data] }));
        get('/who'); fn((state) => ({ data: [...state.seen, state.data] }));";
    let with = |code: &str| {
        let mut plan = chain(&[("a", code)]);
        plan["jobs"][0]["adaptor"] = HTTP.into();
        plan["jobs"][0]["credential_id"] = "ann".into();
        plan
    };
    let expected = json!([{ "patients": 42 }, { "made": { "name": "Bo" } }, { "patients": 42 }, { "zipped": true }, { "who": "ann" }]);
    let mut version = String::new();
    // As a bundle first, then from a snapshot where Node has them.
    for _ in 0..2 {
        let record = end(&lightning, &worker, &queue(&lightning, with(code))).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
        assert_eq!(record.final_state.as_ref().map(|state| &state["data"]), Some(&expected));
        version = messages(&record, "VER").join(" ");
        if !version.contains(" 20.") {
            worker.printed("start-up snapshot").await;
        }
    }
    assert!(version.contains("@openfn/language-http"), "{version}");

    for (code, wanted) in [("get('/nothing')", "404"), ("get('/slow', { timeout: 300 })", "TIMEOUT")] {
        let record = end(&lightning, &worker, &queue(&lightning, with(code))).await;
        assert_eq!(record.state, RunState::Failed, "{record:?}\n{}", worker.output());
        assert_eq!(record.error_type.as_deref(), Some("AdaptorError"));
        let told = record.final_state.unwrap_or_default().to_string();
        assert!(told.to_uppercase().contains(wanted), "{told}");
    }
    worker.stop().await;

    // One character beyond Latin-1, and every process keeps the whole source in two bytes a character.
    let bundle = format!("{repo}/.openfn-worker/adaptors/{}/bundle.cjs", HTTP.replace('/', "+"));
    assert!(std::fs::read(&bundle).is_ok_and(|source| source.is_ascii()), "{bundle}");
}

/// The service of collections, as Lightning has it: values by key, below a path.
fn collections(kept: &Arc<Mutex<Collection>>) -> Router {
    let authorised = |kept: &Mutex<Collection>, headers: &HeaderMap| {
        let told = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        kept.lock().unwrap_or_else(PoisonError::into_inner).authorisations.push(told);
    };
    let (written, one, all) = (Arc::clone(kept), Arc::clone(kept), Arc::clone(kept));
    let set = move |headers: HeaderMap, Json(body): Json<Value>| async move {
        authorised(&written, &headers);
        let mut kept = written.lock().unwrap_or_else(PoisonError::into_inner);
        let items = body["items"].as_array().cloned().unwrap_or_default();
        for item in &items {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            kept.items.insert(text("key"), text("value"));
        }
        Json(json!({ "upserted": items.len(), "error": null }))
    };
    let get_one = move |headers: HeaderMap, Path(key): Path<String>| async move {
        authorised(&one, &headers);
        let kept = one.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.items.get(&key) {
            Some(value) => Json(json!({ "key": key, "value": value })).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    };
    let get_all = move |headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>| async move {
        authorised(&all, &headers);
        let prefix = query.get("key").map_or("", |key| key.trim_end_matches('*')).to_owned();
        let kept = all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.items.iter().filter(|(key, _)| key.starts_with(&prefix));
        let items: Vec<Value> = found.map(|(key, value)| json!({ "key": key, "value": value })).collect();
        Json(json!({ "items": items, "cursor": null }))
    };
    Router::new().route("/collections/people", post(set).get(get_all)).route("/collections/people/{key}", get(get_one))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_keep_values_in_collections() {
    let repo = tempfile::tempdir().expect("there is room for a folder");
    let repo = repo.path().display().to_string();
    let kept = Arc::new(Mutex::new(Collection::default()));
    let url = format!("{}/collections", serve(collections(&kept)).await);
    let lightning = lightning::start(LightningOptions::default()).await;
    let options = ["--engine", "node", "--repo-dir", &repo, "--collections-url", &url];
    let worker = Worker::start_with(&lightning, &options, &[]).await;

    let code = "collections.set('people', (value) => value.id, [{ id: 'a-1', n: 1 }, { id: 'a-2', n: 2 }, { id: 'b-1', n: 3 }]);
        collections.get('people', 'a-2'); fn((state) => ({ ...state, one: state.data }));
        collections.each('people', 'a-*', (state, value, key) => { (state.names ??= []).push(key); });
        fn((state) => {
            const { collections_token: token, collections_endpoint: endpoint, project_id: project } = state.configuration;
            console.log(`${typeof token} ${project} ${endpoint.endsWith('/collections')}`);
            return { data: { one: state.one, names: state.names } };
        });";
    let mut plan = chain(&[("a", code)]);
    plan["project_id"] = "project-1".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    let expected = json!({ "data": { "one": { "id": "a-2", "n": 2 }, "names": ["a-1", "a-2"] } });
    assert_eq!(record.final_state, Some(expected));
    assert!(logged(&record, "string project-1 true"), "{:?}", messages(&record, "JOB"));
    assert_eq!(kept.lock().unwrap_or_else(PoisonError::into_inner).items.len(), 3);

    // Each request has the run's token, and nobody's log has it.
    let authorisations = kept.lock().unwrap_or_else(PoisonError::into_inner).authorisations.clone();
    let token = authorisations.first().and_then(|told| told.strip_prefix("Bearer ")).expect("there were requests");
    assert!(!token.is_empty() && authorisations.iter().all(|told| told.ends_with(token)), "{authorisations:?}");
    assert!(!worker.output().contains(token) && !format!("{:?}", record.events).contains(token));
    worker.stop().await;
}

/// A repo as the reference worker makes it, by npm. These adaptors want a version of language-common that not every
/// registry has; whoever keeps such a repo overrides it.
const REPO: &str = r#"{
    "name": "openfn-repo", "version": "1.0.0", "private": true,
    "dependencies": {
        "@openfn/language-openmrs_5.5.0": "npm:@openfn/language-openmrs@5.5.0",
        "@openfn/language-mssql_7.1.3": "npm:@openfn/language-mssql@7.1.3",
        "@openfn/language-mongodb_2.2.3": "npm:@openfn/language-mongodb@2.2.3"
    },
    "overrides": { "@openfn/language-common": "3.3.4" }
}"#;

async fn npm_install(folder: &std::path::Path) {
    let mut npm = tokio::process::Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(lightning::DEADLINE, npm.output()).await;
    let output = output.expect("npm ends in time").expect("npm is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn adaptors_of_a_repo_that_npm_made_ask_their_services() {
    let repo = tempfile::tempdir().expect("there is room for a folder");
    std::fs::write(repo.path().join("package.json"), REPO).expect("the folder is ours");
    npm_install(repo.path()).await;
    let repo = repo.path().display().to_string();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_with(&lightning, &["--engine", "node", "--repo-dir", &repo], &[]).await;
    let who = |headers: HeaderMap| async move {
        let who = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Json(json!({ "uuid": "p-1", "who": who }))
    };
    let url = serve(Router::new().route("/ws/rest/v1/patient/p-1", get(who))).await;
    lightning.add_credential("ann", json!({ "instanceUrl": url, "username": "ann", "password": "sesame" }));
    // Nobody listens there, and the driver is told to give up soon.
    let nowhere = "127.0.0.1:1/?serverSelectionTimeoutMS=200&appName=";
    let mongo =
        json!({ "clusterHostname": nowhere, "protocol": "mongodb", "options": {}, "username": "u", "password": "p" });
    lightning.add_credential("mongo", mongo);
    let run = async |adaptor: &str, credential: &str, code: &str| {
        let mut plan = chain(&[("a", code)]);
        plan["jobs"][0]["adaptor"] = adaptor.into();
        plan["jobs"][0]["credential_id"] = credential.into();
        end(&lightning, &worker, &queue(&lightning, plan)).await
    };

    let code = "get('patient/p-1'); fn((state) => ({ data: state.data, pair: field('a', 1) }));";
    // As a bundle first, then from a snapshot where Node has them.
    for _ in 0..2 {
        let record = run("@openfn/language-openmrs@5.5.0", "ann", code).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
        let expected = json!({ "data": [{ "uuid": "p-1", "who": "Basic YW5uOnNlc2FtZQ==" }], "pair": ["a", 1] });
        assert_eq!(record.final_state, Some(expected));
        if !messages(&record, "VER").join(" ").contains(" 20.") {
            worker.printed("start-up snapshot of @openfn/language-openmrs").await;
        }
    }
    let record = run(
        "@openfn/language-mongodb@2.2.3",
        "mongo",
        "const shown = console.log(field('a', 1).join()); fn((state) => state);",
    )
    .await;
    assert!(logged(&record, "a,1"), "{record:?}");
    assert_eq!((record.state, record.error_type.as_deref()), (RunState::Failed, Some("AdaptorError")), "{record:?}");
    assert!(record.final_state.unwrap_or_default().to_string().contains("ECONNREFUSED"), "{}", worker.output());

    lightning.add_credential("mssql", json!({ "server": "127.0.0.1", "port": 1, "userName": "u", "password": "p" }));
    let record = run("@openfn/language-mssql@7.1.3", "mssql", "sql({ query: 'SELECT 1' });").await;
    assert_eq!((record.state, record.error_type.as_deref()), (RunState::Failed, Some("AdaptorError")), "{record:?}");
    assert!(record.final_state.unwrap_or_default().to_string().contains("Failed to connect"), "{}", worker.output());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fhir_reads_a_resource() {
    let repo = tempfile::tempdir().expect("there is room for a folder");
    let repo = repo.path().display().to_string();
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_with(&lightning, &["--engine", "node", "--repo-dir", &repo], &[]).await;
    let patient = || async { Json(json!({ "resourceType": "Patient", "id": "p-1" })) };
    let url = serve(Router::new().route("/fhir/Patient/p-1", get(patient))).await;
    lightning.add_credential("fhir", json!({ "baseUrl": url, "apiPath": "fhir" }));
    let mut plan = chain(&[("a", "get('Patient/p-1'); fn((state) => ({ data: state.data }));")]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-fhir@5.0.15".into();
    plan["jobs"][0]["credential_id"] = "fhir".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    assert_eq!(record.final_state, Some(json!({ "data": { "resourceType": "Patient", "id": "p-1" } })));
    worker.stop().await;
}
