//! What of the worker's surroundings a job can notice: not its time zone, its language or its environment, unless the
//! operator passes a variable on. The same on each engine.

use mock_lightning::RunState;
use serde_json::json;
use tests::lightning::{self, LightningOptions, chain, end, messages, queue};
use tests::node::write_local;
use tests::worker::Worker;

const JOB: &str = "fn(state => {
  const d = new Date(Date.UTC(2024, 1, 3, 22, 30));
  console.log(d.getDate(), d.getHours(), d.getTimezoneOffset());
  return state;
});";

const ELSEWHERE: &[(&str, &str)] = &[("TZ", "Africa/Nairobi"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8")];

/// What the job logs on the embedded engine.
async fn embedded(options: &[&str]) -> Vec<String> {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start_with(&lightning, options, ELSEWHERE).await;
    let run = queue(&lightning, lightning::one_job(JOB));
    let record = end(&lightning, &worker, &run).await;
    worker.stop().await;
    lightning.stop().await;
    messages(&record, "JOB")
}

/// What the job and its adaptor log on Node.
async fn node(options: &[&str]) -> Vec<String> {
    let (monorepo, repo) = (tempfile::tempdir().expect("there is room"), tempfile::tempdir().expect("there is room"));
    let adaptor = "exports.fn = (f) => f;
        exports.tell = () => (state) => {
            console.log(process.env.TZ, process.env.LANG, new Date(0).toLocaleString(), (1234.5).toLocaleString());
            return state;
        };";
    let manifest = json!({ "name": "@openfn/language-a", "version": "1.0.0", "main": "index.js" });
    write_local(monorepo.path(), "a", &manifest, adaptor);
    let lightning = lightning::start(LightningOptions::default()).await;
    let (monorepo, repo) = (monorepo.path().display().to_string(), repo.path().display().to_string());
    let all = ["--engine", "node", "--repo-dir", &repo, "--monorepo-dir", &monorepo, "--offline"];
    let worker = Worker::start_with(&lightning, &[&all, options].concat(), ELSEWHERE).await;
    let mut plan = chain(&[("a", &format!("{JOB}\ntell();"))]);
    plan["jobs"][0]["adaptor"] = "@openfn/language-a@local".into();
    let run = queue(&lightning, plan);
    let record = end(&lightning, &worker, &run).await;
    worker.stop().await;
    lightning.stop().await;
    [messages(&record, "JOB"), messages(&record, "ADA")].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_are_in_utc_and_american_english_wherever_the_worker_is() {
    assert_eq!(embedded(&[]).await, ["3 22 0"]);
    assert_eq!(node(&[]).await, ["3 22 0", "UTC null 1/1/1970, 12:00:00 AM 1,234.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_named_is_passed_on() {
    assert_eq!(embedded(&["--job-env", "TZ"]).await, ["4 1 -180"]);
    let expected = ["4 1 -180", "Africa/Nairobi de_DE.UTF-8 1.1.1970, 03:00:00 1.234,5"];
    assert_eq!(node(&["--job-env", "TZ,LANG"]).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_an_adaptor_needs_no_registry() {
    let repo = tempfile::tempdir().expect("there is room");
    let lightning = lightning::start(LightningOptions::default()).await;
    let repo = repo.path().display().to_string();
    // Nobody listens there.
    let registry = [("npm_config_registry", "http://127.0.0.1:9/")];
    let worker = Worker::start_with(&lightning, &["--engine", "node", "--repo-dir", &repo], &registry).await;
    for adaptor in [json!(""), json!(null)] {
        let mut plan = chain(&[("a", "export default [state => ({ data: state.data, done: true })];")]);
        plan["jobs"][0]["adaptor"] = adaptor;
        let record = end(&lightning, &worker, &queue(&lightning, plan)).await;
        assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    }
    assert!(!worker.output().contains("npm failed"), "{}", worker.output());
    worker.stop().await;
    lightning.stop().await;
}
