//! `--mock`: runs of any workflow, with nothing installed and nothing looked up.

use mock_lightning::RunState;
use tests::lightning::{self, LightningOptions, end, messages, one_job, queue};
use tests::registry::Registry;
use tests::worker::Worker;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_have_the_core_operations_whatever_adaptor_they_name() {
    let registry = Registry::start().await;
    let lightning = lightning::start(LightningOptions::default()).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let repo = folder.path().join("repo").display().to_string();
    let environment = [("npm_config_registry", registry.url()), ("WORKER_NODE", "/nowhere/node")];
    let options = ["--mock", "--engine", "node", "--repo-dir", &repo];
    let worker = Worker::start_with(&lightning, &options, &environment).await;
    worker.printed("engine=\"mock\"").await;

    let run = async |body: &str| {
        let mut plan = one_job(body);
        plan["jobs"][0]["adaptor"] = "@openfn/language-none@latest".into();
        end(&lightning, &worker, &queue(&lightning, plan)).await
    };
    let good = run("wait(5);\nfn((state) => ({ ...state, data: { n: 1 } }));").await;
    assert_eq!(good.state, RunState::Success, "{good:?}");
    assert_eq!(good.final_state.as_ref().map(|state| &state["data"]["n"]), Some(&1.into()));
    assert_eq!(messages(&good, "R/T").pop().as_deref(), Some("Run complete with status: success"));

    // What only the adaptor has is not there.
    let bad = run("upsert('Patient', {});").await;
    assert_eq!(bad.state, RunState::Crashed, "{bad:?}");
    assert!(bad.error_message.is_some_and(|message| message.contains("upsert")));

    worker.stop().await;
    assert_eq!(registry.requests().len(), 0, "{:?}", registry.requests());
    assert!(!folder.path().join("repo").exists(), "a repo was made");
    assert_eq!(lightning.violations(), []);
}
