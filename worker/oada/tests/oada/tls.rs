//! Stores behind TLS: a domain without a scheme means `wss`.

use serde_json::json;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;
use tests::relay;

use crate::support::{body, finished, place};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_store_whose_certificate_is_trusted_are_run() {
    let oada = Oada::start().await;
    let server = oada.url().trim_start_matches("http://").parse().unwrap();
    let (address, certificate) = relay::encrypted(server).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, certificate).unwrap();
    let domain = format!("localhost:{}", address.port());
    let environment = [("SSL_CERT_FILE", file.to_str().unwrap())];
    let handlers = [("quick", "export default () => 'done';")];
    let worker = OadaWorker::start_with(&oada, &handlers, &["--domain", &domain], &environment).await;
    place(&oada, "J", body("quick", json!({})));
    assert_eq!(finished(&oada, "J").await.result, Some(json!("done")), "{}", worker.output());
    worker.stop().await;
}
