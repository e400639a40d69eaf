//! What the tests share.

use std::time::Duration;

use tests::lightning::DEADLINE;
use tests::oada::{Oada, TOKEN};
use worker::oada::client::RetryPolicy;
use worker::oada::{Client, ClientOptions};

/// The media type that tests write with when it does not matter.
pub(crate) const JSON: &str = "application/json";
/// The media type of lists of jobs.
pub(crate) const JOBS: &str = "application/vnd.oada.service.jobs.1+json";

/// Options of a client that is patient enough for a slow machine, and does not make tests wait.
pub(crate) fn quick() -> ClientOptions {
    ClientOptions {
        reconnect: (Duration::from_millis(5), Duration::from_millis(50)),
        retry: RetryPolicy { tries: 8, pause: Duration::from_millis(5), ..RetryPolicy::default() },
        ..ClientOptions::default()
    }
}

/// A client with the double's own token.
pub(crate) fn client(oada: &Oada) -> Client {
    client_with(oada, quick())
}

/// A client with these options.
pub(crate) fn client_with(oada: &Oada, options: ClientOptions) -> Client {
    Client::connect(oada.url().parse().unwrap(), TOKEN.into(), options)
}

/// Waits for something, within the deadline.
pub(crate) async fn within<T>(what: &str, oada: &Oada, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen\n{}", oada.told()),
    }
}
