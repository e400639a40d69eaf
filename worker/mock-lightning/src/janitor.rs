//! What Lightning's janitor does: marks runs lost that should have ended long ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::record::RunState;

/// Looks after the runs for ever. A run is lost `grace` after its own timeout, counted from its claim.
pub(super) async fn sweep(shared: Arc<Shared>, grace: Duration) {
    // Ten looks within the grace, but no busy loop.
    let mut looks = tokio::time::interval((grace / 10).max(Duration::from_millis(10)));
    loop {
        looks.tick().await;
        let now = Instant::now();
        let mut store = shared.store.lock();
        for run in store.runs.values_mut().filter(|run| !run.record.state.is_final()) {
            let limit = Duration::from_secs(run.submission.timeout_seconds) + grace;
            if run.claimed.is_some_and(|claimed| claimed + limit <= now) {
                tracing::warn!(run = &*run.record.id, "the mock Lightning marks a run lost");
                run.end(RunState::Lost);
            }
        }
    }
}
