//! Servers that jobs, adaptors and the worker talk to.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

/// Serves this on a free port of the loopback, for as long as the test's runtime lasts.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
