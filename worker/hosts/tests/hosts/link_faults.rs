//! A host that breaks its link or does not do its work is killed, and the run's end names the cause.

use std::time::Duration;

use hosts::{HostEvent, Reason};
use protocol::run::ExitReason;

use crate::fake::Act;
use crate::harness::*;

#[tokio::test]
async fn the_end_of_the_run_names_the_fault() {
    let hosts = start(&[]).await;
    let mut events = hosts.events();
    for (act, words) in [(Act::CloseLink, "closed the link"), (Act::Refuse, "not today")] {
        let exit = execute(&hosts, act).await.lost();
        assert_eq!(exit.reason, ExitReason::Exception);
        let message = exit.error.unwrap().message;
        assert!(message.contains(words), "{message}");
        let reason = event(&mut events, |event| match event {
            HostEvent::Died { death, .. } => Some(death.reason.clone()),
            _ => None,
        });
        let reason = reason.await;
        assert!(matches!(reason, Reason::LinkLost(_) | Reason::NotStarted(_)), "{reason:?}");
    }
    hosts.shutdown(Duration::ZERO).await;
}
