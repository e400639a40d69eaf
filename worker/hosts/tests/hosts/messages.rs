//! What hosts say that is not about a run is told to who listens, and numbers are added up.

use std::time::Duration;

use hosts::{HostEvent, Hosts, HostsOptions};

use crate::fake::Habit;
use crate::harness::*;

#[tokio::test]
async fn messages_are_events_and_numbers_are_kept() {
    let ping_every = Duration::from_millis(20);
    let ping_timeout = ping_every;
    let options = HostsOptions { ping_every, ping_timeout, ..options(&[Habit::Talks]) };
    let hosts = soon(Hosts::start(options)).await.unwrap();
    let mut events = hosts.events();
    let message = event(&mut events, |event| match event {
        HostEvent::Message { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert_eq!(message.await.decode::<String>().unwrap(), "hello");
    for _ in 0..5 {
        event(&mut events, |event| matches!(event, HostEvent::Ops { .. }).then_some(())).await;
    }
    let status = status(&hosts).await;
    assert!(status.ops.counts["pings"] >= 5, "{:?}", status.ops);
    assert!([0.5, 1.0].contains(&status.ops.gauges["mood"]), "{:?}", status.ops);
    assert!(status.hosts.iter().any(|host| host.bytes.is_some_and(|bytes| bytes >= 4_711)), "{status:?}");
    hosts.shutdown(Duration::ZERO).await;
}
