//! Pools of different types in one worker do not disturb each other.

use std::time::Duration;

use hosts::{Broker, HostsOptions, Reason, StartError};

use crate::fake::{Act, Habit};
use crate::harness::*;

#[tokio::test]
async fn each_has_hosts_settings_and_a_life_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let broker = Broker::start(Some(root.path())).unwrap();
    let engines = soon(broker.open("engines", options(&[]))).await.unwrap();
    let odd = soon(broker.open("odd", options(&[Habit::IgnoresStop]))).await.unwrap();
    assert!(matches!(soon(broker.open("odd", options(&[]))).await, Err(StartError::Taken(_))));
    let failing = HostsOptions { validation_timeout: Duration::from_secs(9), ..options(&[Habit::ExitsAtStart]) };
    assert!(matches!(soon(broker.open("failing", failing)).await, Err(StartError::Unusable { .. })));

    let mut events = odd.events();
    soon(engines.drain()).await.unwrap();
    execute(&odd, Act::Finish).await.succeeded();
    assert_eq!(ended(&mut events).await.reason, Reason::Retired);
    let names: Vec<_> = soon(broker.status()).await.into_iter().map(|status| status.pool).collect();
    assert_eq!(names, ["engines", "odd"]);
    assert_eq!(broker.pool("odd").unwrap().pool(), "odd");
    assert!(broker.pool("failing").is_none());

    soon(broker.shutdown(Duration::from_secs(20))).await;
    assert!(matches!(soon(broker.open("late", options(&[]))).await, Err(StartError::Closed)));
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}
