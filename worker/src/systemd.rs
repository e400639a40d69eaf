//! Tells systemd how the service is, where it was started by one that asks (`Type=notify`).

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::debug;

use lightning::LightningStatus;

/// The worker can take runs.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// How much longer systemd is asked to wait each time. A worker that hangs while it stops is killed after so long.
const EXTENSION: Duration = Duration::from_secs(60);
/// How often it is asked.
const EXTEND_EVERY: Duration = Duration::from_secs(15);

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

/// Keeps the status that `systemctl status` shows, and asks for more time while the worker stops: from when `stop` has the
/// moment at which that is to be over, until that moment.
pub(crate) async fn keep_status(
    mut status: watch::Receiver<LightningStatus>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    loop {
        let (now, known) = (status.borrow_and_update().clone(), *stop.borrow_and_update());
        match known.map(|end| end.saturating_duration_since(Instant::now())) {
            None => tell(&[NotifyState::Status(&describe(&now))]),
            Some(left) => {
                // Less than 71 minutes, which is the most that one message can ask for.
                let micros = u32::try_from(left.min(EXTENSION).as_micros()).unwrap_or(u32::MAX);
                let text = describe_stop(now.active_runs, left);
                tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(&text)]);
            }
        }
        tokio::select! {
            Ok(()) = status.changed() => {}
            Ok(()) = stop.changed() => {}
            () = tokio::time::sleep(EXTEND_EVERY), if known.is_some() => {}
            else => return,
        }
    }
}

fn describe_stop(active_runs: usize, left: Duration) -> String {
    let left = match left.as_secs() {
        seconds @ 0..180 => format!("{seconds}s"),
        seconds => format!("{} min", seconds / 60),
    };
    match active_runs {
        0 => "stopping: no run is active any more; engine hosts end".to_owned(),
        1 => format!("stopping: 1 run finishes, for at most {left}"),
        several => format!("stopping: {several} runs finish, for at most {left}"),
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

    #[test]
    fn while_it_stops_the_status_says_for_what_and_how_long() {
        let cases = [
            (2, 37, "stopping: 2 runs finish, for at most 37s"),
            (1, 7_229, "stopping: 1 run finishes, for at most 120 min"),
            (0, 20, "stopping: no run is active any more; engine hosts end"),
        ];
        for (runs, seconds, expected) in cases {
            assert_eq!(describe_stop(runs, Duration::from_secs(seconds)), expected);
        }
    }
}
