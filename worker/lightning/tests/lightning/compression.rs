//! Messages are compressed where Lightning agrees: what the wire carries of a large state.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lightning::{Lightning, LightningOptions, Network, Stream, start};
use mock_lightning::{MockOptions, RunState, start_in_memory};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::fake::*;

/// A pipe whose bytes are counted in each direction.
struct Counted {
    pipe: DuplexStream,
    bytes: Arc<Bytes>,
}

#[derive(Default)]
struct Bytes {
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(context, to);
        self.bytes.received.fetch_add(to.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.pipe).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.bytes.sent.fetch_add(count, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

/// Runs a workflow whose only step hands on what it gets, and says how many bytes went and came.
async fn bytes_on_the_wire(server: bool, client: bool, dataclip: &Value) -> (usize, usize) {
    let mock = start_in_memory(MockOptions { compression: server, ..MockOptions::default() }).unwrap();
    let mut options = LightningOptions::new(mock.url().parse().unwrap(), "a secret".into());
    let counted = Arc::new(Bytes::default());
    let (connector, bytes) = (mock.connector().unwrap(), counted.clone());
    options.network = Network::new(move |_| {
        let stream: Box<dyn Stream> = Box::new(Counted { pipe: connector.connect()?, bytes: bytes.clone() });
        Ok(stream)
    });
    options.backoff = (Duration::from_secs(60), Duration::from_secs(60));
    options.compression = client;
    let lightning: Lightning = start(options, FakeHosts::new(|spec, host| host.trivial(spec)));
    let mut plan = one_job();
    plan["dataclip_id"] = "rows".into();
    plan["dataclips"] = json!({"rows": dataclip});
    let id = mock.queue_run(plan).unwrap();
    mock.wake();
    let run = mock.wait_for_end(&id, DEADLINE).await.unwrap();
    assert_eq!(run.state, RunState::Success);
    let output = run.steps[0].output_dataclip_id.clone().unwrap();
    assert_eq!(mock.dataclip(&output).as_ref(), Some(dataclip));
    assert!(mock.violations().is_empty(), "{:#?}", mock.violations());
    lightning.shutdown(Duration::ZERO).await;
    (counted.sent.load(Ordering::Relaxed), counted.received.load(Ordering::Relaxed))
}

/// Rows as they come out of a registry.
fn rows(count: usize) -> Value {
    let district = ["North", "South", "East"];
    let rows = (0..count).map(|n| {
        let mut id = String::new();
        let _ = write!(id, "{:08x}-0000-4000-8000-{:012}", n.wrapping_mul(2_654_435_761) as u32, n);
        json!({"id": id, "name": format!("Patient {n}"), "born": format!("19{:02}-{:02}-01", n % 90 + 10, n % 12 + 1),
            "visits": n % 17, "district": district[n % 3], "is_active": n % 2 == 0, "notes": null})
    });
    json!({"data": rows.collect::<Vec<_>>()})
}

#[tokio::test]
async fn rows_shrink_in_both_directions() {
    let dataclip = rows(8000);
    let length = dataclip.to_string().len();
    assert!(length > 1_000_000, "{length}");
    let (sent, received) = bytes_on_the_wire(true, true, &dataclip).await;
    // It goes twice: as the step's dataclip and as the final state.
    assert!(sent < length * 2 * 15 / 100, "{sent} of {length} twice");
    assert!(received < length * 15 / 100, "{received} of {length}");
}

#[tokio::test]
async fn without_an_agreement_everything_is_plain() {
    let dataclip = rows(2000);
    let length = dataclip.to_string().len();
    for (server, client) in [(false, true), (true, false)] {
        let (sent, received) = bytes_on_the_wire(server, client, &dataclip).await;
        assert!(sent > length * 2 && received > length, "{server} {client}: {sent}, {received} of {length}");
    }
}

/// A kilobyte or less goes as it is, and comes as the server likes.
#[tokio::test]
async fn small_messages_go_as_they_are() {
    let dataclip = json!({"data": "x".repeat(100)});
    let (compressed, _) = bytes_on_the_wire(true, true, &dataclip).await;
    let (plain, _) = bytes_on_the_wire(false, false, &dataclip).await;
    // The offer is a header of the handshake.
    assert!(compressed.abs_diff(plain) < 200, "{compressed} and {plain}");
}

#[tokio::test]
async fn what_does_not_shrink_arrives() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: String = (0..300_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'#' + (state >> 40) as u8 % 57)
        })
        .collect();
    let (sent, _) = bytes_on_the_wire(true, true, &json!({ "data": noise })).await;
    // It goes twice, and each of its characters holds less than six bits.
    assert!(sent > 400_000, "{sent}");
}

/// An older Cowboy takes what is short on the wire, however long it is when it is inflated; a newer one does not.
#[tokio::test]
async fn a_limit_of_the_server_bounds_what_comes_or_what_that_inflates_to() {
    for bounds_inflated in [false, true] {
        let mock = MockOptions { max_message_bytes: Some(100_000), bounds_inflated, ..MockOptions::default() };
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = with_options(mock, hosts, |options| options.max_message_bytes = usize::MAX).await;
        let mut plan = one_job();
        plan["dataclip_id"] = "rows".into();
        plan["dataclips"] = json!({"rows": rows(2000)});
        let run = it.run(&plan).await;
        assert_eq!(run.state, RunState::Success);
        assert_eq!(run.steps[0].output_dataclip_id.is_some(), !bounds_inflated, "{run:?}");
        let connections = it.mock.activity().connections.len();
        assert_eq!(connections == 1, !bounds_inflated, "{connections}");
    }
}
