//! The double does what the real `@oada/client` expects of a store.

use tests::oada::{Oada, TOKEN, npm};

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_works_over_a_websocket() {
    let oada = Oada::start().await;
    let printed = npm::run("conformance.mjs", &[&oada.url(), TOKEN, "ws"]).await;
    assert!(printed.contains("conforms"), "{printed}\n{}", oada.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_works_over_http() {
    let oada = Oada::start().await;
    let printed = npm::run("conformance.mjs", &[&oada.url(), TOKEN, "http"]).await;
    assert!(printed.contains("conforms"), "{printed}\n{}", oada.told());
}
