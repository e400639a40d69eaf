//! What clients expect of a service, asked by the real `@oada/client`: of the real `@oada/jobs`, so that the double and the
//! expectations are known to be right, and of ours in both generations. The registry has the first version of
//! `@oada/jobs` alone; of the fifth there is its client, `@oada/client/jobs`.

use std::process::Stdio;

use tests::oada::program::OadaWorker;
use tests::oada::{Oada, TOKEN, npm};
use tests::relay;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::within;

const BASIC: &str = "export default async ({ config }, { log }) => {
  await log.info('working', { on: config.do });
  if (config.do !== 'success') throw new Error(`config.do is ${config.do}`);
  return { success: true };
};";
const SLOW: &str = "export const timeout = 100; export default () => new Promise(() => {});";

/// How many cases hold for a service of this generation; nothing where the packages cannot be had.
async fn cases(oada: &Oada, generation: &str) -> Option<usize> {
    let printed = npm::run("suite.mjs", &[&oada.url(), TOKEN, "demo", generation]).await?;
    Some(printed.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_for_the_real_service() {
    let oada = Oada::start().await;
    let server = oada.url().trim_start_matches("http://").parse().expect("it is an address");
    // It knows no stores without TLS.
    let (address, certificate) = relay::encrypted(server).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, certificate).expect("it can be written");
    let domain = format!("localhost:{}", address.port());
    let Some(mut command) = npm::JOBS.script("service.js", &[&domain, TOKEN, "demo"]).await else { return };
    let mut service =
        command.env("NODE_EXTRA_CA_CERTS", &trusted).stdout(Stdio::piped()).spawn().expect("Node is there");
    let mut lines = BufReader::new(service.stdout.take().expect("it is piped")).lines();
    let started = within("its start", &oada, lines.next_line()).await;
    assert_eq!(started.expect("it can be read").as_deref(), Some("started"), "{}", oada.told());
    if let Some(cases) = cases(&oada, "v2").await {
        assert_eq!(cases, 4);
    }
    service.kill().await.expect("it lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_for_ours() {
    for (engine, generation, expected) in [("node", "v5", 8), ("embedded", "v5", 8), ("node", "v2", 4)] {
        let oada = Oada::start().await;
        let options = ["--handler-engine", engine, "--layout", generation];
        let worker = OadaWorker::start(&oada, &[("basic", BASIC), ("slow", SLOW)], &options).await;
        let Some(cases) = cases(&oada, generation).await else { return };
        assert_eq!(cases, expected, "{engine} {generation}\n{}", worker.output());
        worker.stop().await;
    }
}
