//! A host that does not stop when asked is made to.

use std::time::Duration;

use hosts::{HostEvent, Reason, Status};

use crate::fake::{Act, Habit};
use crate::harness::*;

#[tokio::test]
async fn first_by_sigterm_then_by_sigkill() {
    let table: [(&[Habit], Reason, i32); 2] =
        [(&[Habit::IgnoresStop], Reason::Retired, 15), (&[Habit::IgnoresStop, Habit::IgnoresTerm], Reason::Hung, 9)];
    for (habits, reason, signal) in table {
        let hosts = start(habits).await;
        let mut events = hosts.events();
        execute(&hosts, Act::Finish).await.succeeded();
        let death = event(&mut events, |event| match event {
            HostEvent::Ended { death, .. } | HostEvent::Died { death, .. } => Some(death.clone()),
            _ => None,
        });
        let death = death.await;
        assert_eq!((death.reason, death.status), (reason, Some(Status::Signal(signal))), "{habits:?}");
        hosts.shutdown(Duration::ZERO).await;
    }
}
