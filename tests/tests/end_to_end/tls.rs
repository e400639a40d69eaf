//! `wss://`: the system's trust roots decide, which files can add to, what is wrong is told with what to do, and a proxy may
//! lie between.

use mock_lightning::RunState;
use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::relay;
use tests::worker::Worker;

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
    for part in ["invalid peer certificate", "NODE_EXTRA_CA_CERTS"] {
        worker.printed(part).await;
    }
    assert!(lightning.activity().connections.is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_further_certificates_are_the_workers_too() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let (address, certificate) = relay::encrypted(lightning.address()).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("own.pem");
    std::fs::write(&file, certificate).expect("the folder can be written to");
    let endpoint = format!("wss://localhost:{}/worker", address.port());

    let worker = Worker::start_at(&endpoint, &[], &[("NODE_EXTRA_CA_CERTS", &file)]).await;
    worker.printed("joined Lightning's queue").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_scheme_is_told_with_the_right_one() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let (address, _) = relay::encrypted(lightning.address()).await;
    let plain = lightning.address().port();
    for (endpoint, hint) in [
        (format!("ws://localhost:{}/worker", address.port()), format!("use wss://localhost:{}/worker", address.port())),
        (format!("wss://localhost:{plain}/worker"), "does not speak TLS on this port: is it ws://".to_owned()),
    ] {
        let worker = Worker::start_at(&endpoint, &[], &[("WORKER_ENGINE", "embedded")]).await;
        worker.printed(&hint).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_leads_to_a_server_that_this_machine_does_not_know() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let (server, certificate) = relay::encrypted(lightning.address()).await;
    let (proxy, mut asked) = relay::proxy(server, "ann:se@cret").await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("own.pem");
    std::fs::write(&file, certificate).expect("the folder can be written to");
    let file = file.to_str().expect("its name is text");
    let endpoint = format!("wss://{}/worker", relay::ELSEWHERE);

    let with = format!("http://ann:se%40cret@{proxy}");
    let worker =
        Worker::start_at(&endpoint, &[], &[("HTTPS_PROXY", with.as_str()), ("NODE_EXTRA_CA_CERTS", file)]).await;
    worker.printed("joined Lightning's queue").await;
    let output = worker.output();
    assert!(output.contains(&format!("through the proxy http://{proxy} (HTTPS_PROXY)")), "{output}");
    assert!(!output.contains("se@cret") && !output.contains("se%40cret"), "{output}");
    let request = asked.recv().await.expect("it was asked");
    assert!(request.starts_with(&format!("CONNECT {}:443 HTTP/1.1\r\n", relay::ELSEWHERE)), "{request}");
    worker.stop().await;

    let without = format!("http://{proxy}");
    let worker = Worker::start_at(&endpoint, &[], &[("https_proxy", without.as_str())]).await;
    worker.printed("wants credentials").await;
    worker.stop().await;
}
