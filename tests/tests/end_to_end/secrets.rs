//! Nobody finds the worker's secrets beside it.

use mock_lightning::RunState;
use serde_json::json;
use tests::lightning::{self, LightningOptions, SECRET, chain, end, one_job, queue};
use tests::node::write_local;
use tests::worker::Worker;

/// An adaptor that writes past the console.
const LOUD: &str = "exports.shout = () => (state) => {
    process.stdout.write(`out: ${state.configuration.password}\\n`);
    process.stderr.write(`err: ${state.configuration.key}\\n`);
    return state;
};";

#[tokio::test(flavor = "multi_thread")]
async fn neither_its_environment_nor_its_hosts_hold_them() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "1"]).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &id).await;

    let hosts = worker.hosts();
    assert!(!hosts.is_empty());
    for pid in [worker.pid()].into_iter().chain(hosts.iter().map(|host| host.pid)) {
        // Only the superuser may look at all.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        assert!(!text.contains(SECRET), "process {pid} shows it");
        if pid == worker.pid() && !environment.is_empty() {
            assert!(text.contains("WORKER_SECRET=\0"), "the rest is still there");
        }
    }
    let owner = std::fs::metadata(format!("/proc/{}/environ", worker.pid())).expect("the worker lives");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "others of its user may not look into it");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_adaptor_prints_holds_none_of_its_run() {
    let (root, repo) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let manifest = json!({ "name": "@openfn/language-loud", "version": "1.0.0", "main": "index.js" });
    write_local(root.path(), "loud", &manifest, LOUD);
    let (root, repo) = (root.path().display().to_string(), repo.path().display().to_string());
    let lightning = lightning::start(LightningOptions::default()).await;
    lightning.add_credential("ann", json!({ "password": "open sesame", "key": "-- KEY --\nMIIEowIBAAKCAQEA\n" }));
    let options = ["--engine", "node", "--repo-dir", &repo, "--monorepo-dir", &root, "--offline", "--log", "debug"];
    let worker = Worker::start(&lightning, &options).await;
    let mut plan = chain(&[("a", "shout()")]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-loud@local".into();
    plan["jobs"][0]["credential_id"] = "ann".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    worker.printed("out: ***").await;
    worker.printed("err: ***").await;
    let output = worker.output();
    assert!(!output.contains("sesame") && !output.contains("MIIEow"), "{output}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_log_nor_lightning_gets_a_secret_that_a_job_has_encoded() {
    let lightning = lightning::start(LightningOptions::default()).await;
    lightning.add_credential("ann", json!({ "password": "p@ss w\"rd/é", "baseUrl": "postgres://bob:hunter22@h/db" }));
    let worker = Worker::start(&lightning, &["--log", "debug", "--tail-jobs"]).await;
    let body = "fn(s => {
        const { password, baseUrl } = s.configuration;
        console.log(encodeURIComponent(password), JSON.stringify(JSON.stringify({ password })), baseUrl);
        throw new Error('GET https://x/?p=' + encodeURIComponent(password) + ' by ' + baseUrl);
    })";
    let mut plan = one_job(body);
    plan["jobs"][0]["credential_id"] = "ann".into();
    let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
    assert_eq!(record.state, RunState::Failed, "{record:?}");
    worker.printed("run ended: fail").await;
    // The final state is a result, and not masked.
    for text in [worker.output(), format!("{:?} {:?} {:?}", record.logs, record.steps, record.error_message)] {
        assert!(text.contains("***"), "{text}");
        for secret in ["p%40ss", "p@ss", "hunter22"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_credentials_are_masked_as_far_as_said_and_hold_nothing_up() {
    let lightning = lightning::start(LightningOptions::default()).await;
    for number in 0..10 {
        let key: String = (0..200_000).map(|part| format!("{number}{part:x}-")).collect();
        lightning.add_credential(&format!("c{number}"), json!({ "key": key }));
    }
    let worker = Worker::start(&lightning, &["--capacity", "10"]).await;
    worker.printed("joined").await;
    let ids: Vec<_> = (0..10)
        .map(|number| {
            let mut plan = one_job("fn(s => { console.log('key: ' + s.configuration.key.slice(0, 200)); return s; })");
            plan["jobs"][0]["credential_id"] = format!("c{number}").into();
            queue(&lightning, plan)
        })
        .collect();
    for id in &ids {
        let record = end(&lightning, &worker, id).await;
        assert_eq!(record.state, RunState::Success, "{record:?}");
        let lines: String = record.logs.iter().map(|log| log.line["message"].to_string()).collect();
        assert!(lines.contains("key: ***") && lines.contains("longer than 4 KiB"), "{lines}");
    }
    worker.stop().await;
}
