//! Tells systemd how the service is, where it was started by one that asks (`Type=notify`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::debug;

use crate::lightning::LightningStatus;

/// The worker can take runs.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The worker was asked to stop; runs may go on for as long as `grace`.
pub(crate) fn stopping(grace: Duration) {
    let micros = u32::try_from(grace.as_micros()).unwrap_or(u32::MAX);
    let status = format!("finishing what runs, for at most {}s", grace.as_secs());
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(&status)]);
}

/// Says for ever that the worker's tasks get their turn, if systemd's watchdog waits for it.
pub(crate) async fn keep_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // As systemd advises: half of the time, so that one may be late.
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Keeps the status that `systemctl status` shows, as long as there is one.
pub(crate) async fn keep_status(mut status: watch::Receiver<LightningStatus>) {
    loop {
        let text = describe(&status.borrow_and_update());
        tell(&[NotifyState::Status(&text)]);
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn describe(status: &LightningStatus) -> String {
    let LightningStatus { connected, joined, active_runs, capacity, .. } = status;
    let link = match (connected, joined) {
        (_, true) => "joined Lightning's queue",
        (true, false) => "connected to Lightning, not joined",
        (false, false) => "not connected to Lightning",
    };
    format!("{link}; {active_runs} of {capacity} runs active")
}

/// Does nothing where no systemd listens.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("systemd cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_where_it_stands() {
        let status =
            LightningStatus { joined: true, connected: true, active_runs: 2, capacity: 5, ..Default::default() };
        assert_eq!(describe(&status), "joined Lightning's queue; 2 of 5 runs active");
        assert_eq!(describe(&LightningStatus::default()), "not connected to Lightning; 0 of 0 runs active");
    }
}
