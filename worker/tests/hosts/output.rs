//! What a host prints never holds it up, and gets into the worker's log.

use std::time::Duration;

use crate::fake::Act;
use crate::harness::*;

#[tokio::test]
async fn a_flood_is_read_to_its_end() {
    let hosts = start(&[]).await;
    let before = std::time::Instant::now();
    execute(&hosts, Act::Flood(100)).await.succeeded();
    println!("100 MiB of output took {:?}", before.elapsed());
    hosts.shutdown(Duration::ZERO).await;
}
