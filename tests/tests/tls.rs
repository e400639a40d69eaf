//! `wss://`: the system's trust roots decide, which a file can add to.

use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::relay;
use tests::worker::Worker;
use worker::mock_lightning::RunState;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_is_trusted_gets_its_runs_done() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let (address, certificate) = relay::encrypted(lightning.address()).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, certificate).expect("the folder can be written to");
    let endpoint = format!("wss://localhost:{}/worker", address.port());

    let worker = Worker::start_at(&endpoint, &[], &[("SSL_CERT_FILE", &file)]).await;
    worker.printed("joined Lightning's queue").await;
    let record = end(&lightning, &worker, &queue(&lightning, one_job("fn(s => ({ data: 1 }))"))).await;
    assert_eq!(record.state, RunState::Success);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_is_not_trusted_is_not_talked_to() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let (address, _) = relay::encrypted(lightning.address()).await;
    let (_, another) = relay::encrypted(lightning.address()).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, another).expect("the folder can be written to");
    let endpoint = format!("wss://localhost:{}/worker", address.port());

    let worker = Worker::start_at(&endpoint, &[], &[("SSL_CERT_FILE", &file)]).await;
    worker.printed("no connection to Lightning").await;
    assert!(worker.output().contains("certificate"), "{}", worker.output());
    assert!(lightning.activity().connections.is_empty());
    worker.stop().await;
}
