//! Futures that may not be there, for the arms of a `select!`.

use tokio::time::Instant;

/// Waits for the future, or for ever if there is none.
pub async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Sleeps until then, or for ever.
pub async fn sleep_until(time: Option<impl Into<Instant>>) {
    or_never(time.map(|time| tokio::time::sleep_until(time.into()))).await;
}
