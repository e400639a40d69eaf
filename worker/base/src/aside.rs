//! Work that takes as long as a text is: done where it is called for a short one, and by another thread for a long one, so
//! that nothing else waits for it.

use tokio::task::spawn_blocking;

/// Texts of fewer bytes are worked on where they are, some milliseconds at most.
const LONG: usize = 256 * 1024;

/// Whether a text of so many bytes is long.
pub fn is_long(bytes: usize) -> bool {
    bytes >= LONG
}

/// Does `work`, which is on a text of so many bytes.
pub async fn aside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if !is_long(bytes) {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and whoever waits with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_is_done_by_another_thread() {
        let here = std::thread::current().id();
        for (bytes, is_here) in [(0, true), (LONG - 1, true), (LONG, false), (usize::MAX, false)] {
            let id = aside(bytes, || std::thread::current().id()).await;
            assert_eq!(id == here, is_here, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_whose_it_would_be() {
        let panicked = tokio::spawn(aside(LONG, || panic!("on purpose"))).await.unwrap_err().into_panic();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
    }
}
